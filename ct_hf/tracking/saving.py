"""Sessions kept in a file, so that a killed process goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..models.session import TrackingSession
from ..models.templates import TemplateCrop


if TYPE_CHECKING:
    from ..models.tracker import PreTrainedTracker


FORMAT = "ct_hf session 1"
PARTS = ("memory", "text")  # of a session's state, tensors by name


def _fingerprint(model: PreTrainedTracker) -> dict[str, Any]:
    """What a session's tensors depend on; its weights are not looked at."""
    names = ("model_type", "template_size", "search_size", "num_templates", "hidden_size", "num_hidden_layers")
    return {**{name: getattr(model.config, name) for name in names}, "dtype": str(model.dtype).removeprefix("torch.")}


def save_session(session: TrackingSession, file: str | Path) -> None:
    """
    Save a session between two frames: box, frame number, size, templates, memory and sentence. The model is not saved.

    One safetensors file, its numbers as JSON in the header; written beside and moved, so that a process killed meanwhile
    leaves the last one.

    Args:
        session ([`~models.session.TrackingSession`]): the session.
        file (`str` or `Path`): file to write.
    """
    file = Path(file)
    state = session.state()
    tensors = {f"{part}.{name}": tensor for part in PARTS for name, tensor in state.pop(part).items()}
    numbers = {}
    for name, kept in state.pop("templates").items():
        if isinstance(kept, TemplateCrop):
            tensors |= {f"templates.{name}.{part}": tensor for part, tensor in kept._asdict().items()}
        else:
            numbers[name] = kept
    header = {"format": FORMAT, "tracker": _fingerprint(session.model), **state, "templates": numbers}
    # Copies: templates share memory, which the format refuses.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".part")
    save_file(tensors, beside, metadata={"session": json.dumps(header)})
    os.replace(beside, file)


def load_session(file: str | Path, model: PreTrainedTracker) -> TrackingSession:
    """
    Go on with a saved session.

    Args:
        file (`str` or `Path`): what [`save_session`] wrote; nothing in it is run.
        model ([`~models.tracker.PreTrainedTracker`]): the same tracker, in evaluation mode, on any device.

    Returns:
        [`~models.session.TrackingSession`]: its next frame is the one after its `frame_number`.

    Raises:
        ValueError: the file is no saved session, or one of another kind of tracker.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dictionary
            header = json.loads((opened.metadata() or {}).get("session", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"`file` {file} is no saved session ({error}), expected what save_session wrote.") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"`file` {file} is of format {header.get('format')}, expected {FORMAT}.")
    ours, theirs = _fingerprint(model), header["tracker"]
    if ours != theirs:
        unlike = ", ".join(f"{name} {theirs[name]}, not {ours[name]}" for name in ours if ours[name] != theirs[name])
        raise ValueError(f"`file` {file} is of another tracker than `model`: {unlike}. Load that tracker.")
    return TrackingSession.restore(model, _state(header, tensors))


def _state(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What [`~models.session.TrackingSession.restore`] takes."""
    templates = dict(header["templates"])
    for name in tensors:
        if name.endswith(".pixel_values"):
            stem = name.removesuffix(".pixel_values")
            templates[stem.removeprefix("templates.")] = TemplateCrop(tensors[name], tensors[f"{stem}.box"])
    parts = {
        part: {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
        for part in PARTS
    }
    return {**header, "templates": templates, **parts}


__all__ = ["load_session", "save_session"]
