import pytest

from ct_hf.compression import StagePlan
from ct_hf.models.tracker import Boundary

from .tiny import make_tracker


@pytest.mark.parametrize(
    ("layers", "stages", "text"),
    [
        (12, 4, "3-3-3-3 -> 1-1-1-1"),
        (12, 6, "2-2-2-2-2-2 -> 1-1-1-1-1-1"),
        (24, 4, "6-6-6-6 -> 1-1-1-1"),
        (12, 8, "1-2-1-2-1-2-1-2 -> 1-1-1-1-1-1-1-1"),
        (5, 3, "1-2-2 -> 1-1-1"),
        (4, 4, "1-1-1-1 -> 1-1-1-1"),
        (4, 1, "4 -> 1"),
    ],
)
def test_even_cuts(layers, stages, text):
    plan = StagePlan.even(layers, stages)
    assert str(plan) == f"StagePlan({text})"
    assert plan.num_stages == stages
    assert [layer for stage in range(stages) for layer in plan.teacher_stage(stage)] == list(range(layers))
    assert [layer for stage in range(stages) for layer in plan.student_stage(stage)] == list(range(stages))


def test_cuts_of_given_sizes():
    plan = StagePlan.from_sizes([2, 2, 6, 2])
    assert plan.teacher_cuts == (0, 2, 4, 10, 12) and plan.student_cuts == (0, 1, 2, 3, 4)
    assert plan.teacher_stage(2) == range(4, 10) and plan.student_stage(2) == range(2, 3)
    assert str(plan) == "StagePlan(2-2-6-2 -> 1-1-1-1)"


def test_students_may_have_several_layers_a_stage():
    plan = StagePlan((0, 3, 6), (0, 2, 3))
    plan.check(make_tracker(6), make_tracker(3))
    assert plan.student_stage(0) == range(0, 2)


@pytest.mark.parametrize("stages", [0, -1, 5])
def test_number_of_stages_must_fit_the_teacher(stages):
    with pytest.raises(ValueError, match=rf"`num_stages` must be from 1 to the teacher's 4 layers, got {stages}"):
        StagePlan.even(4, stages)


@pytest.mark.parametrize("sizes", [[2, 0, 2], [3, -1], [0]])
def test_every_stage_needs_a_layer(sizes):
    with pytest.raises(ValueError, match="at least one teacher layer"):
        StagePlan.from_sizes(sizes)


def test_no_stage_at_all_is_refused():
    with pytest.raises(ValueError, match="`teacher_cuts`"):
        StagePlan.from_sizes([])


@pytest.mark.parametrize("cuts", [(1, 2), (0, 2, 2), (0, 3, 2), (0,), ()])
def test_cuts_must_rise_from_zero(cuts):
    with pytest.raises(ValueError, match="`teacher_cuts` must rise from 0"):
        StagePlan(cuts, (0, 1))
    with pytest.raises(ValueError, match="`student_cuts` must rise from 0"):
        StagePlan((0, 1), cuts)


def test_both_need_as_many_stages():
    with pytest.raises(ValueError, match="as many stages, got 2 and 3"):
        StagePlan((0, 2, 4), (0, 1, 2, 3))


# What a plan refuses to join


def test_plan_must_fit_both_depths():
    plan = StagePlan.even(6, 3)
    plan.check(make_tracker(6), make_tracker(3))
    with pytest.raises(ValueError, match="has 6 teacher layers but the teacher has 4"):
        plan.check(make_tracker(4), make_tracker(3))
    with pytest.raises(ValueError, match="has 3 student layers but the student has 2"):
        plan.check(make_tracker(6), make_tracker(2))


@pytest.mark.parametrize(
    ("name", "value", "usual"),
    [("template_size", 48, 32), ("search_size", 96, 64), ("template_factor", 1.5, 2.0), ("search_factor", 5.0, 4.0)],
)
def test_teacher_and_student_must_see_the_same_crops(name, value, usual):
    with pytest.raises(ValueError, match=f"`{name}` of the student is {value} but the teacher's is {usual}"):
        StagePlan.even(2, 2).check(make_tracker(2), make_tracker(2, **{name: value}))


@pytest.mark.parametrize("name", ["image_mean", "image_std"])
def test_teacher_and_student_must_see_the_same_pixels(name):
    with pytest.raises(ValueError, match=f"`{name}`.* differ"):
        StagePlan.even(2, 2).check(make_tracker(2), make_tracker(2, **{name: [0.5, 0.5, 0.5]}))


class UncuttableAtOne(type(make_tracker(1))):
    """Two layers that belong together, as those that share a memory do."""

    @property
    def boundaries(self):
        return tuple(boundary for boundary in super().boundaries if boundary.index != 1)


class WithPredictionToken(type(make_tracker(1))):
    """One token more than others, after the first layer."""

    @property
    def boundaries(self):
        return tuple(
            Boundary(index, width, (*layout, ("special", 1)) if index else layout)
            for index, width, layout in super().boundaries
        )


def test_trunks_are_cut_where_they_may_be():
    config = make_tracker(3).config
    uncuttable = UncuttableAtOne(config)
    StagePlan.from_sizes([2, 1]).check(uncuttable, make_tracker(2))
    with pytest.raises(ValueError, match=r"cuts the teacher before layer 1, but it may be cut at \[0, 2, 3\] only"):
        StagePlan.from_sizes([1, 2]).check(uncuttable, make_tracker(2))
    with pytest.raises(ValueError, match=r"cuts the student before layer 1, but it may be cut at \[0, 2, 3\] only"):
        StagePlan.from_sizes([1, 1, 1]).check(make_tracker(3), uncuttable)


def test_unlike_tokens_are_not_joined():
    student = WithPredictionToken(make_tracker(2).config)
    with pytest.raises(ValueError, match=r"at cut 1: the teacher's tokens there are .*'search': 16.*'special': 1"):
        StagePlan.even(4, 2).check(make_tracker(4), student)


def test_lists_of_cuts_are_as_good_as_tuples():
    assert StagePlan([0, 2, 4], [0, 1, 2]) == StagePlan((0, 2, 4), (0, 1, 2))
