"""
One-pass evaluation as OSTrack's analysis does it, for the protocols `otb`, `lasot`, `uav` and our own `visible`.

Where numbers are compared with a threshold, rounding decides about hits: a first frame of fractional size has, by the
corners `x + w - 1`, an overlap of 1 + 2e-16 with itself. So the arithmetic here keeps the order of the original's.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .metrics import (
    NORM_PRECISION_THRESHOLDS,
    PRECISION_THRESHOLDS,
    SUCCESS_THRESHOLDS,
    centers,
    share_above,
    share_within,
)


OPEProtocol = Literal["otb", "lasot", "uav", "visible"]

logger = logging.getLogger(__name__)

_REPORTED = 20  # place of 20 pixels and of 0.20 among the thresholds
_HALF, _THREE_QUARTERS = 10, 15  # places of 0.50 and 0.75


@dataclass(frozen=True)
class OPECurves:
    """
    Curves of one sequence, or their mean over several.

    Args:
        success (`np.ndarray` of shape `(21,)`): share of frames whose IoU is above `SUCCESS_THRESHOLDS`.
        precision (`np.ndarray` of shape `(51,)`): share whose centre is within `PRECISION_THRESHOLDS`, in pixels.
        norm_precision (`np.ndarray` of shape `(51,)`): share whose centre is within `NORM_PRECISION_THRESHOLDS`, offsets
            in units of the target's width and height.
    """

    success: np.ndarray
    precision: np.ndarray
    norm_precision: np.ndarray

    def figures(self) -> dict[str, float]:
        """`auc`, `precision` (20 pixels), `norm_precision` (0.20), `op50` and `op75`, in per cent."""
        return {
            "auc": 100 * float(self.success.mean()),
            "precision": 100 * float(self.precision[_REPORTED]),
            "norm_precision": 100 * float(self.norm_precision[_REPORTED]),
            "op50": 100 * float(self.success[_HALF]),
            "op75": 100 * float(self.success[_THREE_QUARTERS]),
        }


def _overlaps(predictions: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """IoU by the last pixels' coordinates, not clipped to 1."""
    low = np.maximum(predictions[:, :2], ground_truth[:, :2])
    last = np.minimum(
        predictions[:, :2] + predictions[:, 2:] - 1,
        ground_truth[:, :2] + ground_truth[:, 2:] - 1,
    )
    intersection = np.maximum(last - low + 1, 0).prod(axis=1)
    union = predictions[:, 2:].prod(axis=1) + ground_truth[:, 2:].prod(axis=1) - intersection
    return intersection / union


def _length(values: np.ndarray) -> np.ndarray:
    return np.sqrt((values**2).sum(axis=1))


def _repeat_lost(predictions: np.ndarray, ground_truth: np.ndarray, where: str) -> None:
    """Put the box before in place of one without area, where the ground truth has no NaN."""
    for frame in 1 + np.flatnonzero((predictions[1:, 2:] == 0).any(axis=1)):
        if frame >= len(ground_truth):
            raise ValueError(
                f"`predictions{where}` frame {frame} has no area, got {predictions[frame].tolist()}, and lies behind the "
                f"{len(ground_truth)} frames of `ground_truths{where}`, where OSTrack's analysis fails. Cut the "
                "predictions to the frames that are annotated."
            )
        if not np.isnan(ground_truth[frame]).any():
            predictions[frame] = predictions[frame - 1]


def _check(predictions: np.ndarray, ground_truth: np.ndarray, protocol: OPEProtocol, where: str) -> None:
    broken = ~np.isfinite(predictions).all(axis=1) | (predictions[:, 2:] < 0).any(axis=1)
    if broken.any():
        frame = int(np.argmax(broken))
        raise ValueError(
            f"`predictions{where}` frame {frame}: got {predictions[frame].tolist()}, expected four finite numbers with no "
            "negative size. Find out why the tracker broke there."
        )
    unknown = np.isnan(ground_truth).any(axis=1)
    if protocol in ("otb", "lasot") and unknown.any():
        frame = int(np.argmax(unknown))
        raise ValueError(
            f"`ground_truths{where}` frame {frame}: got {ground_truth[frame].tolist()}, but protocol `{protocol}` takes no "
            "NaN. Use `uav` as for UAV123, or `visible`."
        )
    surplus = len(predictions) - len(ground_truth)
    if (surplus and protocol == "visible") or (surplus < 0 and protocol == "lasot"):
        raise ValueError(
            f"`predictions{where}` has {len(predictions)} frames but `ground_truths{where}` has {len(ground_truth)}, which "
            f"protocol `{protocol}` refuses. Give one row a frame, the first frame included."
        )


