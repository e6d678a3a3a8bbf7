"""Numbers stay finite and losses fall."""

import pytest
import torch

from ct_hf.compression import MixedTracker, draw_path

from .tiny import WIDTHS, all_paths, gradients, make_batch, make_mixed, make_student, make_tracker


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("head_type", ["center", "corner"])
@pytest.mark.parametrize("saturated", ["student", "teacher", "both"])
def test_finite_in_bf16_with_saturated_logits(widths, head_type, saturated):
    mixed = make_mixed(4, 2, teacher_changes={"head_type": head_type}, student_changes=WIDTHS[widths])
    trackers = {"student": [mixed.student], "teacher": [mixed.teacher], "both": [mixed.student, mixed.teacher]}
    with torch.no_grad():
        for tracker in trackers[saturated]:
            for name, module in tracker.head.named_modules():
                if name.endswith("projection"):
                    module.weight.mul_(1e3)
    for path in all_paths(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = mixed(paths=[path] * 2, **make_batch())
        for name, value in output.loss_dict.items():
            assert value.dtype == torch.float32 and value.isfinite(), name
        found = gradients(mixed, output.loss)
        assert all(gradient.isfinite().all() for gradient in found.values() if gradient is not None)
        assert any(gradient is not None and gradient.abs().max() > 0 for gradient in found.values())


@pytest.mark.parametrize("widths", WIDTHS)
def test_residual_stream_stays_in_fp32_under_autocast(widths):
    """Behind projections too: else a sample's precision would depend on the paths of its neighbours."""
    mixed, dtypes = make_mixed(4, 2, student_changes=WIDTHS[widths]), set()
    for layer in (*mixed.student.layers, *mixed.teacher.layers):
        layer.register_forward_pre_hook(lambda _, inputs: dtypes.add(inputs[0].hidden_states.dtype))
    for path in all_paths(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed(paths=[path] * 2, **make_batch())
    assert dtypes == {torch.float32}


GROUPS = {
    "track": ({"guidance_weight": 0, "mimicking_weight": 0}, ["focal", "giou", "l1"]),
    "guidance": ({"track_weight": 0, "mimicking_weight": 0}, ["guidance_map", "guidance_giou", "guidance_l1"]),
    "mimicking": ({"track_weight": 0, "guidance_weight": 0}, ["mimicking"]),
}


def overfit(mixed, steps, learning_rate, batch=None):
    """Losses of the student's own path on eight fixed pairs, before and after training on random paths."""
    batch = batch or make_batch(8)
    student = [(True,) * mixed.plan.num_stages] * 8

    def losses():
        with torch.no_grad():
            return {name: value.item() for name, value in mixed(paths=student, **batch).loss_dict.items()}

    before = losses()
    optimizer = torch.optim.AdamW(mixed.parameters(), lr=learning_rate)
    for step in range(steps):
        rate = min(1.0, 0.5 + step / steps)
        loss = mixed(paths=[draw_path(rate, mixed.plan.num_stages, 0, step)] * 8, **batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return before, losses()


@pytest.mark.parametrize("group", GROUPS)
def test_each_loss_falls_by_itself(group):
    weights, names = GROUPS[group]
    mixed = make_mixed(student_changes={"initialization": "random"}, **weights)
    before, after = overfit(mixed, steps=100, learning_rate=3e-3)
    assert list(before) == names
    for name in names:
        assert after[name] < 0.8 * before[name], (name, before, after)


@pytest.fixture(scope="module")
def trained_teacher():
    """A teacher that knows the eight pairs: one that does not contradicts their labels."""
    teacher, batch = make_tracker(4).train(), make_batch(8)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for _ in range(150):
        loss = teacher(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher


@pytest.mark.parametrize("widths", WIDTHS)
def test_eight_pairs_are_learnt(widths, trained_teacher):
    student, plan = make_student(trained_teacher, 2, initialization="random", **WIDTHS[widths])
    for name, module in student.named_modules():  # of the teacher's head, which knows them, nothing either
        if name.startswith("head") and hasattr(module, "reset_parameters"):
            module.reset_parameters()
    before, after = overfit(MixedTracker(student, trained_teacher, plan).train(), steps=200, learning_rate=3e-3)
    assert sum(after.values()) < 0.4 * sum(before.values()), (before, after)
