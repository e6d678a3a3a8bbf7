"""Stored clips: how a sequence is cut into rows for Parquet files, and the rows themselves.

A row is what a training pair is drawn from, and a streaming reader sees one row at a time. So a row has to hold frames far
apart, or a tracker would never see its target change; it has to be small, or a reader that shuffles would hold gigabytes;
and every frame has to be in some row. Hence three rules:

1. A row has at most 32 frames, the first and the last at most 200 frames apart: OSTrack's largest gap, and the default of
   [`stream_clips`]. With the default stride of 8 that is 26 frames, exactly 200 apart; of 30 to 100 kB each, 1 to 3 MB.
2. A sequence is cut into spans of equal length, as few as possible, of at most `stride` rows each. Nothing is left over
   at its end.
3. A span is dealt to its rows like cards: of k rows, row j has the frames j, j + k, j + 2k ... of the span. Every
   frame is in exactly one row, and each row reaches over the whole span. A span has only as many rows as it needs, so
   that a sequence of 100 frames gives 4 rows of 25 frames, each reaching over all of it, and none of 12.

What is left out: frames whose image is broken, is not of the usual size of its span, or whose visible target has a box without
area in the frame, and rows that show the target in fewer than two frames, of which no pair can be made. Absent frames stay.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from datasets import Features, IterableDataset, Value, concatenate_datasets

from .annotation import check_box
from .errors import SequenceError
from .frames import frame_size
from .sequences import Sequence
from .streaming import CLIP_FEATURES


logger = logging.getLogger(__name__)

MOST_FRAMES = 32
MOST_APART = 200
MOST_STRIDE = MOST_APART // 2
"""With rows of three frames, every row gets two at least."""

STORED_FEATURES = Features(
    {
        **{name: feature for name, feature in CLIP_FEATURES.items() if name != "skipped"},
        "language": Value("string"),
        "source": Value("string"),
        "license": Value("string"),
    }
)
"""Columns of a stored clip: those of [`CLIP_FEATURES`] without `skipped`, so that [`PairSampler`] takes them as they are.
`clip` is the number of the first frame dealt to the row, `boxes` are xywh in pixels from 0, `language` is null where there
is no sentence, `source` is the name of the data set and its split, such as `lasot/train`."""


class Span(NamedTuple):
    """Neighbouring frames of a sequence that are dealt to rows together: `start` to `stop - 1`."""

    name: str
    start: int
    stop: int

    def rows(self, stride: int) -> list[range]:
        """Frames of each of its rows."""
        step = -(-(self.stop - self.start) // clip_length(stride))
        return [range(first, self.stop, step) for first in range(self.start, self.start + step)]


class LeftOut(NamedTuple):
    """A frame, or with `frame` -1 a whole sequence, that could not be used, and why: one of [`CAUSES`]."""

    name: str
    frame: int
    cause: str

    def __str__(self) -> str:
        return f"{self.name}{'' if self.frame < 0 else f', frame {self.frame}'}: {self.cause}"


def clip_length(stride: int) -> int:
    """Most frames of a row.

    Raises:
        ValueError: `stride` is not from 1 to 100.
    """
    if not 1 <= stride <= MOST_STRIDE:
        raise ValueError(f"`stride` must be from 1 to {MOST_STRIDE}, got {stride}.")
    return min(MOST_FRAMES, MOST_APART // stride + 1)


def cut_spans(name: str, num_frames: int, stride: int) -> list[Span]:
    """Cuts a sequence into spans of equal length, which differ by one frame at most.

    Args:
        name: Name of the sequence.
        num_frames: Its length.
        stride: Most rows of a span, and with that the distance between neighbouring frames of a row.

    Example:
        >>> cut_spans("cat-3", 300, stride=8)
        [Span(name='cat-3', start=0, stop=150), Span(name='cat-3', start=150, stop=300)]
    """
    count = -(-num_frames // (clip_length(stride) * stride))
    edges = [num_frames * index // count for index in range(count + 1)]
    return [Span(name, start, stop) for start, stop in zip(edges, edges[1:], strict=False)]


def read_rows(sequence: Sequence, span: Span, stride: int) -> tuple[list[dict[str, Any]], list[LeftOut]]:
    """Reads the rows of a span; frames are read once and in order, as archives and disks like it.

    Args:
        sequence: The sequence.
        span: Part of it.
        stride: As given to [`cut_spans`].

    Returns:
        Rows of [`STORED_FEATURES`] without `source` and `license`, and the frames left out.

    Raises:
        SequenceError: The annotation cannot be read.
    """
    boxes, visible = sequence.boxes, sequence.visible
    data, left_out = {}, []
    for index, error in _read_frames(sequence, span, data):
        logger.warning("Left out: %s", error)
        left_out.append(LeftOut(sequence.name, index, error.cause))
    rows = []
    for frames in span.rows(stride):
        kept = [index for index in frames if index in data]
        if visible[kept].sum() < 2:
            continue
        rows.append(
            {
                "name": sequence.name,
                "clip": frames[0],
                "frames": [{"bytes": data[index], "path": None} for index in kept],
                "frame_index": kept,
                "boxes": boxes[kept].astype(np.float32).tolist(),
                "visible": visible[kept].tolist(),
                "language": sequence.language,
            }
        )
    return rows, left_out


def _read_frames(sequence: Sequence, span: Span, data: dict[int, bytes]) -> Iterator[tuple[int, SequenceError]]:
    """Fills `data` with the image files that can be used, and tells of the others."""
    sizes = {}
    for index in range(span.start, span.stop):
        try:
            data[index] = sequence.frame_bytes(index)
            sizes[index] = frame_size(data[index], f"{sequence.name}, frame {index}")
        except SequenceError as error:
            data.pop(index, None)
            yield index, error
    usual = Counter(sizes.values()).most_common(1)[0][0] if sizes else None
    for index, size in sizes.items():
        where = f"{sequence.name}, frame {index}"
        try:
            if size != usual:
                raise SequenceError(
                    f"{where} is of {size[0]}x{size[1]} pixels, those around it of {usual[0]}x{usual[1]}.",
                    "frame_size",
                )
            if sequence.visible[index]:
                check_box(sequence.boxes[index], size, where)
        except SequenceError as error:
            del data[index]
            yield index, error


def repeat_clips(clips: IterableDataset, num_passes: int) -> IterableDataset:
    """Streams stored clips several times, under other numbers each time.

    [`PairSampler`] draws the pairs of a clip from its name and number, so that a plain second pass would bring the pairs of
    the first again.

    Args:
        clips: Data set of [`STORED_FEATURES`].
        num_passes: How often.

    Returns:
        Data set of the same columns; in pass k, from 0, `clip` is greater by k times 2 to the 40th.

    Raises:
        ValueError: `num_passes` is below 1.
    """
    if num_passes < 1:
        raise ValueError(f"`num_passes` must be at least 1, got {num_passes}.")
    return concatenate_datasets(
        [clips.map(_Renumber(number), input_columns=["clip"], features=clips.features) for number in range(num_passes)]
    )


class _Renumber:
    """Numbers the clips of one pass."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self, clip: int) -> dict[str, int]:
        return {"clip": clip + self.number * 2**40}


__all__ = ["STORED_FEATURES", "LeftOut", "Span", "clip_length", "cut_spans", "read_rows", "repeat_clips"]
