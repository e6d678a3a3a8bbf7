"""Results of evaluations as one page of HTML that needs nothing else: no link, script or font."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, UnidentifiedImageError

from .page_tables import (
    Table,
    figures_table,
    main_title,
    missing_sequences,
    sequences_table,
    summary_notices,
    summary_table,
)
from .plots import plot_curves, plot_sequences, plot_speed, sequence_figures, speed_groups
from .results import CURVES, STRIPS_FOLDER, Results, read_results
from .theme import THEMES, inline_svg, save_plot


_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class _Plot:
    """A figure with the name of its file, what it shows, and what stands below it on a page."""

    figure: Any
    name: str
    description: str
    caption: str = ""


def write_report(folders: Sequence[str | Path], out: str | Path) -> Path:
    """
    Write one page on some evaluations.

    Args:
        folders (sequence of `str` or `Path`): what [`read_results`] takes, a section each. Trackers of the same name are
            taken for one tracker unless their layers or parameters differ; then the page says so.
        out (`str` or `Path`): HTML file to write.

    Returns:
        `Path`: the file.

    Raises:
        FileNotFoundError, ValueError: as [`read_results`]; a folder is given twice; a picture in `strips` is no PNG.
        ImportError: matplotlib is not installed.
    """
    results, titles, order = _read(folders)
    sections = [
        _section(f"s{number}", title, result, Path(folder), order)
        for number, (title, result, folder) in enumerate(zip(titles, results, folders, strict=True))
    ]
    named = dict(zip(titles, results, strict=True))
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html").render(
        title=f"Trackers on {titles[0]}" if len(titles) == 1 else f"Trackers on {len(titles)} data sets",
        light=THEMES["light"].variables(),
        dark=THEMES["dark"].variables(),
        summary=summary_table(named) if len(named) > 1 else None,
        notices=summary_notices(named),
        sections=sections,
    )
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def write_plots(folders: Sequence[str | Path], out: str | Path) -> list[Path]:
    """
    Write the plots of a report as files for documents and slides: `.svg` and `.png`, on light and on dark.

    Args:
        folders (sequence of `str` or `Path`): as in [`write_report`].
        out (`str` or `Path`): folder; a folder each is made in it, of the name of the results' folder.

    Returns:
        `list[Path]`: the files.

    Raises:
        FileNotFoundError, ValueError, ImportError: as [`write_report`]; two folders have one name.
    """
    results, _, order = _read(folders)
    names = [Path(folder).resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"`folders` must have distinct names for their plots, got {', '.join(names)}. Rename one.")
    return [
        save_plot(plot.figure, Path(out) / name / f"{plot.name}-{theme}{suffix}")
        for name, result in zip(names, results, strict=True)
        for theme in THEMES
        for plot in _plots(result, order, theme)
        for suffix in (".svg", ".png")
    ]


def _read(folders: Sequence[str | Path]) -> tuple[list[Results], list[str], list[str]]:
    """Results, a title each, and the trackers in the order in which they take colours."""
    places = [Path(folder).resolve() for folder in folders]
    if not places or len(set(places)) < len(places):
        raise ValueError(
            f"`folders` must be at least one, each given once, got {', '.join(map(str, folders)) or 'none'}."
        )
    results = [read_results(folder) for folder in folders]
    datasets = [result.dataset for result in results]
    names = [place.name for place in places]
    titles = [
        dataset if datasets.count(dataset) == 1 else f"{dataset} ({name if names.count(name) == 1 else folder})"
        for dataset, name, folder in zip(datasets, names, folders, strict=True)
    ]
    order = list(dict.fromkeys(tracker.name for result in results for tracker in result.trackers))
    return results, titles, order


def _plots(result: Results, order: list[str], theme: str = "light") -> Iterator[_Plot]:
    for curve in CURVES:
        if any(curve in tracker.curves for tracker in result.trackers):
            yield _Plot(
                plot_curves(result, curve, order=order, theme=theme),
                curve,
                f"{curve.replace('_', ' ')} plot of {result.dataset}",
            )
    groups = [group for group in speed_groups(result.trackers) if len(group) > 1]
    for number, group in enumerate(groups, start=1):
        yield _Plot(
            plot_speed(result, group, order=order, theme=theme),
            "speed" if len(groups) == 1 else f"speed-{number}",
            f"{main_title(result)} against frames per second on {result.dataset}",
            f"Measured on {group[0].speed.conditions}.",
        )
    if sequence_figures(result):
        yield _Plot(
            plot_sequences(result, order=order, theme=theme),
            "sequences",
            f"{main_title(result)} by sequence of {result.dataset}",
        )


def _section(prefix: str, title: str, result: Results, folder: Path, order: list[str]) -> dict[str, Any]:
    plots = list(_plots(result, order))
    svgs = {plot.name: inline_svg(plot.figure, f"{prefix}-{plot.name}", plot.description) for plot in plots}
    frames = sum(sequence.frames for sequence in result.sequences)
    groups = speed_groups(result.trackers)
    notices = missing_sequences(result)
    if len(groups) > 1:
        notices.append("Speeds were measured under different conditions; only equal ones are compared.")
    by_sequence: Table = sequences_table(result)
    return {
        "title": title,
        "extent": f"{len(result.sequences):,} sequences, {frames:,} frames, protocol {result.protocol}",
        "protocol": result.protocol,
        "main": main_title(result),
        "figures": figures_table(result),
        "notices": notices,
        "plots": [{"svg": svgs[plot.name], "caption": plot.caption} for plot in plots if plot.name != "sequences"],
        "bars": svgs.get("sequences"),
        "by_sequence": by_sequence,
        "strips": [_strip(path) for path in sorted((folder / STRIPS_FOLDER).glob("*.png"))],
        "conditions": [(group[0].speed.conditions, ", ".join(tracker.name for tracker in group)) for group in groups],
    }


def _strip(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no readable PNG ({error}). Delete it or evaluate again.") from error
    return {"name": path.stem, "data": base64.b64encode(data).decode(), "width": width, "height": height}


__all__ = ["write_plots", "write_report"]
