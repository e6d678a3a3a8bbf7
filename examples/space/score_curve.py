"""The curve of a tracker's score along a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ct_hf.evaluation.theme import WIDTH, styled
from ct_hf.tracking.lost import LOW_SCORE


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_scores(scores: Sequence[float], lost: Sequence[bool]) -> Figure:
    """
    Plot scores by frame, with the threshold of low ones and the frames in which the target is lost.

    Args:
        scores (sequence of `float`): in [0, 1], one a frame; the first is that of the box that was given, and left out.
        lost (sequence of `bool`): one a frame.

    Returns:
        `matplotlib.figure.Figure` in the light theme.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the numbers of scores and losses differ, or there is no frame after the first.
    """
    if len(scores) != len(lost) or len(scores) < 2:
        raise ValueError(
            f"`scores` and `lost` must be of one length, at least 2, got {len(scores)} and {len(lost)}. Track more frames."
        )
    with styled("light") as colors:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        axes = figure.add_subplot()
        frames = range(1, len(scores))
        # Two frames alone make a point, not a line.
        (curve,) = axes.plot(
            frames, scores[1:], color=colors.trackers[1], linewidth=1.6, marker="." if len(scores) < 3 else None
        )
        threshold = axes.axhline(LOW_SCORE, color=colors.ink, linewidth=0.8, linestyle=(0, (4, 3)))
        handles, labels = [curve, threshold], ["score", f"low below {LOW_SCORE:g}"]
        for start, end in _spans(lost):
            band = axes.axvspan(start - 0.5, end - 0.5, color=colors.trackers[5], alpha=0.25, linewidth=0)
            if len(handles) == 2:
                handles.append(band)
                labels.append("lost")
        axes.set(ylim=(0, 1), xlim=(0, max(len(scores) - 1, 2)), xlabel="Frame", ylabel="Score")
        figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=9, handlelength=2)
    return figure


def _spans(lost: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """First frame and the one after the last of each time in a row that the target was lost."""
    start = None
    for index, value in enumerate([*lost, False]):
        if value and start is None:
            start = index
        if not value and start is not None:
            yield start, index
            start = None


__all__ = ["plot_scores"]
