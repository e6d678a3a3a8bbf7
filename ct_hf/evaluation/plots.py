"""Plots of results: curves, figures by sequence, accuracy against speed. They need `pip install ct_hf[plots]`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .report import short_figure, short_speed
from .results import CURVES, FIGURES, Results, TrackerScores
from .theme import LINE_STYLES, MARKERS, WIDTH, Theme, ThemeName, styled


if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_TITLES = {"success": "Success", "precision": "Precision", "norm_precision": "Normalised precision"}
_THRESHOLDS = {
    "success": "Overlap threshold",
    "precision": "Centre error threshold (pixels)",
    "norm_precision": "Centre error threshold (target sizes)",
}
_MOST_BARS = 66  # in one plot; more cannot be read
_MOST_TRACKERS = 7  # as bars, which only colours tell apart
_ROW = 0.2  # inches of a line of the legend


def plot_curves(
    results: Results, curve: str, *, order: Sequence[str] | None = None, theme: ThemeName = "light"
) -> Figure:
    """
    Plot a curve of all trackers that have it, with a legend in the order of the figure that sums the curve up.

    Args:
        results ([`Results`]): of one data set.
        curve (`str`): one of [`CURVES`].
        order (sequence of `str`, *optional*): names of trackers in the order in which they take colours; by default that
            of `results`.
        theme (`str`, *optional*, defaults to `"light"`): `"light"` or `"dark"`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: another curve, no tracker has it, or `order` lacks one.
    """
    if curve not in CURVES:
        raise ValueError(f"`curve` must be one of {', '.join(CURVES)}, got {curve!r}.")
    trackers = [tracker for tracker in results.trackers if curve in tracker.curves]
    if not trackers:
        raise ValueError(f"`results` of {results.dataset} have no curve {curve!r}. Leave this plot out.")
    figure = results.main_figure if curve == "success" else curve
    trackers.sort(key=lambda tracker: _rank(tracker.score.get(figure)))
    with styled(theme) as colors:
        canvas, axes = _axes(len(trackers), 3.3)
        for tracker in trackers:
            place = _place(tracker, results, order)
            axes.plot(
                tracker.curves[curve].thresholds,
                tracker.curves[curve].values,
                color=_color(colors, place),
                linestyle=LINE_STYLES[place % len(LINE_STYLES)],
                linewidth=1.8,
                clip_on=False,
            )
        axes.set(
            title=f"{_TITLES[curve]} on {_short(results.dataset, 34)}", xlabel=_THRESHOLDS[curve], ylabel="Frames (%)"
        )
        axes.set_ylim(0, 100)
        axes.margins(x=0)
        labels = [f"[{short_figure(tracker.score.get(figure))}] {_short(tracker.name)}" for tracker in trackers]
        _legend(canvas, axes.get_lines(), labels, f"{FIGURES[figure]} in brackets")
    return canvas


def plot_sequences(results: Results, *, order: Sequence[str] | None = None, theme: ThemeName = "light") -> Figure:
    """
    Plot the main figure of the protocol by sequence as bars, one a tracker.

    With more sequences or trackers than can be read, only the first 7 trackers are shown, and the sequences in which they
    differ most (of one tracker, the ones with the lowest figures); the title says how many.

    Args:
        results ([`Results`]): of one data set.
        order (sequence of `str`, *optional*): as in [`plot_curves`].
        theme (`str`, *optional*, defaults to `"light"`): `"light"` or `"dark"`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no tracker has the figure of any sequence.
    """
    figure = results.main_figure
    trackers = results.trackers[:_MOST_TRACKERS]
    known = sequence_figures(results)
    if not known:
        raise ValueError(f"`results` of {results.dataset} have no {figure!r} by sequence. Leave this plot out.")
    with styled(theme) as colors:
        names = sorted(known, key=lambda name: _interest(known[name]))[: max(6, _MOST_BARS // (len(trackers) + 1))]
        bar = 0.8 / len(trackers)
        canvas, axes = _axes(len(trackers), 1.1 + len(names) * (0.09 + 0.09 * len(trackers)))
        for place, tracker in enumerate(trackers):
            heights = [known[name][place] for name in names]
            rows = [row - 0.4 + bar * (place + 0.5) for row in range(len(names))]
            axes.barh(rows, heights, height=bar, color=_color(colors, _place(tracker, results, order)))
        axes.set_yticks(range(len(names)), [_short(name, 26) for name in names], fontsize=9)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 100), xlabel=f"{FIGURES[figure]} (%)")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        canvas.suptitle(
            f"{FIGURES[figure]} by sequence of {_short(results.dataset, 28)}\n{_shown(results, len(names), len(trackers))}",
            x=0.02,
            horizontalalignment="left",
            fontsize=10,
        )
        _legend(canvas, [bars[0] for bars in axes.containers], [_short(tracker.name) for tracker in trackers])
    return canvas


def sequence_figures(results: Results) -> dict[str, list[float]]:
    """By sequence that has any, the main figure of each tracker that [`plot_sequences`] shows; NaN where one is missing."""
    rows = {
        sequence.name: [
            tracker.per_sequence.get(sequence.name, {}).get(results.main_figure, math.nan)
            for tracker in results.trackers[:_MOST_TRACKERS]
        ]
        for sequence in results.sequences
    }
    return {name: row for name, row in rows.items() if not all(map(math.isnan, row))}


def speed_groups(trackers: Sequence[TrackerScores]) -> list[list[TrackerScores]]:
    """Trackers whose speed was measured, by equal conditions, in the order in which they are met."""
    groups: dict[str, list[TrackerScores]] = {}
    for tracker in trackers:
        if tracker.speed is not None and not math.isnan(tracker.speed.fps):
            groups.setdefault(tracker.speed.conditions, []).append(tracker)
    return list(groups.values())


def plot_speed(
    results: Results,
    trackers: Sequence[TrackerScores],
    *,
    order: Sequence[str] | None = None,
    theme: ThemeName = "light",
) -> Figure:
    """
    Plot the main figure of the protocol against speed.

    Args:
        results ([`Results`]): of one data set.
        trackers (sequence of [`TrackerScores`]): one of the groups of [`speed_groups`].
        order (sequence of `str`, *optional*): as in [`plot_curves`].
        theme (`str`, *optional*, defaults to `"light"`): `"light"` or `"dark"`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no tracker, or their speeds were measured under different conditions.
    """
    groups = speed_groups(trackers)
    if len(groups) != 1 or len(groups[0]) != len(trackers):
        raise ValueError(
            f"`trackers` must have been measured under the same conditions, got {len(groups)} different ones"
            f"{'' if sum(map(len, groups)) == len(trackers) else ' and some without a speed'}. Make a plot of each group of "
            "`speed_groups`."
        )
    figure = results.main_figure
    trackers = sorted(trackers, key=lambda tracker: _rank(tracker.score.get(figure)))
    speeds = [tracker.speed.fps for tracker in trackers]
    with styled(theme) as colors:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        canvas, axes = _axes(len(trackers), 3.0)
        for tracker in trackers:
            place = _place(tracker, results, order)
            axes.plot(
                [tracker.speed.fps],
                [tracker.score.get(figure, math.nan)],
                color=_color(colors, place),
                marker=MARKERS[place % len(MARKERS)],
                markersize=9,
                linestyle="none",
            )
        if max(speeds) > 5 * min(speeds):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(speeds) < 100 * min(speeds) else (1,)))
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda speed, _: f"{speed:,.0f}" if speed >= 1 else f"{speed:g}")
            )
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(0, 1.1 * max(speeds))
        axes.margins(0.12)
        axes.set(
            title=f"Accuracy and speed on {_short(results.dataset, 28)}",
            xlabel="Frames per second",
            ylabel=f"{FIGURES[figure]} (%)",
        )
        labels = [
            f"[{short_figure(tracker.score.get(figure))}, {short_speed(tracker.speed.fps)} FPS] {_short(tracker.name, 28)}"
            for tracker in trackers
        ]
        _legend(canvas, axes.get_lines(), labels)
    return canvas


def _axes(entries: int, height: float) -> tuple[Figure, Axes]:
    """Not by pyplot, which would keep every figure and may want a screen."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(WIDTH, height + (entries + 1) * _ROW), layout="constrained")
    return canvas, canvas.add_subplot()


