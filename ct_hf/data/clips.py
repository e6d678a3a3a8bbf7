"""Stored clips: how a sequence is cut into rows for Parquet files, and the rows themselves.

A row is what a training pair is drawn from, and a streaming reader sees one row at a time. So a row has to hold frames far
apart, or a tracker would never see its target change; it has to be small, or a reader that shuffles would hold gigabytes;
and every frame has to be in some row. Hence three rules:

1. A row has at most 32 frames, the first and the last at most 200 frames apart: OSTrack's largest gap. With the default stride of 8 that is 26 frames, exactly 200 apart; of 30 to 100 kB each, 1 to 3 MB.
2. A sequence is cut into spans of equal length, as few as possible, of at most `stride` rows each. Nothing is left over
   at its end.
3. A span is dealt to its rows like cards: of k rows, row j has the frames j, j + k, j + 2k ... of the span. Every
   frame is in exactly one row, and each row reaches over the whole span. A span has only as many rows as it needs, so
   that a sequence of 100 frames gives 4 rows of 25 frames, each reaching over all of it, and none of 12.

What is left out: frames whose image is broken, is not of the usual size of its span, or whose visible target has a box without
area in the frame, and rows that show the target in fewer than two frames, of which no pair can be made. Absent frames stay. A
sequence of one frame, an image with a box, is one row.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from datasets import Features, Image, List, Value

from .annotation import check_box
from .errors import SequenceError
from .frames import frame_size
from .sequences import Sequence


logger = logging.getLogger(__name__)

MOST_FRAMES = 32
MOST_APART = 200
MOST_STRIDE = MOST_APART // 2
"""With rows of three frames, every row gets two at least."""

STORED_FEATURES = Features(
    {
        "name": Value("string"),
        "clip": Value("int64"),
        "frames": List(Image(decode=False)),
        "frame_index": List(Value("int32")),
        "boxes": List(List(Value("float32"), length=4)),
        "visible": List(Value("bool")),
        "language": Value("string"),
        "source": Value("string"),
        "license": Value("string"),
    }
)
"""Columns of a stored clip. `frames` are undecoded image files, `clip` is the number of the first frame dealt to the row, `boxes` are xywh in pixels from 0, `language` is null where there
is no sentence, `source` is the name of the data set and its split, such as `lasot/train`."""


GROUP_ROWS = 8
"""Rows of a row group, which a reader fetches at once: some 20 MB."""

_T = TypeVar("_T")


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


def deal(spans: list[_T], num_shards: int) -> list[list[_T]]:
    """Shares spans out at random, so that each shard has some of many sequences, in their order."""
    order = np.random.default_rng(0).permutation(len(spans))
    return [[spans[index] for index in sorted(order[shard::num_shards])] for shard in range(num_shards)]


def row_order(shard: int, num_rows: int) -> np.ndarray:
    """Order in which the rows of a shard are kept: a random one, the same in each run."""
    return np.random.default_rng([0, shard]).permutation(num_rows)


def check_usable(sequence: Sequence) -> None:
    """Refuses a sequence of which no pair can be made.

    Raises:
        SequenceError: Its annotation cannot be read, or shows the target in fewer than two frames, or in none if there is
            only one, as in a data set of images.
    """
    if not sequence.annotated:
        raise SequenceError(
            f"{sequence.name}: its ground truth is withheld, so that no pair can be made.", "too_few_visible"
        )
    if not len(sequence):
        raise SequenceError(f"{sequence.name}: its annotation is empty.", "empty")
    if not has_pair(sequence.visible, len(sequence)):
        raise SequenceError(
            f"{sequence.name}: a pair needs two frames in which the target is visible, got {sequence.visible.sum()} of "
            f"{len(sequence)}.",
            "too_few_visible",
        )


def has_pair(visible: np.ndarray, num_frames: int) -> bool:
    """Whether a pair can be made of frames of a sequence: two show the target, or one of one, which is then used twice."""
    return visible.sum() >= min(2, num_frames)


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
        if not has_pair(visible[kept], len(visible)):
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


__all__ = [
    "GROUP_ROWS",
    "STORED_FEATURES",
    "LeftOut",
    "Span",
    "check_usable",
    "clip_length",
    "cut_spans",
    "deal",
    "has_pair",
    "read_rows",
    "row_order",
]
