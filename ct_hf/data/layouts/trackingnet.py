"""TrackingNet: 30,132 training sequences in 12 chunks and 511 for test.

    <root>/TRAIN_0 ... TRAIN_11, TEST
    <root>/<chunk>/anno/<id>.txt                x,y,w,h; test: the first frame only
    <root>/<chunk>/frames/<id>/0.jpg, 1.jpg ... not padded, from 0

Boxes are as given. There are no flags: the target counts as visible in every frame. `train` is all chunks that are there.
Training boxes are propagated between one annotated box a second. Ground truth of the test split is withheld: a server
scores flat result files. Scored by `trackingnet`.
"""

from pathlib import Path

import numpy as np

from ..sequences import read_rows
from .layout import Layout, LayoutSequence, Record, withheld
from .reading import check_root, numbered_frames, text_files


class TrackingNetSequence(LayoutSequence):
    """Sequence of TrackingNet.

    Args:
        chunk: Folder of its chunk.
        name: Its id, which may start with `-`.
    """

    def __init__(self, chunk: Path, name: str):
        super().__init__(name, chunk / "anno" / f"{name}.txt")
        self.chunk = chunk

    def read(self) -> Record:
        """See [`LayoutSequence`]."""
        boxes, files = read_rows(self.source), numbered_frames(self.chunk / "frames" / self.name, first=0)
        if self.chunk.name == "TEST" and len(boxes) == 1 < len(files):
            return withheld(files, boxes)
        return Record(files, boxes, np.isfinite(boxes).all(axis=1))


def _read(root: Path, split: str) -> list[TrackingNetSequence]:
    chunks = "TEST" if split == "test" else "TRAIN_*"
    check_root(root, f"{chunks}/anno", f"{chunks}/anno/<id>.txt and {chunks}/frames/<id>/0.jpg")
    found = [chunk for chunk in root.glob(chunks) if chunk.is_dir()]
    found.sort(key=lambda chunk: (len(chunk.name), chunk.name))  # TRAIN_2 before TRAIN_10
    return [TrackingNetSequence(chunk, file.stem) for chunk in found for file in text_files(chunk / "anno")]


TRACKINGNET = Layout("trackingnet", _read, protocol="trackingnet", splits=("test", "train"))
