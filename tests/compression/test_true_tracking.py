"""Whole sequences are tracked while a tracker trains."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, EarlyStoppingCallback, TrainerCallback

from ct_hf.compression import TrackerTrainer, TrackerTrainingArguments, tracker_trainer, true_tracking
from ct_hf.data import SequenceError, procedural_sequences
from ct_hf.data.procedural import ProceduralSequence
from ct_hf.evaluation import evaluate_trackers

from .tiny import make_pairs, make_tracker
from .training import make_arguments, make_trainer, run_in_two_processes, train_logs


FIGURES = ("auc", "precision", "norm_precision")
NAMES = {f"eval_tracking_{name}" for name in (*FIGURES, "runtime")}
OFTEN = {"eval_strategy": "steps", "eval_steps": 2}
BEST = {
    **OFTEN,
    "save_strategy": "steps",
    "save_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "tracking_auc",
}


def drawn(count=2, length=4, seed=3):
    return procedural_sequences(seed, count, length=length, size=(96, 72))


def make_plain_trainer(
    folder, tracking_dataset=None, eval_dataset=None, callbacks=None, train_dataset=None, **arguments
):
    return TrackerTrainer(
        model=make_tracker(2, drop_path_rate=0.1).train(),
        args=make_arguments(folder, TrackerTrainingArguments, **arguments),
        train_dataset=make_pairs(6),
        eval_dataset=eval_dataset,
        callbacks=callbacks,
        tracking_dataset=tracking_dataset,
    )


def make_compression(folder, **arguments):
    return make_trainer(folder, student_changes={"drop_path_rate": 0.1}, train_dataset=make_pairs(6), **arguments)


BOTH = pytest.mark.parametrize("make", [make_plain_trainer, make_compression], ids=["tracker", "compression"])


def deployed(trainer, folder):
    """The tracker as a user loads it."""
    trainer.save_model(folder)
    return AutoModel.from_pretrained(folder)


def score(model, sequences):
    figures = evaluate_trackers({"it": model}, sequences, progress=False).trackers[0].score
    return {name: pytest.approx(value, rel=1e-12) for name, value in figures.items()}


class Seen(TrainerCallback):
    """Metrics of each evaluation."""

    def __init__(self):
        self.metrics = []

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.metrics.append(dict(metrics))


class NoisySequence(ProceduralSequence):
    """One that draws from every generator there is, and seeds them too."""

    def frame(self, index):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        return super().frame(index)


class BrokenSequence(ProceduralSequence):
    """One that cannot be read from its third reading on."""

    readings = 0

    def frame(self, index):
        self.readings += 1
        if self.readings > 2 * len(self):
            raise SequenceError(f"{self.name}: frame {index} is gone.", "missing_frame")
        return super().frame(index)


def scripted(monkeypatch, aucs):
    """Evaluations give these AUCs, one after the other."""
    left = iter(aucs)

    def evaluate(trackers, sequences, progress):
        auc = next(left)
        rows = {sequence.name: dict.fromkeys(FIGURES, auc) for sequence in sequences}
        return SimpleNamespace(trackers=[SimpleNamespace(per_sequence=rows)])

    monkeypatch.setattr(true_tracking, "evaluate_trackers", evaluate)


def bests(folder):
    """Best AUC and its step, as the last checkpoint remembers them."""
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((last / "trainer_state.json").read_text())
    return state["best_metric"], state["best_global_step"]


# Figures


@BOTH
def test_the_figures_are_those_of_what_is_saved(tmp_path, make):
    """Among the metrics of the pairs, in what is returned, in the log, and in what callbacks see."""
    sequences, seen = drawn(3), Seen()
    trainer = make(tmp_path, tracking_dataset=sequences, eval_dataset=make_pairs(4), callbacks=[seen], max_steps=3)
    trainer.train()
    metrics = trainer.evaluate()
    expected = score(deployed(trainer, tmp_path / "model"), sequences)
    logged = trainer.state.log_history[-1]
    for figures in (metrics, logged, *seen.metrics):
        assert {"eval_loss", "eval_iou", *NAMES} <= figures.keys()
        for name in FIGURES:
            assert figures[f"eval_tracking_{name}"] == expected[name], name
    assert len(seen.metrics) == 1
    assert 0 < metrics["eval_tracking_auc"] < 100


@BOTH
def test_without_pairs(tmp_path, make):
    sequences, seen = drawn(), Seen()
    trainer = make(tmp_path, tracking_dataset=sequences, callbacks=[seen], **OFTEN)
    trainer.train()
    assert trainer.model.training
    entries = [entry for entry in trainer.state.log_history if "eval_tracking_auc" in entry]
    assert [entry["step"] for entry in entries] == [2, 4, 6]
    assert all(entry.keys() == {*NAMES, "epoch", "step"} for entry in entries) and len(seen.metrics) == 3
    assert entries[-1]["eval_tracking_auc"] == score(deployed(trainer, tmp_path / "model"), sequences)["auc"]
    assert trainer.evaluate(metric_key_prefix="test")["test_tracking_auc"] == entries[-1]["eval_tracking_auc"]


def test_named_pairs_are_tracked_beside_once(tmp_path):
    pairs, seen = {"a": make_pairs(4), "b": make_pairs(4, seed=1)}, Seen()
    trainer = make_compression(tmp_path, tracking_dataset=drawn(), eval_dataset=pairs, callbacks=[seen])
    metrics = trainer.evaluate()
    assert {"eval_a_iou", "eval_b_iou", *NAMES} <= metrics.keys()
    assert [entry.keys() >= NAMES for entry in trainer.state.log_history] == [False, False, True]
    assert [entry.keys() >= NAMES for entry in seen.metrics] == [False, False, True]
    assert not any("_a_tracking" in name or "_b_tracking" in name for name in metrics)


def test_other_pairs_are_evaluated_by_themselves(tmp_path):
    """The trainer's sequences do not belong to the pairs that somebody else brings along."""
    trainer = make_compression(tmp_path, tracking_dataset=drawn())
    metrics = trainer.evaluate(make_pairs(4), metric_key_prefix="test")
    assert "test_iou" in metrics and not any("tracking" in name for name in metrics)


