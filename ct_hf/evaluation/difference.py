"""Where two trackers differ most, and a picture of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .metrics import iou
from .picture import draw_strip


if TYPE_CHECKING:
    from PIL import Image

    from ..data.sequences import Sequence


def most_different(
    sequences: Iterable[Sequence], predictions: Mapping[str, Mapping[str, np.ndarray]], *, num_sequences: int = 3
) -> list[Sequence]:
    """
    Sequences in which the first two trackers differ most: in the mean, over the frames that show the target, of the
    difference of their overlaps with the ground truth.

    Args:
        sequences (iterable of [`~data.sequences.Sequence`]): of these; no frame is read.
        predictions (`Mapping[str, Mapping[str, np.ndarray]]`): by tracker and by name of the sequence, boxes `x, y, w, h` in
            pixels of shape `(num_frames, 4)`. Sequences that one of the first two lacks are left out.
        num_sequences (`int`, *optional*, defaults to 3): how many to choose at most.

    Returns:
        `list` of sequences, the most different first; those in which the two do not differ at all are left out.

    Raises:
        ValueError: there are fewer than two trackers, or boxes are not one a frame.
    """
    first, second = _first_two(predictions)
    means = []
    for sequence in sequences:
        if sequence.name in first and sequence.name in second:
            contrast, _ = _contrast(sequence, first[sequence.name], second[sequence.name])
            shown = np.asarray(sequence.visible, dtype=bool)
            means.append((float(contrast[shown].mean()) if shown.any() else 0.0, sequence))
    means.sort(key=lambda pair: -pair[0])
    return [sequence for mean, sequence in means[:num_sequences] if mean > 0]


def draw_difference(
    sequence: Sequence, predictions: Mapping[str, np.ndarray], *, num_frames: int = 5, height: int = 180
) -> Image.Image:
    """
    Draw the first frame of a sequence and those in which the first two trackers differ most, with a legend below.

    The frames behind the first are cut into `num_frames - 1` spans of equal length. Of each span the frame is drawn in which
    the overlaps of the two with the ground truth are furthest apart, so that one is right and the other wrong; among equals,
    the one in which the two overlap least with each other.

    Args:
        sequence ([`~data.sequences.Sequence`]): frames and ground truth.
        predictions (`Mapping[str, np.ndarray]`): boxes by tracker, as [`draw_strip`] takes them; all are drawn.
        num_frames (`int`, *optional*, defaults to 5): frames to draw; a shorter sequence is drawn whole.
        height (`int`, *optional*, defaults to 180): height of a frame in the picture, in pixels.

    Returns:
        `PIL.Image.Image` in mode RGB.

    Raises:
        ValueError: there are fewer than two trackers, `num_frames` is below 2, or what [`draw_strip`] refuses.
    """
    if num_frames < 2:
        raise ValueError(f"`num_frames` must be at least 2, the first frame and one that differs, got {num_frames}.")
    contrast, apart = _contrast(sequence, *_first_two(predictions))
    spans = np.array_split(np.arange(1, len(sequence)), num_frames - 1)
    frames = [max(span.tolist(), key=lambda index: (contrast[index], apart[index])) for span in spans if len(span)]
    return draw_strip(sequence, predictions, frames=[0, *frames], height=height)


def _first_two(predictions: Mapping[str, Any]) -> list[Any]:
    if len(predictions) < 2:
        raise ValueError(f"`predictions` must hold at least two trackers to tell apart, got {len(predictions)}.")
    return list(predictions.values())[:2]


def _contrast(sequence: Sequence, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By frame: difference of the two overlaps with the ground truth, 0 where it is unknown, and 1 - overlap of the two."""
    for boxes in (first, second):
        if np.shape(boxes) != (len(sequence), 4):
            raise ValueError(
                f"`predictions` of {sequence.name} must have shape {(len(sequence), 4)}, one row a frame, got {np.shape(boxes)}."
            )
    contrast = np.abs(iou(first, sequence.boxes) - iou(second, sequence.boxes))
    contrast[~np.asarray(sequence.visible, dtype=bool)] = 0
    return np.nan_to_num(contrast, nan=0), 1 - iou(first, second)


__all__ = ["draw_difference", "most_different"]
