import pickle
from typing import get_args

import numpy as np
import pytest

from ct_hf.data import LAYOUTS, SequenceClips, SequenceError, read_dataset
from ct_hf.evaluation import PROTOCOLS
from ct_hf.evaluation.result_files import ResultFiles


NAMES = [
    "lasot",
    "lasot_ext",
    "got10k",
    "trackingnet",
    "tnl2k",
    "coco",
    "imagenet_vid",
    "uav123",
    "otb100",
    "nfs",
    "vot",
    "folder",
]


def test_layouts_are_known_by_the_names_users_type():
    assert list(LAYOUTS) == NAMES
    for name, layout in LAYOUTS.items():
        assert layout.name == name and layout.protocol in PROTOCOLS
        ResultFiles(__file__, layout.results)
    assert {name for name, layout in LAYOUTS.items() if layout.origin} == {"lasot", "lasot_ext", "uav123", "otb100"}
    assert {name: LAYOUTS[name].protocol for name in ("lasot", "got10k", "trackingnet", "uav123", "otb100")} == {
        "lasot": "lasot",
        "got10k": "got10k",
        "trackingnet": "trackingnet",
        "uav123": "uav",
        "otb100": "otb",
    }


def test_literals_are_those_of_evaluation():
    """Data may not import evaluation, so the names stand there twice."""
    from ct_hf.data.layouts import Layout

    assert set(get_args(Layout.__annotations__["protocol"])) == set(PROTOCOLS)


def test_unknown_layouts_and_splits(tmp_path):
    with pytest.raises(ValueError, match="`layout` must be one of lasot, .*, got 'otb'"):
        read_dataset("otb", tmp_path)
    with pytest.raises(ValueError, match="`split` of lasot must be one of test, train, got 'val'"):
        read_dataset("lasot", tmp_path, "val")
    with pytest.raises(ValueError, match="`split` of uav123 must be None"):
        read_dataset("uav123", tmp_path, "test")


@pytest.mark.parametrize("layout", NAMES)
def test_roots_that_are_nothing(layout, tmp_path, fails):
    with fails("empty", tmp_path / "nowhere", "is not a folder"):
        read_dataset(layout, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with fails("empty", tmp_path / "empty", "xpected"):
        read_dataset(layout, tmp_path / "empty")


def test_plain_folders(tmp_path, frames, write, fails):
    frames(tmp_path / "walk", (1, 2))
    write(tmp_path / "walk" / "groundtruth.txt", [(1, 2, 3, 4)] * 2)
    (sequence,) = read_dataset("folder", str(tmp_path))
    assert sequence.boxes[0].tolist() == [1, 2, 3, 4] and sequence.cover is None and sequence.annotated
    write(tmp_path / "walk" / "groundtruth.txt", [(1, 2, 3, 4), (1, 2, 0, 4)])
    with fails("bad_box", "row 2"):
        read_dataset("folder", tmp_path)
    assert len(read_dataset("folder", tmp_path, check=False)) == 1, "left to the stream"


@pytest.fixture
def otb(tmp_path, frames, write):
    frames(tmp_path / "OTB" / "Walk" / "img", range(1, 11), "{:04d}.jpg")
    write(tmp_path / "OTB" / "Walk" / "groundtruth_rect.txt", [(10 + n, 20, 16, 12) for n in range(10)])
    return tmp_path / "OTB"


def test_nothing_is_read_before_it_is_asked_for(otb):
    (sequence,) = read_dataset("otb100", otb, check=False)
    for file in (otb / "Walk" / "img").iterdir():
        file.write_bytes(b"no image")
    assert sequence.boxes[0].tolist() == [9, 19, 16, 12], "images are not opened for boxes"
    (sequence,) = read_dataset("otb100", otb, check=False)
    (otb / "Walk" / "groundtruth_rect.txt").write_text("no row")
    assert repr(sequence) == "OTB100Sequence('Walk')", "not even the text"


def test_clips_are_drawn_from_them_and_broken_annotations_are_left_out(otb, frames, write):
    frames(otb / "Broken" / "img", range(1, 11), "{:04d}.jpg")
    (otb / "Broken" / "groundtruth_rect.txt").write_text("no row")
    clips = SequenceClips(read_dataset("otb100", otb, check=False), stride=100, max_bad=0.5)
    assert clips.left_out == {"bad_box": 1}
    drawn = [clips.read(number) for number in range(len(clips))]
    assert {clip.name for clip in drawn} == {"Walk"}
    boxes = {tuple(box) for clip in drawn for box in clip.boxes.tolist()}
    assert boxes == {(9.0 + n, 19.0, 16.0, 12.0) for n in range(10)}


def test_frames_that_are_not_there_are_noticed_when_one_is_asked_for(otb, write):
    write(otb / "Walk" / "groundtruth_rect.txt", [(10, 20, 16, 12)] * 11)
    clips = SequenceClips(read_dataset("otb100", otb, check=False), stride=100)
    with pytest.raises(SequenceError, match="Walk.img lacks frame 11 of 1 to 11") as caught:
        clips.read(0).frame(0, 1)
    assert caught.value.cause == "missing_frame"


def test_sequences_reach_workers_without_what_they_have_read(otb):
    (sequence,) = read_dataset("otb100", otb)
    assert len(pickle.dumps(sequence)) < 2000
    assert pickle.loads(pickle.dumps(sequence)).boxes.tolist() == sequence.boxes.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_result_files_are_in_the_data_sets_own_coordinates(name):
    layout = LAYOUTS[name]
    own = layout.to_own(np.array([[9, 19, 16, 12]], dtype=np.float32))
    assert own.tolist() == [[9 + layout.origin, 19 + layout.origin, 16, 12]]
    assert layout.from_own(own).tolist() == [[9, 19, 16, 12]]


def test_result_files_of_perfect_tracking_are_the_published_rows(otb, tmp_path):
    (sequence,) = read_dataset("otb100", otb)
    files = ResultFiles(tmp_path / "results", LAYOUTS["otb100"].results)
    files.write(sequence.name, LAYOUTS["otb100"].to_own(sequence.boxes))
    published = np.loadtxt(otb / "Walk" / "groundtruth_rect.txt", delimiter=",")
    assert files.read(sequence.name).tolist() == published.tolist()


def test_import_is_light(fresh_python, tmp_path):
    code = "import sys; from ct_hf.data import read_dataset; print([n for n in ('datasets', 'pandas') if n in sys.modules])"
    assert fresh_python(code, tmp_path) == "[]\n"


def test_names_that_load_late_are_there():
    import ct_hf.data

    for name in ct_hf.data.__all__:
        assert getattr(ct_hf.data, name) is not None
    with pytest.raises(AttributeError, match="'ct_hf.data' has no attribute 'stream_pear'"):
        ct_hf.data.stream_pear  # noqa: B018
