"""Losses that are not finite, and memory that does not suffice."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ct_hf.compression import CompressionTrainer, TrackerTrainer
from ct_hf.data import ProceduralWorld, stream_pairs

from .tiny import make_config, make_pairs, make_tracker
from .training import make_arguments, make_trainer, run_in_two_processes


def poisoned(count=12, bad=5):
    """Pairs of which one has a label that makes the loss NaN."""
    pairs = make_pairs(count)
    for number, pair in enumerate(pairs):
        pair["name"] = f"walk{number}, frames 1, {number}"
    pairs[bad]["search_boxes"] = np.full(4, np.nan, dtype=np.float32)
    return pairs


class InOrder(CompressionTrainer):
    """Rows in the order in which they are given."""

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Torn(list):
    """Pairs of which one cannot be read."""

    def __init__(self, pairs, torn):
        super().__init__(pairs)
        self.torn = torn

    def __getitem__(self, number):
        if number == self.torn:
            raise OSError(f"pair {number} is torn")
        return super().__getitem__(number)


def make_ordered(folder, **arguments):
    defaults = {"train_dataset": poisoned(), "per_device_train_batch_size": 2, "max_steps": 6}
    trainer = make_trainer(folder, **{**defaults, **arguments})
    trainer.__class__ = InOrder
    return trainer


def test_a_loss_that_is_not_finite_stops_with_step_terms_and_pairs(tmp_path):
    trainer = make_ordered(tmp_path)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    text = str(caught.value)
    assert "the loss of step 3 is not finite: focal, giou, l1." in text
    assert "Its pairs: walk4, frames 1, 4; walk5, frames 1, 5." in text and "nan_loss='skip'" in text
    assert (tmp_path / "checkpoint-2" / "model.safetensors").is_file(), "what was trained before is kept"
    assert all(torch.isfinite(value).all() for value in trainer.student.state_dict().values())


def test_it_can_be_left_out_and_counted(tmp_path):
    trainer = make_ordered(tmp_path, nan_loss="skip", max_grad_norm=0.1)
    weights = {}

    class Keep(torch.nn.Module):
        pass

    def keep(step):
        weights[step] = torch.cat([value.detach().flatten().clone() for value in trainer.student.parameters()])

    original = trainer.training_step

    def training_step(*args, **kwargs):
        keep(trainer.state.global_step)
        return original(*args, **kwargs)

    trainer.training_step = training_step
    trainer.train()
    assert trainer.skipped == {"nan_loss": 1}
    assert torch.equal(weights[2], weights[3]) and not torch.equal(weights[3], weights[4])
    assert all(torch.isfinite(value).all() for value in trainer.student.state_dict().values())
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 6 and all(map(math.isfinite, losses))
    assert trainer.state.log_history[-1]["skipped_nan_loss"] == 1


def overflow(trainer, step):
    """Let a gradient be infinite in a step whose loss is finite."""
    clip = trainer._clip_grad_norm

    def clip_grad_norm(model):
        if trainer.state.global_step == step:
            next(weights for weights in model.parameters() if weights.grad is not None).grad[0] = math.inf
        return clip(model)

    trainer._clip_grad_norm = clip_grad_norm


def test_a_gradient_that_is_not_finite_reaches_no_weights(tmp_path):
    """They would be saved as the step before, and the good checkpoints removed for them."""
    trainer = make_trainer(tmp_path, max_steps=6, save_strategy="steps", save_steps=2, save_total_limit=1)
    overflow(trainer, 3)
    with pytest.raises(FloatingPointError, match="the gradient of step 4 is not finite.*lower `learning_rate`"):
        trainer.train()
    (kept,) = tmp_path.glob("checkpoint-*")
    assert kept.name == "checkpoint-3"
    assert all(value.isfinite().all() for value in load_file(kept / "model.safetensors").values())


def test_such_a_step_can_be_left_out_too(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=6, nan_loss="skip")
    overflow(trainer, 3)
    trainer.train()
    assert trainer.state.global_step == 6 and trainer.state.log_history[-1]["skipped_nan_loss"] == 1
    assert all(value.isfinite().all() for value in trainer.student.state_dict().values())


@pytest.mark.parametrize("nan_loss", ["stop", "skip"])
def test_a_forward_that_is_not_finite_leaves_no_trace_in_batch_norms(tmp_path, nan_loss):
    """They gather in the forward; what is NaN once stays so, and in training nobody sees it."""
    model = make_tracker(2)
    args = make_arguments(tmp_path, nan_loss=nan_loss)
    trainer = TrackerTrainer(model=model, args=args, train_dataset=make_pairs(8))

    def diverge(layer, inputs, output):
        if trainer.state.global_step == 3:
            output.hidden_states = output.hidden_states * math.nan
        return output

    model.layers[0].register_forward_hook(diverge)
    if nan_loss == "stop":
        with pytest.raises(FloatingPointError, match="the loss of step 4 is not finite"):
            trainer.train()
        saved = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
        assert all(value.isfinite().all() for value in saved.values())
    else:
        trainer.train()
        assert trainer.skipped == {"nan_loss": 1}
    moved = {name: value for name, value in model.named_buffers() if name.endswith("running_var")}
    assert moved and all(value.isfinite().all() and not (value == 1).all() for value in moved.values())
    counts = {int(value) for name, value in model.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {3 if nan_loss == "stop" else 5}, "the step that is left out is no step"


def test_weights_that_are_not_finite_are_not_saved_over_good_ones(tmp_path, caplog):
    trainer = make_trainer(tmp_path, max_steps=6, save_strategy="steps", save_steps=2, save_total_limit=1)
    step = trainer.training_step

    def training_step(*args, **kwargs):
        if trainer.state.global_step == 3:
            trainer.student.layers[0].mlp.fc1.weight.data[0] = math.nan
        return step(*args, **kwargs)

    trainer.training_step = training_step
    with pytest.raises(FloatingPointError):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert "step 3 has weights that are not finite, and is not saved" in caplog.text


def test_names_of_a_streams_pairs_say_sequence_and_frames():
    pairs = stream_pairs(ProceduralWorld(length=10, size=(96, 72)), make_config(), seed=0, clip_length=3)
    name = next(iter(pairs))["name"]
    assert name.startswith("procedural-0-") and ", frames " in name


def test_memory_that_does_not_suffice_comes_with_advice(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, max_steps=1)

    def too_much(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(trainer, "compute_loss", too_much)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory") as caught:
        trainer.train()
    (advice,) = caught.value.__notes__
    assert "4 pairs on a device are too many" in advice and "`gradient_accumulation_steps`" in advice


def test_a_batch_that_fits_is_found(tmp_path, monkeypatch):
    pairs = stream_pairs(ProceduralWorld(length=10, size=(96, 72)), make_config(), seed=0, clip_length=3)
    trainer = make_trainer(
        tmp_path, train_dataset=pairs, max_steps=3, per_device_train_batch_size=4, auto_find_batch_size=True
    )
    original, sizes = trainer.compute_loss, []

    def scarce(model, inputs, *args, **kwargs):
        sizes.append(len(inputs["search_pixel_values"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return original(model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", scarce)
    trainer.train()
    assert sizes[0] == 4 and sizes[-3:] == [2, 2, 2] and trainer.state.global_step == 3


# Several processes: what goes wrong in one must not leave the other waiting


RUN = """
import json, sys
from tests.compression.test_bad_weather import Torn, make_ordered, poisoned

