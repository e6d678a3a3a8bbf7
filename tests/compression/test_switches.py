"""What can be changed about the method, one argument each, and what each changes."""

import math

import pytest
import torch
from torch.testing import assert_close

from ct_hf.compression.losses import mimicking_loss
from ct_hf.compression.stages import StagePlan
from ct_hf.compression.student import build_student

from .tiny import all_paths, gradients, make_batch, make_mixed, make_student, make_tracker
from .training import make_arguments, make_trainer, train_logs


def terms(path=(True, False), **arguments):
    mixed = make_mixed(**arguments)
    return {name: value.item() for name, value in mixed(paths=[path] * 2, **make_batch()).loss_dict.items()}


def test_factors_of_single_terms():
    plain = terms()
    changed = terms(term_weights={"giou": 0.5, "guidance_map": 0})
    expected = {**plain, "giou": 0.5 * plain["giou"], "guidance_map": 0.0}
    assert changed == pytest.approx(expected)
    mixed = make_mixed(term_weights=dict.fromkeys(plain, 0) | {"focal": 2})
    output = mixed(paths=[(True, False)] * 2, **make_batch())
    assert output.loss.item() == pytest.approx(2 * plain["focal"])


def test_a_term_without_weight_costs_no_gradient_and_breaks_nothing(monkeypatch):
    mixed = make_mixed(term_weights={"giou": 0})
    losses = type(mixed.student).compute_loss
    monkeypatch.setattr(
        type(mixed.student),
        "compute_loss",
        lambda *args: {name: value * (math.nan if name == "giou" else 1) for name, value in losses(*args).items()},
    )
    output = mixed(paths=[(True, False)] * 2, **make_batch())
    assert not output.loss_dict["giou"].requires_grad
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in mixed.parameters() if parameter.grad is not None)


def test_a_loss_without_any_term_is_refused():
    mixed = make_mixed(term_weights=dict.fromkeys(terms(), 0))
    with pytest.raises(ValueError, match="`term_weights` has 0 for all terms of this loss: focal, giou"):
        mixed(paths=[(True, False)] * 2, **make_batch())


def test_unknown_terms_are_refused_with_the_known_ones():
    mixed = make_mixed(term_weights={"gious": 0.5})
    with pytest.raises(ValueError, match=r"`term_weights` names gious, but .* are focal, giou, l1, guidance_map"):
        mixed(paths=[(True, False)] * 2, **make_batch())


def distance_by_hand(mixed, path, stages):
    """Mean of the mimicking loss after some stages of a path of two."""
    batch = make_batch()
    inputs = {name: batch[name] for name in ("template_pixel_values", "search_pixel_values", "template_boxes")}
    theirs = mixed.teacher.embed(**inputs, keep_all_tokens=True)
    ours = mixed.student.embed(**inputs, keep_all_tokens=True) if path[0] else theirs
    found = []
    for stage in range(2):
        for layer in mixed.plan.teacher_stage(stage):
            theirs = mixed.teacher.layers[layer](theirs)
        tracker, layers = (
            (mixed.student, mixed.plan.student_stage(stage))
            if path[stage]
            else (mixed.teacher, mixed.plan.teacher_stage(stage))
        )
        for layer in layers:
            ours = tracker.layers[layer](ours)
        if stage in stages:
            found.append(mimicking_loss(ours, theirs, mixed.mimicking).mean())
    return mixed.mimicking_weight * torch.stack(found).mean()


@pytest.mark.parametrize("distance", ["mse", "smooth_l1", "cosine", "gram"])
@pytest.mark.parametrize(
    ("path", "counted", "stages"),
    [
        ((True, False), "all", [0, 1]),
        ((True, False), "student", [0]),
        ((True, False), "last", [1]),
        ((False, True), "student", [1]),
        ((False, True), "all", [0, 1]),
        ((True, True), "student", [0, 1]),
    ],
)
def test_mimicking_counts_where_it_is_told(distance, path, counted, stages):
    mixed = make_mixed(mimicking=distance, mimicking_stages=counted)
    found = mixed(paths=[path] * 2, **make_batch()).loss_dict["mimicking"]
    assert_close(found, distance_by_hand(mixed, path, stages), atol=1e-6, rtol=1e-5)
    assert found > 0


