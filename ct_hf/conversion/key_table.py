"""How a family's original checkpoints become ours: a key table and the function that applies one."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..models.configuration_tracker import TrackerConfig
from ..models.tracker import PreTrainedTracker
from .checkpoint import CheckpointError


Renames = tuple[tuple[str, str | Callable[[re.Match], str]], ...]


@dataclass(frozen=True)
class KeyTable:
    """
    Key table of one family.

    Args:
        model_class (`type`): our model.
        variants (`dict[str, dict]`): configuration fields by the original's configuration name.
        renames (`tuple[tuple[str, str | Callable], ...]`): pattern and replacement, as `re.sub` takes them; the first
            pattern that matches a whole original key names ours. A replacement with several names separated by spaces splits
            the tensor evenly along its rows; a 1x1 convolution may become a linear layer. Where names depend on the
            configuration, a function of it that returns the tuple.
        dropped (`dict[str, str]`): pattern of keys that are left out, and why.
        read_config (`Callable`): configuration fields that the shapes of a checkpoint reveal.
        computed (`dict[str, Callable]`, *optional*): by our name what is computed of all original weights; the function
            returns `None` where the checkpoint lacks what it needs. The keys it reads are also renamed or dropped.
        family (`str`, *optional*): name of the family, where it is not our model's type.
    """

    model_class: type[PreTrainedTracker]
    variants: dict[str, dict[str, Any]]
    renames: Renames | Callable[[TrackerConfig], Renames]
    dropped: dict[str, str]
    read_config: Callable[[dict[str, torch.Tensor]], dict[str, Any]]
    computed: dict[str, Callable[[dict[str, torch.Tensor]], torch.Tensor | None]] = field(default_factory=dict)
    family: str | None = None


@dataclass
class ConversionReport:
    """
    What became of every original key.

    Args:
        renamed (`dict[str, list[str]]`): our names by original key.
        dropped (`dict[str, str]`): reason by original key.
        computed (`list[str]`): our names of what was computed of several keys.
    """

    renamed: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.renamed)} keys converted, {len(self.dropped)} dropped on purpose"]
        lines += [f"  computed {name} of the original weights" for name in self.computed]
        keys: dict[str, list[str]] = {}
        for key, reason in self.dropped.items():
            keys.setdefault(reason, []).append(key)
        for reason, (first, *others) in keys.items():
            lines.append(f"  dropped {first}{f' and {len(others)} more' if others else ''}: {reason}")
        return "\n".join(lines)


_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, `torch.compile` and training frameworks put before every key."""


def apply_key_table(table: KeyTable, weights: dict[str, torch.Tensor], model: PreTrainedTracker) -> ConversionReport:
    """
    Load original weights into a model; every key is renamed or dropped for a stated reason, none silently.

    Args:
        table ([`KeyTable`]): the family's table.
        weights (`dict[str, torch.Tensor]`): original weights.
        model ([`PreTrainedTracker`]): model of the family, changed in place.

    Returns:
        [`ConversionReport`]

    Raises:
        CheckpointError: a key is missing, surplus or of another shape; the message names the first one and the
            configuration that would fit.
    """
    report = ConversionReport()
    weights = _unwrapped(weights)
    converted: dict[str, torch.Tensor] = {}
    expected = model.state_dict()
    renames = table.renames(model.config) if callable(table.renames) else table.renames
    for key, tensor in weights.items():
        reason = next((why for pattern, why in table.dropped.items() if re.fullmatch(pattern, key)), None)
        if reason is not None:
            report.dropped[key] = reason
            continue
        names = next((re.sub(old, new, key).split() for old, new in renames if re.fullmatch(old, key)), None)
        if not names or any(name not in expected for name in names):
            raise CheckpointError(f"surplus key `{key}` in the checkpoint. {_advice(table, weights, model)}")
        report.renamed[key] = names
        parts = tensor.chunk(len(names)) if len(names) > 1 else [tensor]
        for name, part in zip(names, parts, strict=True):
            if part.shape[2:] == (1, 1) and expected[name].ndim == 2:
                part = part.flatten(1)
            if part.shape != expected[name].shape:
                raise CheckpointError(
                    f"key `{key}` gives `{name}` shape {tuple(part.shape)}, expected {tuple(expected[name].shape)}. "
                    f"{_advice(table, weights, model)}"
                )
            converted[name] = part.clone()
    for name in (name for name in table.computed if name in expected):
        tensor = table.computed[name](weights)
        if tensor is not None and tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"`{name}` computed of the checkpoint has shape {tuple(tensor.shape)}, expected "
                f"{tuple(expected[name].shape)}. {_advice(table, weights, model)}"
            )
        if tensor is not None:
            converted[name] = tensor
            report.computed.append(name)
    missing = [name for name in expected if name not in converted]
    if missing:
        raise CheckpointError(
            f"the checkpoint lacks what `{missing[0]}` needs ({len(missing)} of {len(expected)} tensors are missing). "
            f"{_advice(table, weights, model)}"
        )
    model.load_state_dict(converted, strict=True)
    return report


def _unwrapped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights without any prefixes that all of their keys have."""
    for prefix in _WRAPPERS:
        if weights and all(key.startswith(prefix) for key in weights):
            return _unwrapped({key.removeprefix(prefix): tensor for key, tensor in weights.items()})
    return weights


def _advice(table: KeyTable, weights: dict[str, torch.Tensor], model: PreTrainedTracker) -> str:
    """Say which configuration would fit the checkpoint."""
    fields = table.read_config(weights)
    if not fields:
        return f"It is not a checkpoint of the family `{table.family or model.config.model_type}`."
    unlike = {name: value for name, value in fields.items() if getattr(model.config, name) != value}
    if not unlike:
        return "Its configuration fits; the file is incomplete or of another model of the family."
    settings = " ".join(f"--set {name}={value}" for name, value in unlike.items())
    hint = " The number of attention heads does not show in weights: set it too." if "hidden_size" in unlike else ""
    return f"This configuration would fit the checkpoint: {settings}.{hint}"


__all__ = ["ConversionReport", "KeyTable", "apply_key_table"]
