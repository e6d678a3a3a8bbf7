"""Pictures of the reproduction: bars with their spread, curves over steps and seconds, the front."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_hf.evaluation.theme import LINE_STYLES, MARKERS, styled


if TYPE_CHECKING:
    from matplotlib.figure import Figure


Rows = Mapping[str, Sequence[dict[str, Any]]]
"""Results of runs by row, one a seed."""


def plot_rows(groups: Mapping[str, Rows], judged_on: str, teacher: float) -> "Figure":
    """
    Bars of what each row kept of the teacher, with the standard deviation over seeds.

    Args:
        groups (`Mapping[str, Rows]`): rows at each point of the grid, by its name.
        judged_on (`str`): name of the set of sequences.
        teacher (`float`): the teacher's success AUC on it, in per cent.

    Returns:
        `matplotlib.figure.Figure`.
    """
    with styled("light") as colors:
        from matplotlib.figure import Figure

        names = list(dict.fromkeys(name for rows in groups.values() for name in rows))
        height = 0.8 / len(groups)
        figure = Figure(figsize=(6.5, 1.1 + 0.45 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        for place, (group, rows) in enumerate(groups.items()):
            for line, name in enumerate(names):
                kept = [100 * result["auc"][judged_on] / teacher for result in rows.get(name, ())]
                if not kept:
                    continue
                y = line + (place - (len(groups) - 1) / 2) * height
                error = _deviation(kept)
                label = group if name == names[-1] else None
                axes.barh(y, np.mean(kept), 0.9 * height, color=colors.trackers[place], label=label)
                axes.errorbar(np.mean(kept), y, xerr=error, color=colors.ink, capsize=3, linewidth=1.2)
                axes.text(np.mean(kept) + error + 1, y, f"{np.mean(kept):.1f}", va="center", fontsize=9)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(
            xlabel=f"AUC kept of the teacher's {teacher:.1f} (%)", title=f"On {judged_on} sequences", xlim=(0, 108)
        )
        if len(groups) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=len(groups))
    return figure


def plot_curves(points: Mapping[str, Rows], judged_on: str, teacher: float) -> "Figure":
    """
    What each row kept over steps, and over seconds of one core: the mean over seeds, with their standard deviation.

    Args:
        points (`Mapping[str, Rows]`): rows at each number of steps.
        judged_on (`str`): name of the set of sequences.
        teacher (`float`): the teacher's success AUC on it, in per cent.

    Returns:
        `matplotlib.figure.Figure`.
    """
    with styled("light") as colors:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        names = list(dict.fromkeys(name for rows in points.values() for name in rows))
        for place, name in enumerate(names):
            rows = [rows[name] for rows in points.values() if rows.get(name)]
            kept = [[100 * result["auc"][judged_on] / teacher for result in row] for row in rows]
            steps = [row[0]["settings"]["max_steps"] for row in rows]
            seconds = [np.mean([result["cpu_seconds"] for result in row]) for row in rows]
            for panel, across in zip(panels, (steps, seconds), strict=True):
                panel.errorbar(
                    across,
                    [np.mean(one) for one in kept],
                    list(map(_deviation, kept)),
                    capsize=3,
                    color=colors.trackers[place],
                    linestyle=LINE_STYLES[place % len(LINE_STYLES)],
                    marker=MARKERS[place],
                    label=name,
                )
        for panel, label in zip(panels, ("Steps of 32 pairs", "Seconds of one core"), strict=True):
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.set(xlabel=label)
        panels[0].set(ylabel=f"AUC kept of {teacher:.1f} (%)", title=f"On {judged_on} sequences")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    return figure


def plot_front(fronts: Rows, judged_on: str) -> "Figure":
    """
    Success AUC of every path against milliseconds of a frame; a line joins those that none of as few layers beats.

    Args:
        fronts (`Mapping[str, Sequence[dict]]`): `path`, `layers`, `milliseconds` and `auc` of each path by method; the best of the
            first are named.
        judged_on (`str`): name of the set of sequences.

    Returns:
        `matplotlib.figure.Figure`.
    """
    with styled("light") as colors:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.5, 4), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, rows) in enumerate(fronts.items()):
            color, marker, front = colors.trackers[number], MARKERS[number], best_paths(rows, judged_on)
            for row in rows:
                place = (row["milliseconds"], row["auc"][judged_on])
                axes.plot(*place, marker, color=color, markersize=6)
                if number == 0 and row in front:
                    axes.annotate(row["path"], place, xytext=(5, -10), textcoords="offset points", fontsize=8)
            across, up = zip(*((row["milliseconds"], row["auc"][judged_on]) for row in front), strict=True)
            axes.plot(across, up, color=color, linestyle=LINE_STYLES[number], marker=marker, label=name)
        axes.margins(0.1)
        if len(fronts) > 1:
            axes.legend(loc="lower right")
        title = f"Paths of student (S) and teacher (T) stages on {judged_on} sequences"
        axes.set(xlabel="Milliseconds of a frame, one thread", ylabel="Success AUC (%)", title=title)
    return figure


def best_paths(rows: Sequence[dict[str, Any]], judged_on: str) -> list[dict[str, Any]]:
    """Rows than which no other has as few layers and is better, the shallowest first; layers cost alike, milliseconds wobble."""
    front: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["layers"], -row["auc"][judged_on])):
        if not front or row["auc"][judged_on] > front[-1]["auc"][judged_on]:
            front.append(row)
    return front


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; of one seed none is known."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
