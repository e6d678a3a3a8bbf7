import pytest

from ct_hf.data import read_dataset


def rows(count, lost=()):
    return "".join(f'0 {n} 12 {n + 20} 28 {n} {int(n in lost)} 0 0 "bike rider"\n' for n in range(1, count + 1))


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(text, num_frames, rate="30"):
        root = tmp_path / "NfS"
        frames(root / "Surfer" / rate / "Surfer", range(1, num_frames + 1), "{:05d}.jpg")
        write(root / "Surfer" / rate / "Surfer.txt", text)
        return root

    return make


@pytest.fixture
def converted(tmp_path, frames, write):
    root = tmp_path / "converted"
    frames(root / "sequences" / "bee", range(1, 6), "{:05d}.jpg")
    write(root / "anno" / "nfs_bee.txt", [(10, 12.5, 20, 16)] * 4, "\t")
    return root


@pytest.mark.parametrize("rate", ["30", "240"])
def test_corners_become_sizes_and_lost_rows_are_absent(make_root, rate):
    (sequence,) = read_dataset("nfs", make_root(rows(4, lost=[3]), 4, rate), rate)
    assert sequence.name == "Surfer" and sequence.boxes[1].tolist() == [2, 12, 20, 16]
    assert sequence.visible.tolist() == [True, True, False, True]


@pytest.mark.parametrize("count", [80, 77, 73])
def test_rows_of_240_frames_a_second_beside_30(make_root, count):
    (sequence,) = read_dataset("nfs", make_root(rows(count), 10))
    assert sequence.boxes[:, 0].tolist() == [1 + 8 * index for index in range(10)]


@pytest.mark.parametrize(("count", "num_frames"), [(11, 10), (10, 11)])
def test_one_row_or_frame_too_many_is_dropped(make_root, count, num_frames):
    (sequence,) = read_dataset("nfs", make_root(rows(count), num_frames))
    assert len(sequence) == len(sequence.boxes) == 10


def test_pytrackings_edition(converted):
    (sequence,) = read_dataset("nfs", converted)
    assert sequence.name == "nfs_bee" and len(sequence) == 4, "a frame without a row is not used"
    assert sequence.boxes[0].tolist() == [10, 12.5, 20, 16] and sequence.visible.all()
    with pytest.raises(ValueError, match="`split`='240'.*30 frames a second only"):
        read_dataset("nfs", converted, "240")


def test_broken_sequences(make_root, converted, fails):
    with fails("length_mismatch", "10 frames", "14 rows"):
        read_dataset("nfs", make_root(rows(14), 10))
    with fails("bad_box", "Surfer.txt", "row 3", "'1,2,3,4'"):
        read_dataset("nfs", make_root(rows(2) + "1,2,3,4\n", 10))
    (converted / "sequences" / "bee" / "00003.jpg").unlink()
    with fails("missing_frame", "bee", "lacks frame 3 of 1 to 4"):
        read_dataset("nfs", converted)
    (converted / "sequences" / "bee").rename(converted / "sequences" / "wasp")
    with fails("empty", "bee is not a folder"):
        read_dataset("nfs", converted)


def test_wrong_roots(make_root, fails):
    root = make_root(rows(4), 4)
    with fails("empty", "*/240", "Found Surfer"):
        read_dataset("nfs", root, "240")
    for wrong in (root / "Surfer", root.parent):
        with fails("empty", "*/30", f"Did you mean {str(root)!r}"):
            read_dataset("nfs", wrong)


def test_samples(samples):
    (sequence,) = read_dataset("nfs", samples / "NfS")
    assert sequence.boxes[0].tolist() == [275, 137, 23, 26] and len(sequence) == 8
    assert sequence.frame(7).size == (480, 360)