report = {}
for name, arguments in {
    "stopped": {},
    "left out": {"nan_loss": "skip", "max_grad_norm": 0.1},
    "torn": {"train_dataset": Torn(poisoned(bad=11), torn=9)},
}.items():
    folder = f"{sys.argv[1]}/{name}"
    trainer = make_ordered(folder, max_steps=3, **arguments)
    try:
        trainer.train()
        report[name] = [trainer.state.log_history[-2], dict(trainer.skipped)]
    except Exception as error:
        report[name] = [type(error).__name__, str(error)]
with open(f"{sys.argv[1]}/{trainer.args.process_index}.json", "w") as file:
    json.dump(report, file)
trainer.end_training()
"""


def test_processes_stop_and_go_on_together(tmp_path):
    """Of twelve pairs in batches of two, the sixth is in the second step of one process alone."""
    run_in_two_processes(RUN, tmp_path)
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    reports.sort(key=lambda report: "another process" in report["stopped"][1])
    met, other = (report["stopped"] for report in reports)
    assert met[0] == other[0] == "FloatingPointError"
    assert "the loss of step 2 is not finite: focal, giou, l1. Its pairs: " in met[1]
    assert "the loss of step 2 is not finite: in another process. Look" in other[1]

    for log, skipped in (report["left out"] for report in reports):
        assert skipped == {"nan_loss": 1} and math.isfinite(log["giou"]) and log["step"] == 3

    met, other = (report["torn"] for report in reports)
    assert met == ["OSError", "pair 9 is torn"] and other[0] == "RuntimeError" and "another process" in other[1]
    for folder in ("stopped", "torn"):
        assert (tmp_path / folder / "checkpoint-1" / "model.safetensors").is_file(), "what was trained before is kept"
