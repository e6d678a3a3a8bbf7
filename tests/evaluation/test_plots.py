import math

import pytest

from ct_hf.evaluation.plots import plot_curves, plot_sequences, plot_speed, speed_groups
from ct_hf.evaluation.results import read_results
from ct_hf.evaluation.theme import THEMES, inline_svg


@pytest.fixture
def results(draw_results, tmp_path):
    def make(scores, change=None, **kwargs):
        drawn = draw_results(scores, **kwargs)
        if change:
            change(drawn.content)
        return read_results(drawn.write(tmp_path / "results"))

    return make


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def colors(figure):
    return [handle.get_color() for handle in figure.legends[0].legend_handles]


def test_legend_of_a_curve_is_sorted_by_the_figure_in_brackets(results):
    figure = plot_curves(results({"a": 50.0, "b": 70.0, "c": 60.0}), "success")
    assert legend(figure) == ["[70.0] b", "[60.0] c", "[50.0] a"]
    # Colours go by the order of the results, not by rank, so that a tracker has one colour in all plots.
    assert colors(figure) == [THEMES["light"].trackers[place] for place in (1, 2, 0)]
    assert legend(plot_curves(results({"a": 50.0, "b": 70.0}), "precision")) == ["[75.0] b", "[55.0] a"]


def test_curves_are_drawn_as_they_are_given(results):
    axes = plot_curves(results({"a": 50.0}), "precision").axes[0]
    assert axes.get_lines()[0].get_xydata().tolist() == [[0, 0], [25, 50], [50, 100]]
    assert axes.get_xlabel() == "Centre error threshold (pixels)"


def test_given_order_decides_on_colours_and_line_styles(results):
    two = results({"a": 50.0, "b": 40.0})
    assert [line.get_linestyle() for line in plot_curves(two, "success").axes[0].get_lines()] == ["-", "--"]
    figure = plot_curves(two, "success", order=["x", "b", "a"], theme="dark")
    assert colors(figure) == [THEMES["dark"].trackers[place] for place in (2, 1)]
    assert "-" not in [line.get_linestyle() for line in figure.axes[0].get_lines()]
    with pytest.raises(ValueError, match="`order` must name all trackers, got a without b"):
        plot_curves(two, "success", order=["a"])


def test_unknown_figure_is_a_dash_at_the_end(results):
    def lose(content):
        content["trackers"][0]["score"]["auc"] = math.nan
        del content["trackers"][1]["score"]["auc"]

    assert legend(plot_curves(results({"a": 1.0, "b": 2.0, "c": 3.0}, lose), "success")) == [
        "[3.0] c",
        "[-] a",
        "[-] b",
    ]


def test_names_are_shown_as_they_are_but_for_long_ones(results):
    names = ["$x_1$", "_hidden", "<b>&amp;", "org/" + "long-" * 10 + "end"]
    figure = plot_curves(results(dict.fromkeys(names, 50.0)), "success")
    shown = legend(figure)
    assert shown[:3] == ["[50.0] $x_1$", "[50.0] _hidden", "[50.0] <b>&amp;"]
    assert shown[3].startswith("[50.0] org/long-") and shown[3].endswith("long-end") and "…" in shown[3]
    assert len(shown[3]) == len("[50.0] ") + 40
    assert ">[50.0] $x_1$</text>" in inline_svg(figure, "plot", "names"), "dollars do not begin a formula"


def test_tracker_without_a_curve_is_left_out_and_a_plot_of_none_is_refused(results):
    def lose(content):
        del content["trackers"][0]["curves"]["success"]

    some = results({"a": 50.0, "b": 40.0}, lose)
    assert legend(plot_curves(some, "success")) == ["[40.0] b"]
    with pytest.raises(ValueError, match="of Drawn have no curve 'norm_precision'"):
        plot_curves(some, "norm_precision")
    with pytest.raises(ValueError, match="`curve` must be one of success, precision, norm_precision, got 'recall'"):
        plot_curves(some, "recall")


def test_the_main_figure_follows_the_protocol(results):
    figure = plot_curves(results({"a": 55.5}, protocol="got10k"), "success")
    assert legend(figure) == ["[55.5] a"]
    assert figure.legends[0].get_title().get_text() == "AO in brackets"
    assert plot_sequences(results({"a": 55.5}, protocol="trackingnet")).axes[0].get_xlabel() == "Success (%)"


