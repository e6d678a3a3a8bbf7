import numpy as np
import pytest
from PIL import Image

from ct_hf.data import FolderSequence, SequenceError, read_sequences


def test_reads_frames_boxes_and_visibility(sequence, folder):
    assert sequence.name == "walk"
    assert len(sequence) == 12
    assert sequence.boxes.shape == (12, 4) and sequence.boxes.dtype == np.float32
    np.testing.assert_allclose(sequence.boxes[3], [13, 12, 20, 17.5])
    assert sequence.visible.dtype == bool and sequence.visible.all()
    assert sequence.frame(3).mode == "RGB" and sequence.frame(3).size == (80, 60)
    assert sequence.frame_bytes(3) == (folder / "00000004.jpg").read_bytes(), "the file is handed on unchanged"
    box, visible = sequence.annotation(3)
    assert visible and box.tolist() == sequence.boxes[3].tolist()


def test_grey_frames_become_rgb(folder, sequence):
    Image.new("L", (80, 60), 7).save(folder / "00000002.jpg")
    assert sequence.frame(1).getpixel((5, 5)) == (7, 7, 7)


def test_nan_rows_and_flags_mean_absent(make_folder):
    rows = [(1, 2, 3, 4), ("NaN",) * 4, (5, 6, 7, 8), (0, 0, 0, 0)]
    folder = make_folder(count=4, rows=rows)
    (folder / "absent.txt").write_text("0\n0\n0\n1\n")
    sequence = FolderSequence(folder)
    assert sequence.visible.tolist() == [True, False, True, False]
    assert np.isnan(sequence.boxes[1]).all()
    for index in range(4):
        sequence.frame(index)  # an absent target needs no valid box


def test_folder_that_does_not_exist(tmp_path, fails):
    with fails("empty", "`root`", "nowhere"):
        read_sequences(tmp_path / "nowhere")
    with fails("empty", "`path`", "nowhere"):
        FolderSequence(tmp_path / "nowhere")


def test_folder_without_sequences(tmp_path, fails):
    (tmp_path / "notes.txt").write_text("nothing here")
    (tmp_path / "empty").mkdir()
    with fails("empty", tmp_path, "no sequences", "docs/datasets.md"):
        read_sequences(tmp_path)


def test_no_frames(make_folder, fails):
    folder = make_folder(count=2)
    for file in folder.glob("*.jpg"):
        file.unlink()
    with fails("empty", folder, ".jpg"):
        read_sequences(folder.parent)


def test_missing_ground_truth(folder, fails):
    (folder / "groundtruth.txt").unlink()
    with fails("missing_ground_truth", folder / "groundtruth.txt"):
        read_sequences(folder.parent)


@pytest.mark.parametrize("rows", [11, 13])
def test_rows_of_another_length_name_both_counts(make_folder, rows, fails):
    folder = make_folder(count=12, rows=[(1, 2, 3, 4)] * rows)
    with fails("length_mismatch", "12 frames", f"{rows} rows"):
        read_sequences(folder)


@pytest.mark.parametrize(
    "box", [(5, 5, 0, 4), (5, 5, 4, -1), (0, 0, 0, 0), (80, 5, 4, 4), (5, 60, 4, 4), (-9, 5, 9, 4), (1, 1, "inf", 4)]
)
def test_box_without_area_in_the_frame(make_folder, box, fails):
    sequence = FolderSequence(make_folder(count=3, rows=[(1, 2, 3, 4), box, (1, 2, 3, 4)]))
    sequence.frame(0)
    with fails("bad_box", "row 2", "groundtruth.txt"):
        sequence.frame(1)


def test_box_partly_outside_is_fine(make_folder):
    FolderSequence(make_folder(count=2, rows=[(-5, -5, 6, 6), (79, 59, 40, 40)])).frame(1)


@pytest.mark.parametrize("keep", [0, 20, 600])
def test_corrupt_or_truncated_image(folder, sequence, keep, fails):
    file = folder / "00000003.jpg"
    assert len(file.read_bytes()) > 600
    file.write_bytes(file.read_bytes()[:keep])
    sequence.frame(1)
    with fails("corrupt_image", file):
        sequence.frame(2)


