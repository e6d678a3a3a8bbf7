"""LaSOT (1,400 sequences of 70 categories) and its extension (150 of 15).

    <root>/training_set.txt, testing_set.txt        lists of protocol II, a name a line; not in the extension
    <root>/<category>/<category>-<number>/img/00000001.jpg ...
                                         /groundtruth.txt       x,y,w,h
                                         /full_occlusion.txt    0 or 1 for each frame, all on one line
                                         /out_of_view.txt       the same
                                         /nlp.txt               a sentence

A category may also be the archive <root>/<category>.zip with <category>-<number>/img/00000001.jpg ... in it, as in the Hub
repositories `l-lt/LaSOT` and `l-lt/LaSOT-ext`; it is read as it is, or unpacked where it lies, which makes no folder of the
category: <root>/<category>-<number>.

Boxes count from 1 (no visible one in 1,400 files starts at 0) and are corrected to 0 here, once. The target is absent where
either flag is 1; what the box says there differs from sequence to sequence and decides nothing. In 7 sequences a frame that
is flagged visible has a box of no or negative size (test: lion-5, microphone-6, tiger-6): it is kept, since OSTrack's
analysis counts such frames in its own way. Where frames and rows differ in number (monkey-17), the shorter counts.

Scored by `lasot`. OSTrack's analysis treats absent frames of the extension as hits in normalised precision; the Matlab
toolkit of LaSOT treats both alike, and so does this.
"""

import logging
from functools import cached_property

from ..annotation import read_flags, read_rows
from ..archives import AnyPath, MemberPath
from ..errors import SequenceError
from ..frames import FramePaths
from .layout import Annotation, BrokenSequence, Layout, LayoutSequence
from .reading import check_root, folders, from_one, numbered_frames, read_names, read_sentence


logger = logging.getLogger(__name__)

_LISTS = {"train": "training_set.txt", "test": "testing_set.txt"}


class LaSOTSequence(LayoutSequence):
    """Sequence of LaSOT or its extension.

    Args:
        path: Its folder.
    """

    def __init__(self, path: AnyPath):
        super().__init__(path.name, path / "groundtruth.txt")
        self.path = path

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        boxes = from_one(read_rows(self.source))
        flags = [read_flags(self.path / name, len(boxes)) for name in ("full_occlusion.txt", "out_of_view.txt")]
        visible = (flags[0] == 0) & (flags[1] == 0)
        count = len(boxes)
        # Numbers of frames may have no gap, so the frame of the last row stands for all: the length is known without a list.
        if not (self.path / "img" / f"{count:08d}.jpg").is_file():
            count = self._shorter(len(self._frames()), count)
        return Annotation(boxes[:count], visible[:count])

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        files = self._frames()
        return files[: self._shorter(len(files), len(self.boxes))]

    def _frames(self) -> FramePaths:
        return numbered_frames(self.path / "img", first=1)

    def _shorter(self, frames: int, rows: int) -> int:
        if frames != rows:
            logger.warning(
                "%s has %d frames but %d rows: the first %d are used.", self.path, frames, rows, min(frames, rows)
            )
        return min(frames, rows)

    @cached_property
    def language(self) -> str | None:
        """Sentence that describes the target, where there is one."""
        return read_sentence(self.path / "nlp.txt")


def _read(root: AnyPath, split: str) -> list[LaSOTSequence]:
    check_root(
        root,
        _LISTS[split],
        f"the official list {_LISTS[split]} beside <category>/<category>-<number>/img or <category>.zip",
    )
    names = read_names(root / _LISTS[split])
    categories, found = _archives(root), {path.name for path in root.iterdir()}

    def place(name: str) -> AnyPath:
        category = name.rpartition("-")[0]
        unpacked = root if category not in found and name in found else root / category
        return categories.get(category, unpacked) / name

    return [LaSOTSequence(place(name)) for name in names]


def _read_extension(root: AnyPath, split: None) -> list[LayoutSequence]:
    archives = _archives(root)
    if not archives and not any(root.glob("*-*/groundtruth.txt")):
        tree = "<category>/<category>-<number>/groundtruth.txt and img, or <category>.zip"
        check_root(root, "*/*-*/groundtruth.txt", tree)
    categories = {category.name: category for category in folders(root)} | archives
    sequences: list[LayoutSequence] = []
    for name in sorted(categories):
        try:
            paths = _sequences(categories[name])
        except SequenceError as error:  # of an archive that is cut off
            sequences.append(BrokenSequence(name, categories[name], error))
        else:
            sequences += [LaSOTSequence(path) for path in paths if path.name.startswith(name)]
    return sequences


def _sequences(category: AnyPath) -> list[AnyPath]:
    """Folders of the sequences of a category, which may be one itself, or in a folder of its name in its archive."""
    if (category / "groundtruth.txt").is_file():
        return [category]
    inner = category / getattr(category, "archive", category).stem
    return folders(inner if inner.is_dir() else category)


def _archives(root: AnyPath) -> dict[str, MemberPath]:
    """Archives by category, but for those that are unpacked beside them."""
    files = (file for file in root.glob("*.zip") if not file.name.startswith("."))
    found = {file.stem: file for file in sorted(files, key=lambda file: file.name)}
    return {stem: MemberPath("", file) for stem, file in found.items() if not (root / stem).is_dir()}


LASOT = Layout("lasot", _read, protocol="lasot", origin=1, splits=("test", "train"), archives=True)
LASOT_EXT = Layout("lasot_ext", _read_extension, protocol="lasot", origin=1, archives=True)