def _legend(canvas: Figure, handles: Sequence[Artist], labels: list[str], title: str | None = None) -> None:
    canvas.legend(
        handles,
        labels,
        title=title,
        loc="outside lower left",
        handlelength=2.8,
        fontsize=10,
        title_fontsize=9,
        alignment="left",
        labelspacing=0.3,
    )


def _place(tracker: TrackerScores, results: Results, order: Sequence[str] | None) -> int:
    names = [other.name for other in results.trackers] if order is None else list(order)
    if tracker.name not in names:
        raise ValueError(f"`order` must name all trackers, got {', '.join(names) or 'none'} without {tracker.name}.")
    return names.index(tracker.name)


def _color(theme: Theme, place: int) -> str:
    return theme.trackers[place % len(theme.trackers)]


def _rank(value: float | None) -> float:
    """Sorts the best first and those without a figure last."""
    return math.inf if value is None or math.isnan(value) else -value


def _interest(row: list[float]) -> tuple[float, float]:
    values = [value for value in row if not math.isnan(value)]
    return min(values) - max(values), values[0]


def _shown(results: Results, num_sequences: int, num_trackers: int) -> str:
    """Which part of the results a plot of bars shows, and in which order."""
    count = len(results.sequences)
    if num_sequences < count:
        part = "where trackers differ most" if num_trackers > 1 else "the lowest"
        text = f"{num_sequences} of {count} sequences, {part}"
    else:
        text = f"all {count} sequences, {'most different' if num_trackers > 1 else 'lowest'} first"
    if num_trackers < len(results.trackers):
        text += f"; {num_trackers} of {len(results.trackers)} trackers"
    return text


def _short(name: str, most: int = 40) -> str:
    """Keep both ends of a long name, of which either may tell it from others."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


__all__ = ["plot_curves", "plot_sequences", "plot_speed", "sequence_figures", "speed_groups"]
