"""Trackers between teacher and student: some stages of the one, some of the other."""

import copy
from collections.abc import Sequence

import torch

from ..models.tracker import PreTrainedTracker
from .stages import StagePlan
from .student import LAYER


EMBEDDINGS = "embeddings."


@torch.no_grad()
def build_hybrid(
    student: PreTrainedTracker, teacher: PreTrainedTracker, plan: StagePlan, path: Sequence[bool]
) -> PreTrainedTracker:
    """
    Build the tracker of a path: what the student learnt in its stages, the teacher's layers in the others.

    Training by replacement puts each stage of the student beside stages of the teacher, so that every path of a finished run
    is a tracker of its own, slower and closer to the teacher than the student is. It starts from the embeddings of whoever
    has the first stage, and ends with the student's head.

    Args:
        student ([`PreTrainedTracker`]): compressed tracker.
        teacher ([`PreTrainedTracker`]): what it was compressed from, of equal widths.
        plan ([`StagePlan`]): how both are cut.
        path (sequence of `bool`): for each stage whether it is the student's.

    Returns:
        [`PreTrainedTracker`]: of the student's class, in evaluation mode, with weights of its own. It is saved, pushed and
        loaded as any other; `config.compression["path"]` says the path.

    Raises:
        ValueError: the path does not have one entry a stage or is the teacher alone, the trackers do not fit the plan, or
            their layers are of unlike shape, so that they could be joined only by projections that ended with training.

    Example:

    ```python
    >>> tracker = build_hybrid(student, teacher, StagePlan.even(12, 4), (True, False, True, True))
    >>> tracker.config.num_hidden_layers
    6
    ```
    """
    if len(path) != plan.num_stages or not any(path):
        raise ValueError(
            f"`path` must say for each of {plan.num_stages} stages whether it is the student's, and for one at least that it is, "
            f"got {list(path)}."
        )
    plan.check(teacher, student)
    layers = [
        (student if own else teacher, layer)
        for stage, own in enumerate(path)
        for layer in (plan.student_stage(stage) if own else plan.teacher_stage(stage))
    ]
    hybrid = type(student)(student.config.for_student(len(layers))).to(student.device, student.dtype)
    sources = {id(tracker): tracker.state_dict() for tracker in (student, teacher)}
    start = student if path[0] else teacher
    for name, tensor in hybrid.state_dict().items():
        tracker, source = start if name.startswith(EMBEDDINGS) else student, name
        if match := LAYER.match(name):
            tracker, layer = layers[int(match[1])]
            source = f"layers.{layer}.{match[2]}"
        weights = sources[id(tracker)].get(source)
        if weights is None or weights.shape != tensor.shape:
            raise ValueError(
                f"{source} of the {'student' if tracker is student else 'teacher'} does not fit into a tracker of both: "
                f"expected shape {tuple(tensor.shape)}, got {None if weights is None else tuple(weights.shape)}. Only a student "
                "whose layers are shaped as its teacher's can share a path with it."
            )
        tensor.copy_(weights)
    record = copy.deepcopy(student.config.compression) or {}
    hybrid.config.compression = {**record, "path": [int(own) for own in path]}
    return hybrid.eval()


__all__ = ["build_hybrid"]
