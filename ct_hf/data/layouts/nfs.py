"""NfS (Need for Speed): 100 sequences, at 30 and at 240 frames a second.

As published:
    <root>/<name>/30/<name>/00001.jpg ...       the same under 240
    <root>/<name>/30/<name>.txt                 id x1 y1 x2 y2 frame lost occluded generated "class", between spaces

As pytracking and OSTrack use the 30 frames a second:
    <root>/sequences/<name>/00001.jpg ...
    <root>/anno/nfs_<name>.txt                  x y w h, between tabs

Which of the two it is shows in the folder `anno`. Boxes are as given; a row is absent where `lost` is 1, and pytracking's
files have no such flag. Names are those of the annotation files. Where 30 frames a second come with the rows of 240, every
eighth counts, and a row or frame too many at the end is dropped, as got10k does. Scored by `otb`, which asks for no flags.
"""

from pathlib import Path

import numpy as np

from ..annotation import read_rows, read_text
from ..errors import SequenceError
from ..frames import FramePaths
from .layout import Annotation, Layout, LayoutSequence
from .reading import check_root, folders, numbered_frames, text_files


class NfSSequence(LayoutSequence):
    """Sequence as published.

    Args:
        path: Folder of one frame rate.
        name: Name of the sequence.
    """

    def __init__(self, path: Path, name: str):
        super().__init__(name, path / f"{name}.txt")
        self.path = path

    def where(self, index: int) -> str:
        """Frame, which is not the row where only every eighth counts."""
        return f"{self.source}, frame {index + 1}"

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        rows, frames = self._rows(), len(self._frames())
        if self.path.name == "30" and abs(len(rows) / frames - 8) < 1:
            rows = rows[::8]
        if len(rows) == frames + 1:
            rows = rows[:frames]
        boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1)
        return Annotation(boxes, rows[:, 4] == 0)

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        files, rows = self._frames(), len(self.boxes)
        return files[:rows] if len(files) == rows + 1 else files

    def _frames(self) -> FramePaths:
        return numbered_frames(self.path / self.name, first=1)

    def _rows(self) -> np.ndarray:
        """`(num_rows, 5)` x1, y1, x2, y2, lost."""
        rows = []
        for number, line in enumerate(read_text(self.source).rstrip().splitlines(), start=1):
            cells = line.split()
            try:
                row = [float(cells[place]) for place in (1, 2, 3, 4, 6)]
            except (ValueError, IndexError):
                row = [np.nan]
            if not np.isfinite(row).all():
                raise SequenceError(
                    f"{self.source}, row {number}: got {line!r}, expected id x1 y1 x2 y2 frame lost and more, between "
                    "spaces.",
                    "bad_box",
                )
            rows.append(row)
        return np.array(rows, dtype=np.float32).reshape(-1, 5)


class ConvertedNfSSequence(LayoutSequence):
    """Sequence as pytracking uses it.

    Args:
        root: Root of the data set.
        source: File of the boxes.
    """

    def __init__(self, root: Path, source: Path):
        super().__init__(source.stem, source)
        self.root = root

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        boxes = read_rows(self.source)
        return Annotation(boxes, np.isfinite(boxes).all(axis=1))

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        return numbered_frames(self.root / "sequences" / self.name.removeprefix("nfs_"), 1, len(self.boxes))


def _read(root: Path, split: str) -> list[LayoutSequence]:
    if (root / "anno").is_dir():
        check_root(root, "anno/nfs_*.txt", "anno/nfs_<name>.txt and sequences/<name>/00001.jpg")
        if split != "30":
            raise ValueError(
                f"`split`={split!r}, but {root} is pytracking's edition, which has 30 frames a second only."
            )
        return [ConvertedNfSSequence(root, file) for file in text_files(root / "anno", "nfs_*.txt")]
    check_root(root, f"*/{split}", f"<name>/{split}/<name>/00001.jpg and <name>/{split}/<name>.txt")
    return [NfSSequence(path / split, path.name) for path in folders(root) if (path / split).is_dir()]


NFS = Layout("nfs", _read, protocol="otb", splits=("30", "240"))
