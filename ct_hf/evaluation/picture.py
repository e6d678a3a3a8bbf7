"""Pictures of what trackers did in a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..tracking.drawing import TRACKER_COLORS, Color


if TYPE_CHECKING:
    from ..data.sequences import Sequence


GROUND_TRUTH_COLOR: Color = (255, 255, 255)
_BACKGROUND: Color = (24, 24, 24)
_TEXT: Color = (255, 255, 255)
_GAP = 4  # pixels between frames


def _draw_box(draw: ImageDraw.ImageDraw, box: np.ndarray, color: Color, width: int) -> None:
    x, y, w, h = box.tolist()
    corners = np.array([x, y, x + max(w, 1), y + max(h, 1)]).round()
    rim = np.array([-1, -1, 1, 1])
    # A dark rim keeps light colours visible on light frames.
    draw.rectangle((corners + rim).tolist(), outline=_BACKGROUND, width=width + 2)
    draw.rectangle(corners.tolist(), outline=color, width=width)


def _draw_legend(names: Mapping[str, Color], width: int, font: ImageFont.FreeTypeFont, pad: int) -> Image.Image:
    swatch = round(font.size)
    entries = [(name, color, swatch + pad + font.getlength(name) + 3 * pad) for name, color in names.items()]
    width = max(width, round(max(entry[2] for entry in entries)) + pad)
    row_height = swatch + 2 * pad
    places, x, row = [], float(pad), 0
    for name, color, length in entries:
        if x + length > width and x > pad:
            x, row = float(pad), row + 1
        places.append((name, color, round(x), row * row_height))
        x += length
    legend = Image.new("RGB", (width, (row + 1) * row_height), _BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for name, color, left, top in places:
        draw.rectangle((left, top + pad, left + swatch - 1, top + pad + swatch - 1), fill=color)
        draw.text((left + swatch + pad, top + row_height // 2), name, fill=_TEXT, font=font, anchor="lm")
    return legend


def _check_predictions(sequence: Sequence, predictions: Mapping[str, np.ndarray]) -> None:
    if len(predictions) > len(TRACKER_COLORS):
        raise ValueError(
            f"`predictions` holds {len(predictions)} trackers, but only {len(TRACKER_COLORS)} have colours that can be "
            "told apart. Draw fewer in one picture."
        )
    for name, boxes in predictions.items():
        if np.shape(boxes) != (len(sequence), 4):
            raise ValueError(
                f"`predictions[{name!r}]` must have shape {(len(sequence), 4)}, one row a frame of {sequence.name}, got "
                f"{np.shape(boxes)}."
            )


class _Painter:
    """Draws frames of one sequence with the boxes of some trackers, and the legend that goes with them."""

    def __init__(self, sequence: Sequence, predictions: Mapping[str, np.ndarray], height: int):
        if height < 60:
            raise ValueError(f"`height` must be at least 60 pixels for its text to be legible, got {height}.")
        _check_predictions(sequence, predictions)
        self.sequence, self.predictions, self.height = sequence, predictions, height
        self.colors = {"ground truth": GROUND_TRUTH_COLOR}
        self.colors |= dict(zip(predictions, TRACKER_COLORS, strict=False))
        self.font = ImageFont.load_default(size=max(12, height // 13))
        self.pad, self.line_width = max(4, height // 40), max(2, height // 80)

    def tile(self, index: int) -> Image.Image:
        """One frame with its boxes and its number."""
        frame, sequence = self.sequence.frame(index), self.sequence
        scale = self.height / frame.height
        tile = frame.resize((round(frame.width * scale), self.height), Image.Resampling.BILINEAR)
        draw = ImageDraw.Draw(tile)
        if sequence.visible[index] and np.isfinite(sequence.boxes[index]).all():
            _draw_box(draw, sequence.boxes[index] * scale, GROUND_TRUTH_COLOR, self.line_width)
        for name, boxes in self.predictions.items():
            _draw_box(draw, np.asarray(boxes)[index] * scale, self.colors[name], self.line_width)
        label, pad = f"frame {index}", self.pad
        box = draw.textbbox((pad, pad), label, font=self.font)
        draw.rectangle((0, 0, box[2] + pad, box[3] + pad), fill=_BACKGROUND)
        draw.text((pad, pad), label, fill=_TEXT, font=self.font)
        return tile

    def with_legend(self, tiles: list[Image.Image]) -> Image.Image:
        """Tiles side by side, and the legend below."""
        legend = _draw_legend(self.colors, sum(tile.width + _GAP for tile in tiles) - _GAP, self.font, self.pad)
        picture = Image.new("RGB", (legend.width, self.height + legend.height), _BACKGROUND)
        left = 0
        for tile in tiles:
            picture.paste(tile, (left, 0))
            left += tile.width + _GAP
        picture.paste(legend, (0, self.height))
        return picture


def draw_strip(
    sequence: Sequence,
    predictions: Mapping[str, np.ndarray],
    *,
    num_frames: int = 5,
    frames: Iterable[int] | None = None,
    height: int = 180,
) -> Image.Image:
    """
    Draw frames of a sequence side by side, with the boxes of ground truth and trackers and a legend below.

    Args:
        sequence ([`~data.sequences.Sequence`]): frames and ground truth, which is drawn where the target is visible.
        predictions (`Mapping[str, np.ndarray]`): by tracker, boxes `x, y, w, h` in pixels of shape `(num_frames, 4)` for
            all frames of the sequence, such as [`TrackerResult`] keeps them. At most 7 trackers.
        num_frames (`int`, *optional*, defaults to 5): frames to draw, evenly spaced from the first to the last; a shorter
            sequence is drawn whole.
        frames (iterable of `int`, *optional*): the frames to draw instead, at least one.
        height (`int`, *optional*, defaults to 180): height of a frame in the picture, in pixels.

    Returns:
        `PIL.Image.Image` in mode RGB.

    Raises:
        ValueError: `num_frames` or `height` is too small, there are too many trackers, or boxes are not one a frame.
    """
    if num_frames < 1:
        raise ValueError(f"`num_frames` must be at least 1, got {num_frames}.")
    painter = _Painter(sequence, predictions, height)
    if frames is None:
        frames = np.unique(np.linspace(0, len(sequence) - 1, num_frames).round().astype(int)).tolist()
    return painter.with_legend([painter.tile(index) for index in frames])


def draw_animation(
    sequences: Iterable[Sequence],
    predictions: Mapping[str, Mapping[str, np.ndarray]],
    *,
    frames: Iterable[int] | None = None,
    height: int = 180,
) -> list[Image.Image]:
    """
    Draw the frames of some sequences one after another, with the boxes of ground truth and trackers and a legend below.

    Args:
        sequences (iterable of [`~data.sequences.Sequence`]): sequences of equal length, shown side by side.
        predictions (`Mapping[str, Mapping[str, np.ndarray]]`): by tracker and by name of the sequence, boxes as in
            [`draw_strip`].
        frames (iterable of `int`, *optional*): the frames to draw, all by default; a picture of one takes some 200 kB.
        height (`int`, *optional*, defaults to 180): height of a frame in the picture, in pixels.

    Returns:
        `list[PIL.Image.Image]` in mode RGB, all of one size; the first one saves them all:
        `images[0].save("tracks.gif", save_all=True, append_images=images[1:], duration=66, loop=0)`.

    Raises:
        ValueError: there is no sequence or lengths differ, `height` is too small, there are too many trackers, or boxes
            are not one a frame.
    """
    painters = [
        _Painter(sequence, {name: tracks[sequence.name] for name, tracks in predictions.items()}, height)
        for sequence in sequences
    ]
    lengths = sorted({len(painter.sequence) for painter in painters})
    if len(lengths) != 1:
        raise ValueError(f"`sequences` must be at least one, and all of one length, got lengths {lengths}.")
    indices = range(lengths[0]) if frames is None else frames
    return [painters[0].with_legend([painter.tile(index) for painter in painters]) for index in indices]


__all__ = ["GROUND_TRUTH_COLOR", "draw_animation", "draw_strip"]
