"""The curves whose areas and places the figures are: what the plots of papers show."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .challenges import AREA_NORM_PRECISION_THRESHOLDS, AREA_PRECISION_THRESHOLDS
from .metrics import NORM_PRECISION_THRESHOLDS, PRECISION_THRESHOLDS, SUCCESS_THRESHOLDS, share_above
from .protocols import Protocol, judge_sequences, pool_sequences
from .results import CURVES, Curve


_OPE = (SUCCESS_THRESHOLDS, PRECISION_THRESHOLDS, NORM_PRECISION_THRESHOLDS)
_TRACKINGNET = (SUCCESS_THRESHOLDS, AREA_PRECISION_THRESHOLDS, AREA_NORM_PRECISION_THRESHOLDS)
_GOT10K_THRESHOLDS = np.linspace(0, 1, 101)


def score_curves(
    predictions: Sequence[Any], ground_truths: Sequence[Any], *, protocol: Protocol, **rest: Sequence[Any] | None
) -> dict[str, Curve]:
    """
    Curves of a tracker over all sequences, by the rules of a benchmark.

    `got10k` has `success` only, at the got10k toolkit's 101 thresholds, each frame with weight 1. The others have all three of
    [`CURVES`], the mean over sequences.

    Args:
        predictions, ground_truths, protocol, **rest: what [`score_sequences`] takes.

    Returns:
        `dict[str, Curve]`: by name, shares of frames in per cent.

    Raises:
        ValueError: as [`score_sequences`].
    """
    pooled = pool_sequences(judge_sequences(predictions, ground_truths, protocol=protocol, **rest))
    if protocol == "got10k":
        if not len(pooled):
            return {}
        return {"success": _curve(_GOT10K_THRESHOLDS, share_above(pooled, _GOT10K_THRESHOLDS))}
    thresholds = _TRACKINGNET if protocol == "trackingnet" else _OPE
    return {name: _curve(marks, getattr(pooled, name)) for name, marks in zip(CURVES, thresholds, strict=True)}


def _curve(thresholds: np.ndarray, shares: np.ndarray) -> Curve:
    return Curve(thresholds.astype(float).tolist(), (100 * shares).tolist())


__all__ = ["score_curves"]
