"""One call for the figures of every benchmark: the protocol says whose rules count."""

import logging
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from .challenges import TrackingNetCurves, got10k_figures, got10k_overlaps, trackingnet_curves
from .ope import OPECurves, OPEProtocol, ope_curves


Protocol = Literal[OPEProtocol, "got10k", "trackingnet"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

logger = logging.getLogger(__name__)


def check_protocol(protocol: str) -> None:
    """Refuse what is not one of [`PROTOCOLS`], before anything is tracked for it."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")


def score_sequences(
    predictions: Sequence[Any],
    ground_truths: Sequence[Any],
    *,
    protocol: Protocol,
    visible: Sequence[Any] | None = None,
    cover: Sequence[Any] | None = None,
    image_sizes: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """
    Score the boxes that a tracker predicted in some sequences, by the rules of a benchmark.

    | `protocol` | whose rules | figures | weight 1 has |
    | :-- | :-- | :-- | :-- |
    | `otb`, `lasot`, `uav` | OSTrack's analysis, as papers on trackers quote it | `auc`, `precision` (20 pixels), `norm_precision` (0.20), `op50`, `op75` | each sequence |
    | `visible` | the same on the frames that show the target; ours, for folders without a protocol of their own | the same | each sequence |
    | `got10k` | the got10k toolkit's GOT-10k | `ao`, `sr50`, `sr75` | each frame |
    | `trackingnet` | the TrackingNet devkit | `success`, `precision`, `norm_precision` (areas) | each sequence |

    Where all frames show the target, the first four differ in nothing. [`~ope.ope_curves`], [`~challenges.got10k_overlaps`]
    and [`~challenges.trackingnet_curves`] say what each does with the first frame, absent and invalid ones, boxes without
    area and other lengths. Perfect tracking has an `auc` of 95.24, since no overlap is above the last threshold, 1.
    Published figures often come from boxes cut down to whole pixels, which moves them slightly.

    A prediction that is NaN never passes silently: it is an error in `otb`, `lasot`, `uav` and `visible`; in `got10k` it
    makes `ao` NaN and is a miss in `sr50` and `sr75`, in `trackingnet` it is a miss, and both are warned about through
    logging. So is a negative size in these two. Infinite numbers are an error everywhere.

    Args:
        predictions (sequence of arrays of shape `(num_predictions, 4)`): `x, y, w, h` in pixels, one a sequence, the first
            row that of the first frame. `trackingnet`: `None` for a sequence that was not submitted, which counts as boxes
            of zeros.
        ground_truths (sequence of arrays of shape `(num_frames, 4)`): `x, y, w, h` in pixels.
        protocol (`str`): one of the above.
        visible (sequence of arrays of bool of shape `(num_frames,)`, *optional*): whether the target can be seen, `None` for
            always. Used by `lasot` and `visible`; the other data sets have no such flags, and it is ignored.
        cover (sequence of arrays of shape `(num_frames,)`, *optional*): visible eighths of the target, `None` for 8
            everywhere. Used by `got10k`, where frames of cover 0 do not count; ignored by others.
        image_sizes (sequence of `(width, height)`, *optional*): size of each sequence's frames in pixels. Needed by
            `got10k`, which clips boxes to the image; ignored by others.

    Returns:
        `dict[str, Any]`: the figures in per cent, and the same of each sequence, in order, as `per_sequence`. `got10k`: NaN
        where no frame counts.

    Raises:
        ValueError: another protocol; no sequence, or not as many of one argument as of another; a shape that is not the one
            above; what the protocol refuses. The text names argument, sequence and frame.

    Example:
    ```python
    >>> import numpy as np
    >>> truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10]])
    >>> boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10]])  # the second overlaps by a third
    >>> result = score_sequences([boxes], [truth], protocol="otb")
    >>> round(result["auc"], 2), result["precision"], result["op50"]
    (64.29, 100.0, 50.0)

    ```
    """
    judged = judge_sequences(
        predictions, ground_truths, protocol=protocol, visible=visible, cover=cover, image_sizes=image_sizes
    )
    figures = got10k_figures if protocol == "got10k" else _curve_figures
    return {**figures(pool_sequences(judged)), "per_sequence": [figures(one) for one in judged]}


def judge_sequences(
    predictions: Sequence[Any],
    ground_truths: Sequence[Any],
    *,
    protocol: Protocol,
    visible: Sequence[Any] | None = None,
    cover: Sequence[Any] | None = None,
    image_sizes: Sequence[Any] | None = None,
) -> list[Any]:
    """
    What figures are made of, by sequence, see [`score_sequences`] for arguments and errors.

    Returns:
        `list[np.ndarray]` of overlaps for `got10k`, of [`~challenges.TrackingNetCurves`] for `trackingnet`, else of
        [`~ope.OPECurves`].
    """
    check_protocol(protocol)
    count = len(ground_truths)
    if not count:
        raise ValueError("`ground_truths` is empty, expected at least one sequence.")
    optional = {"visible": visible, "cover": cover, "image_sizes": image_sizes}
    for name, values in {"predictions": predictions, **optional}.items():
        if values is not None and len(values) != count:
            raise ValueError(
                f"`{name}` has {len(values)} sequences but `ground_truths` has {count}. Give a list of one entry a sequence."
            )
    truths = [_boxes(f"ground_truths[{index}]", truth) for index, truth in enumerate(ground_truths)]
    for index, truth in enumerate(truths):
        if not len(truth):
            raise ValueError(f"`ground_truths[{index}]` has no frame. Leave the sequence out.")
    boxes = [
        np.zeros_like(truth)
        if prediction is None and protocol == "trackingnet"
        else _boxes(f"predictions[{index}]", prediction)
        for index, (prediction, truth) in enumerate(zip(predictions, truths, strict=True))
    ]
    if protocol == "trackingnet":
        _warn_missing(predictions)
    if protocol in ("got10k", "trackingnet"):
        _warn_broken(boxes, protocol)
    if protocol == "got10k":
        covers = _flags("cover", cover, truths, default=8.0)
        sizes = _sizes(image_sizes, count)
        return [
            got10k_overlaps(*values, where=f"[{index}]")
            for index, values in enumerate(zip(boxes, truths, covers, sizes, strict=True))
        ]
    if protocol == "trackingnet":
        return [trackingnet_curves(*pair) for pair in zip(boxes, truths, strict=True)]
    seen = [flags != 0 for flags in _flags("visible", visible, truths, default=1.0)]
    return [
        ope_curves(box, truth, flags, protocol=protocol, where=f"[{index}]")
        for index, (box, truth, flags) in enumerate(zip(boxes, truths, seen, strict=True))
    ]


def pool_sequences(judged: list[Any]) -> Any:
    """One of what [`judge_sequences`] returns for all sequences: all overlaps together, or the mean curves."""
    if isinstance(judged[0], np.ndarray):
        return np.concatenate(judged)
    names = ("success", "precision", "norm_precision")
    return type(judged[0])(**{name: np.mean([getattr(one, name) for one in judged], axis=0) for name in names})


def _curve_figures(curves: OPECurves | TrackingNetCurves) -> dict[str, float]:
    return curves.figures()


def _numbers(name: str, values: Any, expected: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be {expected}, got something else: {error}.") from error


def _boxes(name: str, boxes: Any) -> np.ndarray:
    expected = "an array of shape (num_frames, 4), one row x, y, w, h a frame"
    array = _numbers(name, boxes, expected)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"`{name}` must be {expected}, got shape {array.shape}. Wrap a single sequence in a list.")
    infinite = np.isinf(array).any(axis=1)
    if infinite.any():
        frame = int(np.argmax(infinite))
        raise ValueError(f"`{name}` frame {frame}: got {array[frame].tolist()}, expected finite numbers.")
    return array


def _flags(name: str, flags: Sequence[Any] | None, truths: list[np.ndarray], default: float) -> list[np.ndarray]:
    """One array a sequence, of its length."""
    arrays = []
    for index, truth in enumerate(truths):
        given = None if flags is None else flags[index]
        if given is None:
            arrays.append(np.full(len(truth), default))
            continue
        array = _numbers(f"{name}[{index}]", given, "an array of shape (num_frames,)")
        if array.shape != (len(truth),) or np.isnan(array).any():
            raise ValueError(
                f"`{name}[{index}]` must be one number a frame, of shape ({len(truth)},) as `ground_truths[{index}]` has "
                f"frames, got shape {array.shape}{' with NaN' if np.isnan(array).any() else ''}."
            )
        arrays.append(array)
    return arrays


def _sizes(image_sizes: Sequence[Any] | None, count: int) -> list[tuple[float, float]]:
    if image_sizes is None:
        raise ValueError(
            "`image_sizes` is None, but protocol `got10k` clips boxes to the image. Give (width, height) for each sequence."
        )
    sizes = []
    for index in range(count):
        size = _numbers(f"image_sizes[{index}]", image_sizes[index], "(width, height) in pixels")
        if size.shape != (2,) or not (np.isfinite(size) & (size > 0)).all():
            raise ValueError(
                f"`image_sizes[{index}]` must be (width, height) in pixels, above 0, got {image_sizes[index]!r}."
            )
        sizes.append((float(size[0]), float(size[1])))
    return sizes


def _warn_missing(predictions: Sequence[Any]) -> None:
    missing = [index for index, prediction in enumerate(predictions) if prediction is None]
    if missing:
        logger.warning("`predictions` lacks sequence %s: counted as boxes of zeros.", ", ".join(map(str, missing)))


def _warn_broken(boxes: list[np.ndarray], protocol: str) -> None:
    """Say what a toolkit takes without a word."""
    for index, box in enumerate(boxes):
        broken = np.isnan(box).any(axis=1) | (box[:, 2:] < 0).any(axis=1)
        if broken.any():
            frame = int(np.argmax(broken))
            logger.warning(
                "`predictions[%d]` is NaN or has a negative size in %d of %d frames, first in frame %d: %s. Protocol `%s` "
                "counts them as its toolkit does, not as an error.",
                index,
                broken.sum(),
                len(box),
                frame,
                box[frame].tolist(),
                protocol,
            )


__all__ = ["PROTOCOLS", "Protocol", "check_protocol", "judge_sequences", "pool_sequences", "score_sequences"]
