"""Tables of results, readable in a terminal and in a model card."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


UNKNOWN = "-"


def short_number(value: float) -> str:
    """One decimal, or two significant digits below 1, so that a tiny tracker does not cost 0.0."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def short_speed(fps: float) -> str:
    """One decimal, or none from 100 frames per second on; a dash for NaN."""
    if math.isnan(fps):
        return UNKNOWN
    return f"{fps:.1f}" if fps < 100 else f"{fps:,.0f}"


def short_figure(value: float | None) -> str:
    """One decimal; a dash for what is not known or NaN."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.1f}"


_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "layers": ("Layers", "{:d}".format),
    "parameters": ("Parameters (M)", lambda value: short_number(value / 1e6)),
    "gmacs": ("GMACs", short_number),
    "auc": ("AUC", "{:.1f}".format),
    "ao": ("AO", "{:.1f}".format),
    "sr50": ("SR50", "{:.1f}".format),
    "sr75": ("SR75", "{:.1f}".format),
    "success": ("Success", "{:.1f}".format),
    "precision": ("Precision", "{:.1f}".format),
    "norm_precision": ("Norm. precision", "{:.1f}".format),
    "retention": ("{} kept (%)", "{:.1f}".format),
    "fps": ("FPS", "{:.1f}".format),
    "speed_up": ("Speed-up", "{:.2f}x".format),
}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """
    Lay out a Markdown table with padded columns.

    Args:
        header (sequence of `str`): titles of the columns.
        rows (sequence of sequences of `str`): cells; pipes and line breaks in them are made harmless.
        left (`int`, *optional*, defaults to 1): number of columns that are aligned left, the others are aligned right.

    Returns:
        `str`: lines without a line break at the end.
    """
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        ":" + "-" * (width - 1) if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)
    ]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """
    Compare trackers with the first of them, usually the teacher.

    Args:
        rows (sequence of mappings): one a tracker. `name` is required; `layers`, `parameters` (a count), `gmacs`, the figures
            of the protocols in per cent but `op50` and `op75`, and `fps` are shown where given, a dash where one is NaN, other
            keys are not. A column that no row has is left out. What is kept of the first row's AUC (AO, success) and the
            speed-up over it are worked out here, the latter where the rows' `conditions` (of the speed) are the same.

    Returns:
        `str`: Markdown table with padded columns, numbers aligned right.

    Raises:
        ValueError: there is no row, or a row has no name.

    Example:
    ```python
    >>> print(comparison_table([{"name": "teacher", "auc": 66.0, "fps": 20.0}, {"name": "student", "auc": 62.7, "fps": 50.0}]))
    | Tracker |  AUC | AUC kept (%) |  FPS | Speed-up |
    | :------ | ---: | -----------: | ---: | -------: |
    | teacher | 66.0 |        100.0 | 20.0 |    1.00x |
    | student | 62.7 |         95.0 | 50.0 |    2.50x |

    ```
    """
    if not rows:
        raise ValueError("`rows` is empty, expected at least one tracker.")
    for index, row in enumerate(rows):
        if not row.get("name"):
            raise ValueError(f"`rows[{index}]` must have a `name`, got the keys {sorted(row)}.")
    main = next((key for key in ("auc", "ao", "success") if key in rows[0]), "auc")
    table = [{key: row[key] for key in _COLUMNS if _is_known(row.get(key))} for row in rows]
    first = dict(table[0])
    for row, target in zip(rows, table, strict=True):
        if first.get(main) and main in target:
            target["retention"] = 100 * target[main] / first[main]
        if first.get("fps") and "fps" in target and row.get("conditions") == rows[0].get("conditions"):
            target["speed_up"] = target["fps"] / first["fps"]
    shown = [
        key for key in _COLUMNS if any(row.get(key) is not None for row in rows) or any(key in row for row in table)
    ]
    header = ["Tracker", *(_COLUMNS[key][0].format(_COLUMNS[main][0]) for key in shown)]
    cells = [
        [str(row["name"]), *(_COLUMNS[key][1](known[key]) if key in known else UNKNOWN for key in shown)]
        for row, known in zip(rows, table, strict=True)
    ]
    return markdown_table(header, cells)


def _is_known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


__all__ = ["UNKNOWN", "comparison_table", "markdown_table", "short_figure", "short_number", "short_speed"]
