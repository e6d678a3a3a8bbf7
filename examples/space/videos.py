"""The video of the page: a rendered sample, the first frame of any, and the box on it."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

from ct_hf.data import ProceduralSequence
from ct_hf.models.image_processing_tracker import check_box
from ct_hf.tracking import VideoError, VideoWriter, open_video
from ct_hf.tracking.drawing import TRACKER_COLORS


MAX_SIDE = 4096  # pixels of a frame; what phones film, and what a free machine can still decode
# Chosen for what it shows: the target leaves, is lost and comes back, and the small teacher finds it again.
SAMPLE = ProceduralSequence(seed=7, index=688, length=150, size=(480, 360))
_RATE = 30

_folder = TemporaryDirectory(prefix="ct_hf-space-")  # goes with the process


@cache
def sample_video() -> Path:
    """Render `SAMPLE` once, as a file that goes with the process."""
    path = Path(_folder.name) / "rendered.mp4"
    with VideoWriter(path, _RATE) as writer:
        for index in range(len(SAMPLE)):
            writer.write(np.asarray(SAMPLE.frame(index)))
    return path


def message(error: Exception, path: str | Path) -> str:
    """What an error says, with the name of the user's file instead of where the server keeps it."""
    return str(error).replace(str(path), Path(path).name)


def first_frame(path: str | Path | None) -> np.ndarray:
    """
    The frame that a box is drawn on.

    Args:
        path (`str` or `Path`, *optional*): video file; `None` if the user has not chosen one.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`, uint8 RGB.

    Raises:
        ValueError: there is no video, or its frames are too large.
        VideoError: it cannot be read.
    """
    if path is None:
        raise ValueError("There is no video yet. Upload one, or take the rendered sample.")
    try:
        frame = next(iter(open_video(path)))
    except (VideoError, FileNotFoundError) as error:
        raise VideoError(message(error, path)) from error
    height, width = frame.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise ValueError(
            f"The frames of this video are {width}x{height} pixels, more than the {MAX_SIDE} a side that this page takes. "
            "Make it smaller first."
        )
    return frame


def parse_box(text: str, frame: np.ndarray) -> list[float]:
    """
    Read a box.

    Args:
        text (`str`): `x, y, width, height` in pixels of the frame, from 0; between the numbers commas, spaces or both.
        frame (`np.ndarray` of shape `(height, width, 3)`): frame it has to overlap.

    Returns:
        `list[float]`: the four numbers.

    Raises:
        ValueError: it is empty, not four finite numbers, without area, or outside the frame.
    """
    if not text.strip():
        raise ValueError(
            "There is no box yet. Click two opposite corners of the target on the first frame, or type it."
        )
    try:
        box = [float(value) for value in text.replace(",", " ").split()]
    except ValueError:
        box = []
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise ValueError(f"The box must be four numbers x, y, width, height, such as 40, 30, 60, 80; got “{text}”.")
    height, width = frame.shape[:2]
    try:
        return check_box(box, (width, height)).tolist()
    except ValueError as error:
        raise ValueError(f"{error} Give x, y, width, height in pixels of the first frame.") from error


def box_text(box: Sequence[float]) -> str:
    """A box as [`parse_box`] reads it, in whole pixels."""
    return ", ".join(str(round(value)) for value in box)


def box_between(corner: Sequence[int], other: Sequence[int]) -> list[int]:
    """`x, y, width, height` of the box between two opposite corners `x, y`, both inside."""
    low, high = np.minimum(corner, other), np.maximum(corner, other)
    return [*low.tolist(), *(high - low + 1).tolist()]


def draw_box(frame: np.ndarray, box: Sequence[float]) -> Image.Image:
    """A frame with a box, in the colour that its track will have."""
    picture, line = Image.fromarray(frame), _line(frame)
    x, y, w, h = box
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x - 1, y - 1, x + w + 1, y + h + 1), outline="black", width=line + 2)
    draw.rectangle((x, y, x + w, y + h), outline=TRACKER_COLORS[0], width=line)
    return picture


def draw_corner(frame: np.ndarray, corner: Sequence[int]) -> Image.Image:
    """A frame with a cross where the first corner of a box is."""
    picture, line = Image.fromarray(frame), _line(frame)
    x, y = corner
    arm = 8 * line
    draw = ImageDraw.Draw(picture)
    for color, width in (("black", line + 2), (TRACKER_COLORS[0], line)):
        draw.line((x - arm, y, x + arm, y), fill=color, width=width)
        draw.line((x, y - arm, x, y + arm), fill=color, width=width)
    return picture


def _line(frame: np.ndarray) -> int:
    """Width of a line that is seen, and does not cover a small target."""
    return max(2, round(max(frame.shape[:2]) / 320))


__all__ = [
    "MAX_SIDE",
    "SAMPLE",
    "box_between",
    "box_text",
    "draw_box",
    "draw_corner",
    "first_frame",
    "message",
    "parse_box",
    "sample_video",
]
