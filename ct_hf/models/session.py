"""Tracking one target through a video."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from .image_processing_tracker import CropWindow, Frame, TrackerImageProcessor, as_frame, check_box, frame_size
from .templates import TemplateBank, TemplateCrop


if TYPE_CHECKING:
    from transformers.utils import ModelOutput

    from .tracker import PreTrainedTracker, TrackerOutput


CLIP_MARGIN = 10  # pixels of the box that stay inside the frame, and its least side (the originals' `clip_box`)


@dataclass(frozen=True)
class Track:
    """
    Where a target is in a frame.

    Args:
        box (`np.ndarray` of shape `(4,)`): `x, y, w, h` in pixels of the frame, from 0.
        score (`float`): confidence in [0, 1]: the peak of the windowed score map, or the head's own score.
    """

    box: np.ndarray
    score: float


class PredictionError(ValueError):
    """
    An answer that is no place in a frame.

    Attributes:
        session: whose answer it was, a [`TrackingSession`] or what is used like one.
    """

    def __init__(self, message: str, session: Any):
        super().__init__(message)
        self.session = session


def check_prediction(session: Any, frame_number: int, box: np.ndarray, score: float) -> None:
    """
    Refuse what a diverged tracker answers, before it is taken for a place.

    Args:
        session: whose answer it is.
        frame_number (`int`): number of the frame, the first being 0.
        box (`np.ndarray` of shape `(4,)`): predicted box, in any unit.
        score (`float`): its confidence.

    Raises:
        PredictionError: a number is not finite.
    """
    if not (np.isfinite(box).all() and math.isfinite(score)):
        raise PredictionError(
            f"the tracker predicted {np.asarray(box).tolist()} in frame {frame_number}, with score {score}, expected finite "
            "numbers. Check its weights, or track in float32.",
            session,
        )


def clip_box(box: np.ndarray, size: tuple[int, int], margin: int = CLIP_MARGIN) -> np.ndarray:
    """
    Keep a box in the frame.

    Args:
        box (`np.ndarray` of shape `(4,)`): `x, y, w, h` in pixels.
        size (`tuple[int, int]`): width and height of the frame.
        margin (`int`, *optional*, defaults to 10): pixels that stay inside, and the least side of the result.

    Returns:
        `np.ndarray` of shape `(4,)`.
    """
    low = np.minimum(np.maximum(box[:2], 0), np.asarray(size) - margin)
    high = np.minimum(np.maximum(box[:2] + box[2:], margin), size)
    return np.concatenate([low, np.maximum(high - low, margin)])


class TrackingSession:
    """
    State of one target in one video. Made by [`~tracker.PreTrainedTracker.start`]; the model itself holds none, so one
    model serves any number of sessions.

    Args:
        model ([`~tracker.PreTrainedTracker`]): tracker in evaluation mode.
        frame (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): first frame.
        box (sequence of 4 floats): `x, y, w, h` of the target in pixels of that frame.
        text_features (`torch.Tensor` of shape `(dim,)`, *optional*): sentence feature, for families with a language token.

    Attributes:
        box (`np.ndarray` of shape `(4,)`): where the target was last seen.
        size (`tuple[int, int]`): width and height of the video.
        frame_number (`int`): number of the last frame, the first being 0.
        templates ([`~templates.TemplateBank`]): templates the tracker looks at.
        memory (`ModelOutput`, *optional*): what the family carries from frame to frame.

    Raises:
        ValueError: the box is not finite, has no area or lies outside the frame; the model is in training mode, or reads no
            text but gets some, or text features of another length.
    """

    def __init__(self, model: PreTrainedTracker, frame: Frame, box: Any, text_features: torch.Tensor | None = None):
        _check_mode(model)
        if text_features is not None:
            text_features = torch.as_tensor(text_features)
            _check_text(model, text_features)
        frame = as_frame(frame)
        self.model = model
        self.processor = TrackerImageProcessor.from_config(model.config)
        self.size = frame_size(frame)
        self.box = check_box(box, self.size)
        self.memory = None
        self.frame_number = 0
        self.templates: TemplateBank = model.template_bank_class(model.config, self._template(frame))
        self._shown: list[TemplateCrop] = []
        self._template_inputs: dict[str, torch.Tensor] = {}
        self._text_inputs: dict[str, torch.Tensor] = {}
        if text_features is not None:
            self._text_inputs["text_features"] = text_features.to(model.device, model.dtype).reshape(1, -1)
        self._window: CropWindow | None = None
        self._frame: Frame = frame

    def inputs(self, frame: Frame) -> dict[str, Any]:
        """
        Model inputs for the next frame, a batch of one; [`TrackingSession.advance`] takes what the model makes of them.

        Args:
            frame (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): next frame, of the first frame's size.

        Returns:
            `dict[str, Any]`: keyword arguments of the model's forward.

        Raises:
            ValueError: the frame's size is not the first frame's, or the model is in training mode.
        """
        _check_mode(self.model)
        frame = as_frame(frame)
        if frame_size(frame) != self.size:
            raise ValueError(
                f"`frame` is {frame_size(frame)[0]}x{frame_size(frame)[1]} pixels but the video started with "
                f"{self.size[0]}x{self.size[1]}. Resize it, or start a new session."
            )
        self._frame = frame
        self._window = self.processor.window(self.box, "search")
        self._show(self.templates.select(self.frame_number + 1))
        return {
            **self._template_inputs,
            **self._text_inputs,
            "search_pixel_values": self._crop(self._window, frame),
            "memory": self.memory,
        }

    def advance(self, output: TrackerOutput) -> Track:
        """Move on by the model's output for [`TrackingSession.inputs`] and say where the target is."""
        boxes, scores = self.model.locate(output)
        return self.settle(boxes[0].detach().float().cpu().numpy(), float(scores[0].detach()), output.memory)

    def settle(self, box: np.ndarray, score: float, memory: ModelOutput | None) -> Track:
        """
        Move on by what was found, as [`TrackingSession.advance`] does; for a caller that ran the model on several sessions
        at once.

        Args:
            box (`np.ndarray` of shape `(4,)`): `cx, cy, w, h` in [0, 1] of the search crop, as `model.locate` gives it.
            score (`float`): its confidence.
            memory (`ModelOutput`, *optional*): the output's memory, a batch of one; `None` leaves it as it is.

        Returns:
            [`Track`]: box in the frame, and score.

        Raises:
            PredictionError: the box or the score is not finite.
        """
        check_prediction(self, self.frame_number + 1, box, score)
        self.frame_number += 1  # only now: a frame that failed can be given again
        self.box = clip_box(self._window.to_frame(box), self.size)
        if memory is not None:
            self.memory = memory
        track = Track(self.box.copy(), score)
        self.templates.update(self.frame_number, track.score, lambda: self._template(self._frame))
        return track

    def update(self, frame: Frame) -> Track:
        """
        Find the target in the next frame.

        Args:
            frame (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): next frame, of the first frame's size.

        Returns:
            [`Track`]: box and score.
        """
        with torch.inference_mode():
            return self.advance(self.model(**self.inputs(frame), return_dict=True))

    def state(self) -> dict[str, Any]:
        """
        Everything that the frames to come depend on, between two frames; [`TrackingSession.restore`] goes on from it.

        Returns:
            `dict[str, Any]`: `frame_number`, `size` and `box` as JSON can hold them, `templates`, crops and numbers by name,
            and `memory` and `text`, tensors by name.
        """
        # What is merely remembered of the templates is made again.
        memory = self.memory if self.model.carries_memory else None
        return {
            "frame_number": self.frame_number,
            "size": list(self.size),
            "box": self.box.tolist(),
            "templates": self.templates.state(),
            "memory": dict(memory or {}),
            "text": dict(self._text_inputs),
        }

    @classmethod
    def restore(cls, model: PreTrainedTracker, state: Mapping[str, Any]) -> Self:
        """
        Go on where another session was.

        Args:
            model ([`~tracker.PreTrainedTracker`]): the tracker of that session, in evaluation mode.
            state (`Mapping[str, Any]`): what its [`TrackingSession.state`] gave; tensors on any device.

        Returns:
            [`TrackingSession`]: its next frame is the one after the last of the other session.
        """
        width, height = state["size"]
        text = state["text"].get("text_features")
        session = cls(model, np.zeros((height, width, 3), dtype=np.uint8), state["box"], text)
        session.frame_number = state["frame_number"]
        session.templates.restore(
            {
                name: TemplateCrop(*(part.to(model.device) for part in kept)) if isinstance(kept, tuple) else kept
                for name, kept in state["templates"].items()
            }
        )
        if state["memory"]:
            memory = {name: tensor.to(model.device) for name, tensor in state["memory"].items()}
            session.memory = model.memory_class(**memory)
        return session

    def _show(self, templates: list[TemplateCrop]) -> None:
        """Make inputs of the templates, and let the family remember them, only where they are other than before."""
        if list(map(id, templates)) == list(map(id, self._shown)):
            return
        self._shown = templates
        self._template_inputs = {
            "template_pixel_values": torch.stack([template.pixel_values for template in templates], dim=1),
            "template_boxes": torch.stack([template.box for template in templates], dim=1),
        }
        self.memory = self.model.remember_templates(**self._template_inputs, memory=self.memory)

    def _template(self, frame: Frame) -> TemplateCrop:
        window = self.processor.window(self.box, "template")
        box = torch.from_numpy(window.to_crop(self.box)).to(self.model.device, torch.float32)
        return TemplateCrop(self._crop(window, frame), box.unsqueeze(0))

    def _crop(self, window: CropWindow, frame: Frame) -> torch.Tensor:
        pixels = torch.from_numpy(window.extract(frame).copy()).to(self.model.device).permute(2, 0, 1)
        return self.processor.normalize(pixels).to(self.model.dtype).unsqueeze(0)


def _check_mode(model: PreTrainedTracker) -> None:
    if model.training:
        raise ValueError("`model` is in training mode, where it cannot track. Call `model.eval()` first.")


def _check_text(model: PreTrainedTracker, text_features: torch.Tensor) -> None:
    if model.text_dim is None:
        raise ValueError(f"`text_features` was given, but {type(model).__name__} reads no text. Leave it out.")
    if tuple(text_features.shape) not in ((model.text_dim,), (1, model.text_dim)):
        raise ValueError(
            f"`text_features` has shape {tuple(text_features.shape)}, expected {(model.text_dim,)}: one sentence feature."
        )


__all__ = ["PredictionError", "Track", "TrackingSession", "check_prediction", "clip_box"]
