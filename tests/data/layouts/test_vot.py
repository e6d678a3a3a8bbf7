import numpy as np
import pytest

from ct_hf.data import read_dataset


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(lines, count=None, base="", color="", name="groundtruth.txt"):
        root = tmp_path / "VOT"
        path = root / base / "bag"
        frames(path / color, range(1, 1 + (len(lines) if count is None else count)))
        write(path / name, "\n".join(lines) + "\n")
        write(root / base / "list.txt", "bag\n")
        return root

    return make


@pytest.mark.parametrize(("base", "color"), [("", ""), ("", "color"), ("sequences", "color")])
def test_both_arrangements(make_root, base, color):
    (sequence,) = read_dataset("vot", make_root(["1,2,3,4", "5.5,6,7,8"], base=base, color=color))
    assert sequence.name == "bag" and sequence.boxes.tolist() == [[1, 2, 3, 4], [5.5, 6, 7, 8]], "as given"
    assert sequence.size == (64, 48)


@pytest.mark.parametrize(
    ("region", "box"),
    [
        ("10,5,20,1,30,5,20,9", [10, 1, 20, 8]),
        ("0,0,4,0,0,3", [0, 0, 4, 3]),
        # A window of 4x3 at (7, 5), in it 2 pixels of row 1 and 1 of row 2.
        ("m7,5,4,3,5,2,4,1", [8, 6, 3, 2]),
        ("m0,0,2,2,0,4", [0, 0, 2, 2]),
    ],
)
def test_regions_become_the_box_around_them(make_root, region, box):
    (sequence,) = read_dataset("vot", make_root([region, "0", "nan,nan,nan,nan", "m0,0,4,4,16", "m0,0,0,0"]))
    assert sequence.boxes[0].tolist() == box
    assert sequence.visible.tolist() == [True, False, False, False, False] and np.isnan(sequence.boxes[1:]).all()


def test_several_targets(make_root):
    make_root(["1,2,3,4"], name="groundtruth_car1.txt")
    root = make_root(["1,2,3,4"], name="groundtruth_obj2.txt")
    assert [sequence.name for sequence in read_dataset("vot", root)] == ["bag_car1", "bag_obj2"]


@pytest.mark.parametrize(
    "region", ["1,2,3", "1,2,3,4,5", "1;2;3;4", "", "m1,2,3", "m0,0,2,2,5", "m1,a,3,4", "m0,0,4,4,-1,3"]
)
def test_broken_regions(make_root, fails, region):
    with fails("bad_box", "groundtruth.txt", "row 2", repr(region)):
        read_dataset("vot", make_root(["1,2,3,4", region, "1,2,3,4"]))


def test_broken_sequences(make_root, fails):
    with fails("length_mismatch", "3 frames", "1 rows"):
        read_dataset("vot", make_root(["1,2,3,4"], count=3))
    root = make_root(["1,2,3,4"] * 3)
    (root / "bag" / "00000002.jpg").unlink()
    with fails("missing_frame", "lacks frame 2"):
        read_dataset("vot", root)
    (root / "bag" / "groundtruth.txt").unlink()
    with fails("missing_ground_truth", root / "bag" / "groundtruth.txt"):
        read_dataset("vot", root)
    with fails("empty", "list.txt", f"Did you mean {str(root)!r}"):
        read_dataset("vot", root / "bag")


def test_samples(samples):
    bag, ball = read_dataset("vot", samples / "VOT2015")
    assert bag.boxes[0].tolist() == pytest.approx([291.827, 124.711, 150.346, 139.578], abs=1e-3)
    assert ball.name == "ball1" and ball.boxes[0].tolist() == [492, 417, 47, 46]
    (new,) = read_dataset("vot", samples / "VOT_new")
    assert len(new) == 8 and new.boxes.tolist() == bag.boxes[:8].tolist()
