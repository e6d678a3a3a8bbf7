"""The record of a compression, which its student's configuration keeps."""

from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise
from typing import Any

from ..data.streaming import PairStream
from ..models.tracker import PreTrainedTracker
from ..names import public_name, repository_of
from .arguments import CompressionArguments
from .stages import StagePlan


METHOD = "https://huggingface.co/papers/2409.17564"
_KEPT = {
    "losses": ("track_weight", "guidance_weight", "mimicking_weight", "mimicking", "mimicking_stages", "term_weights"),
    "trained": ("train_embeddings", "train_head", "train_batch_norm"),
    "optimizer": (
        "optim",
        "learning_rate",
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
        "learning_rate_drop",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
    ),
}
"""Arguments that are kept under the same names, by part of the record."""


def describe_teacher(teacher: PreTrainedTracker) -> dict[str, Any]:
    """
    Say which tracker a teacher is, without a path of this machine.

    Args:
        teacher ([`PreTrainedTracker`]): teacher, as it was loaded.

    Returns:
        `dict`: `repository` and `revision` of one from the Hub, else the `name` of its folder, where it has one; and its
        `num_hidden_layers`.
    """
    place = teacher.config.name_or_path
    repository, revision = repository_of(place) or (None, None) if place else (None, None)
    if repository:
        known = {"repository": repository, "revision": teacher.loaded_commit or revision}
    else:
        known = {"name": public_name(place)} if place else {}
    return {**known, "num_hidden_layers": len(teacher.layers)}


def describe_data(dataset: Any) -> list[dict[str, Any]]:
    """
    Say what a trainer's pairs are drawn from.

    Args:
        dataset: what the trainer has; a [`~data.PairStream`] says itself what it streams.

    Returns:
        `list[dict]`: one a source.
    """
    if dataset is None:
        return []
    if isinstance(dataset, PairStream):
        return dataset.describe()
    counted = {"pairs": len(dataset)} if hasattr(dataset, "__len__") else {}
    return [{"share": 1.0, "source": type(dataset).__name__, **counted}]


def record_compression(
    args: CompressionArguments,
    plan: StagePlan,
    *,
    teacher: Mapping[str, Any],
    data: list[dict[str, Any]],
    pairs_per_step: int,
    precision: str,
    max_steps: int,
    step: int,
    is_best: bool = False,
) -> dict[str, Any]:
    """
    Write down how a student was made.

    Args:
        args ([`CompressionArguments`]): arguments.
        plan ([`StagePlan`]): how teacher and student are cut.
        teacher (`Mapping`): see [`describe_teacher`].
        data (`list[dict]`): see [`describe_data`].
        pairs_per_step (`int`): pairs of an optimizer step, over all processes and micro-batches.
        precision (`str`): what it is computed in.
        max_steps (`int`): steps that the run was to have.
        step (`int`): step that the weights are of.
        is_best (`bool`, *optional*, defaults to `False`): whether they are kept as the best ones.

    Returns:
        `dict`: ready for JSON, free of paths of the machine, and the same for the same run.
    """
    kept = {part: {name: getattr(args, name) for name in names} for part, names in _KEPT.items()}
    kept["optimizer"]["lr_scheduler_type"] = str(args.lr_scheduler_type.value)
    kept["optimizer"]["optim"] = str(args.optim.value)
    return {
        "method": METHOD,
        "teacher": dict(teacher),
        "stages": stage_sizes(plan),
        "replacement": {
            "schedule": args.replacement_schedule,
            "p_init": args.p_init,
            "warmup_share": args.warmup_share,
            "finetune_share": args.finetune_share,
            "path_granularity": args.path_granularity,
        },
        **kept,
        "data": data,
        "pairs_per_step": pairs_per_step,
        "max_steps": max_steps,
        "step": step,
        "best_by": args.metric_for_best_model if is_best else None,
        "precision": precision,
        "seed": args.seed,
        "versions": {name: version(name) for name in ("ct_hf", "torch", "transformers")},
    }


