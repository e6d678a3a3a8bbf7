"""Annotated sequences: one target, one box for each frame, frames read when they are asked for."""

import io
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError


if TYPE_CHECKING:
    from .archives import AnyPath


CAUSES = (
    "bad_box",
    "corrupt_image",
    "empty",
    "frame_size",
    "length_mismatch",
    "missing_frame",
    "missing_ground_truth",
    "too_few_visible",
)
"""What can be wrong with a sequence, in the order in which a stream counts it."""

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
GROUND_TRUTH = "groundtruth.txt"


class SequenceError(ValueError):
    """Raised for a sequence that cannot be read.

    Args:
        message: What was found, where, and what to do.
        cause: One of [`CAUSES`], for counting.
    """

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause

    def __reduce__(self):
        # DataLoader workers pickle their errors; the default would forget `cause`.
        return type(self), (str(self), self.cause)


def describe_causes(counts: Mapping[str, int]) -> str:
    """Counts by cause in words, for instance `corrupt_image: 3, frame_size: 1`."""
    return ", ".join(f"{cause}: {count}" for cause, count in sorted(counts.items()) if count) or "none"


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


def decode_frame(data: bytes, where: str) -> Image.Image:
    """Decodes an image file to RGB.

    Args:
        data: Content of a JPEG or PNG file.
        where: Name of the frame, for the error.

    Raises:
        SequenceError: The image is corrupt or truncated.
    """
    with _readable(where):
        return Image.open(io.BytesIO(data)).convert("RGB")


def frame_size(data: bytes, where: str) -> tuple[int, int]:
    """Width and height of an image in pixels, read to its end as [`decode_frame`] does but at a part of the work.

    Args:
        data: Content of a JPEG or PNG file.
        where: Name of the frame, for the error.

    Raises:
        SequenceError: The image is corrupt or truncated.
    """
    with _readable(where), Image.open(io.BytesIO(data)) as image:
        size = image.size
        image.draft("L", (1, 1))  # a JPEG is read whole, but only a small picture is computed
        image.load()
        return size


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise SequenceError(
            f"{where} is not a readable image ({reason}). Copy or download it again, or remove its sequence.",
            "corrupt_image",
        ) from error