@BOTH
def test_half_precision_is_of_the_training_alone(tmp_path, make):
    """Weights are saved in float32, so float32 tracks; and training goes on in bfloat16."""
    sequences = drawn(3, length=6)
    trainer = make(tmp_path, tracking_dataset=sequences, bf16=True, **OFTEN)
    trainer.train()
    logged = trainer.state.log_history[-2]["eval_tracking_auc"]
    assert logged == score(deployed(trainer, tmp_path / "model"), sequences)["auc"]
    alone = make(tmp_path, bf16=True)
    alone.train()
    assert [entry["loss"] for entry in train_logs(trainer)] == [entry["loss"] for entry in train_logs(alone)]


@BOTH
def test_half_precision_is_taken_off_to_track(tmp_path, make, monkeypatch):
    dtypes = []

    def evaluate(trackers, sequences, progress):
        (tracker,) = trackers.values()
        tracker.layers[0].register_forward_hook(
            lambda module, args, output: dtypes.append(module.attention.q_proj(output.hidden_states).dtype)
        )
        return evaluate_trackers(trackers, sequences, progress=progress)

    monkeypatch.setattr(true_tracking, "evaluate_trackers", evaluate)
    trainer = make(tmp_path, tracking_dataset=drawn(1), bf16=True, max_steps=1)
    trainer.train()
    trainer.evaluate()
    assert set(dtypes) == {torch.float32}
    trainer.model.eval()
    trainer.compute_loss(trainer.model_wrapped, trainer._prepare_inputs(trainer.data_collator(make_pairs(2))))
    assert dtypes[-1] == torch.bfloat16


def test_compiled_layers_are_not_compiled_again_to_track(tmp_path):
    torch._dynamo.reset()
    sequences = drawn()
    trainer = make_compression(
        tmp_path, tracking_dataset=sequences, torch_compile=True, torch_compile_backend="eager", max_steps=2
    )
    trainer.train()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    figures = trainer.evaluate()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0
    assert figures["eval_tracking_auc"] == score(deployed(trainer, tmp_path / "model"), sequences)["auc"]


# Training goes on as if nothing had happened


@pytest.mark.parametrize("pairs", [False, True], ids=["sequences", "both"])
@BOTH
def test_a_run_that_is_evaluated_takes_the_same_steps(tmp_path, make, pairs):
    """Bit for bit, over several epochs of shuffled pairs, with drop path; and its rates and shares are the same."""
    noisy = NoisySequence(0, drawn(1, seed=0)[0].index, length=4, size=(96, 72))
    options = {"max_steps": 7, "per_device_train_batch_size": 2}
    alone = make(tmp_path, **options)
    alone.train()
    evaluated = make(
        tmp_path,
        tracking_dataset=[noisy, *drawn()],
        eval_dataset=make_pairs(4) if pairs else None,
        eval_strategy="steps",
        eval_steps=1,
        eval_on_start=True,
        **options,
    )
    evaluated.train()
    assert sum("eval_tracking_auc" in entry for entry in evaluated.state.log_history) == 8
    assert train_logs(evaluated) == train_logs(alone)
    theirs = evaluated.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in alone.model.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_put_back(tmp_path, training):
    trainer = make_compression(tmp_path, tracking_dataset=drawn(1))
    trainer.model.train(training)
    before = [module.training for module in trainer.model.modules()]
    trainer.evaluate()
    assert [module.training for module in trainer.model.modules()] == before


