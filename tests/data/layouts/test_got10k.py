import numpy as np
import pytest

from ct_hf.data import LAYOUTS, read_dataset


ROWS = [(10.5, 12.25, 20, 16)] * 4


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(split="val", rows=ROWS, absence="0\n0\n0\n1\n", cover="8\n1\n0\n3\n", numbers=(1, 2, 3, 4)):
        folder = tmp_path / split
        path = frames(folder / "GOT-10k_000001", numbers)
        parts = {"groundtruth.txt": rows, "absence.label": absence, "cover.label": cover}
        for name, content in parts.items():
            if content is not None:
                write(path / name, content)
        write(folder / "list.txt", "GOT-10k_000001\n")
        return tmp_path

    return make


@pytest.mark.parametrize("split", ["val", "train"])
def test_boxes_are_as_given_and_both_flags_count(make_root, split):
    (sequence,) = read_dataset("got10k", make_root(split), split)
    assert sequence.boxes[0].tolist() == [10.5, 12.25, 20, 16]
    assert sequence.visible.tolist() == [True, True, False, False]
    assert sequence.cover.tolist() == [8, 1, 0, 3]
    assert sequence.size == (64, 48) and sequence.annotated


def test_the_test_split_withholds_all_but_the_first_box(make_root):
    (sequence,) = read_dataset("got10k", make_root("test", rows=ROWS[:1], absence=None, cover=None))
    assert len(sequence) == len(sequence.boxes) == len(sequence.visible) == 4
    assert not sequence.annotated and sequence.boxes[0].tolist() == [10.5, 12.25, 20, 16]
    assert np.isnan(sequence.boxes[1:]).all() and sequence.visible.tolist() == [True, False, False, False]
    assert LAYOUTS["got10k"].results == "got10k"


def test_one_row_elsewhere_is_an_error(make_root, fails):
    with fails("length_mismatch", "groundtruth.txt", "4 frames", "1 rows"):
        read_dataset("got10k", make_root(rows=ROWS[:1], absence="0", cover="8"), "val")


@pytest.mark.parametrize(
    ("changes", "cause", "word"),
    [
        ({"absence": None}, "missing_ground_truth", "absence.label"),
        ({"cover": "8\n8\n8\n9\n"}, "bad_box", "from 0 to 8"),
        ({"cover": "8\n8\n8\n"}, "length_mismatch", "3 entries for 4 frames"),
        ({"numbers": (1, 2, 4, 5)}, "missing_frame", "lacks frame 3"),
        ({"numbers": (2, 3, 4, 5)}, "missing_frame", "lacks frame 1"),
        ({"numbers": (0, 1, 2, 3)}, "length_mismatch", "starts with frame 0"),
        ({"rows": ROWS + ROWS[:1], "absence": "0 " * 5, "cover": "8 " * 5}, "length_mismatch", "5 rows"),
        ({"numbers": ()}, "empty", "holds no frames"),
    ],
)
def test_broken_sequences(make_root, fails, changes, cause, word):
    root = make_root(**changes)
    with fails(cause, word, "GOT-10k_000001"):
        read_dataset("got10k", root, "val")


def test_wrong_roots(make_root, fails):
    root = make_root()
    with fails("empty", "val/list.txt", f"Did you mean {str(root)!r}"):
        read_dataset("got10k", root / "val", "val")
    with fails("empty", "test/list.txt", "Found val"):
        read_dataset("got10k", root)
    (root / "val" / "list.txt").write_text("\n")
    with fails("empty", "list.txt is empty"):
        read_dataset("got10k", root, "val")


def test_samples(samples):
    (val,) = read_dataset("got10k", samples / "GOT-10k", "val")
    assert len(val) == 20 and val.visible.sum() == 8 and val.cover.tolist() == [8] * 8 + [0] * 12
    assert val.frame(19).size == val.size == (320, 240)
    assert [len(sequence) for sequence in read_dataset("got10k", samples / "GOT-10k", "train")] == [16, 10]
    (test,) = read_dataset("got10k", samples / "GOT-10k")
    assert len(test) == 10 and not test.annotated
