"""A picture of training pairs, which shows at once whether boxes and frames of a data set agree."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .clip_sources import MAX_BAD_DRAWS, ClipSource
from .errors import SequenceError
from .sampling import PairSampler


COLUMNS = 4
_BOX, _DARK, _TEXT = (255, 176, 0), (24, 24, 24), (255, 255, 255)
_GAP, _FONT_SIZE = 6, 14


def draw_pairs(
    source: ClipSource, sampler: PairSampler, *, seed: int, num_pairs: int = 24
) -> tuple[Image.Image, Counter[str]]:
    """Draws training pairs as a sampler gives them: template crops and search crops side by side, each with its box.

    Above each pair stand the name of its sequence and the numbers of its frames, which count from 0. One pair of each clip
    is drawn, so that many sequences are seen; crops are drawn at their own size, and what lies outside of a frame is black.

    Args:
        source: Where clips come from.
        sampler: Draws the pairs.
        seed: Seed of all draws.
        num_pairs: How many. Default: 24.

    Returns:
        Image in mode RGB, and the number of clips that were left out on the way, by cause.

    Raises:
        ValueError: `num_pairs` is below 1.
        SequenceError: There are no clips, or of 1000 in a row none gives a pair.
    """
    if num_pairs < 1:
        raise ValueError(f"`num_pairs` must be at least 1, got {num_pairs}.")
    tiles, skipped, failed = [], Counter(), 0
    for epoch, number in source.order(list(range(source.num_shards)), seed):
        try:
            clip = source.read(number)
            pair = sampler.draw(clip, clip.generator(seed, epoch))
        except SequenceError as error:
            skipped[error.cause] += 1
            failed += 1
            if failed == MAX_BAD_DRAWS:
                raise
            continue
        failed = 0
        tiles.append(_tile(clip.name, pair, sampler.num_templates))
        if len(tiles) == num_pairs:
            break
    columns = min(COLUMNS, len(tiles))
    width, height = tiles[0].size
    sheet = Image.new(
        "RGB", (columns * (width + _GAP) + _GAP, -(-len(tiles) // columns) * (height + _GAP) + _GAP), (90, 90, 90)
    )
    for number, tile in enumerate(tiles):
        line, column = divmod(number, columns)
        sheet.paste(tile, (_GAP + column * (width + _GAP), _GAP + line * (height + _GAP)))
    return sheet, skipped


def _tile(name: str, pair: dict[str, np.ndarray], num_templates: int) -> Image.Image:
    search, search_boxes = pair["search_pixel_values"], pair["search_boxes"]
    searches = search.reshape(-1, *search.shape[-3:])
    crops = [
        _with_box(pixels, box)
        for pixels, box in (
            *zip(pair["template_pixel_values"], pair["template_boxes"], strict=True),
            *zip(searches, search_boxes.reshape(-1, 4), strict=True),
        )
    ]
    frames = pair["frame_index"].tolist()
    templates, searched = (", ".join(map(str, part)) for part in (frames[:num_templates], frames[num_templates:]))
    texts = [name, f"frame {templates} -> {searched}"]
    font = ImageFont.load_default(size=_FONT_SIZE)
    head = len(texts) * (_FONT_SIZE + 4)
    tile = Image.new(
        "RGB", (sum(crop.width for crop in crops) + _GAP * (len(crops) - 1), head + crops[-1].height), _DARK
    )
    draw = ImageDraw.Draw(tile)
    for line, text in enumerate(texts):
        draw.text((2, line * (_FONT_SIZE + 4)), _fitted(text, tile.width - 4, font), fill=_TEXT, font=font)
    left = 0
    for crop in crops:
        tile.paste(crop, (left, head))
        left += crop.width + _GAP
    return tile


def _with_box(pixels: np.ndarray, box: np.ndarray) -> Image.Image:
    """A crop `(3, side, side)` with its box, `(4,)` cxcywh in [0, 1]."""
    crop = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    center, size = box[:2] * crop.width, box[2:] * crop.width
    low, high = (center - size / 2).round(), (center + size / 2).round()
    draw = ImageDraw.Draw(crop)
    # Edges lie between pixels: the line is drawn around the pixels inside, with a dark rim that shows on light frames.
    draw.rectangle([*(low - 2), *np.maximum(high + 1, low)], outline=_DARK)
    draw.rectangle([*(low - 1), *np.maximum(high, low)], outline=_BOX)
    return crop


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text, or its two ends if it is too long."""
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(_shortened(text, keep)) > width:
        keep -= 1
    return _shortened(text, keep)


def _shortened(text: str, keep: int) -> str:
    return f"{text[: keep - keep // 2]}...{text[-(keep // 2) :]}"


__all__ = ["draw_pairs"]
