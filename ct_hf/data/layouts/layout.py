"""What every layout shares: how it is described, and sequences whose annotation is read when it is asked for."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ..archives import AnyPath
from ..errors import SequenceError
from ..frames import FramePaths
from ..sequences import FileSequence


@dataclass(frozen=True)
class Layout:
    """A data set's own arrangement of files, and what it means for evaluation.

    Args:
        name: What users call it.
        read: Lists the sequences of a folder and a split. It reads no more than the list needs.
        protocol: Whose rules score it, one of [`~evaluation.PROTOCOLS`].
        results: Result files that its toolkit or server takes, see [`~evaluation.result_files.ResultFiles`].
        origin: Coordinate of the first pixel in the data set's own files. Boxes of a [`Sequence`] always count from 0.
        splits: Names of its splits, the one that is read by default first; none if it has no splits.
        archives: Whether `read` also takes the archives as they are published, and a root behind a URL.
    """

    name: str
    read: Callable[[AnyPath, str | None], list[FileSequence]]
    protocol: Literal["otb", "lasot", "uav", "got10k", "trackingnet", "visible"]
    results: Literal["flat", "got10k"] = "flat"
    origin: Literal[0, 1] = 0
    splits: tuple[str, ...] = ()
    archives: bool = False

    @property
    def training_split(self) -> str | None:
        """`train` where there is one, else the first."""
        return "train" if "train" in self.splits else next(iter(self.splits), None)

    def to_own(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes in the coordinates of the data set's files: what result files for its toolkit must hold.

        Official toolkits compare predictions with the ground truth as it stands, so that boxes that count from 0 would be
        one pixel off beside ground truth that counts from 1. Our own scores do not change: overlaps and distances are the
        same when both sides are shifted, and of the protocols only `got10k` looks at the image's borders, where
        boxes count from 0.

        Args:
            boxes: `(num_frames, 4)` xywh in pixels, from 0.

        Returns:
            `(num_frames, 4)` float64.
        """
        return np.asarray(boxes, dtype=np.float64) + [self.origin, self.origin, 0, 0]

    def from_own(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes that count from 0, from those of the data set's files or of result files in its coordinates."""
        return np.asarray(boxes, dtype=np.float64) - [self.origin, self.origin, 0, 0]


@dataclass(frozen=True, slots=True)
class Annotation:
    """Annotation of one sequence; the fields are those of [`Sequence`], of one length."""

    boxes: np.ndarray
    visible: np.ndarray
    cover: np.ndarray | None = None
    annotated: bool = True


class LayoutSequence(FileSequence):
    """Sequence in a data set's own layout: a subclass says how to read its annotation and how to list its frames.

    Args:
        name: Unique within the data set, as its result files are called.
        source: The file with the boxes.
    """

    def __init__(self, name: str, source: AnyPath):
        self.name, self.source = name, source

    @abstractmethod
    def read_annotation(self) -> Annotation:
        """Reads the annotation, in coordinates that count from 0; lists frames only where it cannot be told without.

        Raises:
            SequenceError: Something is missing or broken.
        """

    @cached_property
    def _annotation(self) -> Annotation:
        return self.read_annotation()

    @property
    def boxes(self) -> np.ndarray:
        """`(num_frames, 4)` float32 xywh in pixels of the frame."""
        return self._annotation.boxes

    @property
    def visible(self) -> np.ndarray:
        """`(num_frames,)` bool."""
        return self._annotation.visible

    @property
    def cover(self) -> np.ndarray | None:
        """`(num_frames,)` int8, or `None`."""
        return self._annotation.cover

    @property
    def annotated(self) -> bool:
        """Whether ground truth goes beyond the first frame."""
        return self._annotation.annotated


class BrokenSequence(LayoutSequence):
    """Part of a data set in which something broken was found while it was listed: whoever reads it is told.

    Args:
        name: What would be a sequence, or hold some.
        source: Where it is.
        error: What is wrong.
    """

    def __init__(self, name: str, source: AnyPath, error: SequenceError):
        super().__init__(name, source)
        self.error = error

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        raise self.error

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        raise self.error


def withheld(boxes: np.ndarray, count: int) -> Annotation:
    """Annotation of a test sequence of which only the first box is published.

    Args:
        boxes: `(1, 4)` xywh in pixels.
        count: Number of frames.
    """
    unknown = np.full((count - 1, 4), np.nan, dtype=np.float32)
    return Annotation(np.concatenate([boxes, unknown]), np.arange(count) == 0, annotated=False)