def stage_sizes(plan: StagePlan) -> dict[str, list[int]]:
    """
    Count the layers of each stage.

    Args:
        plan ([`StagePlan`]): how teacher and student are cut.

    Returns:
        `dict[str, list[int]]`: of `teacher` and `student`.
    """
    cuts = {"teacher": plan.teacher_cuts, "student": plan.student_cuts}
    return {name: [b - a for a, b in pairwise(ends)] for name, ends in cuts.items()}


def training_rows(record: Mapping[str, Any]) -> dict[str, Any]:
    """
    Pick what a reader of a model card wants to know of how a student was trained.

    Args:
        record (`Mapping`): see [`record_compression`].

    Returns:
        `dict[str, Any]`: a row of a table each.
    """
    replacement, losses, optimizer = record["replacement"], record["losses"], record["optimizer"]
    step, steps = record["step"], record["max_steps"]
    kept = f"; kept are the weights of step {step}, best by {record['best_by']}" if record["best_by"] else ""
    done = f"{step} of {steps}" if step < steps and not kept else steps
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    terms = ", ".join(f"{name} x{factor:g}" for name, factor in (losses["term_weights"] or {}).items())
    parts = {"train_embeddings": "embeddings", "train_head": "head", "train_batch_norm": "batch-norm statistics"}
    frozen = [part for name, part in parts.items() if not record["trained"][name]]
    return {
        "Steps": f"{done}{kept}",
        "Pairs a step": record["pairs_per_step"],
        "Optimizer": f"{optimizer['optim']}, weight decay {optimizer['weight_decay']:g}, "
        f"gradients clipped at {optimizer['max_grad_norm']:g}",
        "Learning rate": _learning_rate(optimizer),
        "Replacement": _replacement(replacement, bool(kept) or step >= steps, step / max(steps, 1)),
        "Loss weights": f"ground truth {losses['track_weight']:g}, teacher's prediction {losses['guidance_weight']:g}, "
        f"its hidden states {losses['mimicking_weight']:g} ({losses['mimicking']}, {losses['mimicking_stages']} stages)",
        **({"Factors of terms": terms} if terms else {}),
        "Not trained": ", ".join(frozen) or "nothing",
        "Precision": record["precision"],
        "Seed": record["seed"],
        "Versions": versions,
    }


def _learning_rate(optimizer: Mapping[str, Any]) -> str:
    drop, settings = optimizer["learning_rate_drop"], optimizer.get("lr_scheduler_kwargs")
    schedule = optimizer["lr_scheduler_type"]
    told = f", a tenth after {100 * drop:g} %" if schedule == "constant" and drop < 1 else ""
    told += "".join(f", {name} {value}" for name, value in (settings or {}).items())
    return f"{optimizer['learning_rate']:g}, {schedule}{told}"


def _replacement(replacement: Mapping[str, Any], done: bool, share: float) -> str:
    """What a run did, of which a share is done: one that ended early may not have come to its last part."""
    if replacement["p_init"] == 1:
        return "none: the student alone, beside its teacher"
    text = (
        f"{replacement['schedule']}, {replacement['p_init']:g} to 1, a path for each {replacement['path_granularity']}"
    )
    last = replacement["finetune_share"]
    if replacement["schedule"] == "linear" or not last:
        return text
    if done or share > 1 - last:
        return f"{text}; the student alone in the last {100 * last:g} %"
    return f"{text}; ended before the student ran alone"


def data_lines(record: Mapping[str, Any]) -> str:
    """
    Name what a student was trained on, for a model card.

    Args:
        record (`Mapping`): see [`record_compression`].

    Returns:
        `str`: Markdown list, a line a source.
    """
    lines = []
    for source in record["data"]:
        known = (source.get(key) for key in ("repository", "name", "folder", "source"))
        name = next(filter(None, known))
        revision = f" at `{source['revision']}`" if source.get("revision") else ""
        counts = "".join(f", {source[what]} {what}" for what in ("sequences", "pairs") if what in source)
        lines.append(f"- `{name}`{revision}{counts}: {100 * source['share']:.3g} % of the pairs")
    return "\n".join(lines)


__all__ = [
    "METHOD",
    "data_lines",
    "describe_data",
    "describe_teacher",
    "record_compression",
    "stage_sizes",
    "training_rows",
]
