import math
from dataclasses import replace

import pytest

from ct_hf.evaluation.page_tables import (
    figures_table,
    missing_sequences,
    sequences_table,
    summary_notices,
    summary_table,
)
from ct_hf.evaluation.results import Results, SequenceLength, TrackerScores, read_results


@pytest.fixture
def results(draw_results, tmp_path):
    def make(scores, change=None, **kwargs):
        drawn = draw_results(scores, **kwargs)
        if change:
            change(drawn.content["trackers"])
        return read_results(drawn.write(tmp_path / "results"))

    return make


def column(table, title):
    return [row[[head for head, _ in table.header].index(title)] for row in table.body]


def test_figures_are_compared_with_the_first_tracker(results):
    table = figures_table(results({"teacher": 60.0, "student": 57.0}, fps=[20.0, 150.0]))
    assert [head for head, _ in table.header] == [
        "Tracker",
        "Layers",
        "Parameters",
        "AUC",
        "Precision",
        "AUC kept",
        "Speed",
        "Speed-up",
    ]
    # 57 / 60 = 0.95 and 150 / 20 = 7.5
    assert table.body == [
        ["teacher", "12", "92.1", "60.0", "65.0", "100.0", "20.0", "1.00x"],
        ["student", "6", "46.0", "57.0", "62.0", "95.0", "150", "7.50x"],
    ]


def test_what_is_not_known_is_a_dash_and_never_0(results):
    def lose(trackers):
        trackers[0]["layers"] = None
        trackers[1]["score"]["auc"] = math.nan
        trackers[1]["speed"]["fps"] = None
        trackers[2]["speed"] = None
        del trackers[2]["score"]["auc"]

    table = figures_table(results(dict.fromkeys("abc", 50.0), lose, fps=[10.0, 20.0, 30.0]))
    assert column(table, "Layers") == ["-", "6", "4"]
    assert column(table, "AUC") == ["50.0", "-", "-"]
    assert column(table, "AUC kept") == ["100.0", "-", "-"]
    assert column(table, "Speed") == ["10.0", "-", "-"]
    assert column(table, "Speed-up") == ["1.00x", "-", "-"]


def test_nothing_is_kept_of_nothing_and_columns_of_dashes_are_left_out(results):
    table = figures_table(results({"a": 0.0, "b": 10.0}))
    assert [head for head, _ in table.header] == ["Tracker", "Layers", "Parameters", "AUC", "Precision"]


def test_speeds_under_other_conditions_are_shown_but_not_compared(results):
    def measure(trackers):
        trackers[1]["speed"]["threads"] = 2

    table = figures_table(results(dict.fromkeys("abc", 50.0), measure, fps=[10.0, 20.0, 30.0]))
    assert column(table, "Speed") == ["10.0", "20.0", "30.0"]
    assert column(table, "Speed-up") == ["1.00x", "-", "3.00x"]


def test_figure_of_another_name_is_shown_under_it(results):
    def add(trackers):
        trackers[0]["score"]["robustness"] = 12.0

    assert column(figures_table(results({"a": 50.0}, add)), "robustness") == ["12.0"]


def test_sequences_have_a_row_each_with_a_dash_where_one_is_missing(results):
    def lose(trackers):
        del trackers[1]["per_sequence"]["drawn-1"]

    partly = results({"a": 50.0, "b": 60.0}, lose)
    assert sequences_table(partly).body == [
        ["drawn-0", "10", "50.0", "60.0"],
        ["drawn-1", "11", "50.0", "-"],
        ["drawn-2", "12", "50.0", "62.0"],
    ]
    (notice,) = missing_sequences(partly)
    assert notice.startswith("b has no AUC on 1 of 3 sequences (drawn-1)")
    assert missing_sequences(results({"a": 50.0})) == []


def test_summary_has_a_column_a_data_set(results):
    table = summary_table(
        {
            "one": results({"a": 50.0, "b": 40.0}),
            "two": results({"a": 70.0, "c": 30.0}, protocol="got10k"),
        }
    )
    assert table.header[2:] == [("one", "AUC, otb"), ("two", "AO, got10k")]
    assert table.body == [
        ["a", "92.1", "50.0", "70.0"],
        ["b", "46.0", "40.0", "-"],
        ["c", "46.0", "-", "30.0"],
    ]


def test_unlike_trackers_of_one_name_are_listed_apart(results):
    def other(trackers):
        trackers[0]["parameters"] = 5_000_000

    def unknown(trackers):
        trackers[0]["parameters"] = trackers[0]["layers"] = None

    unlike = {"one": results({"a": 50.0}), "two": results({"a": 70.0}, other)}
    assert summary_table(unlike).body == [["a (one)", "92.1", "50.0", "-"], ["a (two)", "5.0", "-", "70.0"]]
    assert summary_notices(unlike) == [
        "Trackers of one name differ in layers, parameters or weights between the data sets and are listed apart: a."
    ]
    alike = {"one": results({"a": 50.0}, unknown), "two": results({"a": 70.0}, other)}
    assert summary_table(alike).body == [["a", "5.0", "50.0", "70.0"]]
    assert summary_notices(alike) == []


def test_unlike_protocols_are_pointed_out(results):
    mixed = {"one": results({"a": 50.0}), "two": results({"a": 70.0}, protocol="lasot")}
    assert summary_notices(mixed) == ["The data sets follow different protocols: compare within a column, not across."]


def test_trackers_of_other_weights_are_other_trackers():
    """Students are all called so, and those of one teacher are of one size."""
    tracker = TrackerScores("student", 4, 10, {"auc": 50.0}, {}, weights="a1")
    results = {
        title: Results(title, "otb", [SequenceLength("a", 3)], [replace(tracker, weights=weights)])
        for title, weights in (("one", "a1"), ("two", "b2"))
    }
    assert "differ in layers, parameters or weights" in summary_notices(results)[0]
    assert len(summary_table(results).body) == 2
    results["two"] = results["one"]
    assert summary_notices(results) == [] and len(summary_table(results).body) == 1


def test_a_tracker_of_which_nothing_is_known_has_its_name():
    results = Results("one", "otb", [SequenceLength("a", 3)], [TrackerScores("bare", None, None, {}, {})])
    assert figures_table(results).body == [["bare"]]
