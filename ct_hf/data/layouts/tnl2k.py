"""TNL2K: 1,300 training and 700 test sequences, each with a sentence.

    <root>/<split>/<name>/imgs/*.png or *.jpg   names differ; in the order of their numbers
                         /groundtruth.txt       x,y,w,h
                         /language.txt          a sentence

Some releases put the sequences of a split into subsets, one folder deeper; both are read. Boxes are as given. The target is
absent where its row is 0,0,0,0: in the toolkit's files of the test split that is so exactly where its `absent` flags are 1.
Other rows without area (12 test sequences have one each) count as visible, as there. Scored by `lasot`, whose toolkit
TNL2K's own is made from; OSTrack's analysis treats it as `otb`, where absent frames are hits in normalised precision.
"""

from functools import cached_property
from pathlib import Path

from ..annotation import read_rows
from ..frames import FramePaths, sorted_frames
from .layout import Annotation, Layout, LayoutSequence
from .reading import check_root, folders, read_sentence


class TNL2KSequence(LayoutSequence):
    """Sequence of TNL2K.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path):
        super().__init__(path.name, path / "groundtruth.txt")
        self.path = path

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        boxes = read_rows(self.source)
        return Annotation(boxes, (boxes != 0).any(axis=1))

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        return sorted_frames(self.path / "imgs")

    @cached_property
    def language(self) -> str | None:
        """Sentence that describes the target, where there is one."""
        return read_sentence(self.path / "language.txt")


def _read(root: Path, split: str) -> list[TNL2KSequence]:
    check_root(root, split, f"{split}/<name>/imgs and {split}/<name>/groundtruth.txt")
    paths = []
    for path in folders(root / split):
        paths += [path] if (path / "imgs").is_dir() or (path / "groundtruth.txt").is_file() else folders(path)
    return [TNL2KSequence(path) for path in paths]


TNL2K = Layout("tnl2k", _read, protocol="lasot", splits=("test", "train"))
