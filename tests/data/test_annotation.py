import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_hf.data.annotation import check_box, check_length, read_flags, read_rows, read_text


@pytest.fixture
def text(tmp_path):
    """Writes a text file, byte by byte."""

    def text(content, name="boxes.txt"):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return text


@pytest.mark.parametrize("separator", [",", "\t", " ", ", ", " ,\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "\n", "\n \r\n\n"])
def test_every_separator_and_line_end(text, separator, end, last):
    lines = [separator.join(row) for row in (["1", "2.5", "-3", "4e1"], ["nan", "NaN", "NAN", "-nan"], ["5"] * 4)]
    rows = read_rows(text(end.join(lines) + last))
    assert rows.dtype == np.float32 and rows.shape == (3, 4)
    assert rows[[0, 2]].tolist() == [[1, 2.5, -3, 40], [5, 5, 5, 5]] and np.isnan(rows[1]).all()


def test_files_without_rows(text):
    for content in ("", "\n \n"):
        rows = read_rows(text(content))
        assert rows.shape == (0, 4) and rows.dtype == np.float32


def test_byte_order_marks_do_not_matter(text):
    assert read_rows(text(b"\xef\xbb\xbf1,2,3,4\n")).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    "row",
    ["1,2,3", "1,2,3,4,5", "a,b,c,d", "", "  ", "1,2,3,nan", "nan,nan,nan,4", "0x1,2,3,4", "'1',2,3,4", "1,2,3,4#5"],
)
@pytest.mark.parametrize("number", [1, 5])
def test_a_row_that_is_not_four_numbers_is_named(text, fails, row, number):
    lines = ["1,2,3,4"] * 9
    lines[number - 1] = row
    file = text("\n".join(lines))
    with fails("bad_box", file, f"row {number}: got {row!r}"):
        read_rows(file)


def test_rows_of_another_length_do_not_make_up_for_each_other(text, fails):
    """8 numbers on two lines, and files whose rows are all of 3 or 5."""
    for content in ("1 2 3\n4 5 6 7 8\n", "1 2 3\n4 5 6\n", "1 2 3 4 5\n6 7 8 9 0\n"):
        with fails("bad_box", "row 1"):
            read_rows(text(content))


NUMBERS = st.one_of(
    st.floats(width=64).map(repr),
    st.floats(-2000, 2000).map(lambda value: f"{value:.4f}"),
    st.integers(-(10**9), 10**9).map(str),
    st.sampled_from(
        ["1_000", "infinity", "+.5", "5.", "1e-50", "1e400", "3.4028235677973366e+38", "٣", "\xa07", "0x1"]
    ),
)


@settings(deadline=None, max_examples=300)
@given(rows=st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=1, max_size=6))
def test_numbers_are_those_that_python_reads(rows, tmp_path_factory):
    """Bit by bit, and the same are refused."""
    file = tmp_path_factory.getbasetemp() / "numbers.txt"
    file.write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    try:
        values = [[float(value) for value in row] for row in rows]
        refused = any(0 < sum(map(math.isnan, row)) < 4 for row in values)
    except ValueError:
        refused = True
    if refused:
        with pytest.raises(ValueError, match="expected four numbers x,y,w,h, or four NaN"):
            read_rows(file)
    else:
        with np.errstate(over="ignore"):
            expected, read = np.array(values, dtype=np.float32), read_rows(file)
        np.testing.assert_array_equal(read.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("content", ["0,1,0,0,1", "0\n1\n0\n0\n1\n", "0 1 0\t0, 1 \r\n"])
def test_flags_on_one_line_or_one_a_line(text, content):
    flags = read_flags(text(content), 5)
    assert flags.dtype == np.int8 and flags.tolist() == [0, 1, 0, 0, 1]


def test_flags_up_to_a_value(text):
    assert read_flags(text("8 0 3"), 3, most=8).tolist() == [8, 0, 3]
    assert read_flags(text(""), 0).shape == (0,)


@pytest.mark.parametrize(
    ("content", "most", "cause", "words"),
    [
        ("0\n1\n", 1, "length_mismatch", ["2 entries for 3 frames", "one 0 or 1 for"]),
        ("0 1 0 1", 1, "length_mismatch", ["4 entries for 3 frames"]),
        ("0 1 2", 1, "bad_box", ["entry 3: got '2', expected 0 or 1"]),
        ("0 10 1", 1, "bad_box", ["entry 2: got '10', expected 0 or 1"]),
        ("010 1 0", 1, "bad_box", ["entry 1: got '010'"]),
        ("8 9 1", 8, "bad_box", ["entry 2: got '9', expected number from 0 to 8"]),
        ("0 -1 1", 8, "bad_box", ["entry 2: got '-1'", "number from 0 to 8"]),
        ("0 1.0 True", 1, "bad_box", ["entry 2: got '1.0'", "0 or 1"]),
    ],
)
def test_flags_of_another_number_or_value(text, fails, content, most, cause, words):
    file = text(content, "absent.txt")
    with fails(cause, file, *words):
        read_flags(file, 3, most)


def test_files_that_are_not_there_or_no_text(text, tmp_path, fails):
    for read in (read_text, read_rows, lambda file: read_flags(file, 3)):
        with fails("missing_ground_truth", tmp_path / "nowhere.txt", "does not exist"):
            read(tmp_path / "nowhere.txt")
        with fails("missing_ground_truth", "boxes.txt cannot be read as text"):
            read(text(b"1,2,3,\xff\xfe"))


def test_lengths(tmp_path, fails):
    check_length(3, 3, tmp_path / "boxes.txt")
    with fails("length_mismatch", f"{tmp_path} has 4 frames but boxes.txt has 3 rows"):
        check_length(3, 4, tmp_path / "boxes.txt")


@pytest.mark.parametrize("box", [(5, 5, 0, 4), (5, 5, 4, -1), (0, 0, 0, 0), (1, 1, math.inf, 4), (1, math.nan, 4, 4)])
def test_boxes_without_area(fails, box):
    with fails("bad_box", "frame 3: the box", "is not a box of positive width and height"):
        check_box(np.array(box), (80, 60), "frame 3")


@pytest.mark.parametrize("box", [(80, 5, 4, 4), (5, 60, 4, 4), (-9, 5, 9, 4), (5, -9, 4, 9)])
def test_boxes_outside_of_the_frame(fails, box):
    with fails("bad_box", "frame 3: the box", "outside of the frame of 80x60 pixels"):
        check_box(np.array(box), (80, 60), "frame 3")


@pytest.mark.parametrize("box", [(5, 5, 801, 10), (5, 5, 1010, 1010000)])
def test_boxes_far_larger_than_the_frame(fails, box):
    """Of a row that lacks a comma; the window around one would fill the memory."""
    with fails("bad_box", "frame 3: the box", "more than 3 times as large as the frame of 80x60 pixels"):
        check_box(np.array(box), (80, 60), "frame 3")


@pytest.mark.parametrize("box", [(-5, -5, 6, 6), (79, 59, 40, 40), (0, 0, 80, 60)])
def test_boxes_partly_in_the_frame(box):
    check_box(np.array(box), (80, 60), "frame 3")
