"""Tracks drawn into their frames."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..models.image_processing_tracker import Frame, as_frame
from ..models.session import Track


Color = tuple[int, int, int]

# Okabe and Ito's colours, which stay apart for colour-blind eyes; the ones most unlike each other come first.
TRACKER_COLORS: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
)
_DARK: Color = (24, 24, 24)


def draw_tracks(
    frame: Frame, tracks: Sequence[Track], *, low: Sequence[bool] | None = None, lost: Sequence[bool] | None = None
) -> np.ndarray:
    """
    Draw targets into a copy of a frame: a box of one colour each, with the score above it and, of several targets, the
    number in front. A box of low confidence is dashed and says "low", that of a lost target says "lost".

    Args:
        frame (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): RGB frame.
        tracks (sequence of [`~models.session.Track`]): one a target; after 7 targets the colours come again.
        low (sequence of `bool`, *optional*): which scores are low; none by default.
        lost (sequence of `bool`, *optional*): which targets are lost; none by default.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`, uint8 RGB.
    """
    pixels = as_frame(frame)
    picture = pixels.copy() if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    line = max(2, round(picture.height / 240))
    font = _font(max(12, round(picture.height / 28)))
    low, lost = low or [False] * len(tracks), lost or [False] * len(tracks)
    for index, track in enumerate(tracks):
        color = TRACKER_COLORS[index % len(TRACKER_COLORS)]
        corners = _corners(track)
        # A dark rim keeps light colours visible on light frames.
        draw.rectangle([corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1], outline=_DARK, width=line + 2)
        draw.rectangle(corners, outline=color, width=line)
        if low[index] or lost[index]:
            _dash(draw, corners, line)
    taken: list[tuple[int, int, int, int]] = []
    for index, track in enumerate(tracks):  # last, so that no box runs through a score
        color = TRACKER_COLORS[index % len(TRACKER_COLORS)]
        mark = " lost" if lost[index] else " low" if low[index] else ""
        number = f"{index + 1}: " if len(tracks) > 1 else ""
        _label(draw, f"{number}{track.score:.2f}{mark}", _corners(track), color, font, picture.size, taken)
    return np.asarray(picture)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def _corners(track: Track) -> list[int]:
    """Left, top, right and bottom in whole pixels."""
    x, y, w, h = track.box.tolist()
    return [round(x), round(y), round(x + max(w, 1)), round(y + max(h, 1))]


def _dash(draw: ImageDraw.ImageDraw, corners: list[int], line: int) -> None:
    """Break a box's lines by dark pieces."""
    left, top, right, bottom = corners
    piece = 4 * line
    for x in range(left + piece, right, 2 * piece):
        end = min(x + piece, right)
        draw.rectangle((x, top, end, top + line - 1), fill=_DARK)
        draw.rectangle((x, bottom - line + 1, end, bottom), fill=_DARK)
    for y in range(top + piece, bottom, 2 * piece):
        end = min(y + piece, bottom)
        draw.rectangle((left, y, left + line - 1, end), fill=_DARK)
        draw.rectangle((right - line + 1, y, right, end), fill=_DARK)


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    corners: list[int],
    color: Color,
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
    taken: list[tuple[int, int, int, int]],
) -> None:
    """
    Write on a plate above the box, or within it where there is no room above; never beyond the frame, and further down
    where another plate is.
    """
    pad = max(2, round(font.size / 6))
    width, height = round(draw.textlength(text, font=font)) + 2 * pad, round(font.size) + 2 * pad
    left = max(0, min(corners[0], size[0] - width - 1))
    top = corners[1] - height if corners[1] >= height else min(max(corners[1], 0), size[1] - height - 1)
    while top + 2 * height < size[1] and any(
        left < right and x < left + width and top < bottom and y < top + height for x, y, right, bottom in taken
    ):
        top += height
    taken.append((left, top, left + width, top + height))
    draw.rectangle(taken[-1], fill=color)
    draw.text((left + pad, top + height // 2), text, fill=_DARK, font=font, anchor="lm")


__all__ = ["TRACKER_COLORS", "draw_tracks"]
