"""A picture of a training from what it logged. It needs `pip install ct_hf[plots]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.theme import ThemeName, styled


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_NO_TERMS = {"epoch", "grad_norm", "iou", "learning_rate", "loss", "pairs_per_second", "step"}
_NO_TERMS |= {"replacement_rate", "student_share"}
_WINDOW = 10  # logs of which the mean is drawn


def plot_training(history: Sequence[Mapping[str, Any]], *, theme: ThemeName = "light") -> Figure:
    """
    Plot the replacement rate, the terms of the loss and how well pairs, and whole sequences where they were tracked, are
    followed, each over the steps.

    Args:
        history (sequence of mappings): `trainer.state.log_history`.
        theme (`str`, *optional*, defaults to `"light"`): `"light"` or `"dark"`.

    Returns:
        `matplotlib.figure.Figure`, for [`~evaluation.save_plot`].

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing was logged while training.

    Example:
        >>> save_plot(plot_training(trainer.state.log_history), "training.png")
    """
    rows = [row for row in history if "loss" in row]
    if not rows:
        raise ValueError(
            "`history` holds no log of a training step. Train with `logging_steps` below the number of steps."
        )
    told_beside = ("skipped_", "train_", "num_input_")
    terms = [name for name in rows[-1] if name not in _NO_TERMS and not name.startswith(told_beside)]
    tracked = [row for row in history if "eval_tracking_auc" in row]
    with styled(theme) as colors:
        from matplotlib.figure import Figure  # without pyplot, which keeps each figure and may ask for a screen

        figure = Figure(figsize=(10, 3.2), layout="constrained")
        rate, losses, followed = panels = figure.subplots(1, 3)
        _draw(rate, rows, "student_share", colors.trackers[1], "stages run in the student")
        _draw(rate, rows, "replacement_rate", colors.trackers[0], "replacement rate", smooth=False)
        rate.set(title="Replacement", ylim=(0, 1.05))
        for place, name in enumerate(terms):
            _draw(losses, rows, name, colors.trackers[place % len(colors.trackers)], name.replace("_", " "))
        losses.set(title="Terms of the loss", yscale="log")
        _draw(followed, rows, "iou", colors.trackers[0], "overlap of training pairs", factor=100)
        if tracked:
            _draw(followed, tracked, "eval_tracking_auc", colors.trackers[1], "AUC of sequences", smooth=False)
        followed.set(title="Following (%)")
        for panel in panels:
            panel.set(xlabel="Step")
            if panel.lines:
                panel.legend(fontsize="small")
        return figure


def _draw(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    color: str,
    label: str,
    *,
    factor: float = 1,
    smooth: bool = True,
) -> None:
    """Draw a value of the rows that have it; its mean over some of them where it is smoothed."""
    points = [(row["step"], factor * row[name]) for row in rows if name in row]
    if not points:
        return
    steps, values = np.array(points).T
    if smooth and len(values) > 2 * _WINDOW:
        values = np.convolve(values, np.full(_WINDOW, 1 / _WINDOW), "valid")
        steps = steps[_WINDOW // 2 :][: len(values)]
    axes.plot(steps, values, color=color, label=label, marker="" if len(values) > 1 else "o")


__all__ = ["plot_training"]
