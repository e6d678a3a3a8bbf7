"""Stages: how teacher and student are cut into parts that stand in for each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ..models.tracker import Boundary, PreTrainedTracker


@dataclass(frozen=True)
class StagePlan:
    """
    Cut of a teacher and a student into the same number of stages (section 3.1 of the paper).

    Args:
        teacher_cuts (`tuple[int, ...]`): teacher layers before each cut, from 0 to the teacher's number of layers.
        student_cuts (`tuple[int, ...]`): the same of the student; the paper's students have one layer a stage.

    Raises:
        ValueError: cuts do not start at 0, do not increase, or are of unlike number.

    Example:

    ```python
    >>> StagePlan.even(12, 4)
    StagePlan(3-3-3-3 -> 1-1-1-1)
    >>> StagePlan.from_sizes([2, 2, 6, 2]).teacher_cuts
    (0, 2, 4, 10, 12)
    ```
    """

    teacher_cuts: tuple[int, ...]
    student_cuts: tuple[int, ...]

    def __post_init__(self):
        for name in ("teacher_cuts", "student_cuts"):
            cuts = tuple(getattr(self, name))
            object.__setattr__(self, name, cuts)  # lists compare unequal
            if len(cuts) < 2 or cuts[0] != 0 or any(a >= b for a, b in zip(cuts, cuts[1:], strict=False)):
                raise ValueError(f"`{name}` must rise from 0 with at least one layer a stage, got {list(cuts)}.")
        if len(self.teacher_cuts) != len(self.student_cuts):
            raise ValueError(
                f"teacher and student must have as many stages, got {len(self.teacher_cuts) - 1} and "
                f"{len(self.student_cuts) - 1}."
            )

    @classmethod
    def even(cls, teacher_layers: int, num_stages: int) -> Self:
        """
        Cut the teacher as evenly as its depth allows; the student has one layer a stage.

        Args:
            teacher_layers (`int`): layers of the teacher.
            num_stages (`int`): stages; need not divide the teacher's depth (12 into 8 gives 1-2-1-2-1-2-1-2).

        Raises:
            ValueError: there are fewer teacher layers than stages, or no stage.
        """
        if not 1 <= num_stages <= teacher_layers:
            raise ValueError(
                f"`num_stages` must be from 1 to the teacher's {teacher_layers} layers, got {num_stages}. A student cannot "
                "be deeper than its teacher."
            )
        cuts = tuple(index * teacher_layers // num_stages for index in range(num_stages + 1))
        return cls(cuts, tuple(range(num_stages + 1)))

    @classmethod
    def from_sizes(cls, sizes: Sequence[int]) -> Self:
        """Cut the teacher into stages of the given numbers of layers; the student has one layer a stage."""
        if any(size < 1 for size in sizes):
            raise ValueError(f"every stage needs at least one teacher layer, got {list(sizes)}.")
        cuts = [0]
        for size in sizes:
            cuts.append(cuts[-1] + size)
        return cls(tuple(cuts), tuple(range(len(sizes) + 1)))

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.teacher_cuts) - 1

    def teacher_stage(self, stage: int) -> range:
        """Teacher layers of a stage."""
        return range(self.teacher_cuts[stage], self.teacher_cuts[stage + 1])

    def student_stage(self, stage: int) -> range:
        """Student layers of a stage."""
        return range(self.student_cuts[stage], self.student_cuts[stage + 1])

    def check(self, teacher: PreTrainedTracker, student: PreTrainedTracker) -> None:
        """
        Refuse trackers that the plan cannot join.

        Args:
            teacher ([`PreTrainedTracker`]): teacher.
            student ([`PreTrainedTracker`]): student.

        Raises:
            ValueError: input sizes or normalisation differ, the plan does not fit a depth, cuts where a trunk may not be
                cut, or would join places of unlike token layout. The message names what differs.
        """
        for name in ("template_size", "search_size", "template_factor", "search_factor", "num_templates"):
            ours, theirs = getattr(student.config, name), getattr(teacher.config, name)
            if ours != theirs:
                raise ValueError(
                    f"`{name}` of the student is {ours} but the teacher's is {theirs}; both must see the same crops."
                )
        if (student.config.image_mean, student.config.image_std) != (
            teacher.config.image_mean,
            teacher.config.image_std,
        ):
            raise ValueError(
                "`image_mean` and `image_std` of student and teacher differ; both must see the same pixels."
            )
        places = [
            self._places("teacher", teacher, self.teacher_cuts),
            self._places("student", student, self.student_cuts),
        ]
        for stage, (theirs, ours) in enumerate(zip(*places, strict=True)):
            if theirs.layout != ours.layout:
                raise ValueError(
                    f"stages cannot be joined at cut {stage}: the teacher's tokens there are {dict(theirs.layout)}, the "
                    f"student's {dict(ours.layout)}."
                )

    @staticmethod
    def _places(role: str, tracker: PreTrainedTracker, cuts: tuple[int, ...]) -> list[Boundary]:
        if cuts[-1] != len(tracker.layers):
            raise ValueError(f"the stage plan has {cuts[-1]} {role} layers but the {role} has {len(tracker.layers)}.")
        boundaries = {boundary.index: boundary for boundary in tracker.boundaries}
        for cut in cuts:
            if cut not in boundaries:
                raise ValueError(
                    f"the stage plan cuts the {role} before layer {cut}, but it may be cut at {sorted(boundaries)} only."
                )
        return [boundaries[cut] for cut in cuts]

    def __repr__(self) -> str:
        def sizes(cuts: tuple[int, ...]) -> str:
            return "-".join(str(b - a) for a, b in zip(cuts, cuts[1:], strict=False))

        return f"StagePlan({sizes(self.teacher_cuts)} -> {sizes(self.student_cuts)})"


__all__ = ["StagePlan"]
