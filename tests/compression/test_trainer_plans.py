"""Where a trainer's plan comes from, and what does not fit it."""

import pytest

from ct_hf.compression import CompressionArguments, CompressionTrainer, StagePlan, build_student, plan_from_arguments

from .tiny import make_tracker
from .training import make_arguments, make_trainer


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, "2-2"),
        ({"stage_sizes": "1-3"}, "1-3"),
        ({"stage_sizes": "1-3", "num_stages": 2}, "1-3"),
        ({"num_stages": 4}, "1-1-1-1"),
    ],
)
def test_plan_of_the_arguments(tmp_path, changes, sizes):
    args = CompressionArguments(output_dir=str(tmp_path), use_cpu=True, **changes)
    plan = plan_from_arguments(args, make_tracker(4), num_stages=2)
    assert plan == StagePlan.from_sizes([int(size) for size in sizes.split("-")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage_sizes": "a-b"}, "`stage_sizes` must look like 3-3-3-3, got 'a-b'"),
        ({"stage_sizes": "2--2"}, "`stage_sizes`"),
        ({"stage_sizes": "0-4"}, "`stage_sizes`.*at least one teacher layer"),
        ({"stage_sizes": "2-2", "num_stages": 3}, "'2-2' has 2 stages, `num_stages` says 3"),
        ({"num_stages": 5}, "`num_stages` must be from 1 to the teacher's 4 layers, got 5"),
        ({"num_stages": 0}, "`num_stages` must be from 1"),
    ],
)
def test_plans_that_do_not_fit(tmp_path, changes, message):
    args = CompressionArguments(output_dir=str(tmp_path), use_cpu=True, **changes)
    with pytest.raises(ValueError, match=message):
        plan_from_arguments(args, make_tracker(4), num_stages=2)


def test_trainer_checks_the_student_against_the_plan(tmp_path):
    with pytest.raises(ValueError, match="has 3 student layers but the student has 2"):
        make_trainer(tmp_path, stages=2, stage_sizes="1-1-2")


def test_plan_of_the_student_is_the_trainers(tmp_path):
    """A plan handed over is used as it is; one that the arguments contradict is refused."""
    teacher = make_tracker(4)
    plan = StagePlan((0, 3, 4), (0, 1, 2))
    student, _ = build_student(teacher, plan)
    trainer = CompressionTrainer(model=student, teacher_model=teacher, args=make_arguments(tmp_path), plan=plan)
    assert trainer.plan == plan == trainer.model.plan
    with pytest.raises(ValueError, match=r"`plan` is StagePlan\(3-1 -> 1-1\) but the arguments say StagePlan\(2-2"):
        args = make_arguments(tmp_path, stage_sizes="2-2")
        CompressionTrainer(model=student, teacher_model=teacher, args=args, plan=plan)
