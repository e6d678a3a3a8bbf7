"""Every layout read from files that are part of the repository: the pixels of `draw.py` say where the boxes have to be."""

from pathlib import Path

import numpy as np
import pytest

from ct_hf.data import LAYOUTS, SequenceClips, read_dataset


DRAWN = Path(__file__).parent / "drawn"
SPLITS = [(name, split) for name, layout in LAYOUTS.items() for split in layout.splits or (None,)]
NOT_DRAWN = {("imagenet_vid", "val"), ("tnl2k", "test"), ("nfs", "240")} | {
    ("coco", split) for split in ("train2014", "train2017", "val2014")
}
WITHHELD = {("got10k", "test"), ("trackingnet", "test")}


def seen_box(image):
    """Box around what is white, xywh."""
    rows, columns = np.nonzero(np.asarray(image.convert("L")) > 150)
    if not len(rows):
        return None
    return [columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1]


def test_every_layout_is_drawn():
    assert {path.name for path in DRAWN.iterdir()} == set(LAYOUTS)
    assert set(SPLITS) >= NOT_DRAWN
    assert sum(file.stat().st_size for file in DRAWN.rglob("*") if file.is_file()) < 300_000


@pytest.mark.parametrize(("layout", "split"), [pair for pair in SPLITS if pair not in NOT_DRAWN])
def test_boxes_are_where_the_pixels_are(layout, split):
    sequences = read_dataset(layout, DRAWN / layout, split)
    assert sequences
    for sequence in sequences:
        assert sequence.size == (80, 60) and sequence.annotated == ((layout, split) not in WITHHELD)
        compared = 0
        for index in range(len(sequence)):
            box = seen_box(sequence.frame(index))
            if box is not None and (sequence.annotated or index == 0):
                assert sequence.visible[index] and sequence.boxes[index].tolist() == box
                compared += 1
            elif layout != "trackingnet" or not sequence.annotated:  # which says of no frame that its target is absent
                assert not sequence.visible[index]
        assert compared == (1 if layout == "coco" or not sequence.annotated else 4)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_pairs_can_be_drawn_of_each(layout):
    split = LAYOUTS[layout].training_split
    split = "val2017" if (layout, split) in NOT_DRAWN else split
    clips = SequenceClips(read_dataset(layout, DRAWN / layout, split, check=False))
    clip = clips.read(0)
    assert not clips.left_out and clip.visible.sum() >= min(2, len(clip.visible))


def test_sentences_come_along():
    assert read_dataset("lasot", DRAWN / "lasot")[0].language == "white box moving to the right"
    assert read_dataset("tnl2k", DRAWN / "tnl2k", "train")[0].language == "the white box"
