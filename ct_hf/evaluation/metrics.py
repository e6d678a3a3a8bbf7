"""What every score is made of: overlaps, distances between centres, and shares of frames."""

import numpy as np


SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)
PRECISION_THRESHOLDS = np.arange(51)
NORM_PRECISION_THRESHOLDS = np.arange(51) / 100


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    Intersection over union of boxes, pair by pair.

    Args:
        a (`np.ndarray` of shape `(num_boxes, 4)`): `x, y, w, h`.
        b (`np.ndarray` of shape `(num_boxes, 4)`): `x, y, w, h`.

    Returns:
        `np.ndarray` of shape `(num_boxes,)`, in [0, 1]; 0 where both boxes have no area, NaN where one of them is NaN.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    intersection = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - intersection
    overlap = np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)
    # Rounding lifts equal boxes of fractional size to 1 + 2e-16, which would be a hit at the threshold 1.
    return np.minimum(overlap, 1)


def centers(boxes: np.ndarray) -> np.ndarray:
    """
    Centres of boxes as the toolkits have them, half a pixel before the middle: `x + (w - 1) / 2`, and so for `y`.

    Args:
        boxes (`np.ndarray` of shape `(num_boxes, 4)`): `x, y, w, h`.

    Returns:
        `np.ndarray` of shape `(num_boxes, 2)`.
    """
    return boxes[:, :2] + 0.5 * (boxes[:, 2:] - 1)


def share_above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """
    Share of frames whose value is strictly above each threshold; NaN is above none.

    Args:
        values (`np.ndarray` of shape `(num_frames,)`): for example overlaps.
        thresholds (`np.ndarray` of shape `(num_thresholds,)`): in the same unit.

    Returns:
        `np.ndarray` of shape `(num_thresholds,)`, in [0, 1].
    """
    return (values[:, None] > thresholds).mean(axis=0)


def share_within(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """
    Share of frames whose value is at most each threshold; NaN is within none.

    Args:
        values (`np.ndarray` of shape `(num_frames,)`): for example distances.
        thresholds (`np.ndarray` of shape `(num_thresholds,)`): in the same unit.

    Returns:
        `np.ndarray` of shape `(num_thresholds,)`, in [0, 1].
    """
    return (values[:, None] <= thresholds).mean(axis=0)


__all__ = [
    "NORM_PRECISION_THRESHOLDS",
    "PRECISION_THRESHOLDS",
    "SUCCESS_THRESHOLDS",
    "centers",
    "iou",
    "share_above",
    "share_within",
]
