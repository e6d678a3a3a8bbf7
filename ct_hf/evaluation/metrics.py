"""Scores of predicted boxes, as OSTrack and pytracking compute them (one-pass evaluation, OPE)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)
PRECISION_THRESHOLDS = np.arange(51)
NORM_PRECISION_THRESHOLDS = np.arange(51) / 100
_REPORTED = 20  # place of 20 pixels and of 0.20 among the thresholds


@dataclass(frozen=True)
class SequenceScore:
    """
    Scores of one sequence, or their mean over several.

    Args:
        auc (`float`): mean of the success curve, in per cent. Perfect tracking gives 95.24, since no IoU is above 1.
        precision (`float`): share of frames whose centre is at most 20 pixels off, in per cent.
        norm_precision (`float`): share of frames whose centre is at most 0.20 of the target's size off, in per cent.
    """

    auc: float
    precision: float
    norm_precision: float


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    Intersection over union of boxes, pair by pair.

    Args:
        a (`np.ndarray` of shape `(num_boxes, 4)`): `x, y, w, h`.
        b (`np.ndarray` of shape `(num_boxes, 4)`): `x, y, w, h`.

    Returns:
        `np.ndarray` of shape `(num_boxes,)`, in [0, 1]; 0 where both boxes have no area.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    intersection = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - intersection
    overlap = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    # Rounding lifts equal boxes of fractional size to 1 + 2e-16, which would be a hit at the threshold 1.
    return np.minimum(overlap, 1)


def _center_offsets(predictions: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    predictions = np.asarray(predictions, dtype=np.float64)
    ground_truth = np.asarray(ground_truth, dtype=np.float64)
    # OSTrack's centre is x + (w - 1) / 2; its half pixel cancels in the difference.
    return (predictions[:, :2] + 0.5 * predictions[:, 2:]) - (ground_truth[:, :2] + 0.5 * ground_truth[:, 2:])


def success_curve(predictions: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """
    Share of frames whose IoU is above each of `SUCCESS_THRESHOLDS` (0, 0.05, ..., 1), strictly.

    Args:
        predictions (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels.
        ground_truth (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels.

    Returns:
        `np.ndarray` of shape `(21,)`, in [0, 1].
    """
    return (iou(predictions, ground_truth)[:, None] > SUCCESS_THRESHOLDS).mean(axis=0)


def precision_curve(predictions: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """
    Share of frames whose centre is at most each of `PRECISION_THRESHOLDS` (0, 1, ..., 50 pixels) off.

    Args:
        predictions (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels.
        ground_truth (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels.

    Returns:
        `np.ndarray` of shape `(51,)`, in [0, 1].
    """
    errors = np.linalg.norm(_center_offsets(predictions, ground_truth), axis=1)
    return (errors[:, None] <= PRECISION_THRESHOLDS).mean(axis=0)


def norm_precision_curve(predictions: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """
    Share of frames whose centre is at most each of `NORM_PRECISION_THRESHOLDS` (0, 0.01, ..., 0.50) off, where horizontal
    offsets are in units of the target's width and vertical ones of its height.

    Args:
        predictions (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels.
        ground_truth (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels, of positive width and height.

    Returns:
        `np.ndarray` of shape `(51,)`, in [0, 1].
    """
    offsets = _center_offsets(predictions, ground_truth) / np.asarray(ground_truth, dtype=np.float64)[:, 2:]
    return (np.linalg.norm(offsets, axis=1)[:, None] <= NORM_PRECISION_THRESHOLDS).mean(axis=0)


def _check_boxes(name: str, boxes: np.ndarray) -> np.ndarray:
    boxes = np.array(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"`{name}` must have shape (num_frames, 4), one row x, y, w, h a frame, got {boxes.shape}.")
    return boxes


def score_sequence(
    predictions: np.ndarray, ground_truth: np.ndarray, visible: np.ndarray | None = None
) -> SequenceScore:
    """
    Score the boxes that a tracker predicted in one sequence.

    The rules are those of OSTrack's analysis: the first frame is given, so it counts as a hit whatever was predicted;
    a prediction without area is replaced by the one before it; nothing is clipped to the frame. One rule differs:
    frames where the target is absent (not `visible`, or without a box that has an area) are left out of numerator and
    denominator, where OSTrack counts them as misses or hits by data set. Without absent frames the figures are OSTrack's
    for the same boxes; published ones come from boxes cut down to whole pixels, which moves them slightly.

    Args:
        predictions (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels.
        ground_truth (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels, NaN where the target is absent.
        visible (`np.ndarray` of bool of shape `(num_frames,)`, *optional*): whether the target can be seen; by default
            wherever it has a box.

    Returns:
        [`SequenceScore`]: figures in per cent.

    Raises:
        ValueError: the lengths differ, a prediction is not finite or has a negative size, or no frame shows the target.
    """
    predictions, ground_truth = _check_boxes("predictions", predictions), _check_boxes("ground_truth", ground_truth)
    visible = (
        np.ones(len(ground_truth), dtype=bool) if visible is None else np.asarray(visible, dtype=bool).reshape(-1)
    )
    for name, values in (("predictions", predictions), ("visible", visible)):
        if values.shape[0] != len(ground_truth):
            raise ValueError(
                f"`{name}` has {values.shape[0]} rows but `ground_truth` has {len(ground_truth)}. Give one row a frame, "
                "the first frame included."
            )
    bad = ~np.isfinite(predictions).all(axis=1) | (predictions[:, 2:] < 0).any(axis=1)
    if bad.any():
        frame = int(np.argmax(bad))
        raise ValueError(
            f"`predictions` must be finite with no negative size, got {predictions[frame].tolist()} in frame {frame}."
        )
    for frame in range(1, len(predictions)):
        if (predictions[frame, 2:] == 0).any():
            predictions[frame] = predictions[frame - 1]
    predictions[:1] = ground_truth[:1]
    present = visible & np.isfinite(ground_truth).all(axis=1) & (ground_truth[:, 2:] > 0).all(axis=1)
    if not present.any():
        raise ValueError(
            "`ground_truth` shows the target in no frame, so there is nothing to score. Leave the sequence out."
        )
    predictions, ground_truth = predictions[present], ground_truth[present]
    return SequenceScore(
        auc=100 * float(success_curve(predictions, ground_truth).mean()),
        precision=100 * float(precision_curve(predictions, ground_truth)[_REPORTED]),
        norm_precision=100 * float(norm_precision_curve(predictions, ground_truth)[_REPORTED]),
    )


def mean_score(scores: Sequence[SequenceScore]) -> SequenceScore:
    """
    Average scores over sequences, each with weight 1 whatever its length.

    Args:
        scores (sequence of [`SequenceScore`]): one a sequence.

    Raises:
        ValueError: there are none.
    """
    if not scores:
        raise ValueError("`scores` is empty, expected the score of at least one sequence.")
    names = ("auc", "precision", "norm_precision")
    return SequenceScore(**{name: float(np.mean([getattr(score, name) for score in scores])) for name in names})


__all__ = [
    "NORM_PRECISION_THRESHOLDS",
    "PRECISION_THRESHOLDS",
    "SUCCESS_THRESHOLDS",
    "SequenceScore",
    "iou",
    "mean_score",
    "norm_precision_curve",
    "precision_curve",
    "score_sequence",
    "success_curve",
]
