"""SUTrack is compressed as any tracker: every path, unlike widths, uneven plans; heads without a label learn by guidance."""

import copy

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel

from ct_hf.compression import MixedTracker, StagePlan, build_student
from ct_hf.compression.summary import activation_bytes
from ct_hf.models import SUTrackConfig, SUTrackModel

from .test_mixed_learning import overfit
from .tiny import all_paths, gradients
from .tiny_sutrack import NARROW, WIDTHS, make_sutrack, make_sutrack_batch, make_sutrack_mixed


TERMS = {
    "track": ["focal", "giou", "l1"],
    "guidance": ["guidance_map", "guidance_giou", "guidance_l1", "guidance_task"],
    "mimicking": ["mimicking"],
}


def test_teacher_is_tiny():
    assert sum(parameter.numel() for parameter in make_sutrack().parameters()) < 2e6


def test_identity_student_has_nothing_to_learn_on_any_path():
    teacher = make_sutrack(4)
    plan = StagePlan.even(4, 4)
    mixed = MixedTracker(build_student(teacher, plan)[0], teacher, plan, track_weight=0.0).train()
    for path in all_paths(4):
        output = mixed(paths=[path] * 2, **make_sutrack_batch())
        assert list(output.loss_dict) == [*TERMS["guidance"], "mimicking"]
        assert output.loss_dict["mimicking"] == 0 and output.loss_dict["guidance_task"] == 0
        for name, gradient in gradients(mixed, output.loss).items():
            assert gradient is None or gradient.abs().max() == 0, (path, name)


@pytest.mark.parametrize("widths", WIDTHS)
def test_path_of_students_is_the_exported_student(widths, tmp_path):
    """Bit for bit, in memory and after saving and loading strictly; and it tracks."""
    mixed, batch = make_sutrack_mixed(**WIDTHS[widths]), make_sutrack_batch()
    with torch.no_grad():
        output = mixed(paths=[(True,) * 3] * 2, **batch)
        mixed.student.save_pretrained(tmp_path)
        loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        for student in (mixed.student.eval(), loaded):
            alone = student(**batch)
            for name in ("pred_boxes", "score", "score_logits", "size_map", "offset_map", "auxiliary_logits"):
                assert torch.equal(output[name], alone[name]), name
    frames = np.random.default_rng(0).integers(0, 256, (3, 80, 100, 3), dtype=np.uint8)
    tracks = [tracker.start(frames[0], [30, 20, 20, 16]) for tracker in (mixed.student, loaded)]
    for frame in frames[1:]:
        one, other = (session.update(frame) for session in tracks)
        # Products of one row (the text token of a batch of one) depend in their last bit on where weights lie in memory.
        assert_close(one.box, other.box, atol=1e-3, rtol=0)
        assert one.score == pytest.approx(other.score, abs=1e-6) and 0 <= one.score <= 1


@pytest.mark.parametrize("widths", WIDTHS)
def test_a_path_for_each_sample(widths):
    """Each sample of a batch on its own path gives the mean of single runs; the gradients reach the same parameters."""
    mixed, paths = make_sutrack_mixed(**WIDTHS[widths]), all_paths(3)
    batch = make_sutrack_batch(len(paths))
    together = mixed(paths=paths, **batch)
    alone = [
        mixed(paths=[path], **{name: value[row : row + 1] for name, value in batch.items()})
        for row, path in enumerate(paths)
    ]
    for name in together.loss_dict:
        assert_close(together.loss_dict[name], torch.stack([one.loss_dict[name] for one in alone]).mean())
    assert_close(together.auxiliary_logits, torch.cat([one.auxiliary_logits for one in alone]), atol=1e-4, rtol=1e-4)


def test_task_head_learns_from_the_teacher_alone():
    batch = make_sutrack_batch()
    for weights, learns in (({"guidance_weight": 0.0}, False), ({}, True)):
        mixed = make_sutrack_mixed(**weights)
        with torch.no_grad():
            mixed.student.task_head.projections[-1].weight.add_(0.1)
        found = gradients(mixed, mixed(paths=[(True,) * 3] * 2, **batch).loss)
        learnt = [found[f"student.task_head.projections.{index}.weight"] is not None for index in range(3)]
        assert learnt == [learns] * 3


