"""Making a student out of a teacher's configuration and weights."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers.utils import logging

from ..models.tracker import PreTrainedTracker
from .stages import StagePlan


logger = logging.get_logger(__name__)


LAYER = re.compile(r"layers\.(\d+)\.(.+)")
HEAD_ROWS = ("q_proj", "k_proj", "v_proj")
HEAD_COLUMNS = ("o_proj",)
NEURON_ROWS = ("fc1", "fc1_gate", "fc1_norm")
NEURON_COLUMNS = ("fc2",)


@dataclass
class InitializationReport:
    """
    Where the student's tensors come from.

    Args:
        layers (`dict[int, int]`): teacher layer by student layer.
        copied (`list[str]`): tensors copied unchanged.
        sliced (`list[str]`): tensors cut down from larger ones.
        random (`list[str]`): tensors initialised at random.
    """

    layers: dict[int, int] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)
    sliced: list[str] = field(default_factory=list)
    random: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        pairs = ", ".join(f"{student} <- {teacher}" for student, teacher in self.layers.items()) or "none"
        counts = f"{len(self.copied)} tensors copied, {len(self.sliced)} sliced, {len(self.random)} random"
        lines = [f"{counts}; student layer <- teacher layer: {pairs}"]
        lines += [f"  sliced {name}" for name in self.sliced] + [f"  random {name}" for name in self.random]
        return "\n".join(lines)


def _even(size: int, target: int) -> torch.Tensor:
    """Evenly spaced indices: `target` out of `size`."""
    return ((torch.arange(target) + 0.5) * size / target).long()


def _heads(size: int, target: int, heads: int, target_heads: int) -> torch.Tensor:
    """Whole heads where their width is the same, else evenly within each head; of more or wider heads none is a teacher's."""
    width, target_width = size // heads, target // target_heads
    if target_heads > heads or target_width > width:
        return _even(size, target)
    return (_even(heads, target_heads)[:, None] * width + _even(width, target_width)[None, :]).flatten()


def _neurons(name: str, weights: dict[str, torch.Tensor], target: int) -> torch.Tensor:
    """The hidden neurons of an MLP with the largest product of incoming and outgoing norms, in their order."""
    mlp = name.rsplit(".", 2)[0]
    norms = weights[f"{mlp}.fc1.weight"].norm(dim=1) * weights[f"{mlp}.fc2.weight"].norm(dim=0)
    if f"{mlp}.fc1_gate.weight" in weights:
        norms = norms * weights[f"{mlp}.fc1_gate.weight"].norm(dim=1)
    return norms.topk(target).indices.sort().values


def slice_tensor(
    name: str, weights: dict[str, torch.Tensor], shape: torch.Size, heads: int, target_heads: int
) -> torch.Tensor | None:
    """
    Cut a teacher's tensor down to a student's shape: whole heads, the strongest neurons, evenly spaced channels.

    Args:
        name (`str`): the teacher's name of the tensor; attention and MLP follow transformers' naming (`q_proj`, `fc1`).
        weights (`dict[str, torch.Tensor]`): the teacher's state dict.
        shape (`torch.Size`): the student's shape.
        heads (`int`): attention heads of the teacher.
        target_heads (`int`): attention heads of the student.

    Returns:
        `torch.Tensor` of shape `shape`, or `None` where the student's tensor is larger or of another rank.
    """
    tensor = weights[name]
    if tensor.ndim != len(shape) or any(target > size for size, target in zip(tensor.shape, shape, strict=True)):
        return None
    module = name.split(".")[-2] if "." in name else ""
    for dim, (size, target) in enumerate(zip(tensor.shape, shape, strict=True)):
        if size == target:
            continue
        if (module in HEAD_ROWS and dim == 0) or (module in HEAD_COLUMNS and dim == 1):
            index = _heads(size, target, heads, target_heads)
        elif (module in NEURON_ROWS and dim == 0) or (module in NEURON_COLUMNS and dim == 1):
            index = _neurons(name, weights, target)
        else:
            index = _even(size, target)
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor


def source_layers(plan: StagePlan, initialization: str) -> dict[int, int]:
    """
    Which teacher layer each student layer starts as.

    Args:
        plan ([`StagePlan`]): how teacher and student are cut.
        initialization (`str`): `"skip"` (the last layers of each stage), `"leading"` (the teacher's first layers) or
            `"random"` (none).

    Returns:
        `dict[int, int]`: teacher layer by student layer.
    """
    if initialization == "skip":
        pairs = {}
        for stage in range(plan.num_stages):
            ours, theirs = plan.student_stage(stage), plan.teacher_stage(stage)
            # The last teacher layer of the stage ends as the stage does; a deeper student stage spreads evenly up to it.
            for position, layer in enumerate(ours):
                reached = (position + 1) * len(theirs)
                pairs[layer] = theirs[max(reached // len(ours), 1) - 1]
        return pairs
    if initialization == "leading":
        return {layer: layer for layer in range(min(plan.student_cuts[-1], plan.teacher_cuts[-1]))}
    if initialization == "random":
        return {}
    raise ValueError(f'`initialization` must be "skip", "leading" or "random", got {initialization!r}.')


@torch.no_grad()
def initialize_student(
    student: PreTrainedTracker,
    teacher: PreTrainedTracker,
    plan: StagePlan,
    initialization: Literal["skip", "leading", "random"] = "skip",
    unlike: Literal["slice", "random"] = "slice",
) -> InitializationReport:
    """
    Fill a student with its teacher's weights (Tables 5 and 6 of the paper: last layer of each stage, teacher's head).

    Args:
        student ([`PreTrainedTracker`]): changed in place.
        teacher ([`PreTrainedTracker`]): where weights come from.
        plan ([`StagePlan`]): how both are cut.
        initialization (`str`, *optional*, defaults to `"skip"`):
            Source of the student's layers, see [`source_layers`]; everything outside the trunk is always copied.
        unlike (`str`, *optional*, defaults to `"slice"`):
            What to do with tensors whose shapes differ: `"slice"`, see [`slice_tensor`], or leave them `"random"`.

    Returns:
        [`InitializationReport`]

    Raises:
        ValueError: `initialization` or `unlike` is none of these values.
    """
    if unlike not in ("slice", "random"):
        raise ValueError(f'`unlike` must be "slice" or "random", got {unlike!r}.')
    report = InitializationReport(layers=source_layers(plan, initialization))
    weights = teacher.state_dict()
    heads = getattr(teacher.config, "num_attention_heads", 1)
    target_heads = getattr(student.config, "num_attention_heads", 1)
    for name, tensor in student.state_dict().items():
        match = LAYER.match(name)
        source = name
        if match:
            layer = report.layers.get(int(match[1]))
            source = f"layers.{layer}.{match[2]}"
        if source not in weights:
            report.random.append(name)
        elif weights[source].shape == tensor.shape:
            tensor.copy_(weights[source])
            report.copied.append(name)
        else:
            sliced = slice_tensor(source, weights, tensor.shape, heads, target_heads) if unlike == "slice" else None
            if sliced is None:
                report.random.append(name)
            else:
                tensor.copy_(sliced)
                report.sliced.append(name)
    return report


def build_student(
    teacher: PreTrainedTracker,
    plan: StagePlan,
    initialization: Literal["skip", "leading", "random"] = "skip",
    unlike: Literal["slice", "random"] = "slice",
    **overrides: Any,
) -> tuple[PreTrainedTracker, InitializationReport]:
    """
    Build a student of a teacher's own family.

    Args:
        teacher ([`PreTrainedTracker`]): teacher.
        plan ([`StagePlan`]): how both are cut.
        initialization (`str`, *optional*, defaults to `"skip"`): see [`initialize_student`].
        unlike (`str`, *optional*, defaults to `"slice"`): see [`initialize_student`].
        **overrides: configuration fields in which the student is unlike its teacher.

    Returns:
        `tuple` of the student and its [`InitializationReport`].

    Raises:
        ValueError: an override is no field of the configuration, or the student does not fit the plan.
    """
    if "num_hidden_layers" in overrides:
        raise ValueError("`num_hidden_layers` of the student follows from its stages. Give another plan instead.")
    config = teacher.config.for_student(plan.student_cuts[-1], **overrides)
    config._attn_implementation = teacher.config._attn_implementation  # a choice of this run, which files do not keep
    student = type(teacher)(config)
    plan.check(teacher, student)
    report = initialize_student(student, teacher, plan, initialization, unlike)
    logger.info("initialisation of the student: %s", report)
    return student.to(teacher.device), report


__all__ = ["InitializationReport", "build_student", "initialize_student"]
