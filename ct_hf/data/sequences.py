"""Annotated sequences: one target, one box for each frame, frames read when they are asked for."""

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..models.image_processing_tracker import MOST_FRAMES
from .annotation import check_box, check_length, read_flags, read_rows
from .archives import AnyPath
from .errors import SequenceError
from .frames import FramePaths, decode_frame, image_names, sorted_frames, upright_size


GROUND_TRUTH = "groundtruth.txt"


class Sequence(ABC):
    """Frames of a video in which one target is annotated.

    Attributes:
        name: Unique within a collection.
        boxes: `(num_frames, 4)` float32 xywh in pixels of the frame, 0-based. NaN where nothing is annotated.
        visible: `(num_frames,)` bool, whether the target can be seen.
        size: Width and height of the frames in pixels.
        cover: `(num_frames,)` int8, visible eighths of the target from 0 to 8, where a data set says so, else `None`.
        language: Sentence that describes the target, or `None`.
        annotated: Whether ground truth goes beyond the first frame. Without, it is withheld by a server that scores: all
            other boxes are NaN and not visible, and results can be written but not scored.
    """

    name: str
    boxes: np.ndarray
    visible: np.ndarray
    size: tuple[int, int]
    cover: np.ndarray | None = None
    language: str | None = None
    annotated: bool = True

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def frame(self, index: int) -> Image.Image:
        """RGB image of one frame."""

    @abstractmethod
    def frame_bytes(self, index: int) -> bytes:
        """Undecoded image file of one frame."""

    def annotation(self, index: int) -> tuple[np.ndarray, bool]:
        """Box and visibility of one frame, for sequences that can tell them without computing all the others."""
        return self.boxes[index], bool(self.visible[index])


