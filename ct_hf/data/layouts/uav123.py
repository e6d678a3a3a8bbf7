"""UAV123: 123 sequences from 91 videos, at 30 frames a second or in the edition of 10.

    <root>/data_seq/UAV123/<video>/000001.jpg ...
    <root>/anno/UAV123/<name>.txt                   x,y,w,h; NaN,NaN,NaN,NaN where the target is absent

Boxes count from 1 (edges reach width + 1) and are corrected to 0 here, once. Names are those of the annotation files
(OSTrack puts `uav_` before them). Several sequences are pieces of one video; the frames at which they start and end are in
no file, so they are listed below, as got10k and OSTrack do. The edition of 10 frames a second keeps every third frame
under new numbers; the number of rows tells the editions apart. Scored by `uav`.
"""

from pathlib import Path

import numpy as np

from ..annotation import read_rows
from ..errors import SequenceError
from ..frames import FramePaths
from .layout import Annotation, Layout, LayoutSequence
from .reading import check_root, from_one, numbered_frames, text_files


_PIECES = {
    "bird1": [(1, 253), (775, 1477), (1573, 2437)],
    "car1": [(1, 751), (751, 1627), (1627, 2629)],
    "car6": [(1, 487), (487, 1807), (1807, 2953), (2953, 3925), (3925, 4861)],
    "car8": [(1, 1357), (1357, 2575)],
    "car16": [(1, 415), (415, 1993)],
    "group1": [(1, 1333), (1333, 2515), (2515, 3925), (3925, 4873)],
    "group2": [(1, 907), (907, 1771), (1771, 2683)],
    "group3": [(1, 1567), (1567, 2827), (2827, 4369), (4369, 5527)],
    "person2": [(1, 1189), (1189, 2623)],
    "person4": [(1, 1501), (1501, 2743)],
    "person5": [(1, 877), (877, 2101)],
    "person7": [(1, 1249), (1249, 2065)],
    "person8": [(1, 1075), (1075, 1525)],
    "person12": [(1, 601), (601, 1621)],
    "person14": [(1, 847), (847, 1813), (1813, 2923)],
    "person17": [(1, 1501), (1501, 2347)],
    "person19": [(1, 1243), (1243, 2791), (2791, 4357)],
    "truck4": [(1, 577), (577, 1261)],
    "uav1": [(1, 1555), (1555, 2377), (2473, 3469)],
}
"""First and last frame of the pieces of a video, at 30 frames a second."""


class UAV123Sequence(LayoutSequence):
    """Sequence of UAV123.

    Args:
        root: Root of the data set.
        name: Name of its annotation file.
    """

    def __init__(self, root: Path, name: str):
        super().__init__(name, root / "anno" / "UAV123" / f"{name}.txt")
        self.root = root

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        boxes = from_one(read_rows(self.source))
        return Annotation(boxes, np.isfinite(boxes).all(axis=1))

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        video, first = self._place(len(self.boxes))
        folder, is_piece = self.root / "data_seq" / "UAV123" / video, video != self.name
        return numbered_frames(folder, first, len(self.boxes), spare=is_piece)

    def _place(self, rows: int) -> tuple[str, int]:
        """Video and number of the first frame."""
        video, _, piece = self.name.rpartition("_")
        if video not in _PIECES or not piece.isdecimal():  # car1_s and person2_s are videos of their own
            return self.name, 1
        if not 1 <= int(piece) <= len(_PIECES[video]):
            raise SequenceError(
                f"{self.source} is piece {piece} of {video}, which has {len(_PIECES[video])}. Remove what is not of UAV123.",
                "missing_frame",
            )
        first, last = _PIECES[video][int(piece) - 1]
        frames = last - first + 1
        if rows == frames:
            return video, first
        if rows == -(-frames // 3):
            return video, (first - 1) // 3 + 1
        raise SequenceError(
            f"{self.source} has {rows} rows, expected {frames}, or {-(-frames // 3)} in the edition of 10 frames a second. "
            "Without all rows it is not known where this piece of the video starts.",
            "length_mismatch",
        )


def _read(root: Path, split: None) -> list[UAV123Sequence]:
    check_root(root, "anno/UAV123/*.txt", "anno/UAV123/<name>.txt and data_seq/UAV123/<video>/000001.jpg")
    return [UAV123Sequence(root, file.stem) for file in text_files(root / "anno" / "UAV123")]


UAV123 = Layout("uav123", _read, protocol="uav", origin=1)
