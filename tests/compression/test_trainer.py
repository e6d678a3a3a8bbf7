import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import AutoModel, TrainerCallback, TrainingArguments

from ct_hf.compression import (
    CompressionArguments,
    CompressionTrainer,
    draw_path,
)
from ct_hf.data import CAUSES

from .tiny import NARROW, WIDTHS, make_pairs, make_student, make_tracker
from .training import (
    Watch,
    make_arguments,
    make_trainer,
    make_trainer_of_processes,
    normalised,
    run_in_two_processes,
    train_logs,
)


TERMS = {"focal", "giou", "l1", "guidance_map", "guidance_giou", "guidance_l1", "mimicking"}


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def norms_of(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


# What is logged


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_logs_every_term_the_rate_and_the_share(tmp_path, granularity):
    """Rate by the schedule, share of the student by the draws of the step, terms that add up to the loss."""
    trainer = make_trainer(tmp_path, max_steps=10, path_granularity=granularity, seed=5)
    trainer.train()
    logs = train_logs(trainer)
    assert len(logs) == 10
    for step, entry in enumerate(logs):
        assert entry.keys() >= TERMS | {"iou", "replacement_rate", "student_share", "learning_rate", "grad_norm"}
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in TERMS), rel=1e-5)
        rate = 0.5 if step < 1 else min(1.0, 0.5 + 0.5 * (step - 1) / 8)
        assert entry["replacement_rate"] == pytest.approx(rate, abs=1e-6)
        keys = [(5, step)] if granularity == "batch" else [(5, step, index) for index in range(4)]
        share = np.mean([draw_path(rate, 2, *key) for key in keys])
        assert entry["student_share"] == pytest.approx(share, abs=1e-6)
    assert logs[-1]["student_share"] == 1.0


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_draws_of_accumulated_batches(tmp_path, granularity):
    """One path for all micro-batches of a step, or one for each sample by its place in the global batch."""
    trainer = make_trainer(
        tmp_path,
        4,
        path_granularity=granularity,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_steps=3,
    )
    seen, forward = [], trainer.model.forward
    trainer.model.forward = lambda paths=None, **inputs: seen.append(paths) or forward(paths=paths, **inputs)
    trainer.train()
    assert len(seen) == 12
    for step in range(3):
        rate = trainer.args.schedule.rate(step, 3)
        drawn = list(itertools.chain(*seen[4 * step : 4 * step + 4]))
        if granularity == "batch":
            assert drawn == [draw_path(rate, 4, 42, step)] * 8
        else:
            assert drawn == [draw_path(rate, 4, 42, step, index) for index in range(8)]


def test_terms_of_weight_zero_are_not_logged(tmp_path):
    trainer = make_trainer(tmp_path, guidance_weight=0.0, mimicking_weight=0.0, max_steps=2)
    trainer.train()
    assert train_logs(trainer)[0].keys() & TERMS == {"focal", "giou", "l1"}


def test_weights_that_are_not_finite_stop_at_once(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=2)
    with torch.no_grad():
        trainer.student.layernorm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss of step 1 is not finite: focal, giou, l1, guidance_map"):
        trainer.train()


# Evaluation


