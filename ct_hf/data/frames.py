"""Image files of a sequence: their order, and what is in them."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from .errors import SequenceError


FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


def is_frame(file: Path) -> bool:
    """Whether a file is an image; names that start with a dot are not the user's."""
    return file.suffix.lower() in FRAME_SUFFIXES and not file.name.startswith(".")


def sorted_frames(folder: Path) -> list[Path]:
    """Image files of a folder in the order of their names, by which `2.jpg` comes before `10.jpg`.

    Raises:
        SequenceError: There is no such folder, or no image in it.
    """
    files = sorted(filter(is_frame, folder.iterdir()), key=_natural_order) if folder.is_dir() else []
    if not files:
        found = "holds no frames" if folder.is_dir() else "is not a folder"
        raise SequenceError(f"{folder} {found}. Expected files that end in {', '.join(FRAME_SUFFIXES)}.", "empty")
    return files


def _natural_order(file: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]


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