class FileSequence(Sequence):
    """Sequence whose frames are image files.

    What has been read stays on the instance. The folder of the frames is listed when the first of them is asked for: that
    takes longer than reading the annotation.

    Attributes:
        source: The file with the boxes.
    """

    source: AnyPath

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @abstractmethod
    def list_frames(self) -> FramePaths:
        """Lists the frames, as many as there are boxes.

        Raises:
            SequenceError: One is missing.
        """

    @cached_property
    def files(self) -> FramePaths:
        """Paths of the frames, in order.

        Raises:
            SequenceError: One is missing, or there are not as many as boxes.
        """
        files = self.list_frames()
        check_length(len(self.boxes), len(files), self.source)
        return files

    def where(self, index: int) -> str:
        """File and row of the annotation of one frame, for errors."""
        return f"{self.source}, row {index + 1}"

    def __len__(self) -> int:
        return len(self.boxes)

    def __getstate__(self) -> dict[str, Any]:
        # A data set goes to every DataLoader worker: what can be read again stays behind.
        read = {name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)}
        return {name: value for name, value in self.__dict__.items() if name not in read}

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame in pixels, read from the head of its file."""
        try:
            with self.files[0].open("rb") as file, Image.open(file) as image:
                return upright_size(image)
        except ConnectionError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            # Decoding says in the usual words what is wrong with the file.
            return decode_frame(self.frame_bytes(0), str(self.files[0])).size

    def frame(self, index: int) -> Image.Image:
        """RGB image of one frame.

        Raises:
            SequenceError: The file is missing or corrupt, or is not of the size of the first frame.
        """
        file = self.files[index]
        image = decode_frame(self.frame_bytes(index), str(file))
        if image.size != self.size:
            raise SequenceError(
                f"{file} is of {image.size[0]}x{image.size[1]} pixels but the first frame of its sequence of "
                f"{self.size[0]}x{self.size[1]}. Export all frames of a sequence at one size.",
                "frame_size",
            )
        return image

    def frame_bytes(self, index: int) -> bytes:
        """Image file of one frame, unchanged.

        Raises:
            SequenceError: The file cannot be read.
        """
        file = self.files[index]
        try:
            return file.read_bytes()
        except ConnectionError:  # says nothing about the frame
            raise
        except OSError as error:
            raise SequenceError(f"{file} cannot be read ({error}). Restore the file.", "missing_frame") from error

    def check(self) -> list[int]:
        """Reads the annotation and compares it with the frames.

        Returns:
            Frames whose target is visible but has no box of positive size, at most some times the frame's, that reaches
            into the frame.

        Raises:
            SequenceError: Something is missing or broken, or there are not as many frames as boxes.
        """
        if not len(self):
            raise SequenceError(f"{self.source} is empty. Restore it, or remove the sequence.", "empty")
        corners, sizes = self.boxes[:, :2], self.boxes[:, 2:]
        usable = np.isfinite(self.boxes).all(axis=1) & (sizes > 0).all(axis=1)
        _ = self.files  # lists and counts them
        usable &= (corners < self.size).all(axis=1) & (corners + sizes > 0).all(axis=1)
        usable &= (sizes <= MOST_FRAMES * np.array(self.size)).all(axis=1)
        return np.flatnonzero(self.visible & ~usable).tolist()

    def bad_box(self, index: int) -> SequenceError:
        """Error that names the box of a frame."""
        return SequenceError(
            f"{self.where(index)}: got {self.boxes[index].tolist()}, expected four finite numbers with positive width and "
            f"height, at most {MOST_FRAMES} times the frame's, that reach into the frame of {self.size[0]}x{self.size[1]} pixels, or four NaN where the target is absent.",
            "bad_box",
        )


class FolderSequence(FileSequence):
    """Sequence kept as a folder of images and one text file.

    The folder holds the frames (`*.jpg`, `*.jpeg` or `*.png`, in the order of their names, numbers by value),
    `groundtruth.txt` with one row `x,y,w,h` for each frame (separated by commas, tabs or spaces; NaN where the target is
    absent) and, optionally, `absent.txt` with one 0 or 1 for each frame. Files are read on first use.

    Args:
        path: The folder.

    Raises:
        SequenceError: On first use of what cannot be read; here only when the folder does not exist.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name, self.source = self.path.absolute().name or self.path.resolve().name, self.path / GROUND_TRUTH
        if not self.path.is_dir():
            raise SequenceError(f"`path`={str(self.path)!r} is not a folder. Give a folder with frames.", "empty")

    def __repr__(self) -> str:
        return f"FolderSequence({str(self.path)!r})"

    def list_frames(self) -> FramePaths:
        """See [`FileSequence`]."""
        return sorted_frames(self.path)

    @cached_property
    def boxes(self) -> np.ndarray:
        """`(num_frames, 4)` float32 xywh in pixels of the frame."""
        return read_rows(self.source)

    @cached_property
    def visible(self) -> np.ndarray:
        """`(num_frames,)` bool."""
        visible = ~np.isnan(self.boxes).any(axis=1)
        file = self.path / "absent.txt"
        if file.exists():
            visible &= read_flags(file, len(visible)) == 0
        return visible

    def frame(self, index: int) -> Image.Image:
        """See [`FileSequence`]; the frame is checked together with its box.

        Raises:
            SequenceError: The file is missing or corrupt, is not of the size of the first frame, or the target is
                visible and its box has no area in the frame.
        """
        image = super().frame(index)
        if self.visible[index]:
            check_box(self.boxes[index], self.size, self.where(index))
        return image


def read_sequences(root: str | Path, *, check: bool = True) -> list[FolderSequence]:
    """Finds the sequences below a folder.

    Args:
        root: A folder of sequence folders, or one sequence.
        check: Whether to read every annotation and list all frames now, so that what is broken is reported at once
            (evaluation). Without, a stream of clips leaves broken sequences out and counts them. Default: `True`.

    Returns:
        The sequences, sorted by name.

    Raises:
        SequenceError: The folder does not exist or holds no sequence, or, with `check`, an annotation is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise SequenceError(f"`root`={str(root)!r} is not a folder. Give a folder of sequences.", "empty")
    if (root / GROUND_TRUTH).exists():
        sequences = [FolderSequence(root)]
    else:
        sequences = [FolderSequence(path) for path in sorted(root.iterdir()) if _is_sequence(path)]
        if not sequences and _is_sequence(root):  # an image beside sequences makes no sequence of them all
            sequences = [FolderSequence(root)]
    if not sequences:
        raise SequenceError(
            f"`root`={str(root)!r} holds no sequences. Expected folders with images and a {GROUND_TRUTH}, or one such "
            "folder itself. Data sets in their own layouts have readers of their own, see docs/datasets.md.",
            "empty",
        )
    if check:
        for sequence in sequences:
            for row in sequence.check():
                raise sequence.bad_box(row)
    return sequences


def _is_sequence(path: Path) -> bool:
    """Whether a folder holds ground truth or frames: one without the other is a broken sequence, not another folder."""
    if path.name.startswith(".") or not path.is_dir():  # what a viewer of images keeps beside them
        return False
    return (path / GROUND_TRUTH).exists() or bool(image_names(path))
