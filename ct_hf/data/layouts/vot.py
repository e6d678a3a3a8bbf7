"""VOT: the challenges' sequences, before 2020 (polygons) and since (masks).

    <root>/list.txt, <root>/<name>/              or, as its toolkit keeps a workspace, <root>/sequences/list.txt, ...
    <name>/00000001.jpg ... or <name>/color/00000001.jpg ...
          /groundtruth.txt, or groundtruth_<object>.txt for each of several targets

A row is a rectangle (4 numbers), a polygon (an even number above 4), a mask (`m` and its run lengths), or NaN or a single
number where the target is not known. Polygons and masks become the upright box around them. Coordinates are as given.
VOT's own measures (accuracy, robustness, EAO) need its regions and restarts and are not computed here: `visible` is no
figure of VOT.
"""

from pathlib import Path

import numpy as np

from ..annotation import read_text
from ..errors import SequenceError
from ..frames import FramePaths
from .layout import Annotation, Layout, LayoutSequence
from .reading import check_root, numbered_frames, read_names, text_files


class VOTSequence(LayoutSequence):
    """One target of a sequence of VOT.

    Args:
        path: Folder of the sequence.
        source: File of the regions.
    """

    def __init__(self, path: Path, source: Path):
        super().__init__(path.name + source.stem.removeprefix("groundtruth"), source)
        self.path = path

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        boxes = []
        for number, line in enumerate(read_text(self.source).rstrip().splitlines(), start=1):
            try:
                boxes.append(_box(line.strip()))
            except ValueError as error:
                raise SequenceError(
                    f"{self.source}, row {number}: got {line[:80]!r}, expected a rectangle, polygon or mask ({error}).",
                    "bad_box",
                ) from error
        boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        return Annotation(boxes, np.isfinite(boxes).all(axis=1))

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        color = self.path / "color"
        return numbered_frames(color if color.is_dir() else self.path, first=1)


def _box(region: str) -> np.ndarray:
    """Upright box `(4,)` around a region as VOT writes it, NaN if it is not known or empty."""
    if region.startswith("m"):
        return _mask_box(np.array(region[1:].split(","), dtype=int))
    numbers = np.array(region.split(","), dtype=float)
    if len(numbers) == 1 or np.isnan(numbers).any():
        return np.full(4, np.nan)
    if len(numbers) == 4:
        return numbers
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers")
    return _around(numbers.reshape(-1, 2).min(axis=0), numbers.reshape(-1, 2).max(axis=0))


def _mask_box(numbers: np.ndarray) -> np.ndarray:
    """Box around a mask: left, top, width, height of its window, then runs of outside and inside, row by row."""
    if len(numbers) < 4 or (numbers[2:] < 0).any() or numbers[4:].sum() > numbers[2] * numbers[3]:
        raise ValueError("its runs do not fit its window")
    runs = numbers[4:]
    inside = np.flatnonzero(np.repeat(np.arange(len(runs)) % 2 == 1, runs))
    if not len(inside):
        return np.full(4, np.nan)
    rows, columns = np.divmod(inside, numbers[2])
    corner = numbers[:2] + [columns.min(), rows.min()]
    return _around(corner, numbers[:2] + [columns.max() + 1, rows.max() + 1])


def _around(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.concatenate([low, high - low])


def _read(root: Path, split: None) -> list[VOTSequence]:
    base = root / "sequences" if (root / "sequences").is_dir() else root
    check_root(base, "list.txt", "list.txt beside a folder for each name in it")
    sequences = []
    for name in read_names(base / "list.txt"):
        sources = text_files(base / name, "groundtruth_*.txt") or [base / name / "groundtruth.txt"]
        sequences += [VOTSequence(base / name, source) for source in sources]
    return sequences


VOT = Layout("vot", _read, protocol="visible")
