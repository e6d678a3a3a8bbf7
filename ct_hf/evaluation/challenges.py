"""GOT-10k and TrackingNet, the two data sets that are judged by a server, as their own toolkits compute the figures."""

from dataclasses import dataclass

import numpy as np

from .metrics import SUCCESS_THRESHOLDS, centers, iou, share_above, share_within


AREA_PRECISION_THRESHOLDS = np.linspace(0, 50, 21)  # pixels
AREA_NORM_PRECISION_THRESHOLDS = np.linspace(0, 0.5, 21)  # of the target's width and height


def got10k_overlaps(
    predictions: np.ndarray,
    ground_truth: np.ndarray,
    cover: np.ndarray,
    image_size: tuple[float, float],
    *,
    where: str = "",
) -> np.ndarray:
    """
    Overlaps of one sequence that GOT-10k counts: without the first frame, and where the target is not wholly covered.

    Both boxes are clipped to the image. As in the toolkit, a left edge below 0 moves to 0 and the width stays.

    Args:
        predictions (`np.ndarray` of shape `(num_frames, 4)`): float64 `x, y, w, h` in pixels.
        ground_truth (`np.ndarray` of shape `(num_frames, 4)`): float64 `x, y, w, h` in pixels.
        cover (`np.ndarray` of shape `(num_frames,)`): visible eighths of the target, 0 to 8.
        image_size (`tuple[float, float]`): width and height of the frames in pixels.
        where (`str`, *optional*, defaults to `""`): what follows the argument's name in an error, such as `"[3]"`.

    Returns:
        `np.ndarray` of shape `(num_counted,)`: NaN where a box is NaN.

    Raises:
        ValueError: the lengths differ.
    """
    if len(predictions) != len(ground_truth):
        raise ValueError(
            f"`predictions{where}` has {len(predictions)} frames but `ground_truths{where}` has {len(ground_truth)}, which "
            "protocol `got10k` refuses. Give one row a frame, the first frame included."
        )
    overlaps = iou(_clip(predictions[1:], image_size), _clip(ground_truth[1:], image_size))
    return overlaps[cover[1:] > 0]


def _clip(boxes: np.ndarray, image_size: tuple[float, float]) -> np.ndarray:
    corner = np.clip(boxes[:, :2], 0, image_size)
    return np.concatenate([corner, np.clip(boxes[:, 2:], 0, np.asarray(image_size) - corner)], axis=1)


def got10k_figures(overlaps: np.ndarray) -> dict[str, float]:
    """
    Figures of one sequence, or of all frames of several, each frame with weight 1.

    Args:
        overlaps (`np.ndarray` of shape `(num_frames,)`): from [`got10k_overlaps`].

    Returns:
        `dict[str, float]`: `ao`, the mean overlap, which NaN makes NaN; `sr50` and `sr75`, the shares above 0.5 and 0.75,
        which NaN does not enter. In per cent; all NaN without frames.
    """
    if not len(overlaps):
        return dict.fromkeys(("ao", "sr50", "sr75"), float("nan"))
    half, three_quarters = share_above(overlaps, np.array([0.5, 0.75]))
    return {"ao": 100 * float(overlaps.mean()), "sr50": 100 * float(half), "sr75": 100 * float(three_quarters)}


@dataclass(frozen=True)
class TrackingNetCurves:
    """
    Curves of one sequence, or their mean over several.

    Args:
        success (`np.ndarray` of shape `(21,)`): share of frames whose IoU is at least 0, 0.05, ..., 1.
        precision (`np.ndarray` of shape `(21,)`): share whose centre is at most 0, 2.5, ..., 50 pixels off.
        norm_precision (`np.ndarray` of shape `(21,)`): share whose centre is at most 0, 0.025, ..., 0.5 of the target off.
    """

    success: np.ndarray
    precision: np.ndarray
    norm_precision: np.ndarray

    def figures(self) -> dict[str, float]:
        """Areas under the three curves by the trapezoidal rule, in per cent of the whole; perfect tracking gives 100."""
        return {
            "success": _area(self.success),
            "precision": _area(self.precision),
            "norm_precision": _area(self.norm_precision),
        }


def _area(curve: np.ndarray) -> float:
    return 100 * float(np.trapezoid(curve, SUCCESS_THRESHOLDS))


def trackingnet_curves(predictions: np.ndarray, ground_truth: np.ndarray) -> TrackingNetCurves:
    """
    Curves of one sequence: on whole pixels, with the first frame as given, over all frames that are annotated.

    More predictions than frames are cut; missing ones are misses even at an overlap of 0, as NaN is.

    Args:
        predictions (`np.ndarray` of shape `(num_predictions, 4)`): float64 `x, y, w, h` in pixels.
        ground_truth (`np.ndarray` of shape `(num_frames, 4)`): float64 `x, y, w, h` in pixels.

    Returns:
        [`TrackingNetCurves`]: shares of the annotated frames.
    """
    num_frames = len(ground_truth)
    truth = np.round(ground_truth)
    boxes = np.full((num_frames, 4), np.nan)
    boxes[: len(predictions)] = np.round(predictions[:num_frames])
    boxes[0] = truth[0]

    # fmax and fmin: the devkit's maxima over columns of a table pass over NaN.
    low = np.fmax(boxes[:, :2], truth[:, :2])
    high = np.fmin(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + truth[:, 2:].prod(axis=1) - intersection
    offsets = centers(boxes) - centers(truth)
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area
        overlap = intersection / union
        # Dividing twice, as the devkit does: at a threshold the rounding decides.
        squares = offsets / truth[:, 2:] * offsets / truth[:, 2:]
    return TrackingNetCurves(
        success=(overlap[:, None] >= SUCCESS_THRESHOLDS).mean(axis=0),
        precision=share_within(np.sqrt((offsets**2).sum(axis=1)), AREA_PRECISION_THRESHOLDS),
        norm_precision=share_within(np.sqrt(squares.sum(axis=1)), AREA_NORM_PRECISION_THRESHOLDS),
    )


__all__ = [
    "AREA_NORM_PRECISION_THRESHOLDS",
    "AREA_PRECISION_THRESHOLDS",
    "TrackingNetCurves",
    "got10k_figures",
    "got10k_overlaps",
    "trackingnet_curves",
]
