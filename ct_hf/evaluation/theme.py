"""How plots look: colours on light and on dark, fonts, and figures as files and as part of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .picture import TRACKER_COLORS


if TYPE_CHECKING:
    from matplotlib.figure import Figure


ThemeName = Literal["light", "dark"]

WIDTH = 5.0  # inches; with 10 point text, legible from 330 to 800 pixels of page
_DPI = 320  # twice what a screen shows, for dense ones
# Solid, dashed, dash-dotted, dotted, dash-dot-dotted. Five go with seven colours in 35 ways.
LINE_STYLES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")


@dataclass(frozen=True)
class Theme:
    """
    Colours as `#rrggbb`, no two alike.

    Args:
        background (`str`): of the whole figure.
        ink (`str`): text and axes.
        grid (`str`): lines behind the data.
        trackers (`tuple[str, ...]`): by place, at least 3:1 from the background.
    """

    background: str
    ink: str
    grid: str
    trackers: tuple[str, ...]

    def variables(self) -> dict[str, str]:
        """Colours by the names that a page's style sheet gives them."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trackers"}
        return plain | {f"tracker-{place}": color for place, color in enumerate(self.trackers)}


THEMES: dict[ThemeName, Theme] = {
    # Okabe and Ito's hues, darkened: on white their yellow, orange and sky blue cannot be seen.
    "light": Theme(
        "#fdfdfc", "#1f2328", "#dadde1", ("#b87800", "#2b86c4", "#b3558c", "#00805d", "#8a8000", "#c44d00", "#00477a")
    ),
    "dark": Theme(
        "#15181c",
        "#e4e6e9",
        "#3a4048",
        tuple("#{:02x}{:02x}{:02x}".format(*color) for color in TRACKER_COLORS[:6]) + ("#3f8fd0",),
    ),
}


@contextmanager
def styled(theme: ThemeName) -> Iterator[Theme]:
    """
    Let matplotlib draw in a theme, and leave it as it was.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no such theme.
    """
    if theme not in THEMES:
        raise ValueError(f"`theme` must be one of {', '.join(THEMES)}, got {theme!r}.")
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "matplotlib draws the plots but is not installed. Install it with: pip install ct_hf[plots]"
        ) from error
    colors = THEMES[theme]
    settings = {
        "figure.facecolor": colors.background,
        "savefig.facecolor": colors.background,
        "axes.facecolor": "none",
        "axes.edgecolor": colors.ink,
        "axes.labelcolor": colors.ink,
        "axes.titlecolor": colors.ink,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": colors.grid,
        "grid.linewidth": 0.6,
        "text.color": colors.ink,
        "text.parse_math": False,  # a dollar in a name is a dollar
        "xtick.color": colors.ink,
        "ytick.color": colors.ink,
        "legend.frameon": False,
        "legend.labelcolor": colors.ink,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
        "font.size": 10,
        "svg.fonttype": "none",
        "svg.hashsalt": "ct_hf",  # equal figures are equal files
    }
    with matplotlib.rc_context(settings):
        yield colors


def save_plot(figure: Figure, path: str | Path) -> Path:
    """
    Save a plot with the background of its theme.

    Args:
        figure (`matplotlib.figure.Figure`): from [`~evaluation.plots`].
        path (`str` or `Path`): file that ends in `.svg`, whose text stays text, or `.png`, of 320 pixels an inch.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"`path` must end in .svg or .png, got {path.name}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".svg":
        path.write_text(_svg(figure), encoding="utf-8")
    else:
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    return path


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """
    A plot drawn in the light theme, to be put into a page whose style sheet sets [`Theme.variables`].

    Args:
        figure (`matplotlib.figure.Figure`): from [`~evaluation.plots`].
        name (`str`): what ids begin with, since those of all plots of a page must differ; letters, digits and hyphens.
        description (`str`): what it shows, for those who do not see it.

    Returns:
        `str`: an `svg` element without background, size and foreign references.
    """
    svg = _svg(figure)
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)  # it would style all of the page
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", svg)
    names = {color: f"var(--{variable})" for variable, color in THEMES["light"].variables().items()}
    names[THEMES["light"].background] = "none"
    svg = re.sub(
        r'style="[^"]*"',
        lambda style: re.sub("#[0-9a-f]{6}", lambda color: names.get(color[0], color[0]), style[0]),
        svg,
    )
    opening = svg[: svg.index(">")]
    view = re.search(r'viewBox="[^"]*"', opening)[0]
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view} role="img" aria-label="{escape(description)}"'
    return head + svg[len(opening) :]


def _svg(figure: Figure) -> str:
    import matplotlib

    buffer = io.StringIO()
    # What is read when a figure is saved, not when it is drawn.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ct_hf"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return buffer.getvalue()


__all__ = ["LINE_STYLES", "MARKERS", "THEMES", "WIDTH", "Theme", "ThemeName", "inline_svg", "save_plot", "styled"]
