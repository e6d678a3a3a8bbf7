"""Trackers between teacher and student: some stages of the one, some of the other."""

import copy
import re
from itertools import accumulate

import torch
from transformers.configuration_utils import PreTrainedConfig

from ..models.tracker import PreTrainedTracker
from .stages import StagePlan
from .student import LAYER


_FREE = re.compile(
    "num_hidden_layers|compression|initializer_range|drop_path_rate|attention_dropout|elimination_.*"
    "|.*head_.*|num_tasks|num_bins|score_branch|.*update_.*"
)
"""Fields in which the two may differ: depth, what is for training or tracking alone, and the head, which is the student's."""


@torch.no_grad()
def build_hybrid(
    student: PreTrainedTracker, teacher: PreTrainedTracker, path: str, plan: StagePlan | None = None
) -> PreTrainedTracker:
    """
    Build the tracker of a path: what the student learnt in its stages, the teacher's layers in the others.

    Replacement and mimicking both teach a stage of the student to stand beside those of the teacher, so that every path of a
    finished run is a tracker of its own, slower and closer to the teacher than the student is. It starts from the embeddings of whoever
    has the first stage, and ends with the student's head.

    Args:
        student ([`PreTrainedTracker`]): compressed tracker.
        teacher ([`PreTrainedTracker`]): what it was compressed from, of equal widths.
        path (`str`): a letter for each stage, `"S"` where it is the student's, `"T"` where it is the teacher's.
        plan ([`StagePlan`], *optional*): how both are cut; by default what the student's configuration keeps of its
            compression.

    Returns:
        [`PreTrainedTracker`]: of the student's class, in evaluation mode, with weights of its own. It is saved, pushed and
        loaded as any other; `config.compression["path"]` says the path.

    Raises:
        ValueError: the path does not have a letter for each stage or is the teacher alone, there is no plan or the trackers
            do not fit it, their family does not keep what pixels go through first in `embeddings`, or their configurations
            differ in what layers are made by: layers of unlike shape could be joined only by projections that ended with
            training, and heads or activations of the teacher would become the student's.

    Example:

    ```python
    >>> tracker = build_hybrid(student, teacher, "STSS")
    >>> tracker.config.num_hidden_layers
    6
    ```
    """
    plan = plan or _recorded_plan(student)
    if len(path) != plan.num_stages or not set(path) <= {"S", "T"} or "S" not in path:
        raise ValueError(
            f"`path` must have a letter for each of {plan.num_stages} stages, S for the student's or T for the teacher's, and one "
            f"S at least, got {path!r}."
        )
    plan.check(teacher, student)
    if not hasattr(student, "embeddings"):
        raise ValueError(
            f"{type(student).__name__} has no module `embeddings`, so that nothing tells what its path starts from. Call that of "
            "the family so, see docs/add_a_tracker.md."
        )
    _check_alike(student, teacher)
    layers = [
        (student, layer) if owner == "S" else (teacher, layer)
        for stage, owner in enumerate(path)
        for layer in (plan.student_stage(stage) if owner == "S" else plan.teacher_stage(stage))
    ]
    config = student.config.for_student(len(layers))
    config._attn_implementation = student.config._attn_implementation  # a choice of this run, which files do not keep
    hybrid = type(student)(config).to(student.device, student.dtype)
    sources = {id(tracker): tracker.state_dict() for tracker in (student, teacher)}
    start = student if path[0] == "S" else teacher
    for name, tensor in hybrid.state_dict().items():
        tracker, source = start if name.startswith("embeddings.") else student, name
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
    hybrid.config.compression = {**record, "path": path}
    return hybrid.eval()


def _check_alike(student: PreTrainedTracker, teacher: PreTrainedTracker) -> None:
    """Refuse trackers whose layers compute in unlike ways; a hybrid has one configuration."""
    ours, theirs = student.config, teacher.config
    own = ours.__dataclass_fields__.keys() - PreTrainedConfig.__dataclass_fields__.keys()
    for name in sorted(own):
        if not _FREE.fullmatch(name) and getattr(ours, name) != getattr(theirs, name, None):
            raise ValueError(
                f"`{name}` is {getattr(ours, name)} in the student and {getattr(theirs, name, None)} in the teacher, whose "
                "layers can share a path only if they compute alike."
            )


def _recorded_plan(student: PreTrainedTracker) -> StagePlan:
    stages = (student.config.compression or {}).get("stages")
    if stages is None:
        raise ValueError(
            "`plan` is missing, and the student's configuration keeps no record of a compression. Say how both are cut, such as "
            "StagePlan.even(12, 4)."
        )
    return StagePlan(*(tuple(accumulate(stages[owner], initial=0)) for owner in ("teacher", "student")))


__all__ = ["build_hybrid"]
