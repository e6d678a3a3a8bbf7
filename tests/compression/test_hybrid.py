"""Hybrids are the mixed paths, as trackers of their own."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel

from ct_hf.compression import MixedTracker, StagePlan, build_hybrid, build_student
from ct_hf.hub.push import write_plain_card

from .tiny import all_paths, make_batch, make_student, make_tracker
from .tiny_sutrack import make_sutrack_mixed


@pytest.mark.parametrize("path", all_paths(3))
def test_a_hybrid_is_its_path(path):
    teacher = make_tracker(layers=6)
    student, plan = make_student(teacher, stages="2-1-3")
    batch = make_batch(size=3)
    mixed = MixedTracker(student, teacher, plan).train()
    with torch.no_grad():
        expected = mixed(paths=[path] * 3, **batch)
        output = build_hybrid(student, teacher, "".join("S" if own else "T" for own in path), plan)(**batch)
    assert_close(output.pred_boxes, expected.pred_boxes, atol=1e-6, rtol=1e-6)
    assert_close(output.score_map, expected.score_map, atol=1e-6, rtol=1e-6)


def test_a_hybrid_attends_as_its_student():
    teacher = make_tracker(layers=4)
    student, plan = make_student(teacher, stages=2)
    student.set_attn_implementation("eager")
    assert build_hybrid(student, teacher, "TS", plan).config._attn_implementation == "eager"


def test_a_hybrid_is_saved_loaded_and_tracks(tmp_path):
    teacher = make_tracker(layers=6)
    student, _ = make_student(teacher, stages="1-2-3")
    record = {"stages": {"teacher": [1, 2, 3], "student": [1, 1, 1]}}
    student.config.compression = record
    hybrid = build_hybrid(student, teacher, "STS")
    hybrid.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.num_hidden_layers == len(loaded.layers) == 4
    assert loaded.config.compression == {**record, "path": "STS"}
    assert student.config.compression == record
    batch = make_batch()
    assert_close(loaded(**batch).pred_boxes, hybrid(**batch).pred_boxes)


def test_the_card_of_a_hybrid_says_its_path(tmp_path):
    teacher = make_tracker(layers=6)
    student, plan = make_student(teacher, stages=3)
    student.config.compression = {"teacher": {"repository": "org/teacher"}}
    said = "of the path TSS: the stages T are the teacher's own layers"
    for tracker in (student, build_hybrid(student, teacher, "TSS", plan)):
        card = write_plain_card(tmp_path, tracker, "org/tracker").read_text()
        assert "compressed from [org/teacher]" in card
        assert (said in card) == (tracker is not student)


def test_a_hybrid_has_weights_of_its_own():
    teacher = make_tracker(layers=4)
    student, plan = make_student(teacher, stages=2)
    hybrid = build_hybrid(student, teacher, "ST", plan)
    before = [parameter.clone() for tracker in (student, teacher) for parameter in tracker.parameters()]
    with torch.no_grad():
        for parameter in hybrid.parameters():
            parameter.add_(1)
    after = [parameter for tracker in (student, teacher) for parameter in tracker.parameters()]
    assert all(map(torch.equal, before, after))


def test_a_hybrid_of_sutrack():
    mixed = make_sutrack_mixed()
    student, teacher, plan = mixed.student, mixed.teacher, mixed.plan
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    hybrid = build_hybrid(student, teacher, "T" + "S" * (plan.num_stages - 1), plan)
    assert len(hybrid.layers) == len(plan.teacher_stage(0)) + plan.student_cuts[-1] - len(plan.student_stage(0))
    for name, tensor in teacher.embeddings.state_dict().items():
        assert torch.equal(hybrid.embeddings.state_dict()[name], tensor), name


@pytest.mark.parametrize("path", ["S", "STS", "TT", "SX"])
def test_a_path_that_is_none_is_refused(path):
    teacher = make_tracker(layers=4)
    student, plan = make_student(teacher, stages=2)
    with pytest.raises(ValueError, match=f"`path` must have a letter for each of 2 stages.*got {path!r}"):
        build_hybrid(student, teacher, path, plan)


def test_a_student_without_a_record_needs_a_plan():
    teacher = make_tracker(layers=4)
    student, _ = make_student(teacher, stages=2)
    with pytest.raises(ValueError, match="`plan` is missing"):
        build_hybrid(student, teacher, "ST")


def test_a_family_without_embeddings_is_told_so():
    teacher = make_tracker(layers=4)
    student, plan = make_student(teacher, stages=2)
    student.patches = student.embeddings
    del student.embeddings
    with pytest.raises(ValueError, match="OSTrackModel has no module `embeddings`"):
        build_hybrid(student, teacher, "TS", plan)


def test_layers_of_unlike_shape_cannot_be_joined():
    teacher, plan = make_tracker(layers=4), StagePlan.even(4, 2)
    student, _ = build_student(teacher, plan, intermediate_size=48)
    with pytest.raises(ValueError, match="`intermediate_size` is 48 in the student and 64 in the teacher"):
        build_hybrid(student, teacher, "TS", plan)


@pytest.mark.parametrize(
    "change",
    [{"num_attention_heads": 4}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}, {"qkv_bias": False}],
    ids=str,
)
def test_layers_that_compute_in_unlike_ways_cannot_be_joined(change):
    teacher, plan = make_tracker(layers=4), StagePlan.even(4, 2)
    student, _ = build_student(teacher, plan, **change)
    with pytest.raises(ValueError, match=f"`{next(iter(change))}` is .* in the student and .* in the teacher"):
        build_hybrid(student, teacher, "TS", plan)


def test_what_is_of_training_and_tracking_alone_may_differ():
    teacher, plan = make_tracker(layers=4, elimination_layers=[1]), StagePlan.even(4, 2)
    student, _ = build_student(teacher, plan, drop_path_rate=0.1)
    assert len(build_hybrid(student, teacher, "TS", plan).layers) == 3