def rows(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_bars_are_the_figures_by_sequence_with_the_most_different_first(results):
    # The second tracker's figures are 10, 11 and 12 higher.
    figure = plot_sequences(results({"a": 50.0, "b": 60.0}))
    assert rows(figure) == ["drawn-2", "drawn-1", "drawn-0"]
    widths = [[bar.get_width() for bar in bars] for bars in figure.axes[0].containers]
    assert widths == [[50, 50, 50], [62, 61, 60]]
    assert figure.get_suptitle() == "AUC by sequence of Drawn\nall 3 sequences, most different first"
    assert legend(figure) == ["a", "b"]


def test_many_sequences_and_trackers_are_cut_and_the_title_says_so(results):
    figure = plot_sequences(results({"a": 50.0, "b": 60.0}, num_sequences=100))
    assert rows(figure)[:2] == ["drawn-99", "drawn-98"] and len(rows(figure)) == 22
    assert figure.get_suptitle().endswith("22 of 100 sequences, where trackers differ most")
    many = plot_sequences(results({f"t{k}": 50.0 - k for k in range(9)}, num_sequences=100))
    assert many.get_suptitle().endswith("8 of 100 sequences, where trackers differ most; 7 of 9 trackers")
    assert legend(many) == [f"t{k}" for k in range(7)]


def test_of_one_tracker_the_lowest_sequences_are_shown(results):
    def set_figures(content):
        for place, figures in enumerate(content["trackers"][0]["per_sequence"].values()):
            figures["auc"] = [30.0, 10.0, 20.0][place]

    figure = plot_sequences(results({"a": 20.0}, set_figures))
    assert rows(figure) == ["drawn-1", "drawn-2", "drawn-0"]
    assert figure.get_suptitle().endswith("all 3 sequences, lowest first")


def test_missing_sequence_has_no_bar_instead_of_a_0(results):
    def lose(content):
        del content["trackers"][1]["per_sequence"]["drawn-0"]

    figure = plot_sequences(results({"a": 50.0, "b": 60.0}, lose))
    assert math.isnan(figure.axes[0].containers[1][rows(figure).index("drawn-0")].get_width())

    def lose_all(content):
        content["trackers"][0]["per_sequence"] = {}

    with pytest.raises(ValueError, match="of Drawn have no 'auc' by sequence"):
        plot_sequences(results({"a": 50.0}, lose_all))


def test_speed_is_plotted_with_both_figures_in_the_legend(results):
    measured = results({"a": 50.0, "b": 60.0}, fps=[20.0, 151.6])
    figure = plot_speed(measured, measured.trackers)
    assert legend(figure) == ["[60.0, 152 FPS] b", "[50.0, 20.0 FPS] a"]
    points = {tuple(line.get_xydata()[0]) for line in figure.axes[0].get_lines()}
    assert points == {(20.0, 50.0), (151.6, 60.0)}
    assert figure.axes[0].get_xscale() == "log"
    close = results({"a": 50.0, "b": 60.0}, fps=[20.0, 30.0])
    assert plot_speed(close, close.trackers).axes[0].get_xlim()[0] == 0


def test_ticks_of_a_wide_range_of_speeds_are_plain_numbers(results):
    measured = results({"a": 50.0, "b": 60.0}, fps=[20.0, 2_000_000.0])
    figure = plot_speed(measured, measured.trackers)
    figure.draw_without_rendering()
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert "1,000" in ticks and "1,000,000" in ticks


def test_speeds_under_other_conditions_do_not_share_a_plot(results):
    def measure(content):
        content["trackers"][1]["speed"]["device"] = "cuda"
        content["trackers"][3]["speed"] = None

    measured = results(dict.fromkeys("abcd", 50.0), measure, fps=[1.0, 2.0, 3.0, 4.0])
    groups = [[tracker.name for tracker in group] for group in speed_groups(measured.trackers)]
    assert groups == [["a", "c"], ["b"]]
    with pytest.raises(ValueError, match="same conditions, got 2 different ones"):
        plot_speed(measured, measured.trackers[:3])
    with pytest.raises(ValueError, match="got 1 different ones and some without a speed"):
        plot_speed(measured, measured.trackers[2:])
