import logging
import shutil

import numpy as np
import pytest

from ct_hf.data import read_dataset


ROWS = [(11, 12, 20, 16), (12, 12, 20, 16), (13, 12, 20, 16)]


@pytest.fixture
def make_root(tmp_path, frames, write):
    """A test split of one sequence; arguments replace its parts, and None leaves one out."""

    def make(
        name="cat-3", rows=ROWS, occluded="0,0,0", outside="0,0,0", numbers=(1, 2, 3), sentence="a cat", form=None
    ):
        root = tmp_path / "LaSOT"
        path = root / name.rpartition("-")[0] / name
        frames(path / "img", numbers, form or "{:08d}.jpg")
        parts = {"groundtruth": rows, "full_occlusion": occluded, "out_of_view": outside, "nlp": sentence}
        for part, content in parts.items():
            if content is not None:
                write(path / f"{part}.txt", content)
        write(root / "testing_set.txt", f"{name}\n")
        return root

    return make


def test_boxes_count_from_zero_once(make_root):
    (sequence,) = read_dataset("lasot", make_root())
    assert sequence.name == "cat-3" and len(sequence) == 3 and sequence.size == (64, 48)
    assert sequence.boxes.tolist() == [[10, 11, 20, 16], [11, 11, 20, 16], [12, 11, 20, 16]]
    assert sequence.boxes.dtype == np.float32 and sequence.language == "a cat" and sequence.annotated
    assert [sequence.frame(index).getpixel((0, 0))[0] for index in range(3)] == pytest.approx([1, 2, 3], abs=1)


@pytest.mark.parametrize("separator", [",", "\n"])
def test_flags_decide_on_absence_and_boxes_do_not(make_root, separator):
    """On one line as published, or one a line as in the toolkit."""
    rows = [(11, 12, 20, 16), (1, 274, 8, 31), (1, 1, 0, 0)]
    root = make_root(rows=rows, occluded=separator.join("010"), outside=separator.join("001"))
    (sequence,) = read_dataset("lasot", root)
    assert sequence.visible.tolist() == [True, False, False]
    assert sequence.boxes[1].tolist() == [0, 273, 8, 31], "kept, as toolkits do"


def test_a_visible_box_without_area_is_kept_and_told(make_root, caplog):
    """The published ground truth has seven: refusing them would refuse LaSOT."""
    with caplog.at_level(logging.WARNING):
        (sequence,) = read_dataset("lasot", make_root(rows=[*ROWS[:2], (613, 731, 247, -11)]))
    assert "1 boxes" in caplog.text and "groundtruth.txt, row 3" in caplog.text
    assert sequence.visible.all() and sequence.boxes[2].tolist() == [612, 730, 247, -11]


@pytest.mark.parametrize(("numbers", "rows"), [((1, 2, 3, 4, 5), 3), ((1, 2), 3)])
def test_the_shorter_of_frames_and_rows_counts(make_root, caplog, numbers, rows):
    with caplog.at_level(logging.WARNING):
        (sequence,) = read_dataset("lasot", make_root(numbers=numbers))
    count = min(len(numbers), rows)
    assert len(sequence) == len(sequence.boxes) == len(sequence.visible) == count
    assert f"{len(numbers)} frames but {rows} rows" in caplog.text


@pytest.mark.parametrize(("numbers", "count"), [((1, 2, 3, 4, 5), 3), ((1, 2), 2)])
def test_the_length_is_the_same_before_and_after_frames_are_listed(make_root, caplog, numbers, count):
    (sequence,) = read_dataset("lasot", make_root(numbers=numbers), check=False)
    assert len(sequence) == len(sequence.boxes) == len(sequence.visible) == count
    assert [file.name for file in sequence.files] == [f"{number:08d}.jpg" for number in range(1, count + 1)]
    assert len(sequence) == len(sequence.boxes) == count and len(caplog.messages) == 1


def test_names_without_padding(make_root):
    """Unlike the published ones, and read all the same."""
    (sequence,) = read_dataset("lasot", make_root(form="{}.png"))
    assert len(sequence) == 3 and [file.name for file in sequence.files] == ["1.png", "2.png", "3.png"]


def test_a_frame_that_is_missing_in_the_middle(make_root, fails):
    root = make_root(numbers=(1, 3))
    (sequence,) = read_dataset("lasot", root, check=False)
    assert len(sequence) == 3
    with fails("missing_frame", "lacks frame 2 of 1 to 3"):
        sequence.frame(0)
    with fails("missing_frame", "lacks frame 2 of 1 to 3"):
        read_dataset("lasot", root)


def test_the_order_is_that_of_the_official_list(make_root, write):
    root = make_root("cat-3")
    make_root("cat-1")
    write(root / "testing_set.txt", "cat-3\r\ncat-1\r\n")
    assert [sequence.name for sequence in read_dataset("lasot", root)] == ["cat-3", "cat-1"]


