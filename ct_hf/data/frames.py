"""Image files of a sequence: finding them, keeping their paths in little memory, decoding them."""

import io
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import overload

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from .archives import AnyPath
from .errors import SequenceError


FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; from 5 on, width and height change places."""
_TURNS_ON_SIDE = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]

_EVERY_DIGIT_0 = bytes.maketrans(b"123456789", b"0" * 9)


class FramePaths(Sequence[AnyPath]):
    """Paths of frames in one folder, in some bytes each where a path takes hundreds: a data set has millions of them.

    Args:
        folder: Where they are.
        names: Names of their files, in order.
    """

    __slots__ = ("_names", "folder")

    def __init__(self, folder: AnyPath, names: Iterable[str | bytes]):
        self.folder = folder
        self._names = np.array(list(map(os.fsencode, names)), dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> AnyPath: ...

    @overload
    def __getitem__(self, index: slice) -> "FramePaths": ...

    def __getitem__(self, index: int | slice) -> "AnyPath | FramePaths":
        if isinstance(index, slice):
            return FramePaths(self.folder, self._names[index].tolist())
        return self.folder / os.fsdecode(self._names[index])

    def __repr__(self) -> str:
        return f"FramePaths({len(self)} files in {self.folder})"


def image_names(folder: AnyPath) -> list[str]:
    """Names of the images in a folder, none if there is no such folder; those that start with a dot are not the user's."""
    names = [] if not folder.is_dir() else os.listdir(folder) if isinstance(folder, Path) else folder.listdir()
    return [name for name in names if name.lower().endswith(FRAME_SUFFIXES) and not name.startswith(".")]


def sorted_frames(folder: AnyPath) -> FramePaths:
    """Image files of a folder in the order of their names, by which `2.jpg` comes before `10.jpg`.

    Raises:
        SequenceError: There is no such folder, or no image in it.
    """
    names = sorted(image_names(folder))
    if not names:
        found = "holds no frames" if folder.is_dir() else "is not a folder"
        raise SequenceError(f"{folder} {found}. Expected files that end in {', '.join(FRAME_SUFFIXES)}.", "empty")
    # Names that differ in digits only, each in its place, are in order already: the usual case, and no regex is needed.
    if len(set(os.fsencode("/".join(names)).translate(_EVERY_DIGIT_0).split(b"/"))) > 1:
        names.sort(key=_natural_order)
    return FramePaths(folder, names)


def _natural_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def decode_frame(data: bytes, where: str, reduction: int = 1) -> Image.Image:
    """Decodes an image file to RGB, turned as its EXIF orientation says.

    Args:
        data: Content of a JPEG or PNG file.
        where: Name of the frame, for the error.
        reduction: 1, 2, 4 or 8: part of its width and height to decode it to, rounded up. Of a JPEG the rest is never
            computed; other files are made smaller afterwards. Default: 1.

    Raises:
        SequenceError: The image is corrupt or truncated.
    """
    with _readable(where):
        image = Image.open(io.BytesIO(data))
        size = reduced_size(image.size, reduction)
        if 1 < reduction <= min(image.size):
            image.draft(None, (image.width // reduction, image.height // reduction))
        image.load()
        turn, image = _turn(image), to_rgb(image)
        image = image if image.size == size else image.reduce(reduction)
        return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Image of mode RGB; of 16 bits the upper byte, as OpenCV takes it, where Pillow would clip at 255."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image once it is turned as [`decode_frame`] turns it."""
    if image.format == "PNG":  # its orientation may come behind the pixels
        image.load()
    return image.size[::-1] if _turn(image) in _TURNS_ON_SIDE else image.size


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn an image as viewers show it and as OpenCV reads it, by its EXIF tag; a broken one says nothing."""
    if "exif" not in image.info:
        return None
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except (struct.error, KeyError, SyntaxError, TypeError, ValueError):
        return None


def reduced_size(size: tuple[int, int], reduction: int) -> tuple[int, int]:
    """Width and height of a frame that was decoded to a part of them."""
    return -(-size[0] // reduction), -(-size[1] // reduction)


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
        return size[::-1] if _turn(image) in _TURNS_ON_SIDE else size


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