def check_box(box: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Refuses the box of a visible target that has no area in its frame.

    Args:
        box: `(4,)` xywh in pixels.
        size: Width and height of the frame in pixels.
        where: Name of the frame, for the error.

    Raises:
        SequenceError: The box is not finite, not of positive size or wholly outside of the frame.
    """
    left, top, width, height = (float(value) for value in box)
    if not np.isfinite([left, top, width, height]).all() or width <= 0 or height <= 0:
        problem = "is not a box of positive width and height"
    elif left >= size[0] or top >= size[1] or left + width <= 0 or top + height <= 0:
        problem = f"lies outside of the frame of {size[0]}x{size[1]} pixels"
    else:
        return
    raise SequenceError(
        f"{where}: the box x={left:g}, y={top:g}, width={width:g}, height={height:g} {problem}. Correct the row, or "
        "mark the frame as absent (NaN,NaN,NaN,NaN, or 1 in absent.txt).",
        "bad_box",
    )


class FileSequence(Sequence):
    """Sequence whose frames are image files.

    Attributes:
        files: Paths of the frames, in order.
    """

    files: "list[AnyPath]"

    @abstractmethod
    def where(self, index: int) -> str:
        """File and row of the annotation of one frame, for errors."""

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame in pixels, read from the head of its file."""
        try:
            with self.files[0].open("rb") as file, Image.open(file) as image:
                return image.size
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

    def without_area(self) -> np.ndarray:
        """Reads the annotation, and returns the frames whose target is visible but has no box of positive size."""
        # The flags need the boxes, and these need the frames: all three are read and compared.
        broken = self.visible & ~(np.isfinite(self.boxes).all(axis=1) & (self.boxes[:, 2:] > 0).all(axis=1))
        return np.flatnonzero(broken)

    def bad_box(self, index: int) -> SequenceError:
        """Error that names the box of a frame."""
        return SequenceError(
            f"{self.where(index)}: got {self.boxes[index].tolist()}, expected four finite numbers with positive width and "
            "height, or four NaN where the target is absent.",
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
        self.name = self.path.resolve().name
        if not self.path.is_dir():
            raise SequenceError(f"`path`={str(self.path)!r} is not a folder. Give a folder with frames.", "empty")

    def __repr__(self) -> str:
        return f"FolderSequence({str(self.path)!r})"

    @cached_property
    def files(self) -> list[Path]:
        """Paths of the frames, in order."""
        return sorted_frames(self.path)

    @cached_property
    def boxes(self) -> np.ndarray:
        """`(num_frames, 4)` float32 xywh in pixels of the frame."""
        boxes = read_rows(self.path / GROUND_TRUTH)
        check_length(len(boxes), len(self.files), self.path / GROUND_TRUTH)
        return boxes

    @cached_property
    def visible(self) -> np.ndarray:
        """`(num_frames,)` bool."""
        visible = ~np.isnan(self.boxes).any(axis=1)
        file = self.path / "absent.txt"
        if file.exists():
            visible &= read_flags(file, len(visible)) == 0
        return visible

    def where(self, index: int) -> str:
        """Row of the ground truth."""
        return f"{self.path / GROUND_TRUTH}, row {index + 1}"

    def frame(self, index: int) -> Image.Image:
        """RGB image of one frame, checked together with its box.

        Raises:
            SequenceError: The file is missing or corrupt, is not of the size of the first frame, or the target is
                visible and its box has no area in the frame.
        """
        image = super().frame(index)
        if self.visible[index]:
            check_box(self.boxes[index], image.size, self.where(index))
        return image


def read_sequences(root: str | Path, *, check: bool = True) -> list[FolderSequence]:
    """Finds the sequences below a folder.

    Args:
        root: A folder of sequence folders, or one sequence.
        check: Whether to read every annotation now, so that a broken one is reported at once (evaluation). Without,
            a stream of clips leaves broken sequences out and counts them.

    Returns:
        The sequences, sorted by name.

    Raises:
        SequenceError: The folder does not exist or holds no sequence, or, with `check`, an annotation is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise SequenceError(f"`root`={str(root)!r} is not a folder. Give a folder of sequences.", "empty")
    if _is_sequence(root):
        sequences = [FolderSequence(root)]
    else:
        sequences = [FolderSequence(path) for path in sorted(root.iterdir()) if path.is_dir() and _is_sequence(path)]
    if not sequences:
        raise SequenceError(
            f"`root`={str(root)!r} holds no sequences. Expected folders with images and a {GROUND_TRUTH}, or one such "
            "folder itself.",
            "empty",
        )
    if check:
        for sequence in sequences:
            for row in sequence.without_area():
                raise sequence.bad_box(int(row))
    return sequences


def _is_sequence(path: Path) -> bool:
    """Whether a folder holds ground truth or frames: one without the other is a broken sequence, not another folder."""
    return (path / GROUND_TRUTH).exists() or any(map(_is_frame, path.iterdir()))


def _is_frame(file: Path) -> bool:
    """Whether a file is an image; names that start with a dot are not the user's."""
    return file.suffix.lower() in FRAME_SUFFIXES and not file.name.startswith(".")


def sorted_frames(folder: Path) -> list[Path]:
    """Image files of a folder in the order of their names, by which `2.jpg` comes before `10.jpg`.

    Raises:
        SequenceError: There is no such folder, or no image in it.
    """
    files = sorted(filter(_is_frame, folder.iterdir()), key=_natural_order) if folder.is_dir() else []
    if not files:
        found = "holds no frames" if folder.is_dir() else "is not a folder"
        raise SequenceError(f"{folder} {found}. Expected files that end in {', '.join(FRAME_SUFFIXES)}.", "empty")
    return files


def _natural_order(file: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def check_length(rows: int, frames: int, file: "AnyPath") -> None:
    """Refuses an annotation file whose number of rows is not that of the frames."""
    if rows != frames:
        raise SequenceError(
            f"{file.parent} has {frames} frames but {file.name} has {rows} rows. Remove the extra ones or add those that "
            "are missing, so that there is one row for each frame.",
            "length_mismatch",
        )


def read_text(file: "AnyPath") -> str:
    """Text of an annotation file.

    Raises:
        SequenceError: It does not exist or is no text.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except ConnectionError:
        raise
    except FileNotFoundError as error:
        raise SequenceError(
            f"{file} does not exist. Restore it; it belongs to the annotation.", "missing_ground_truth"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SequenceError(f"{file} cannot be read as text ({error}).", "missing_ground_truth") from error


def read_rows(file: "AnyPath") -> np.ndarray:
    """Boxes of a text file, as they stand there.

    Args:
        file: Text, a row of four numbers a frame, between commas, tabs or spaces; four NaN where nothing is annotated.

    Returns:
        `(num_rows, 4)` float32.

    Raises:
        SequenceError: There is no such file, or a row is something else.
    """
    rows = []
    for number, line in enumerate(read_text(file).rstrip().splitlines(), start=1):
        try:
            row = [float(value) for value in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 4 or 0 < sum(map(math.isnan, row)) < 4:
            raise SequenceError(
                f"{file}, row {number}: got {line!r}, expected four numbers x,y,w,h, or four NaN.", "bad_box"
            )
        rows.append(row)
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def read_flags(file: "AnyPath", count: int, most: int = 1) -> np.ndarray:
    """Flags of a text file, all on one line or one a line.

    Args:
        file: Text, whole numbers between commas, blanks or line ends.
        count: Number of flags to expect.
        most: Largest value of a flag; the smallest is 0.

    Returns:
        `(count,)` int8.

    Raises:
        SequenceError: There is no such file, or it holds something else.
    """
    flags = read_text(file).replace(",", " ").split()
    if len(flags) != count or not set(flags) <= set(map(str, range(most + 1))):
        numbers = "0 or 1" if most == 1 else f"number from 0 to {most}"
        raise SequenceError(
            f"{file} has {len(flags)} entries for {count} frames. Expected one {numbers} for each frame.",
            "length_mismatch",
        )
    return np.array(flags, dtype=np.int8)