def test_broken_annotations(make_root, fails, write):
    path = make_root() / "cat" / "cat-3"
    with fails("length_mismatch", path / "out_of_view.txt", "2 entries for 3 frames"):
        write(path / "out_of_view.txt", "0,0")
        read_dataset("lasot", path.parents[1])
    (path / "out_of_view.txt").unlink()
    with fails("missing_ground_truth", path / "out_of_view.txt"):
        read_dataset("lasot", path.parents[1])
    write(path / "out_of_view.txt", "0,0,0")
    write(path / "groundtruth.txt", "11;12;20;16\n" * 3)
    with fails("bad_box", path / "groundtruth.txt", "row 1", "'11;12;20;16'"):
        read_dataset("lasot", path.parents[1])
    write(path / "groundtruth.txt", [ROWS[0], ("NaN",) * 4, ROWS[2]])
    with fails("bad_box", path / "groundtruth.txt", "row 2"):
        read_dataset("lasot", path.parents[1])
    write(path / "groundtruth.txt", [(11, 12, 0, 16), *ROWS[1:]])
    with fails("bad_box", path / "groundtruth.txt", "row 1"):
        read_dataset("lasot", path.parents[1])


def test_sequences_of_the_list_that_are_not_there(make_root, fails, write):
    root = make_root()
    write(root / "testing_set.txt", "cat-3\ncat-9\n")
    with fails("missing_ground_truth", root / "cat" / "cat-9" / "groundtruth.txt"):
        read_dataset("lasot", root)
    assert len(read_dataset("lasot", root, check=False)) == 2, "left to the stream"


def test_missing_list_and_wrong_roots(make_root, fails):
    root = make_root()
    with fails("empty", "training_set.txt", "Found cat, testing_set.txt"):
        read_dataset("lasot", root, "train")
    with fails("empty", "testing_set.txt", f"Did you mean {str(root)!r}"):
        read_dataset("lasot", root / "cat")
    with fails("empty", f"Did you mean {str(root)!r}"):
        read_dataset("lasot", root.parent)


def test_the_extension_has_no_list(make_root):
    root = make_root("atv-10")
    make_root("atv-2", sentence=None)
    (root / "testing_set.txt").unlink()
    sequences = read_dataset("lasot_ext", root)
    assert [sequence.name for sequence in sequences] == ["atv-10", "atv-2"]
    assert [sequence.language for sequence in sequences] == ["a cat", None]
    assert sequences[0].boxes[0].tolist() == [10, 11, 20, 16]


def test_a_cut_off_archive_of_the_extension_costs_its_category_alone(make_root, fails):
    root = make_root("atv-10")
    (root / "testing_set.txt").unlink()
    (root / "badminton.zip").write_bytes(b"PK\x03\x04 and no more")
    (root / "._atv.zip").write_bytes(b"left behind by a Mac")
    atv, badminton = read_dataset("lasot_ext", root, check=False)
    assert atv.name == "atv-10" and len(atv) == 3
    with fails("missing_frame", "badminton.zip"):
        _ = badminton.boxes


def test_samples(samples, tmp_path, write):
    for name in ("airplane", "person"):
        (tmp_path / name).symlink_to(samples / "LaSOT" / name)
    write(tmp_path / "testing_set.txt", "airplane-1\nperson-901\n")
    airplane, person = read_dataset("lasot", tmp_path)
    assert len(airplane) == 24 and airplane.boxes[0].tolist() == [366, 100, 41, 16], "367,101,41,16 in the file"
    assert airplane.language == "white airplane landing on ground" and airplane.frame(23).size == airplane.size
    assert (~person.visible).nonzero()[0].tolist() == list(range(9, 15))
    (atv,) = read_dataset("lasot_ext", samples / "LaSOT_ext")
    assert atv.name == "atv-901" and len(atv) == 6
    assert len(read_dataset("lasot", samples / "LaSOT", check=False)) == 280
    assert len(read_dataset("lasot", samples / "LaSOT", "train", check=False)) == 1120


@pytest.mark.parametrize("layout", ["lasot", "lasot_ext"])
def test_archives_unpacked_where_they_lie(make_root, layout):
    """Those of the Hub hold no folder of the category."""
    root = make_root()
    (root / "cat" / "cat-3").rename(root / "cat-3")
    (root / "cat").rmdir()
    (sequence,) = read_dataset(layout, root)
    assert sequence.name == "cat-3" and len(sequence) == 3


def test_an_archive_with_a_folder_of_its_category(make_root):
    root = make_root()
    shutil.make_archive(str(root / "cat"), "zip", root, "cat")
    shutil.rmtree(root / "cat")
    (sequence,) = read_dataset("lasot_ext", root)
    assert sequence.name == "cat-3" and len(sequence) == 3