@pytest.mark.parametrize("widths", WIDTHS)
def test_finite_in_bf16(widths):
    mixed, batch = make_sutrack_mixed(**WIDTHS[widths]), make_sutrack_batch()
    for path in all_paths(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = mixed(paths=[path] * 2, **batch)
        assert all(value.dtype == torch.float32 and value.isfinite() for value in output.loss_dict.values())
        found = gradients(mixed, output.loss)
        assert all(gradient.isfinite().all() for gradient in found.values() if gradient is not None)


@pytest.mark.parametrize("group", TERMS)
def test_each_term_falls_by_itself(group):
    others = {f"{name}_weight": 0.0 for name in TERMS if name != group}
    mixed = make_sutrack_mixed(initialization="random", **others)
    with torch.no_grad():  # the teacher's own would have nothing left to learn
        for projection in mixed.student.task_head.projections:
            projection.weight.add_(0.3 * torch.randn(projection.weight.shape))
    before, after = overfit(mixed, 100, 3e-3, make_sutrack_batch(8))
    assert list(before) == TERMS[group]
    for name in before:
        assert after[name] < 0.8 * before[name], (name, before, after)


@pytest.fixture(scope="module")
def trained_teacher():
    """A teacher that knows the eight pairs: one that does not contradicts their labels."""
    teacher, batch = make_sutrack().train(), make_sutrack_batch(8)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for _ in range(150):
        loss = teacher(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher.eval()


def test_eight_pairs_are_learnt(trained_teacher):
    """By a narrower student: the total falls by 60 % in 200 steps, and each term falls."""
    teacher = copy.deepcopy(trained_teacher)
    mixed = make_sutrack_mixed(teacher=teacher, initialization="random", **WIDTHS["unlike"])
    with torch.no_grad():
        for name, module in mixed.student.named_modules():  # of the heads that know the pairs nothing either
            if "head" in name and hasattr(module, "reset_parameters"):
                module.reset_parameters()
    before, after = overfit(mixed, 200, 3e-3, make_sutrack_batch(8))
    assert sum(after.values()) < 0.4 * sum(before.values()), (before, after)
    assert all(after[name] < before[name] for name in before), (before, after)


# Students


def test_narrower_student_keeps_heads_and_neurons():
    """Gate, norm and both linear layers of an MLP keep the same neurons: the strongest, gate included."""
    teacher = make_sutrack(4)
    student, report = build_student(teacher, StagePlan.even(4, 2), intermediate_size=20)
    theirs, ours = teacher.layers[1].mlp, student.layers[0].mlp
    strength = theirs.fc1.weight.norm(dim=1) * theirs.fc1_gate.weight.norm(dim=1) * theirs.fc2.weight.norm(dim=0)
    kept = sorted(strength.argsort(descending=True)[:20].tolist())
    for name in ("fc1", "fc1_gate", "fc1_norm"):
        assert torch.equal(getattr(ours, name).weight, getattr(theirs, name).weight[kept]), name
        assert torch.equal(getattr(ours, name).bias, getattr(theirs, name).bias[kept]), name
    assert torch.equal(ours.fc2.weight, theirs.fc2.weight[:, kept])
    assert {name.split(".")[-2] for name in report.sliced} == {"fc1", "fc1_gate", "fc1_norm", "fc2"}
    assert not report.random


def test_narrower_student_is_cut_from_its_teacher():
    student, report = build_student(make_sutrack(4), StagePlan.even(4, 2), num_attention_heads=1, **NARROW)
    assert not report.random and "embeddings.null_text_features" in report.copied
    assert student.embeddings.stem.patch_projection.weight.shape == (4, 6, 4, 4)
    assert student(**make_sutrack_batch()).loss.isfinite()


def test_student_of_the_released_base():
    """CT-SUTrack-4: four stages of six layers, one layer each; everything else is the teacher's."""
    plan = StagePlan.even(24, 4)
    assert [len(plan.teacher_stage(stage)) for stage in range(4)] == [6, 6, 6, 6]
    with torch.device("meta"):
        teacher = SUTrackModel(SUTrackConfig())
        student = SUTrackModel(SUTrackConfig().for_student(4))
    plan.check(teacher, student)
    parts = [sum(parameter.numel() for parameter in tracker.parameters()) for tracker in (teacher, student)]
    assert parts[0] - parts[1] == 20 * 3419136
    assert 20e6 < parts[1] < 22e6


def test_unlike_tokens_are_refused():
    """A student without text, or of another number of templates, has other tokens than its teacher."""
    teacher, plan = make_sutrack(4), StagePlan.even(4, 2)
    with pytest.raises(ValueError, match="cannot be joined at cut 0: the teacher's tokens there are .*'special': 2"):
        build_student(teacher, plan, use_text=False)
    with pytest.raises(ValueError, match="`num_templates` of the student is 1 but the teacher's is 2"):
        build_student(teacher, plan, num_templates=1)


def test_memory_for_the_backward_pass_is_measured():
    mixed = make_sutrack_mixed()
    assert activation_bytes(mixed, (True, True, True)) > 0
