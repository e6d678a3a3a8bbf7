import numpy as np
import pytest

from ct_hf.data import read_dataset
from ct_hf.evaluation.result_files import ResultFiles


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(chunk="TRAIN_0", name="-a1_0", count=12, rows=None):
        frames(tmp_path / chunk / "frames" / name, range(count), "{}.jpg")
        write(
            tmp_path / chunk / "anno" / f"{name}.txt",
            [(n, 0.25, 20, 16) for n in range(count)] if rows is None else rows,
        )
        return tmp_path

    return make


def test_frames_count_from_zero_by_value_and_ids_may_start_with_a_dash(make_root, tmp_path):
    (sequence,) = read_dataset("trackingnet", make_root(), "train")
    assert sequence.name == "-a1_0"
    assert [file.name for file in sequence.files] == [f"{number}.jpg" for number in range(12)]
    assert sequence.boxes[10].tolist() == [10, 0.25, 20, 16] and sequence.visible.all() and sequence.annotated
    files = ResultFiles(tmp_path / "results")
    files.write(sequence.name, sequence.boxes)
    assert files.read(sequence.name, 12).shape == (12, 4)


def test_training_is_all_chunks_in_order(make_root):
    for chunk in ("TRAIN_10", "TRAIN_2", "TEST"):
        root = make_root(chunk, name=f"in_{chunk}", count=2)
    assert [sequence.name for sequence in read_dataset("trackingnet", root, "train")] == ["in_TRAIN_2", "in_TRAIN_10"]
    assert [sequence.name for sequence in read_dataset("trackingnet", root)] == ["in_TEST"]


def test_the_test_split_withholds_all_but_the_first_box(make_root):
    (sequence,) = read_dataset("trackingnet", make_root("TEST", rows=[(1, 2, 3, 4)]))
    assert not sequence.annotated and len(sequence) == 12 and np.isnan(sequence.boxes[1:]).all()


def test_broken_sequences(make_root, fails):
    root = make_root()
    frames = root / "TRAIN_0" / "frames" / "-a1_0"
    (frames / "7.jpg").rename(frames / "07.jpg")
    read_dataset("trackingnet", root, "train")
    (frames / "07.jpg").rename(frames / "12.jpg")
    with fails("missing_frame", frames, "lacks frame 7 of 0 to 12"):
        read_dataset("trackingnet", root, "train")
    frames.rename(root / "TRAIN_0" / "frames" / "elsewhere")
    with fails("empty", frames, "is not a folder", "Unpack"):
        read_dataset("trackingnet", root, "train")


def test_a_frame_that_is_there_twice(make_root, fails, frames):
    root = make_root()
    frames(root / "TRAIN_0" / "frames" / "-a1_0", [3], "{}.png")
    with fails("length_mismatch", "frame 3 twice, 3.jpg and 3.png"):
        read_dataset("trackingnet", root, "train")


def test_wrong_roots(make_root, fails):
    root = make_root()
    with fails("empty", "TRAIN_*/anno", "Found anno, frames", f"Did you mean {str(root)!r}"):
        read_dataset("trackingnet", root / "TRAIN_0", "train")
    with fails("empty", "TEST/anno", "Found TRAIN_0"):
        read_dataset("trackingnet", root)


def test_samples(samples):
    first, second = read_dataset("trackingnet", samples / "TrackingNet", "train")
    assert first.name == "-CONVERTED01_0" and first.boxes[0].tolist() == [269.5, 126.5, 177.5, 127.5]
    assert len(second) == 12 and second.frame(11).size == second.size
    (test,) = read_dataset("trackingnet", samples / "TrackingNet")
    assert not test.annotated and len(test) == 8


def test_published_annotations(samples, tmp_path, frames):
    """Rows end with \\r\\n and boxes may reach out of the frame."""
    (tmp_path / "TRAIN_0").mkdir()
    (tmp_path / "TRAIN_0" / "anno").symlink_to(samples / "TrackingNet_annotations_only_real")
    for name, count in {"-3TIfnTSM6c_2": 480, "a1qoB1eERn0_0": 540, "a2-lZhKXx9E_0": 480}.items():
        frames(tmp_path / "TRAIN_0" / "frames" / name, range(count), "{}.jpg", size=(1280, 720))
    first, *_ = read_dataset("trackingnet", tmp_path, "train")
    assert first.boxes[3].tolist() == pytest.approx([-4.07, 96.34, 236.30, 172.80], abs=1e-4)
