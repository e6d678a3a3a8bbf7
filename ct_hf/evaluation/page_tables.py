"""What the tables of a report say: titles and cells as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .report import UNKNOWN, short_figure, short_number, short_speed
from .results import FIGURES, Results, TrackerScores


@dataclass(frozen=True)
class Table:
    """
    Text of a table.

    Args:
        header (`list[tuple[str, str]]`): titles of the columns, and what stands smaller below them.
        body (`list[list[str]]`): cells by row, the first one names it.
    """

    header: list[tuple[str, str]]
    body: list[list[str]]


def main_title(results: Results) -> str:
    """Title of the figure by which the protocol ranks trackers."""
    return FIGURES[results.main_figure]


def figures_table(results: Results) -> Table:
    """Trackers by their figures, compared with the first of them; a column that no tracker has is left out."""
    first = results.trackers[0]
    keys = list(dict.fromkeys(key for tracker in results.trackers for key in tracker.score))
    keys.sort(key=lambda key: list(FIGURES).index(key) if key in FIGURES else len(FIGURES))
    columns = {
        ("Layers", ""): [_count(tracker.layers) for tracker in results.trackers],
        ("Parameters", "million"): [_millions(tracker.parameters) for tracker in results.trackers],
        **{
            (FIGURES.get(key, key), "%"): [short_figure(tracker.score.get(key)) for tracker in results.trackers]
            for key in keys
        },
        (f"{main_title(results)} kept", "% of the first"): [
            short_figure(_ratio(tracker.score.get(results.main_figure), first.score.get(results.main_figure), 100))
            for tracker in results.trackers
        ],
        ("Speed", "FPS"): [_speed(tracker) for tracker in results.trackers],
        ("Speed-up", "over the first"): [_speed_up(tracker, first) for tracker in results.trackers],
    }
    shown = {header: cells for header, cells in columns.items() if set(cells) != {UNKNOWN}}
    rows = [
        [tracker.name, *(cells[place] for cells in shown.values())] for place, tracker in enumerate(results.trackers)
    ]
    return Table([("Tracker", ""), *shown], rows)


def sequences_table(results: Results) -> Table:
    """Sequences by the main figure of each tracker."""
    return Table(
        [
            ("Sequence", ""),
            ("Frames", ""),
            *((tracker.name, f"{main_title(results)}, %") for tracker in results.trackers),
        ],
        [
            [
                sequence.name,
                str(sequence.frames),
                *(
                    short_figure(tracker.per_sequence.get(sequence.name, {}).get(results.main_figure))
                    for tracker in results.trackers
                ),
            ]
            for sequence in results.sequences
        ],
    )


def summary_table(results: Mapping[str, Results]) -> Table:
    """
    Trackers by the main figure of each data set.

    Args:
        results (`Mapping[str, Results]`): by title.
    """
    rows: dict[str, dict[str, TrackerScores]] = {}
    unlike = _unlike(results)
    for title, result in results.items():
        for tracker in result.trackers:
            row = f"{tracker.name} ({title})" if tracker.name in unlike else tracker.name
            rows.setdefault(row, {})[title] = tracker
    return Table(
        [
            ("Tracker", ""),
            ("Parameters", "million"),
            *((title, f"{main_title(result)}, {result.protocol}") for title, result in results.items()),
        ],
        [
            [
                name,
                next((_millions(tracker.parameters) for tracker in found.values() if tracker.parameters), UNKNOWN),
                *(
                    short_figure(found[title].score.get(result.main_figure)) if title in found else UNKNOWN
                    for title, result in results.items()
                ),
            ]
            for name, found in rows.items()
        ],
    )


def summary_notices(results: Mapping[str, Results]) -> list[str]:
    """What a reader of the summary has to know before comparing."""
    notices = []
    if len({result.protocol for result in results.values()}) > 1:
        notices.append("The data sets follow different protocols: compare within a column, not across.")
    if unlike := _unlike(results):
        notices.append(
            f"Trackers of one name differ in layers, parameters or weights between the data sets and are listed apart: {', '.join(unlike)}."
        )
    return notices


def missing_sequences(results: Results) -> list[str]:
    """A sentence for each tracker that was not scored on all sequences."""
    notices = []
    for tracker in results.trackers:
        missing = [
            sequence.name
            for sequence in results.sequences
            if short_figure(tracker.per_sequence.get(sequence.name, {}).get(results.main_figure)) == UNKNOWN
        ]
        if missing:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            notices.append(
                f"{tracker.name} has no {main_title(results)} on {len(missing)} of {len(results.sequences)} sequences ({some}): "
                "its figures may be over other sequences than the others'."
            )
    return notices


def _unlike(results: Mapping[str, Results]) -> list[str]:
    """Names under which there are several trackers, by what is known of them."""
    kinds: dict[str, tuple[set[int | str], ...]] = {}
    for result in results.values():
        for tracker in result.trackers:
            known = (tracker.layers, tracker.parameters, tracker.weights)
            for values, value in zip(kinds.setdefault(tracker.name, (set(), set(), set())), known, strict=True):
                values |= {value} - {None}
    return [name for name, known in kinds.items() if any(len(values) > 1 for values in known)]


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _millions(value: int | None) -> str:
    return UNKNOWN if value is None else short_number(value / 1e6)


def _ratio(value: float | None, reference: float | None, scale: float) -> float | None:
    return scale * value / reference if value is not None and reference else None


def _speed(tracker: TrackerScores) -> str:
    return UNKNOWN if tracker.speed is None else short_speed(tracker.speed.fps)


def _speed_up(tracker: TrackerScores, first: TrackerScores) -> str:
    if tracker.speed is None or first.speed is None or tracker.speed.conditions != first.speed.conditions:
        return UNKNOWN
    ratio = _ratio(tracker.speed.fps, first.speed.fps, 1)
    return UNKNOWN if ratio is None or math.isnan(ratio) else f"{ratio:.2f}x"


__all__ = [
    "Table",
    "figures_table",
    "main_title",
    "missing_sequences",
    "sequences_table",
    "summary_notices",
    "summary_table",
]
