import pytest

from ct_hf.data import read_dataset


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(place="test/walk_video_01", form="{:05d}.png", rows=((5, 6, 7, 8), (0, 0, 0, 0), (538, 348, 3, 0))):
        path = tmp_path / place
        frames(path / "imgs", range(len(rows)), form)
        write(path / "groundtruth.txt", rows)
        write(path / "language.txt", "the man  \n")
        return tmp_path

    return make


def test_only_a_row_of_zeros_means_absent(make_root):
    (sequence,) = read_dataset("tnl2k", make_root())
    assert sequence.boxes.tolist() == [[5, 6, 7, 8], [0, 0, 0, 0], [538, 348, 3, 0]], "as given"
    assert sequence.visible.tolist() == [True, False, True]
    assert sequence.language == "the man"


@pytest.mark.parametrize("form", ["{}.jpg", "img_{:03d}.jpg", "{:08d}.png", "frame-{}.JPG"])
def test_frames_of_any_name_are_in_order(make_root, form):
    (sequence,) = read_dataset("tnl2k", make_root(form=form, rows=[(1, 2, 3, 4)] * 12))
    assert [file.name for file in sequence.files] == [form.format(number) for number in range(12)]


def test_jpg_and_png_in_one_folder(make_root, frames):
    root = make_root(rows=[(1, 2, 3, 4)] * 3)
    folder = root / "test" / "walk_video_01" / "imgs"
    (folder / "00001.png").unlink()
    frames(folder, [1], "{:05d}.jpg")
    (sequence,) = read_dataset("tnl2k", root)
    assert [file.name for file in sequence.files] == ["00000.png", "00001.jpg", "00002.png"]


def test_subsets_one_folder_deeper(make_root):
    make_root("train/part_2/run")
    root = make_root("train/swim")
    assert {sequence.name for sequence in read_dataset("tnl2k", root, "train")} == {"run", "swim"}


def test_broken_sequences(make_root, fails):
    root = make_root()
    path = root / "test" / "walk_video_01"
    (path / "imgs" / "00001.png").unlink()
    with fails("length_mismatch", path, "2 frames", "3 rows"):
        read_dataset("tnl2k", root)
    for file in (path / "imgs").iterdir():
        file.unlink()
    with fails("empty", path / "imgs"):
        read_dataset("tnl2k", root)
    (path / "groundtruth.txt").unlink()
    with fails("missing_ground_truth", path / "groundtruth.txt"):
        read_dataset("tnl2k", root)


def test_wrong_roots(make_root, fails, tmp_path):
    root = make_root()
    with fails("empty", "holds no test", f"Did you mean {str(root)!r}"):
        read_dataset("tnl2k", root / "test")
    (tmp_path / "train").mkdir()
    with fails("empty", "no sequence of tnl2k, split train"):
        read_dataset("tnl2k", root, "train")


def test_samples(samples, tmp_path, frames):
    (sequence,) = read_dataset("tnl2k", samples / "TNL2K", "train")
    assert sequence.language == "the dancer on the right side of the stage"
    assert len(sequence) == 8 and sequence.frame(7).size == (640, 338)
    for path in (samples / "TNL2K" / "annotations_only_real").iterdir():
        copy = tmp_path / "test" / path.name
        copy.mkdir(parents=True)
        for name in ("groundtruth.txt", "language.txt"):
            (copy / name).symlink_to(path / name)
        frames(copy / "imgs", range(len((path / "groundtruth.txt").read_text().splitlines())), size=(1280, 720))
    absent = {sequence.name: int((~sequence.visible).sum()) for sequence in read_dataset("tnl2k", tmp_path)}
    assert len(absent) == 3 and min(absent.values()) >= 0


def test_a_sentence_that_is_no_text_is_left_out(make_root, caplog):
    """Else one byte of it would keep a whole data set from being converted."""
    root = make_root()
    (root / "test" / "walk_video_01" / "language.txt").write_bytes(b"the man\x92s hat\n")
    (sequence,) = read_dataset("tnl2k", root)
    assert sequence.language is None and "language.txt cannot be read as text" in caplog.text


def test_what_an_archiver_left_behind_is_no_subset(make_root):
    root = make_root()
    (root / "test" / "__MACOSX" / "walk_video_01").mkdir(parents=True)
    assert [sequence.name for sequence in read_dataset("tnl2k", root)] == ["walk_video_01"]