def test_evaluation_is_of_the_student_alone(tmp_path):
    pairs = make_pairs(6, seed=2)
    trainer = make_trainer(tmp_path, eval_dataset=pairs, per_device_eval_batch_size=4, max_steps=3)
    trainer.train()
    metrics = trainer.evaluate()
    with torch.no_grad():
        output = trainer.student.eval()(**normalised(pairs, trainer.student))
    assert metrics["eval_loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    logged = trainer.state.log_history[-1]
    assert {f"eval_{name}" for name in TERMS} & logged.keys() == {"eval_focal", "eval_giou", "eval_l1"}
    assert logged["eval_l1"] == pytest.approx(output.loss_dict["l1"].item(), rel=1e-5)
    assert 0 <= logged["eval_iou"] <= 1 and "eval_replacement_rate" not in logged


def test_evaluation_while_training_keeps_the_logs_apart(tmp_path):
    """And changes nothing of the training: losses, rates and shares are those of a run without it."""
    alone = make_trainer(tmp_path, logging_steps=2)
    both = make_trainer(tmp_path, logging_steps=2, eval_dataset=make_pairs(6), eval_strategy="steps", eval_steps=1)
    for trainer in (alone, both):
        trainer.train()
    assert train_logs(alone) == train_logs(both) and len(train_logs(alone)) == 3
    assert len([entry for entry in both.state.log_history if "eval_iou" in entry]) == 6


def test_metrics_of_the_users_own(tmp_path):
    def centre_error(prediction):
        boxes = next(part for part in prediction.predictions if getattr(part, "shape", None) == (6, 4))
        return {"centre_error": float(np.abs(boxes[:, :2] - prediction.label_ids[:, :2]).mean())}

    pairs = make_pairs(6, seed=2)
    trainer = make_trainer(tmp_path, eval_dataset=pairs, compute_metrics=centre_error, per_device_eval_batch_size=4)
    metrics = trainer.evaluate()
    batch = normalised(pairs, trainer.student)
    with torch.no_grad():
        boxes = trainer.student.eval()(**batch).pred_boxes
    error = (boxes - batch["search_boxes"])[:, :2].abs().mean().item()
    assert metrics["eval_centre_error"] == pytest.approx(error, rel=1e-5)


# Training steps


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, granularity, widths):
    """Loss and paths: 4 x 2 and 2 x 4 are 8."""
    gradients = []
    for size, accumulation in ((8, 1), (4, 2), (2, 4)):
        watch = Watch()
        make_trainer(
            tmp_path,
            student_changes=WIDTHS[widths],
            callbacks=[watch],
            path_granularity=granularity,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            max_grad_norm=0,
        ).train()
        gradients.append(watch.gradients[0])
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for name, gradient in gradients[0].items():
            assert_close(other[name], gradient, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_teacher_stays_as_it_was(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=6, eval_dataset=make_pairs(4), eval_strategy="steps", eval_steps=2)
    teacher = trainer.model.teacher
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    trainer.train()
    assert_same_state(teacher.state_dict(), before)
    assert not any(module.training for module in teacher.modules())
    changed = {name for name, value in trainer.student.state_dict().items() if not torch.equal(value, student[name])}
    assert changed == {name for name, _ in trainer.student.named_parameters()}, "and all of the student has learnt"


def test_weight_decay_spares_projection_biases_too(tmp_path):
    trainer = make_trainer(tmp_path, student_changes=NARROW)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    for name, parameter in trainer.model.named_parameters():
        assert (name in decayed) is (parameter.ndim >= 2 and "position_embeddings" not in name), name
    trainer.create_optimizer()
    handed = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert handed == {id(parameter) for parameter in trainer.model.parameters()}


class NormInputs(TrainerCallback):
    """Keeps what one batch norm of the student sees from a step on."""

    def __init__(self, from_step):
        self.from_step, self.means, self.hook = from_step, [], None

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.from_step:
            norm = norms_of(model.student)[0]
            self.hook = norm.register_forward_pre_hook(lambda _, inputs: self.means.append(inputs[0].mean((0, 2, 3))))


def test_batch_norm_starts_anew_when_the_student_runs_alone(tmp_path):
    """After the fine-tuning its statistics are the mean over it, nothing of the mixed paths is left."""
    inputs = NormInputs(from_step=5)
    trainer = make_trainer(tmp_path, callbacks=[inputs], max_steps=10, finetune_share=0.5, train_batch_norm=True)
    trainer.train()
    assert trainer.args.schedule.finetune_start(10) == 5
    norm = norms_of(trainer.student)[0]
    assert norm.num_batches_tracked == 5 == len(inputs.means)
    assert_close(norm.running_mean, torch.stack(inputs.means).mean(dim=0).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", [4, 5, 6])
def test_trained_batch_norm_resumes_exactly(tmp_path, step):
    """Before, at and after the start of fine-tuning."""
    options = {
        "finetune_share": 0.5,
        "train_batch_norm": True,
        "save_strategy": "steps",
        "save_steps": step,
        "max_steps": 10,
    }
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert_same_state(resumed.model.state_dict(), whole.model.state_dict())


def test_fixed_batch_norm_keeps_the_statistics(tmp_path):
    trainer = make_trainer(tmp_path, finetune_share=0.5)
    before = [norm.running_var.clone() for norm in norms_of(trainer.student)]
    trainer.train()
    assert all(
        torch.equal(norm.running_var, value) for norm, value in zip(norms_of(trainer.student), before, strict=True)
    )


def test_activation_checkpointing_changes_nothing(tmp_path):
    plain, checkpointed = (make_trainer(tmp_path, activation_checkpointing=value) for value in (False, True))
    plain.train()
    checkpointed.train()
    assert checkpointed.student.is_activation_checkpointing
    for name, value in plain.model.state_dict().items():
        assert_close(checkpointed.model.state_dict()[name], value, atol=1e-6, rtol=1e-6)


def test_bf16_trains(tmp_path):
    trainer = make_trainer(tmp_path, bf16=True, student_changes=NARROW)
    trainer.train()
    assert all(np.isfinite(entry["loss"]) and np.isfinite(entry["grad_norm"]) for entry in train_logs(trainer))
    assert {value.dtype for value in trainer.student.parameters()} == {torch.float32}


def test_weights_in_half_precision_train_and_are_evaluated(tmp_path):
    """As `from_pretrained` may load them, and `bf16_full_eval` casts them."""
    trainer = make_trainer(tmp_path, max_steps=2, eval_dataset=make_pairs(4), bf16_full_eval=True)
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    teacher = make_tracker(4)
    student, plan = make_student(teacher, 2)
    args = make_arguments(tmp_path, max_steps=2)
    trainer = CompressionTrainer(student.to(torch.bfloat16), teacher, args, train_dataset=make_pairs(8), plan=plan)
    trainer.train()
    assert {value.dtype for value in trainer.student.parameters()} == {torch.bfloat16}
    assert all(np.isfinite(entry["loss"]) for entry in train_logs(trainer))


def test_compiles_layer_by_layer(tmp_path):
    """Same losses, each layer compiled in place, and the names of the weights are as ever."""
    torch._dynamo.reset()
    plain = make_trainer(tmp_path, max_steps=3)
    compiled = make_trainer(tmp_path, max_steps=3, torch_compile=True, torch_compile_backend="eager")
    for layer in (*compiled.student.layers, *compiled.model.teacher.layers):
        assert layer._compiled_call_impl is not None
    assert all(layer._compiled_call_impl is None for layer in plain.student.layers)
    plain.train()
    compiled.train()
    assert [entry["loss"] for entry in train_logs(compiled)] == pytest.approx(
        [entry["loss"] for entry in train_logs(plain)], rel=1e-4
    )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert compiled.student.state_dict().keys() == plain.student.state_dict().keys()
    compiled.save_model(tmp_path / "model")
    AutoModel.from_pretrained(tmp_path / "model")


# Arguments


def test_arguments_are_the_papers_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    student, plan = make_student(make_tracker(4))
    trainer = CompressionTrainer(student, make_tracker(4))
    assert isinstance(trainer.args, CompressionArguments) and trainer.plan == plan
    assert (trainer.model.track_weight, trainer.model.guidance_weight, trainer.model.mimicking_weight) == (
        1.0,
        1.0,
        0.2,
    )


def test_arguments_reach_the_mixed_path(tmp_path):
    mixed = make_trainer(
        tmp_path, track_weight=2.0, guidance_weight=3.0, mimicking_weight=4.0, train_batch_norm=True
    ).model
    assert (mixed.track_weight, mixed.guidance_weight, mixed.mimicking_weight) == (2.0, 3.0, 4.0)
    assert mixed.train_batch_norm


# Several processes


RUN = """
import sys, torch
from pathlib import Path
from tests.compression.training import make_trainer_of_processes

trainer = make_trainer_of_processes(sys.argv[1], per_device_train_batch_size=4)
trainer.train()
if trainer.args.should_save:
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    logs, skipped = trainer.state.log_history, dict(trainer.skipped)
    result = {"weights": weights, "logs": logs, "skipped": skipped, "world": trainer.args.world_size}
    torch.save(result, f"{sys.argv[1]}/result.pt")
trainer.end_training()
threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
assert "pt_gloo_runloop" not in threads, threads
"""


def test_two_processes_equal_one(tmp_path):
    """2 x 4 is 8, each sample with its own path: weights after two steps of plain gradient descent, logs and counts."""
    run_in_two_processes(RUN, tmp_path)
    two = torch.load(tmp_path / "result.pt", weights_only=True)
    one = make_trainer_of_processes(tmp_path, per_device_train_batch_size=8)
    one.train()
    assert (one.args.world_size, two["world"]) == (1, 2)
    assert one.model.state_dict().keys() == two["weights"].keys()
    for name, value in one.model.state_dict().items():
        assert_close(two["weights"][name], value, atol=1e-6, rtol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert dict(one.skipped) == two["skipped"] == {"bad_box": 3}
    for first, second in zip(train_logs(one), two["logs"], strict=False):
        assert {*first, "pairs_per_second"} == second.keys()
        for name in (*TERMS, "iou", "replacement_rate", "student_share", "skipped_bad_box"):
            assert second[name] == pytest.approx(first[name], abs=1e-5), name


def test_evaluation_returns_its_terms_under_any_prefix(tmp_path):
    """So that a best model can be chosen by IoU; terms of training wait for their own log."""
    trainer = make_trainer(tmp_path, eval_dataset=make_pairs(4), max_steps=2, logging_steps=10)
    trainer.train()
    trainer.compute_loss(trainer.model.train(), trainer._prepare_inputs(trainer.data_collator(make_pairs(4))))
    metrics = trainer.evaluate(metric_key_prefix="test")
    terms = sum(metrics[f"test_{name}"] for name in ("focal", "giou", "l1"))
    assert terms == pytest.approx(metrics["test_loss"], rel=1e-5)
    assert 0 <= metrics["test_iou"] <= 1
    assert "test_mimicking" not in metrics
    assert trainer._means("train")["mimicking"] > 0


def test_best_model_by_iou(tmp_path):
    trainer = make_trainer(
        tmp_path,
        eval_dataset=make_pairs(4),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="iou",
    )
    trainer.train()
    overlaps = [entry["eval_iou"] for entry in trainer.state.log_history if "eval_iou" in entry]
    assert trainer.state.best_metric == max(overlaps)


def test_several_devices_in_one_process_are_refused(tmp_path, monkeypatch):
    """DataParallel cannot copy a teacher that is no submodule."""
    monkeypatch.setattr(CompressionArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match="2 GPUs.*accelerate launch"):
        make_trainer(tmp_path)


def test_predict_leaves_nothing_behind(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=make_pairs(4))
    before = trainer.evaluate()["eval_focal"]
    trainer.predict(make_pairs(4, seed=5))
    assert trainer.evaluate()["eval_focal"] == before


def test_only_training_counts_what_the_stream_skips(tmp_path):
    pairs = [{**pair, "skipped": np.eye(len(CAUSES), dtype=np.int64)[0]} for pair in make_pairs(4)]
    trainer = make_trainer(tmp_path, train_dataset=pairs, eval_dataset=pairs, max_steps=1)
    trainer.evaluate()
    assert not trainer.skipped
    trainer.train()
    assert sum(trainer.skipped.values()) == 4


def test_projections_follow_the_seed_alone(tmp_path):
    weights = []
    for state in (1, 2):
        teacher = make_tracker(4)
        student, _ = make_student(teacher, 2, **NARROW)
        torch.manual_seed(state)
        trainer = CompressionTrainer(model=student, teacher_model=teacher, args=make_arguments(tmp_path, seed=5))
        weights.append(trainer.model.to_teacher[0].weight.clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"args": TrainingArguments("out", use_cpu=True)}, TypeError, "`args` must be CompressionArguments"),
        (
            {"teacher_model": "org/teacher"},
            TypeError,
            "`teacher_model` must be a tracker, got a str. Load it by AutoModel",
        ),
        ({"teacher_model": torch.nn.Linear(2, 2)}, TypeError, "`teacher_model` must be a tracker, got a Linear"),
        ({"teacher_model": None}, TypeError, "`teacher_model` must be a tracker, got a NoneType"),
        ({"model": "org/student"}, TypeError, "`model` must be a tracker, got a str"),
    ],
)
def test_arguments_of_a_wrong_kind(tmp_path, change, error, message):
    teacher = make_tracker(4)
    student, _ = make_student(teacher, 2)
    given = {"model": student, "teacher_model": teacher, "args": make_arguments(tmp_path), **change}
    with pytest.raises(error, match=message):
        CompressionTrainer(**given)


def test_inputs_reach_metrics_that_ask_for_them(tmp_path):
    seen = []
    trainer = make_trainer(
        tmp_path,
        eval_dataset=make_pairs(4),
        include_for_metrics=["inputs"],
        compute_metrics=lambda given: seen.append(given.inputs.shape) or {},
    )
    trainer.evaluate()
    assert seen == [(4, 3, 64, 64)]