# The best checkpoint


def test_the_best_by_auc_is_loaded_at_the_end(tmp_path, monkeypatch):
    scripted(monkeypatch, [10.0, 40.0, 30.0])
    trainer = make_compression(tmp_path, tracking_dataset=drawn(), save_total_limit=1, **BEST)
    assert trainer.args.greater_is_better
    trainer.train()
    assert trainer.state.best_metric == 40.0 and Path(trainer.state.best_model_checkpoint).name == "checkpoint-4"
    weights = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in trainer.student.state_dict().items())


def test_a_resumed_run_remembers_the_best(tmp_path, monkeypatch):
    scripted(monkeypatch, [10.0, 40.0])
    make_compression(tmp_path, tracking_dataset=drawn(), **{**BEST, "max_steps": 4}).train()
    assert bests(tmp_path) == (40.0, 4)
    scripted(monkeypatch, [30.0, 20.0])
    resumed = make_compression(tmp_path, tracking_dataset=drawn(), **{**BEST, "max_steps": 8})
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert bests(tmp_path) == (40.0, 4)
    weights = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in resumed.student.state_dict().items())


@BOTH
def test_a_real_run_keeps_what_tracked_best(tmp_path, make):
    sequences = drawn(3, length=6)
    trainer = make(tmp_path, tracking_dataset=sequences, learning_rate=3e-3, max_steps=8, **BEST)
    trainer.train()
    aucs = [entry["eval_tracking_auc"] for entry in trainer.state.log_history if "eval_tracking_auc" in entry]
    assert len(set(aucs)) > 1 and trainer.state.best_metric == max(aucs)
    assert trainer.evaluate()["eval_tracking_auc"] == max(aucs)
    assert trainer.state.best_global_step == 2 * (1 + int(np.argmax(aucs)))


def test_saves_the_best_alone_and_stops_early(tmp_path, monkeypatch):
    scripted(monkeypatch, [10.0, 40.0, 30.0, 20.0, 50.0])
    stopping = EarlyStoppingCallback(early_stopping_patience=2)
    options = {**BEST, "save_strategy": "best", "max_steps": 10}
    trainer = make_compression(tmp_path, tracking_dataset=drawn(), callbacks=[stopping], **options)
    trainer.train()
    assert trainer.state.global_step == 8 and trainer.state.best_metric == 40.0
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}


# What goes wrong


class Diverge(TrainerCallback):
    """The student loses its mind after some step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                model.student.layernorm.weight.fill_(float("nan"))


def test_a_diverged_run_goes_on_and_says_so(tmp_path, monkeypatch):
    trainer = make_compression(tmp_path, tracking_dataset=drawn(), callbacks=[Diverge(4)], nan_loss="skip", **BEST)
    said = []
    monkeypatch.setattr(true_tracking.logger, "warning", said.append)
    trainer.train()
    aucs = [entry["eval_tracking_auc"] for entry in trainer.state.log_history if "eval_tracking_auc" in entry]
    assert np.isfinite(aucs[0]) and np.isnan(aucs[1:]).all() and len(aucs) == 3
    assert trainer.state.best_metric == aucs[0] and trainer.state.best_global_step == 2
    assert len(said) == 2 and all("are NaN" in text and "in frame 1" in text for text in said)


def test_a_broken_sequence_is_named_and_costs_no_step(tmp_path):
    """It is saved what has been trained, and the run goes on from there."""
    whole = make_compression(tmp_path / "whole")
    whole.train()
    broken = BrokenSequence(0, drawn(1, seed=0)[0].index, length=4, size=(96, 72))
    options = {"eval_strategy": "steps", "eval_steps": 1}
    with pytest.raises(SequenceError, match=f"{broken.name}: frame 0 is gone"):
        make_compression(tmp_path, tracking_dataset=[*drawn(), broken], **options).train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    rest = make_compression(tmp_path, tracking_dataset=drawn(), **options)
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    theirs = rest.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in whole.model.state_dict().items())


def test_a_broken_sequence_outside_training_saves_nothing(tmp_path):
    broken = BrokenSequence(0, drawn(1, seed=0)[0].index, length=4, size=(96, 72))
    broken.readings = 100
    trainer = make_compression(tmp_path, tracking_dataset=[broken])
    with pytest.raises(SequenceError, match="is gone"):
        trainer.evaluate()
    with pytest.raises(SequenceError, match="is gone"):
        make_compression(tmp_path, tracking_dataset=[broken], eval_on_start=True, **OFTEN).train()
    assert not list(tmp_path.glob("checkpoint-*"))
    assert trainer.model.training


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([], ValueError, "`tracking_dataset` is empty"),
        ("videos/val", TypeError, "must hold sequences, got a str.*read_sequences"),
        (make_pairs(2), TypeError, "must hold sequences, got a dict.*eval_dataset"),
        ([procedural_sequences(3, 1, length=1)[0]], ValueError, "procedural-3.* has 1 frame"),
        (drawn(1) * 2, ValueError, "`tracking_dataset` must have distinct names, got several called procedural-3"),
    ],
    ids=["empty", "folder", "pairs", "short", "twice"],
)
def test_what_cannot_be_tracked_is_refused_before_training(tmp_path, sequences, error, message):
    with pytest.raises(error, match=message):
        make_compression(tmp_path, tracking_dataset=sequences)


def test_a_tracker_that_trains_by_flash_attention_tracks_by_another(monkeypatch):
    """Its kernels, which are not installed here, take no fp32."""
    tracker, asked = make_tracker(1), []

    def set_attention(self, name):
        asked.append(name)
        self.config._attn_implementation = name

    monkeypatch.setattr(type(tracker), "set_attn_implementation", set_attention)
    tracker.config._attn_implementation = "flash_attention_2"
    with true_tracking._as_deployed(tracker):
        assert asked == ["sdpa"]
    assert asked == ["sdpa", "flash_attention_2"]


def test_a_tracker_spread_over_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker_trainer, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ValueError, match="`tracking_dataset` was given, but FSDP"):
        make_plain_trainer(tmp_path, tracking_dataset=drawn(1))


# Several processes


RUN = """
import json, sys
from tests.compression.test_true_tracking import BrokenSequence, drawn, make_compression