def test_mimicking_of_unlike_paths_weighs_every_student_stage_the_same():
    mixed, batch = make_mixed(mimicking_stages="student"), make_batch()
    together = mixed(paths=[(True, False), (True, True)], **batch).loss_dict["mimicking"]
    single = []
    for row, path, count in ((0, (True, False), 1), (1, (True, True), 2)):
        alone = mixed(paths=[path], **{name: value[row : row + 1] for name, value in batch.items()})
        single.append(count * alone.loss_dict["mimicking"])
    assert_close(together, sum(single) / 3)


@pytest.mark.parametrize("part", ["embeddings", "head"])
def test_frozen_parts_get_no_gradient_and_stay_in_evaluation(part):
    mixed = make_mixed(frozen=[part], train_batch_norm=True)
    found = {}
    with mixed.freezing():
        for path in all_paths(2):
            output = mixed(paths=[path] * 2, **make_batch())
            found |= {name: grad for name, grad in gradients(mixed, output.loss).items() if grad is not None}
    trained = {name.split(".")[1] for name in found if name.startswith("student.")}
    assert part not in trained and {"embeddings", "head", "layers"} - {part} <= trained
    assert not any(module.training for module in getattr(mixed.student, part).modules())
    assert mixed.student.layers.training
    assert all(parameter.requires_grad for parameter in mixed.student.parameters()), "a later training may train them"


def test_a_frozen_head_keeps_its_statistics_to_the_end(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=10, train_head=False, train_batch_norm=True)
    before = {name: value.clone() for name, value in trainer.student.head.state_dict().items()}
    assert any("running_mean" in name for name in before)
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.student.head.state_dict().items())
    assert all(parameter.requires_grad for parameter in trainer.student.head.parameters())


def test_drop_path_is_the_students():
    teacher = make_tracker(4)
    student, _ = build_student(teacher, StagePlan.even(4, 2), drop_path_rate=0.4)
    assert student.config.drop_path_rate == 0.4 and teacher.config.drop_path_rate == 0.0
    assert [layer.drop_path_rate for layer in student.layers] == [0.0, 0.4]
    assert make_student(teacher)[0].config.drop_path_rate == 0.0


def test_arguments_reach_the_training(tmp_path):
    trainer = make_trainer(
        tmp_path,
        max_steps=2,
        term_weights='{"l1": 0}',
        mimicking="gram",
        mimicking_stages="last",
        train_embeddings=False,
        train_head=False,
        replacement_schedule="constant",
        finetune_share=0.0,
    )
    before = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["l1"] == 0 and log["mimicking"] > 0 and log["replacement_rate"] == 0.5
    changed = {
        name.split(".")[0]
        for name, value in trainer.student.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"layers", "layernorm"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mimicking": "l3"}, "`mimicking` must be one of mse, smooth_l1, cosine, gram, got 'l3'"),
        ({"mimicking_stages": "first"}, "`mimicking_stages` must be one of all, student, last"),
        ({"replacement_schedule": "step"}, "`replacement_schedule` must be"),
        ({"term_weights": {"l1": -1}}, "`term_weights` must hold finite numbers from 0 up, got l1: -1"),
        ({"term_weights": "l1=0"}, "`term_weights` must be JSON"),
        ({"drop_path_rate": 1.0}, r"`drop_path_rate` must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_switches_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path, **changes)


@pytest.mark.parametrize("schedule", ["progressive", "constant"])
def test_a_whole_number_is_a_rate_too(tmp_path, schedule):
    trainer = make_trainer(tmp_path, p_init=1, replacement_schedule=schedule, max_steps=2)
    trainer.train()
    assert train_logs(trainer)[0]["replacement_rate"] == 1.0
