import pytest

from ct_hf.data import SequenceError, read_dataset


ROWS = [(11, 12, 20, 16)] * 8


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(video, numbers=range(1, 9), form="{:04d}.jpg", files=None, separator=","):
        root = tmp_path / "OTB100"
        frames(root / video / "img", numbers, form)
        for name, rows in ({"groundtruth_rect.txt": ROWS} if files is None else files).items():
            write(root / video / name, rows, separator)
        return root

    return make


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_boxes_count_from_zero_once(make_root, separator):
    (sequence,) = read_dataset("otb100", make_root("Crossing", separator=separator))
    assert sequence.name == "Crossing" and len(sequence) == 8 and sequence.visible.all()
    assert sequence.boxes[0].tolist() == [10, 11, 20, 16]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"groundtruth_rect.1.txt": ROWS, "groundtruth_rect.2.txt": ROWS}, ["Two_1", "Two_2"]),
        ({"groundtruth_rect.txt": ROWS, "groundtruth_rect.2.txt": ROWS}, ["Two_1", "Two_2"]),
        ({"groundtruth_rect.1.txt": "", "groundtruth_rect.2.txt": ROWS}, ["Two_2"]),
        (
            {"groundtruth_rect.txt": ROWS, "groundtruth_rect.1.txt": ROWS, "groundtruth_rect.2.txt": ROWS},
            ["Two_1", "Two_2"],
        ),
        ({"groundtruth_rect.txt": ROWS, "groundtruth_rect.bak.txt": ROWS}, ["Two"]),
    ],
)
def test_several_targets(make_root, files, names):
    root = make_root("Two", files=files)
    assert [sequence.name for sequence in read_dataset("otb100", root)] == names


@pytest.mark.parametrize(
    ("video", "numbers", "first", "count"),
    [
        ("David", range(300, 308), "0300.jpg", 8),
        ("BlurCar4", range(1, 40), "0018.jpg", 8),
        ("Diving", range(1, 20), "0001.jpg", 8),
        ("Tiger1", range(1, 9), "0006.jpg", 3),
    ],
)
def test_where_videos_start_and_end(make_root, video, numbers, first, count):
    (sequence,) = read_dataset("otb100", make_root(video, numbers))
    assert sequence.files[0].name == first and len(sequence) == len(sequence.boxes) == count


def test_rows_are_those_of_the_file_though_the_first_are_omitted(make_root, fails):
    root = make_root("Tiger1", files={"groundtruth_rect.txt": [*ROWS[:5], (1, 1, 0, 5), *ROWS[:2]]})
    with fails("bad_box", "groundtruth_rect.txt, row 6"):
        read_dataset("otb100", root)


def test_names_of_five_digits(make_root):
    (sequence,) = read_dataset("otb100", make_root("Board", form="{:05d}.jpg"))
    assert sequence.files[0].name == "00001.jpg"


def test_broken_sequences(make_root, fails):
    root = make_root("Crossing", numbers=(1, 2, 4, 5, 6, 7, 8, 9))
    with fails("missing_frame", "Crossing", "lacks frame 3 of 1 to 8"):
        read_dataset("otb100", root)
    make_root("Crossing", numbers=[3], files={"groundtruth_rect.txt": [*ROWS, *ROWS]})
    with fails("missing_frame", "lacks frame 10 of 1 to 16"):
        read_dataset("otb100", root)
    (root / "Crossing" / "groundtruth_rect.txt").unlink()
    with fails("missing_ground_truth", root / "Crossing"):
        read_dataset("otb100", root)


def test_wrong_roots(make_root, fails):
    root = make_root("Crossing")
    for wrong in (root / "Crossing", root.parent):
        with fails("empty", "*/img", f"Did you mean {str(root)!r}"):
            read_dataset("otb100", wrong)


def test_samples(samples):
    crossing, david, *jogging = read_dataset("otb100", samples / "OTB100")
    assert len(crossing) == 120 and crossing.boxes[0].tolist() == [204, 150, 17, 50], "tabs"
    assert david.files[0].name == "0300.jpg" and david.boxes[0].tolist() == [128, 79, 64, 78]
    assert [sequence.name for sequence in jogging] == ["Jogging_1", "Jogging_2"]
    assert jogging[1].boxes[0].tolist() == [179, 78, 37, 114] and jogging[1].frame(11).size == (352, 288)


def test_a_video_without_truth_costs_itself_alone(make_root, fails):
    make_root("Crossing")
    root = make_root("Diving", files={})
    crossing, diving = read_dataset("otb100", root, check=False)
    assert len(crossing) == 8 and diving.name == "Diving"
    with fails("missing_ground_truth", root / "Diving"):
        _ = diving.visible


def test_boxes_outside_the_frame(make_root, fails, caplog):
    outside = (5000, 5000, 10, 10)
    root = make_root("Crossing", files={"groundtruth_rect.txt": [*ROWS[:7], outside]})
    (sequence,) = read_dataset("otb100", root)
    assert sequence.check() == [7] and "1 boxes of visible targets have no area in their frame" in caplog.text
    make_root("Crossing", files={"groundtruth_rect.txt": [outside, *ROWS[:7]]})
    with fails("bad_box", "groundtruth_rect.txt, row 1", "reach into the frame of 64x48"):
        read_dataset("otb100", root)


def test_frames_without_rows_are_told(make_root, caplog):
    (sequence,) = read_dataset("otb100", make_root("Crossing", numbers=range(1, 12)))
    assert len(sequence.files) == 8 and "has frames up to 11, but rows up to 8 only" in caplog.text


def test_a_target_that_cannot_be_read_is_one_broken_sequence(make_root):
    root = make_root("Two", files={"groundtruth_rect.1.txt": ROWS, "groundtruth_rect.2.txt": ROWS})
    (root / "Two" / "groundtruth_rect.2.txt").write_bytes(b"\xff\xfe")
    good, broken = read_dataset("otb100", root, check=False)
    assert len(good) == 8 and broken.name == "Two_2"
    with pytest.raises(SequenceError, match="groundtruth_rect.2.txt cannot be read as text"):
        len(broken)
