"""COCO: every annotated object of a photograph as a sequence of one frame, for training on still pairs.

    <root>/annotations/instances_<split>.json
    <root>/images/<split>/000000000001.jpg ...      or <root>/<split>/..., as the official archives unpack

Boxes count from 0. Groups (`iscrowd`) are left out, and so are boxes without area, which are counted in the log. There is
nothing to track, so nothing of it is scored.
"""

import json
import logging
from pathlib import Path

import numpy as np

from ..annotation import read_text
from ..errors import SequenceError
from ..frames import FramePaths
from ..sequences import FileSequence
from .layout import Layout
from .reading import check_root


logger = logging.getLogger(__name__)


class COCOSequence(FileSequence):
    """One object of one photograph.

    Args:
        image: The photograph.
        source: The file of annotations.
        number: Number of the annotation.
        box: xywh in pixels.
        size: Width and height of the photograph in pixels.
    """

    def __init__(self, image: Path, source: Path, number: int, box: list[float], size: tuple[int, int]):
        self.name, self.source = f"{image.stem}-{number}", source
        self.image, self.number, self._box, self._size = image, number, tuple(box), size

    # There are 860,000 objects, so what is made in no time is not kept.

    @property
    def boxes(self) -> np.ndarray:
        """`(1, 4)` float32 xywh in pixels."""
        return np.array([self._box], dtype=np.float32)

    @property
    def visible(self) -> np.ndarray:
        """`(1,)` bool."""
        return np.ones(1, dtype=bool)

    @property
    def files(self) -> FramePaths:
        """Path of the photograph."""
        return self.list_frames()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photograph in pixels, as the annotation says."""
        return self._size

    def where(self, index: int) -> str:
        """Number of the annotation."""
        return f"{self.source}, annotation {self.number}"

    def list_frames(self) -> FramePaths:
        """See [`FileSequence`]."""
        if not self.image.is_file():
            raise SequenceError(f"{self.where(0)}: {self.image} does not exist. Restore the image.", "missing_frame")
        return FramePaths(self.image.parent, [self.image.name])


def _read(root: Path, split: str) -> list[COCOSequence]:
    name = f"annotations/instances_{split}.json"
    check_root(root, name, f"{name} and images/{split} or {split}")
    folder = root / "images" / split if (root / "images" / split).is_dir() else root / split
    if not folder.is_dir():
        raise SequenceError(
            f"`root`={str(root)!r} has neither images/{split} nor {split}. Unpack the images.", "empty"
        )
    source = root / name
    try:
        content = json.loads(read_text(source))
        images = {
            image["id"]: (folder / image["file_name"], (image["width"], image["height"]))
            for image in content["images"]
        }
        sequences, left_out = [], 0
        for entry in content["annotations"]:
            if entry["iscrowd"]:
                continue
            if len(entry["bbox"]) != 4 or not min(entry["bbox"][2:]) > 0:
                left_out += 1
                continue
            image, size = images[entry["image_id"]]
            sequences.append(COCOSequence(image, source, entry["id"], entry["bbox"], size))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SequenceError(
            f"{source} is not a file of COCO's instances ({type(error).__name__}: {error}). Download it again.",
            "missing_ground_truth",
        ) from error
    if left_out:
        logger.warning("%s: %d boxes without area are left out.", source, left_out)
    return sequences


COCO = Layout("coco", _read, protocol="visible", splits=("train2017", "val2017", "train2014", "val2014"))