def ope_curves(
    predictions: np.ndarray,
    ground_truth: np.ndarray,
    visible: np.ndarray,
    *,
    protocol: OPEProtocol,
    where: str = "",
) -> OPECurves:
    """
    Curves of one sequence.

    Rules of all: a prediction without area becomes the one before it; the first frame becomes the ground truth, so it is
    a hit; a frame is valid where the ground truth has an area (`lasot` and `visible`: and the target is visible).
    Rules of the data sets, for what is not valid or missing:

    | | `otb` | `lasot` | `uav` | `visible` |
    | :-- | :-- | :-- | :-- | :-- |
    | overlap | miss | miss | miss | left out |
    | centre | miss | miss | hit | left out |
    | normalised centre | hit | hit; miss if not visible | hit | left out |
    | NaN in the ground truth | refused | refused | not valid | not valid |
    | fewer predictions | a box of zeros | refused | a box of zeros | refused |
    | more predictions | cut | cut | cut | refused |

    Args:
        predictions (`np.ndarray` of shape `(num_predictions, 4)`): float64 `x, y, w, h` in pixels; not changed.
        ground_truth (`np.ndarray` of shape `(num_frames, 4)`): float64 `x, y, w, h` in pixels.
        visible (`np.ndarray` of bool of shape `(num_frames,)`): whether the target can be seen; `otb` and `uav` do not ask.
        protocol (`str`): one of `"otb"`, `"lasot"`, `"uav"`, `"visible"`.
        where (`str`, *optional*, defaults to `""`): what follows the argument's name in an error, such as `"[3]"`.

    Returns:
        [`OPECurves`]: shares of all frames; `visible`: of the valid ones.

    Raises:
        ValueError: a prediction is not finite or has a negative size; what the table calls refused; one of the predictions to
            be cut has no area; a valid frame of the ground truth holds NaN; `visible`: no frame is valid.
    """
    _check(predictions, ground_truth, protocol, where)
    num_frames = len(ground_truth)
    boxes = predictions.copy()
    _repeat_lost(boxes, ground_truth, where)
    boxes = np.concatenate([boxes[:num_frames], np.zeros((max(0, num_frames - len(boxes)), 4))])
    boxes[0] = ground_truth[0]

    valid = (ground_truth[:, 2:] > 0).all(axis=1)
    if protocol in ("lasot", "visible"):
        valid &= visible
    if protocol == "visible":
        valid &= ~np.isnan(ground_truth).any(axis=1)
        if not valid.any():
            raise ValueError(
                f"`ground_truths{where}` shows the target in no frame, so there is nothing to score. Leave the sequence out."
            )
    with np.errstate(divide="ignore", invalid="ignore"):  # frames that are not valid; they are overwritten below
        overlap = _overlaps(boxes, ground_truth)
        error = _length(centers(boxes) - centers(ground_truth))
        size = ground_truth[:, 2:]
        norm_error = _length(centers(boxes) / size - centers(ground_truth) / size)
    if protocol == "visible":
        overlap, error, norm_error = overlap[valid], error[valid], norm_error[valid]
    else:
        if not valid.any():
            logger.warning("`ground_truths%s` shows the target in no frame: its figures mean nothing.", where)
        if np.isnan(overlap[valid]).any():
            frame = int(np.argmax(np.isnan(overlap) & valid))
            raise ValueError(
                f"`ground_truths{where}` frame {frame}: got {ground_truth[frame].tolist()}, expected a whole box or four NaN."
            )
        overlap[~valid] = -1
        error[~valid] = -1 if protocol == "uav" else np.inf
        norm_error[~valid] = -1
        if protocol == "lasot":
            norm_error[~visible] = np.inf
    return OPECurves(
        success=share_above(overlap, SUCCESS_THRESHOLDS),
        precision=share_within(error, PRECISION_THRESHOLDS),
        norm_precision=share_within(norm_error, NORM_PRECISION_THRESHOLDS),
    )


__all__ = ["OPECurves", "OPEProtocol", "ope_curves"]