def test_frame_of_another_size(folder, sequence, fails):
    Image.new("RGB", (60, 80)).save(folder / "00000003.jpg")
    with fails("frame_size", "00000003.jpg", "60x80", "80x60"):
        sequence.frame(2)


def test_frame_that_has_gone(folder, sequence, fails):
    assert sequence.frame(3).size == (80, 60)
    (folder / "00000003.jpg").unlink()
    with fails("missing_frame", "00000003.jpg"):
        sequence.frame(2)


def test_root_may_be_one_sequence_or_many(make_folder):
    make_folder("zebra", count=2)
    first = make_folder("ant", count=2)
    (first.parent / "readme.md").write_text("not a sequence")
    assert [sequence.name for sequence in read_sequences(first.parent)] == ["ant", "zebra"]
    assert [sequence.name for sequence in read_sequences(str(first))] == ["ant"]


def test_broken_sequences_can_be_left_to_the_stream(make_folder):
    make_folder("good", count=2)
    (make_folder("bad", count=2) / "groundtruth.txt").unlink()
    root = make_folder("ugly", count=2).parent
    assert len(read_sequences(root, check=False)) == 3


def test_real_sequences(real_root):
    sequences = read_sequences(real_root)
    assert len(sequences) == 22
    for sequence in sequences:
        assert len(sequence) == len(sequence.boxes) == len(sequence.visible)
        sequence.frame(len(sequence) // 2)
    absent = {sequence.name: int((~sequence.visible).sum()) for sequence in sequences if not sequence.visible.all()}
    assert absent == {"tld_pedestrian2": 29, "tld_pedestrian3": 28}


def test_files_of_the_system_and_byte_order_marks_do_not_matter(folder):
    (folder / "._00000001.jpg").write_bytes(b"no image")
    text = folder / "groundtruth.txt"
    text.write_bytes(b"\xef\xbb\xbf" + text.read_bytes())
    (sequence,) = read_sequences(folder)
    assert len(sequence) == 12
    assert sequence.boxes[0].tolist() == [10, 12, 20, 16]


@pytest.mark.parametrize("row", [(1, 1, 0, 5), (1, 1, -3, 5), (1, 1, float("inf"), 5), (1, 1, float("nan"), 5)])
def test_strict_reading_finds_broken_rows_at_once(make_folder, row):
    """Not in the middle of an evaluation."""
    rows = [(10, 12, 20, 16)] * 12
    rows[7] = row
    with pytest.raises(SequenceError, match=r"groundtruth.txt, row 8: got"):
        read_sequences(make_folder(rows=rows))


def test_links_are_called_by_their_own_names(make_folder, tmp_path):
    """Two cameras of two days, gathered into one folder."""
    day, night = make_folder("day/cam"), make_folder("night/cam")
    (chosen := tmp_path / "chosen").mkdir()
    (chosen / "first").symlink_to(day)
    (chosen / "second").symlink_to(night)
    assert [sequence.name for sequence in read_sequences(chosen)] == ["first", "second"]


def test_strict_reading_finds_boxes_that_no_frame_would_take(make_folder, fails):
    """All that a frame refuses is found before a tracker has run for hours."""
    rows = [(1, 1, 5, 5), (1, 1, 2000, 5)]
    with fails("bad_box", "row 2", "at most 3 times the frame's"):
        read_sequences(make_folder(count=2, rows=rows))
    with fails("bad_box", "row 2"):
        FolderSequence(make_folder("again", count=2, rows=rows)).frame(1)


def test_hidden_folders_are_not_sequences(folder):
    thumbnails = folder.parent / ".thumbnails"
    thumbnails.mkdir()
    Image.new("RGB", (8, 6)).save(thumbnails / "1.jpg")
    assert [sequence.name for sequence in read_sequences(folder.parent)] == ["walk"]


def test_an_image_beside_sequences_makes_no_sequence_of_them(make_folder):
    """Such as the contact sheet of them."""
    make_folder("walk")
    root = make_folder("run").parent
    Image.new("RGB", (8, 8)).save(root / "sheet.png")
    assert [sequence.name for sequence in read_sequences(root)] == ["run", "walk"]
