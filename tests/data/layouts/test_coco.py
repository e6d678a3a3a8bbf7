import json
import logging
import pickle

import pytest

from ct_hf.data import read_dataset


@pytest.fixture
def make_root(tmp_path, frames, write):
    def make(annotations, folder="images/val2017", size=(64, 48)):
        frames(tmp_path / folder, [7], "{:012d}.jpg")
        images = [{"id": 7, "file_name": "000000000007.jpg", "width": size[0], "height": size[1]}]
        content = {"images": images, "annotations": annotations}
        write(tmp_path / "annotations" / "instances_val2017.json", json.dumps(content))
        return tmp_path

    return make


def annotation(number, box, crowd=0, image=7):
    return {"id": number, "image_id": image, "bbox": box, "iscrowd": crowd}


@pytest.mark.parametrize("folder", ["images/val2017", "val2017"])
def test_every_object_is_a_sequence_of_one_frame(make_root, folder):
    root = make_root([annotation(3, [1.5, 0, 20, 16]), annotation(12, [2, 3, 4, 5])], folder)
    first, second = read_dataset("coco", root, "val2017")
    assert (first.name, second.name) == ("000000000007-3", "000000000007-12")
    assert len(first) == 1 and first.boxes.tolist() == [[1.5, 0, 20, 16]] and first.visible.all()
    assert first.size == first.frame(0).size == (64, 48)


def test_nothing_is_kept_of_what_is_read_but_its_size_goes_to_workers(make_root):
    """There are 860,000 of them."""
    (sequence,) = read_dataset("coco", make_root([annotation(3, [1, 2, 3, 4])]), "val2017", check=False)
    before = dict(vars(sequence))
    assert sequence.frame(0).size == (64, 48) and sequence.boxes.tolist() == [[1, 2, 3, 4]] and sequence.visible.all()
    assert vars(sequence) == before
    (sequence.image).unlink()
    copy = pickle.loads(pickle.dumps(sequence))
    assert copy.size == (64, 48) and copy.boxes.tolist() == [[1, 2, 3, 4]]


def test_groups_are_left_out_and_boxes_without_area_counted(make_root, caplog):
    root = make_root([annotation(1, [1, 2, 3, 4], crowd=1), annotation(2, [1, 2, 3, 0]), annotation(3, [1, 2, 3, 4])])
    with caplog.at_level(logging.WARNING):
        assert [sequence.name[-1] for sequence in read_dataset("coco", root, "val2017")] == ["3"]
    assert "1 boxes without area" in caplog.text


def test_broken_files(make_root, fails):
    root = make_root([annotation(3, [1, 2, 3, 4], image=8)])
    with fails("missing_ground_truth", "instances_val2017.json", "KeyError: 8"):
        read_dataset("coco", root, "val2017")
    root = make_root([annotation(3, [1, 2, 3, 4])])
    image = root / "images" / "val2017" / "000000000007.jpg"
    image.rename(image.with_name("other.jpg"))
    with fails("missing_frame", image, "annotation 3"):
        read_dataset("coco", root, "val2017")
    (sequence,) = read_dataset("coco", root, "val2017", check=False)
    assert sequence.size == (64, 48), "known without the image"
    (root / "annotations" / "instances_val2017.json").write_text('{"images": [')
    with fails("missing_ground_truth", "instances_val2017.json", "JSONDecodeError"):
        read_dataset("coco", root, "val2017")


def test_an_image_of_another_size_than_the_annotation_says(make_root, fails):
    (sequence,) = read_dataset("coco", make_root([annotation(3, [1, 2, 3, 4])], size=(48, 64)), "val2017")
    with fails("frame_size", "64x48", "48x64"):
        sequence.frame(0)


def test_wrong_roots(make_root, fails):
    root = make_root([annotation(3, [1, 2, 3, 4])])
    with fails("empty", "annotations/instances_train2017.json", "Found annotations, images"):
        read_dataset("coco", root)
    with fails("empty", f"Did you mean {str(root)!r}"):
        read_dataset("coco", root / "annotations", "val2017")
    (root / "images" / "val2017").rename(root / "images" / "val")
    with fails("empty", "neither images/val2017 nor val2017"):
        read_dataset("coco", root, "val2017")


def test_samples(samples):
    sequences = read_dataset("coco", samples / "COCO", "val2017")
    assert len(sequences) == 14
    assert sequences[0].boxes[0].tolist() == pytest.approx([280.79, 44.73, 218.7, 346.68], abs=1e-4)
    assert {sequence.frame(0).size == sequence.size for sequence in sequences} == {True}
