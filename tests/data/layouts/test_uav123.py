import numpy as np
import pytest

from ct_hf.data import read_dataset
from ct_hf.data.layouts.uav123 import _PIECES


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(name, rows, video, numbers):
        root = tmp_path / "UAV123"
        write(root / "anno" / "UAV123" / f"{name}.txt", rows)
        frames(root / "data_seq" / "UAV123" / video, numbers, "{:06d}.jpg", size=(1280, 720))
        return root

    return make


def test_boxes_count_from_zero_once_and_nan_means_absent(make_root):
    root = make_root("person1_s", [(1, 2, 3, 4), ("NaN",) * 4, (5, 6, 7, 8)], "person1_s", range(1, 5))
    (sequence,) = read_dataset("uav123", root)
    assert sequence.name == "person1_s" and len(sequence) == 3, "a frame without a row is not used"
    assert sequence.boxes[[0, 2]].tolist() == [[0, 1, 3, 4], [4, 5, 7, 8]] and np.isnan(sequence.boxes[1]).all()
    assert sequence.visible.tolist() == [True, False, True]


@pytest.mark.parametrize(("rows", "first"), [(451, 1075), (151, 359)])
def test_pieces_start_where_their_edition_has_them(make_root, rows, first):
    root = make_root("person8_2", [(1, 2, 3, 4)] * rows, "person8", range(1, first + rows))
    (sequence,) = read_dataset("uav123", root)
    assert sequence.files[0].name == f"{first:06d}.jpg" and sequence.files[-1].name == f"{first + rows - 1:06d}.jpg"


def test_pieces_do_not_run_backwards_and_fall_on_frames_of_both_editions():
    """A typing error in the table would shift boxes against frames."""
    assert len(_PIECES) == 19 and sum(map(len, _PIECES.values())) == 51
    for pieces in _PIECES.values():
        assert pieces[0][0] == 1
        for (_, end), (start, last) in zip(pieces, pieces[1:], strict=False):
            assert end <= start < last
        assert all(number % 3 == 1 for piece in pieces for number in piece)


def test_frames_of_the_other_edition(make_root, fails):
    root = make_root("person8_2", [(1, 2, 3, 4)] * 451, "person8", range(1, 510))
    with fails("missing_frame", "lacks frame 1075 of 1075 to 1525"):
        read_dataset("uav123", root)


def test_pieces_that_were_cut(make_root, fails):
    root = make_root("person8_2", [(1, 2, 3, 4)] * 3, "person8", range(1, 4))
    with fails("length_mismatch", "person8_2.txt", "3 rows, expected 451, or 151"):
        read_dataset("uav123", root)


def test_missing_frame_and_wrong_roots(make_root, fails):
    root = make_root("bike1", [(1, 2, 3, 4)] * 3, "bike1", (1, 3))
    with fails("missing_frame", "bike1", "lacks frame 2 of 1 to 3"):
        read_dataset("uav123", root)
    for wrong in (root / "anno", root.parent):
        with fails("empty", "anno/UAV123/*.txt", f"Did you mean {str(root)!r}"):
            read_dataset("uav123", wrong)


def test_samples(samples, make_root):
    """The published rows of the 10-fps edition; of its frames only a few are there, so others stand in for them."""
    _, board = read_dataset("uav123", samples / "UAV123", check=False)
    assert board.name == "wakeboard7" and board.boxes[0].tolist() == [622, 298, 11, 38]
    assert board.frame(5).size == board.size == (1280, 720)
    text = (samples / "UAV123" / "anno_full_10fps" / "truck4_2.txt").read_text()
    (truck,) = read_dataset("uav123", make_root("truck4_2", text, "truck4", range(193, 422)))
    assert len(truck) == 229 and truck.files[0].name == "000193.jpg"
    assert truck.boxes[0].tolist() == [519, 314, 21, 12]


@pytest.mark.parametrize("name", ["car1_s", "person2_s"])
def test_a_video_may_be_called_like_a_piece(make_root, name):
    """Both are of the official list, and videos of their own beside `car1` and `person2`."""
    (sequence,) = read_dataset("uav123", make_root(name, [(1, 2, 3, 4)] * 3, name, range(1, 4)))
    assert sequence.name == name and sequence.files[0].parent.name == name


def test_pieces_that_no_video_has(make_root, fails):
    root = make_root("person8_3", [(1, 2, 3, 4)] * 3, "person8", range(1, 4))
    with fails("missing_frame", "person8_3.txt", "piece 3 of person8, which has 2"):
        read_dataset("uav123", root)


def test_frames_of_other_pieces_are_not_told(make_root, caplog):
    root = make_root("person8_2", [(1, 2, 3, 4)] * 151, "person8", range(1, 700))
    (sequence,) = read_dataset("uav123", root)
    assert len(sequence.files) == 151 and "frames up to" not in caplog.text
    root = make_root("bike1", [(1, 2, 3, 4)] * 3, "bike1", range(1, 6))
    assert len(read_dataset("uav123", root)[0].files) == 3 and "has frames up to 5, but rows up to 3" in caplog.text