folder, broken = sys.argv[1], drawn(1)[0]
report = {}
for count in (1, 3):
    trainer = make_compression(folder, tracking_dataset=drawn(count), eval_strategy="steps", eval_steps=1, max_steps=2)
    report[count] = [trainer.evaluate()["eval_tracking_auc"]]
    trainer.train()
    report[count] += [entry["eval_tracking_auc"] for entry in trainer.state.log_history if "eval_tracking_auc" in entry]
broken = BrokenSequence(broken.seed, broken.index, 4, (96, 72))
broken.readings, broken.name = 100, "broken"
trainer = make_compression(folder, tracking_dataset=[*drawn(2), broken], eval_strategy="steps", eval_steps=1)
try:
    trainer.train()
except Exception as error:
    report["error"] = [type(error).__name__, str(error)]
report["world"] = trainer.args.world_size
with open(f"{folder}/{trainer.args.process_index}.json", "w") as file:
    json.dump(report, file)
trainer.end_training()
"""


def test_processes_share_the_sequences(tmp_path):
    """Three over two, and one over two: every process returns what one alone would, and hears of the other's errors."""
    run_in_two_processes(RUN, tmp_path)
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [report["world"] for report in reports] == [2, 2]
    for count in (1, 3):
        assert reports[0][str(count)] == reports[1][str(count)] and len(reports[0][str(count)]) == 3
        alone = make_compression(tmp_path, tracking_dataset=drawn(count)).evaluate()
        assert reports[0][str(count)][0] == alone["eval_tracking_auc"]
    errors, others = (report["error"] for report in reports)
    assert errors[0] == "SequenceError" and "broken: frame 0 is gone" in errors[1]
    assert others[0] == "RuntimeError" and "SequenceError: broken: frame 0 is gone" in others[1]
    assert (tmp_path / "checkpoint-1" / "model.safetensors").is_file()


def test_the_best_between_two_saves_is_what_is_loaded(tmp_path, monkeypatch):
    """Else the last checkpoint before it would be, and called the best."""
    given = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 4, "max_steps": 6}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "tracking_auc"}
    trainer = make_compression(tmp_path, tracking_dataset=drawn(1), **given, **best)
    scripted(monkeypatch, [10.0, 20.0, 30.0, 5.0, 15.0, 12.0])
    weights = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            weights[state.global_step] = next(trainer.student.parameters()).detach().clone()

    trainer.add_callback(Keep())
    trainer.train()
    assert torch.equal(next(trainer.student.parameters()), weights[3])
    trainer.save_model(str(tmp_path / "model"))
    record = AutoModel.from_pretrained(tmp_path / "model").config.compression
    assert (record["step"], record["best_by"]) == (3, "tracking_auc")
