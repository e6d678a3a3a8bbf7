import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ct_hf.data import FolderSequence
from ct_hf.data.clips import clip_length, cut_spans, read_rows


def rows_of(num_frames, stride):
    return [row for span in cut_spans("a", num_frames, stride) for row in span.rows(stride)]


@settings(deadline=None)
@given(num_frames=st.integers(1, 3000), stride=st.integers(1, 100))
def test_every_frame_is_in_one_short_row(num_frames, stride):
    rows = rows_of(num_frames, stride)
    assert sorted(frame for row in rows for frame in row) == list(range(num_frames))
    assert max(map(len, rows)) <= 32
    assert max(row[-1] - row[0] for row in rows) <= 200
    assert max(row.step for row in rows) <= stride
    assert len({row[0] for row in rows}) == len(rows), "the first frame is a number of the clip"
    if num_frames > 1:
        assert min(map(len, rows)) >= 2, "nothing is left over of which no pair can be made"


def test_rows_reach_far():
    assert rows_of(208, 8) == [range(first, 208, 8) for first in range(8)]
    assert {row[-1] - row[0] for row in rows_of(208, 8)} == {200}
    assert {len(row) for row in rows_of(208, 8)} == {26}
    reach = [row[-1] - row[0] for row in rows_of(2500, 8)]
    assert min(reach) > 180 and max(reach) <= 200, "whatever the length, all spans of a long sequence are long"
    assert [(row[0], row[-1], len(row)) for row in rows_of(100, 8)] == [(n, 96 + n, 25) for n in range(4)]


@pytest.mark.parametrize("stride", [0, -1, 101])
def test_strides_out_of_range(stride):
    with pytest.raises(ValueError, match="`stride` must be from 1 to 100, got"):
        clip_length(stride)


def read(folder, stride=100):
    sequence = FolderSequence(folder)
    rows, left_out = [], []
    for span in cut_spans(sequence.name, len(sequence), stride):
        own, bad = read_rows(sequence, span, stride)
        rows, left_out = rows + own, left_out + bad
    return rows, [(entry.frame, entry.cause) for entry in left_out]


def test_files_boxes_and_flags_are_those_of_the_sequence(make_folder):
    folder = make_folder(rows=[(1, 2, 30, 30), (3, 4, 30, 30), ("NaN",) * 4] * 4)
    rows, left_out = read(folder)
    sequence = FolderSequence(folder)
    assert left_out == [] and [row["frame_index"] for row in rows] == [[n, n + 4, n + 8] for n in range(4)]
    for row in rows:
        index = row["frame_index"]
        assert [frame["bytes"] for frame in row["frames"]] == [sequence.files[frame].read_bytes() for frame in index]
        np.testing.assert_array_equal(row["boxes"], sequence.boxes[index])
        assert row["visible"] == sequence.visible[index].tolist() and sum(row["visible"]) == 2, "absent frames stay"
        assert row["language"] is None


def test_broken_frames_are_left_out_one_by_one(make_folder):
    rows = [(10 + index, 12, 20, 16) for index in range(12)]
    rows[9] = (500, 2, 3, 4)
    folder = make_folder(rows=rows)
    files = sorted(folder.glob("*.jpg"))
    files[0].write_bytes(files[0].read_bytes()[:-200])
    files[1].write_bytes(b"no image")
    Image.new("RGB", (40, 30)).save(files[2])
    rows, left_out = read(folder)
    assert sorted(left_out) == [(0, "corrupt_image"), (1, "corrupt_image"), (2, "frame_size"), (9, "bad_box")]
    assert [row["frame_index"] for row in rows] == [[4, 8], [6, 10], [3, 7, 11]], "1, 5, 9 has one frame left"
    assert [row["clip"] for row in rows] == [0, 2, 3]


def test_the_size_of_most_frames_counts(make_folder):
    folder = make_folder()
    Image.new("RGB", (40, 30)).save(folder / "00000001.jpg")
    assert read(folder)[1] == [(0, "frame_size")]


def test_a_row_needs_its_target_twice(make_folder):
    rows, left_out = read(make_folder(rows=[(1, 2, 30, 30)] * 5 + [("NaN",) * 4] * 7))
    assert left_out == [] and [row["clip"] for row in rows] == [0]


def test_an_image_with_a_box_is_a_row(make_folder):
    rows, left_out = read(make_folder(count=1))
    assert left_out == [] and [row["frame_index"] for row in rows] == [[0]]
