"""ImageNet-VID: every object of a video as a sequence.

    <root>/Data/VID/train/<chunk>/<video>/000000.JPEG ...       <root>/Data/VID/val/<video>/...
    <root>/Annotations/VID/train/<chunk>/<video>/000000.xml     the same for val

Boxes count from 0; `xmin,ymin,xmax,ymax` become a width of `xmax - xmin`, as in OSTrack (got10k adds 1). A sequence goes from
the first frame that shows the object, by its `trackid`, to the last that names it; it is not visible where `occluded` is 1, and absent (NaN)
where the frame's file does not name it. OSTrack ends at the first such gap instead. Which objects there are is only
known from all XML files, so listing a split reads every one (train: 1.1 million). There is no one-pass benchmark; `visible`.
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..errors import SequenceError
from ..frames import FramePaths
from ..sequences import FileSequence
from .layout import BrokenSequence, Layout
from .reading import check_root, numbered_frames


class ImageNetVIDSequence(FileSequence):
    """One object of one video.

    Args:
        frames: Folder of the video's frames.
        annotations: Folder of the video's XML files.
        track: The object's `trackid`.
        first: Number of its first frame.
        boxes: `(num_frames, 4)` xywh in pixels, NaN where it is absent.
        visible: `(num_frames,)` bool.
    """

    def __init__(
        self, frames: Path, annotations: Path, track: str, first: int, boxes: np.ndarray, visible: np.ndarray
    ):
        self.name, self.source = f"{frames.name}_{track}", annotations
        self.frames, self.first, self.boxes, self.visible = frames, first, boxes, visible

    def where(self, index: int) -> str:
        """File of the frame."""
        return str(self.source / f"{self.first + index:06d}.xml")

    def list_frames(self) -> FramePaths:
        """See [`FileSequence`]."""
        return numbered_frames(self.frames, self.first, len(self.boxes), spare=True)  # of other tracks of the video


def _objects(file: Path) -> dict[str, tuple[list[float], bool]]:
    """Box and visibility of the objects of one frame, by `trackid`."""
    try:
        objects = {}
        for entry in ElementTree.parse(file).iter("object"):
            corners = [float(entry.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            box = [*corners[:2], corners[2] - corners[0], corners[3] - corners[1]]
            objects[entry.findtext("trackid", "")] = box, entry.findtext("occluded", "0") == "0"
        return objects
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise SequenceError(f"{file} is not a frame's annotation ({error}). Restore the file.", "bad_box") from error


def _video(frames: Path, annotations: Path) -> list[ImageNetVIDSequence]:
    tracks: dict[str, dict[int, tuple[list[float], bool]]] = {}
    for file in sorted(file for file in annotations.glob("[0-9]*.xml") if file.stem.isdecimal()):
        for track, seen in _objects(file).items():
            tracks.setdefault(track, {})[int(file.stem)] = seen
    sequences = []
    for track, seen in tracks.items():
        first = min((number for number, (_, is_visible) in seen.items() if is_visible), default=min(seen))
        count = max(seen) - first + 1
        boxes, visible = np.full((count, 4), np.nan, dtype=np.float32), np.zeros(count, dtype=bool)
        for number, (box, is_visible) in seen.items():
            if number < first:  # occluded, where no tracker could start
                continue
            boxes[number - first], visible[number - first] = box, is_visible
        sequences.append(ImageNetVIDSequence(frames, annotations, track, first, boxes, visible))
    return sequences


def _sequences(frames: Path, annotations: Path) -> list[FileSequence]:
    try:
        return _video(frames, annotations)
    except SequenceError as error:
        return [BrokenSequence(frames.name, annotations, error)]


def _read(root: Path, split: str) -> list[FileSequence]:
    part = f"Annotations/VID/{split}"
    check_root(root, part, f"{part} and Data/VID/{split}")
    videos = sorted({file.parent for file in (root / part).glob("**/[0-9]*.xml")})
    data = root / "Data" / "VID" / split
    return [sequence for video in videos for sequence in _sequences(data / video.relative_to(root / part), video)]


IMAGENET_VID = Layout("imagenet_vid", _read, protocol="visible", splits=("train", "val"))
