"""What a compression will do, said before anything trains."""

from collections.abc import Mapping
from typing import Any

import torch

from ..evaluation.report import markdown_table
from ..models.cost import count_gmacs, count_parameters
from ..models.tracker import PreTrainedTracker
from .mixed import MixedTracker
from .replacement import Path
from .stages import StagePlan
from .student import InitializationReport


MEBI = 2**20


def activation_bytes(mixed: MixedTracker, path: Path) -> int:
    """
    Bytes that a training step keeps for the backward pass, measured on one sample of zeros.

    Args:
        mixed ([`MixedTracker`]): student beside its teacher.
        path (`tuple[bool, ...]`): stages that run in the student.

    Returns:
        `int`: bytes of saved tensors, each counted once, weights left out.
    """
    config, device = mixed.config, next(mixed.parameters()).device
    inputs = {
        "template_pixel_values": torch.zeros(1, config.num_templates, 3, config.template_size, config.template_size),
        "search_pixel_values": torch.zeros(1, 3, config.search_size, config.search_size),
        "template_boxes": torch.full((1, config.num_templates, 4), 0.5),
        "search_boxes": torch.full((1, 4), 0.5),
    }
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*mixed.parameters(), *mixed.teacher.parameters())}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    was_training = mixed.training
    mixed.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # The loss is held until the sum is taken, lest storages be freed and their addresses used again.
        loss = mixed(paths=[path], **{name: value.to(device) for name, value in inputs.items()}).loss
        total = sum(saved.values())
    del loss
    mixed.train(was_training)
    return total


def _layers(layers: range) -> str:
    return f"{layers[0]}" if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"


def _stage_lines(plan: StagePlan, report: InitializationReport) -> list[str]:
    lines = []
    for stage in range(plan.num_stages):
        ours, theirs = plan.student_stage(stage), plan.teacher_stage(stage)
        sources = ", ".join(str(report.layers[layer]) for layer in ours if layer in report.layers)
        lines.append(
            f"  stage {stage}: teacher layers {_layers(theirs):<6} -> student layer {_layers(ours):<4} "
            f"initialised {f'from teacher layer {sources}' if sources else 'at random'}"
        )
    return lines


def stage_table(plan: StagePlan, sources: Mapping[int, int]) -> str:
    """
    Lay out how teacher and student are cut, for a model card.

    Args:
        plan ([`StagePlan`]): how both are cut.
        sources (`Mapping[int, int]`): teacher layer that each student layer starts as; others start at random.

    Returns:
        `str`: Markdown table; layers are counted from 0.
    """
    rows = []
    for stage in range(plan.num_stages):
        ours, theirs = plan.student_stage(stage), plan.teacher_stage(stage)
        starts = ", ".join(str(sources[layer]) if layer in sources else "random" for layer in ours)
        rows.append((str(stage + 1), _layers(theirs), _layers(ours), starts))
    return markdown_table(("Stage", "Teacher layers", "Student layer", "Starts as teacher layer"), rows, left=4)


def describe_compression(
    student: PreTrainedTracker,
    teacher: PreTrainedTracker,
    plan: StagePlan,
    report: InitializationReport,
    batch_size: int,
    num_search_frames: int = 1,
    **losses: Any,
) -> str:
    """
    Describe stages, initialisation, size, cost and memory of a compression; the teacher is frozen by it.

    Args:
        student ([`PreTrainedTracker`]): student.
        teacher ([`PreTrainedTracker`]): teacher.
        plan ([`StagePlan`]): how both are cut.
        report ([`InitializationReport`]): where the student's tensors come from.
        batch_size (`int`): pairs on one device in a forward pass.
        num_search_frames (`int`, *optional*, defaults to 1): search crops of a pair.
        losses: further arguments of [`MixedTracker`], such as `guidance_weight=0`.

    Returns:
        `str`: several lines of text.
    """
    was_training = student.training
    with torch.random.fork_rng(devices=[]):  # projections are drawn, which must not move what the training draws
        mixed = MixedTracker(student, teacher, plan, **losses)
    trained, frozen = count_parameters(mixed), count_parameters(teacher)
    # Weights, gradients and AdamW's two moments of what is trained, in fp32; of the teacher weights only.
    static = 4 * (4 * trained + frozen)
    count = plan.num_stages
    # Teacher stages behind a student stage carry gradient, so the first path of these two is the most expensive.
    paths = [(True,) + (False,) * (count - 1), (True,) * count]
    activations = max(activation_bytes(mixed, path) for path in paths) * batch_size * num_search_frames
    student.train(was_training)
    lines = [f"stages: {plan}", *_stage_lines(plan, report), f"initialisation: {report}"]
    for name, tracker in (("teacher", teacher), ("student", student)):
        lines.append(
            f"{name}: {len(tracker.layers)} layers, {count_parameters(tracker) / 1e6:.2f} M parameters, "
            f"{count_gmacs(tracker):.3f} GMACs a frame"
        )
    if trained > count_parameters(student):
        lines.append(f"projections while training: {(trained - count_parameters(student)) / 1e6:.2f} M parameters")
    lines.append(
        f"memory a device (fp32, AdamW): {static / MEBI:.0f} MiB for weights, gradients and optimizer, up to "
        f"{activations / MEBI:.0f} MiB of activations for {batch_size} pairs"
    )
    return "\n".join(lines)


__all__ = ["activation_bytes", "describe_compression", "stage_table"]
