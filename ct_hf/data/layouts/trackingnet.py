"""TrackingNet: 30,132 training sequences in 12 chunks and 511 for test.

    <root>/TRAIN_0 ... TRAIN_11, TEST
    <root>/<chunk>/anno/<id>.txt                x,y,w,h; test: the first frame only
    <root>/<chunk>/frames/<id>/0.jpg, 1.jpg ... not padded, from 0
    <root>/<chunk>/zips/<id>.zip                or in place of `frames`: the same images, as published

Boxes are as given. There are no flags: the target counts as visible in every frame. `train` is all chunks that are there.
Training boxes are propagated between one annotated box a second. Ground truth of the test split is withheld: a server
scores flat result files. Scored by `trackingnet`.
"""

import numpy as np

from ..annotation import read_rows
from ..archives import AnyPath, MemberPath
from ..frames import FramePaths
from .layout import Annotation, Layout, LayoutSequence, withheld
from .reading import check_root, numbered_frames, text_files


class TrackingNetSequence(LayoutSequence):
    """Sequence of TrackingNet.

    Args:
        chunk: Folder of its chunk.
        name: Its id, which may start with `-`.
        frames: Folder or archive of its frames.
    """

    def __init__(self, chunk: AnyPath, name: str, frames: AnyPath):
        super().__init__(name, chunk / "anno" / f"{name}.txt")
        self.chunk, self.frames = chunk, frames

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        boxes = read_rows(self.source)
        if self.chunk.name == "TEST" and len(boxes) == 1 < (count := len(self.list_frames())):
            return withheld(boxes, count)
        return Annotation(boxes, np.isfinite(boxes).all(axis=1))

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        return numbered_frames(self.frames, first=0)


def _read(root: AnyPath, split: str) -> list[TrackingNetSequence]:
    chunks = "TEST" if split == "test" else "TRAIN_*"
    check_root(root, f"{chunks}/anno", f"{chunks}/anno/<id>.txt and {chunks}/frames/<id>/0.jpg or zips/<id>.zip")
    found = [chunk for chunk in root.glob(chunks) if chunk.is_dir()]
    found.sort(key=lambda chunk: (len(chunk.name), chunk.name))  # TRAIN_2 before TRAIN_10
    return [sequence for chunk in found for sequence in _chunk(chunk)]


def _chunk(chunk: AnyPath) -> list[TrackingNetSequence]:
    names = [file.stem for file in text_files(chunk / "anno")]
    if (chunk / "zips").is_dir() and not (chunk / "frames").is_dir():
        return [TrackingNetSequence(chunk, name, MemberPath("", chunk / "zips" / f"{name}.zip")) for name in names]
    return [TrackingNetSequence(chunk, name, chunk / "frames" / name) for name in names]


TRACKINGNET = Layout("trackingnet", _read, protocol="trackingnet", splits=("test", "train"), archives=True)
