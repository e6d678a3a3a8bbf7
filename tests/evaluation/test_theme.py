import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from ct_hf.evaluation.picture import TRACKER_COLORS
from ct_hf.evaluation.plots import plot_curves
from ct_hf.evaluation.results import read_results
from ct_hf.evaluation.theme import LINE_STYLES, THEMES, inline_svg, save_plot, styled


@pytest.fixture
def plot(draw_results, tmp_path):
    results = read_results(draw_results({"teacher": 60.0, "student": 50.0}).write(tmp_path / "results"))
    return lambda theme="light": plot_curves(results, "success", theme=theme)


def luminance(color):
    channels = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first, second):
    """Ratio by the Web Content Accessibility Guidelines, 1 to 21."""
    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_text_and_lines_stand_out_from_the_background(theme):
    assert contrast(theme.ink, theme.background) >= 7
    assert {color for color in theme.trackers if contrast(color, theme.background) < 3} == set()
    colors = list(theme.variables().values())
    assert len(set(colors)) == len(colors) == 3 + len(TRACKER_COLORS)


def test_trackers_have_the_hues_that_pictures_of_frames_give_them():
    def hue(color):
        rgb = Image.new("RGB", (1, 1), color).convert("HSV")
        return rgb.getpixel((0, 0))[0] * 360 / 255

    for theme in THEMES.values():
        for color, drawn in zip(theme.trackers, TRACKER_COLORS, strict=True):
            assert abs(hue(color) - hue(drawn)) < 12


def test_colour_and_line_style_repeat_together_only_after_35_trackers():
    pairs = {(place % len(TRACKER_COLORS), place % len(LINE_STYLES)) for place in range(35)}
    assert len(pairs) == 35


@pytest.mark.parametrize("theme", THEMES)
def test_png_is_1600_pixels_wide_on_the_theme_s_background(plot, tmp_path, theme):
    with Image.open(save_plot(plot(theme), tmp_path / "new" / "plot.png")) as image:
        assert image.width == 1600
        assert "#{:02x}{:02x}{:02x}".format(*image.convert("RGB").getpixel((2, 2))) == THEMES[theme].background


def test_svg_keeps_its_text_and_equal_plots_are_equal_files(plot, tmp_path):
    first, second = save_plot(plot(), tmp_path / "a.svg"), save_plot(plot(), tmp_path / "b.svg")
    assert first.read_bytes() == second.read_bytes()
    texts = ["".join(node.itertext()) for node in ElementTree.parse(first).iter("{http://www.w3.org/2000/svg}text")]
    assert "Success on Drawn" in texts and "[60.0] teacher" in texts


def test_other_files_and_themes_are_refused(plot, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.svg or \.png, got plot\.jpg"):
        save_plot(plot(), tmp_path / "plot.jpg")
    with pytest.raises(ValueError, match="`theme` must be one of light, dark, got 'blue'"):
        plot("blue")


def test_inline_svg_takes_every_colour_from_the_page(plot):
    svg = inline_svg(plot(), "first", 'a "plot" of <x>')
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    used = set(re.findall(r"var\(--([\w-]+)\)", svg))
    assert {"ink", "grid", "tracker-0", "tracker-1"} <= used <= set(THEMES["light"].variables())
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == 'a "plot" of <x>'
    assert "width" not in root.attrib and "viewBox" in root.attrib
    assert "<style" not in svg


def test_ids_of_two_plots_on_a_page_differ_and_their_references_are_whole(plot):
    ids = []
    for name in ("first", "second"):
        svg = inline_svg(plot(), name, "a plot")
        own = re.findall(r'\bid="([^"]+)"', svg)
        assert set(re.findall(r"url\(#([^)]+)\)", svg) + re.findall(r'href="#([^"]+)"', svg)) <= set(own)
        ids += own
    assert len(set(ids)) == len(ids)


def test_drawing_leaves_matplotlib_as_it_was(plot):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot("dark")
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install ct_hf\[plots\]"), styled("light"):
        pass
