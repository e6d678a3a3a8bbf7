"""OTB100 (OTB-2015): 100 targets in 98 videos.

    <root>/<Video>/img/0001.jpg ...
                  /groundtruth_rect.txt             x,y,w,h between commas, tabs or spaces, different in each video
                  /groundtruth_rect.1.txt, .2.txt   of videos with several targets

Boxes count from 1 (Matlab) and are corrected to 0 here, once. Nothing marks absence: the target counts as visible in every
frame. A second target is called `<Video>_2`, as in OSTrack, and the first then `<Video>_1`, whichever way its file is
called. The first file of Human4 is empty, its only target is `Human4_2`. Frames behind the last row are not used.

As OSTrack and pytracking do, four videos start at a later frame and Tiger1 omits its first five (got10k does not), so that
figures by `otb` are those of papers on trackers.
"""

import re
from pathlib import Path

import numpy as np

from ..annotation import read_rows, read_text
from ..errors import SequenceError
from ..frames import FramePaths
from .layout import Annotation, BrokenSequence, Layout, LayoutSequence
from .reading import check_root, folders, from_one, numbered_frames, text_files


_FIRST_FRAME = {"BlurCar1": 247, "BlurCar3": 3, "BlurCar4": 18, "David": 300}
"""Frame of the first row, where it is not 1."""

_OMITTED = {"Tiger1": 5}
"""Frames, and rows, left out at the start."""


class OTB100Sequence(LayoutSequence):
    """Sequence of OTB100.

    Args:
        name: Video, with the number of the target where there are several.
        source: File of the boxes.
    """

    def where(self, index: int) -> str:
        """Row of the file with the boxes."""
        return super().where(index + self._omitted)

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        boxes = from_one(read_rows(self.source))[self._omitted :]
        return Annotation(boxes, np.isfinite(boxes).all(axis=1))

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        video, omitted = self.source.parent, self._omitted
        first = _FIRST_FRAME.get(video.name, 1)
        return numbered_frames(video / "img", first, omitted + len(self.boxes))[omitted:]

    @property
    def _omitted(self) -> int:
        return _OMITTED.get(self.source.parent.name, 0)


def _targets(video: Path) -> list[LayoutSequence]:
    files = {}
    for file in text_files(video, "groundtruth_rect*.txt"):
        number = re.fullmatch(r"groundtruth_rect(?:\.(\d+))?\.txt", file.name)
        if number:
            files[int(number[1] or 0)] = file
    if not files:
        error = f"{video} has frames but no groundtruth_rect.txt. Restore it, or remove the folder."
        return [BrokenSequence(video.name, video, SequenceError(error, "missing_ground_truth"))]
    if set(files) == {0}:
        return [OTB100Sequence(video.name, files[0])]
    if 0 in files:
        files.setdefault(1, files.pop(0))
    files.pop(0, None)
    targets: list[LayoutSequence] = []
    for number, file in sorted(files.items()):
        name = f"{video.name}_{number}"
        try:
            empty = not read_text(file).strip()
        except SequenceError as error:
            targets.append(BrokenSequence(name, file, error))
        else:
            targets += [] if empty else [OTB100Sequence(name, file)]
    return targets


def _read(root: Path, split: None) -> list[LayoutSequence]:
    check_root(root, "*/img", "<Video>/img/0001.jpg and <Video>/groundtruth_rect.txt")
    return [target for video in folders(root) if (video / "img").is_dir() for target in _targets(video)]


OTB100 = Layout("otb100", _read, protocol="otb", origin=1)
