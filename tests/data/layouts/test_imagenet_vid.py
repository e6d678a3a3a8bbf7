import pickle

import numpy as np
import pytest

from ct_hf.data import read_dataset


def entry(track, left, occluded=0):
    box = f"<bndbox><xmax>{left + 20}</xmax><xmin>{left}</xmin><ymax>40</ymax><ymin>10</ymin></bndbox>"
    return f"<object><trackid>{track}</trackid>{box}<occluded>{occluded}</occluded></object>"


@pytest.fixture
def make_root(tmp_path, frames, write):
    """A video of which each frame has the objects given."""

    def make(objects, video="train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000001"):
        frames(tmp_path / "Data" / "VID" / video, range(len(objects)), "{:06d}.JPEG")
        for number, text in enumerate(objects):
            file = tmp_path / "Annotations" / "VID" / video / f"{number:06d}.xml"
            write(file, f"<annotation>{text}</annotation>")
        return tmp_path

    return make


def test_every_object_from_its_first_frame_to_its_last(make_root):
    objects = ["", entry(0, 5), entry(0, 6) + entry(10, 30), entry(10, 31), entry(0, 8, occluded=1), ""]
    first, second = read_dataset("imagenet_vid", make_root(objects))
    assert (first.name, second.name) == ("ILSVRC2015_train_00000001_0", "ILSVRC2015_train_00000001_10")
    assert [file.name for file in first.files] == [f"{number:06d}.JPEG" for number in (1, 2, 3, 4)]
    assert first.boxes[0].tolist() == [5, 10, 20, 30], "width is xmax - xmin"
    assert np.isnan(first.boxes[2]).all() and first.boxes[3].tolist() == [8, 10, 20, 30]
    assert first.visible.tolist() == [True, True, False, False]
    assert [file.name for file in second.files] == ["000002.JPEG", "000003.JPEG"] and second.size == (64, 48)


def test_boxes_go_to_workers(make_root):
    (sequence,) = read_dataset("imagenet_vid", make_root([entry(0, 5)] * 3))
    copy = pickle.loads(pickle.dumps(sequence))
    assert copy.boxes.tolist() == sequence.boxes.tolist() and copy.frame_bytes(2) == sequence.frame_bytes(2)


def test_validation_has_no_chunks(make_root):
    root = make_root([entry(0, 5)] * 2, "val/ILSVRC2015_val_00000000")
    (sequence,) = read_dataset("imagenet_vid", root, "val")
    assert sequence.name == "ILSVRC2015_val_00000000_0" and sequence.frame(1).size == (64, 48)


def test_broken_files(make_root, fails):
    root = make_root([entry(0, 5)] * 3)
    video = "VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000001"
    (root / "Data" / video / "000001.JPEG").unlink()
    with fails("missing_frame", "lacks frame 1 of 0 to 2"):
        read_dataset("imagenet_vid", root)
    for text in ("<annotation>", "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>"):
        (root / "Annotations" / video / "000001.xml").write_text(text)
        with fails("bad_box", "000001.xml"):
            read_dataset("imagenet_vid", root)


def test_a_first_box_without_area_names_its_frame(make_root, fails):
    root = make_root(["", entry(0, 5).replace("<xmin>5", "<xmin>25"), entry(0, 5)])
    with fails("bad_box", "000001.xml", "[25.0, 10.0, 0.0, 30.0]"):
        read_dataset("imagenet_vid", root)


def test_wrong_root(make_root, fails):
    root = make_root([entry(0, 5)] * 2)
    with fails("empty", "Annotations/VID/val", "Found Annotations, Data"):
        read_dataset("imagenet_vid", root, "val")
    with fails("empty", f"Did you mean {str(root)!r}"):
        read_dataset("imagenet_vid", root / "Data")


def test_samples(samples):
    (sequence,) = read_dataset("imagenet_vid", samples / "ILSVRC2015")
    assert sequence.boxes[0].tolist() == [69, 160, 88, 38] and sequence.visible.all() and len(sequence) == 5
    assert sequence.frame(4).size == (320, 240)


def test_a_broken_file_costs_its_video_alone(make_root, fails):
    root = make_root([entry(0, 5)] * 3)
    make_root([entry(0, 5), "<object>", entry(0, 5)], "train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000002")
    whole, broken = read_dataset("imagenet_vid", root, check=False)
    assert len(whole) == 3 and broken.name == "ILSVRC2015_train_00000002"
    with fails("bad_box", "000001.xml"):
        _ = broken.boxes


def test_files_that_are_no_frame_are_passed_over(make_root, write):
    root = make_root([entry(0, 5)] * 3)
    folder = next((root / "Annotations").rglob("000000.xml")).parent
    write(folder / "000000 (1).xml", "<annotation/>")
    assert [len(sequence) for sequence in read_dataset("imagenet_vid", root)] == [3]


def test_an_object_starts_where_it_can_be_seen(make_root):
    """A tracker can start nowhere else."""
    objects = [entry(0, 5, occluded=1), entry(0, 6), entry(0, 7), entry(0, 8, occluded=1)]
    (sequence,) = read_dataset("imagenet_vid", make_root(objects))
    assert [file.name for file in sequence.files] == [f"{number:06d}.JPEG" for number in (1, 2, 3)]
    assert sequence.boxes[:, 0].tolist() == [6, 7, 8] and sequence.visible.tolist() == [True, True, False]
    assert sequence.where(0).endswith("000001.xml")
