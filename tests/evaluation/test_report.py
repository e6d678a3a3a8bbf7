import doctest

import pytest

from ct_hf.evaluation import comparison_table, report


TEACHER = {
    "name": "teacher",
    "layers": 12,
    "parameters": 92_100_000,
    "gmacs": 21.5,
    "auc": 66.0,
    "precision": 72.0,
    "norm_precision": 76.0,
    "fps": 20.0,
}
STUDENT = TEACHER | {"name": "student", "layers": 4, "parameters": 35_440_000, "gmacs": 7.6, "auc": 62.7, "fps": 50.0}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_all_columns():
    header, _, teacher, student = map(cells, comparison_table([TEACHER, STUDENT]).splitlines())
    assert header == [
        "Tracker",
        "Layers",
        "Parameters (M)",
        "GMACs",
        "AUC",
        "Precision",
        "Norm. precision",
        "AUC kept (%)",
        "FPS",
        "Speed-up",
    ]
    assert teacher == ["teacher", "12", "92.1", "21.5", "66.0", "72.0", "76.0", "100.0", "20.0", "1.00x"]
    # 62.7 / 66.0 = 0.95 and 50 / 20 = 2.5
    assert student == ["student", "4", "35.4", "7.6", "62.7", "72.0", "76.0", "95.0", "50.0", "2.50x"]


def test_columns_are_padded_and_numbers_are_aligned_right():
    lines = comparison_table([TEACHER, STUDENT | {"name": "s"}]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    rule = cells(lines[1])
    assert rule[0].startswith(":-")
    assert all(cell.endswith("-:") for cell in rule[1:])
    assert "|      4 |" in lines[3]


def test_column_that_no_row_has_is_left_out_and_a_missing_figure_is_a_dash():
    header, _, first, second = map(
        cells,
        comparison_table([{"name": "a", "auc": 50.0, "per_sequence": {}}, {"name": "b", "fps": 3.0}]).splitlines(),
    )
    assert header == ["Tracker", "AUC", "AUC kept (%)", "FPS"]
    assert first == ["a", "50.0", "100.0", "-"]
    assert second == ["b", "-", "-", "3.0"]


@pytest.mark.parametrize(
    ("fps", "shown"),
    [
        ((20.0, None), [("20.0", "1.00x"), ("-", "-")]),
        ((None, 50.0), [("-", None), ("50.0", None)]),  # without a reference nobody has a speed-up: no such column
        ((None, None), [(None, None), (None, None)]),
    ],
)
def test_unknown_speed_is_a_dash_and_has_no_ratio(fps, shown):
    rows = [row | {"fps": value} for row, value in zip((TEACHER, STUDENT), fps, strict=True)]
    header, _, *lines = map(cells, comparison_table(rows).splitlines())
    table = [dict(zip(header, line, strict=True)) for line in lines]
    assert [(row.get("FPS"), row.get("Speed-up")) for row in table] == shown
    assert [row["AUC kept (%)"] for row in table] == ["100.0", "95.0"]


def test_tiny_tracker_does_not_cost_nothing():
    row = comparison_table([{"name": "tiny", "parameters": 174_197, "gmacs": 0.0137}]).splitlines()[2]
    assert cells(row) == ["tiny", "0.17", "0.014"]


def test_first_row_that_scores_nothing_is_no_reference():
    table = comparison_table([{"name": "a", "auc": 0.0}, {"name": "b", "auc": 10.0}])
    assert "kept" not in table


def test_name_cannot_break_the_table():
    lines = comparison_table([{"name": "a|b\nc", "auc": 1.0}]).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| a\\|b c ")


def test_rows_are_not_changed():
    rows = [{"name": "a", "auc": 50.0}, {"name": "b", "fps": 2.0}]
    comparison_table(rows)
    assert rows == [{"name": "a", "auc": 50.0}, {"name": "b", "fps": 2.0}]


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="`rows` is empty"):
        comparison_table([])
    with pytest.raises(ValueError, match=r"`rows\[1\]` must have a `name`, got the keys \['auc'\]"):
        comparison_table([TEACHER, {"auc": 1.0}])


def test_example_in_the_docstring():
    assert doctest.testmod(report).failed == 0
    assert doctest.testmod(report).attempted > 0


def test_figures_of_servers_have_their_columns():
    rows = [
        {"name": "a", "ao": 60.0, "sr50": 70.0, "sr75": 50.0},
        {"name": "b", "ao": 57.0, "sr50": 66.0, "sr75": 41.0},
    ]
    header, _, _, student = comparison_table(rows).splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["Tracker", "AO", "SR50", "SR75", "AO kept (%)"]
    assert [cell.strip() for cell in student.split("|")[1:-1]] == ["b", "57.0", "66.0", "41.0", "95.0"]


def test_a_figure_that_is_nan_is_a_dash():
    table = comparison_table([{"name": "a", "auc": 60.0, "precision": 70.0}, {"name": "b", "auc": float("nan")}])
    assert "nan" not in table
    *_, student = table.splitlines()
    assert [cell.strip() for cell in student.split("|")[1:-1]] == ["b", "-", "-", "-"]


def test_speeds_of_unlike_conditions_have_no_ratio():
    first = {"name": "a", "fps": 10.0, "conditions": "cpu, batch size 1"}
    alike, unlike = {**first, "name": "b", "fps": 20.0}, {**first, "name": "c", "conditions": "cpu, batch size 8"}
    *_, second, third = comparison_table([first, alike, unlike]).splitlines()
    assert "2.00x" in second and "10.0" in third and "x" not in third
