"""Clips that training pairs are drawn from: rendered, or read out of sequences; `stored_clips` has those kept as Parquet.

A clip is asked for by its number, and nothing is decoded before a pair needs it. A source also says in which order its clips
come, without reading any, so that a run that goes on need not read what it has seen.
"""

from __future__ import annotations

import logging
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count
from typing import Any

import numpy as np
from PIL import Image

from .clips import GROUP_ROWS, MOST_APART, Span, check_usable, cut_spans, deal, has_pair, row_order
from .errors import SequenceError, describe_causes
from .frames import decode_frame
from .procedural import ProceduralWorld
from .sequences import Sequence


logger = logging.getLogger(__name__)

MAX_BAD_DRAWS = 1000
"""So many draws without a single usable one end a stream with an error."""


@dataclass(frozen=True)
class Clip:
    """Annotated frames of one sequence.

    Args:
        name: Name of the sequence.
        number: Which clip of the sequence it is.
        frame_index: Numbers of the frames in the sequence.
        boxes: `(num_frames, 4)` float32 xywh in pixels.
        visible: `(num_frames,)` bool.
        frame: Gives the RGB image of a position in the clip, of a part of its size: one over 1, 2, 4 or 8; raises
            [`SequenceError`] if it cannot be read.
    """

    name: str
    number: int
    frame_index: list[int] | range
    boxes: np.ndarray
    visible: np.ndarray
    frame: Callable[[int, int], Image.Image]

    def generator(self, seed: int, epoch: int, pair: int = 0, attempt: int = 0) -> np.random.Generator:
        """What a pair of this clip is drawn by: for the same numbers the same pair, whoever draws it."""
        name = zlib.crc32(self.name.encode(errors="surrogateescape"))
        return np.random.default_rng([seed, name, self.number, epoch, pair, attempt])


class ClipSource(ABC):
    """Supply of clips.

    Attributes:
        num_shards: Into how many parts it falls that processes and workers share out.
    """

    num_shards: int

    @abstractmethod
    def order(self, shards: list[int], seed: int) -> Iterator[tuple[int, int]]:
        """Endless epochs and numbers of the clips of some shards, of which each epoch has each clip once."""

    @abstractmethod
    def read(self, clip: int) -> Clip:
        """The clip of a number.

        Raises:
            SequenceError: It cannot be read.
        """

    @abstractmethod
    def any_clip(self, rng: np.random.Generator) -> int:
        """Number of a clip to draw from in place of a broken one."""

    def describe(self) -> dict[str, Any]:
        """What it is, ready for JSON and free of paths of this machine."""
        return {"source": type(self).__name__}


class RenderedClips(ClipSource):
    """Clips of a procedural world, each of a sequence of its own, without end.

    Args:
        world: What renders them.
        seed: Seed of the world.
        clip_length: Most frames of a clip; only those that show the target are kept. Default: 8.
    """

    num_shards = 64

    def __init__(self, world: ProceduralWorld, seed: int, clip_length: int = 8):
        if clip_length < 2:
            raise ValueError(f"`clip_length` must be at least 2, got {clip_length}.")
        self.world, self.seed, self.clip_length = world, seed, clip_length

    def order(self, shards: list[int], seed: int) -> Iterator[tuple[int, int]]:
        """See [`ClipSource`]; there is one epoch, and who has several shards needs one of them only."""
        return ((0, clip) for clip in count(shards[0], self.num_shards))

    def read(self, clip: int) -> Clip:
        """See [`ClipSource`]. A sequence that shows too little of its target makes room for another one."""
        rng = np.random.default_rng([self.seed, clip])
        for attempt in range(MAX_BAD_DRAWS):
            # Attempts after the first take worlds that no other clip uses.
            sequence = self.world.sequence(self.seed, clip + attempt * 2**40)
            start = rng.integers(max(1, len(sequence) - MOST_APART))
            usable = range(start, min(start + MOST_APART + 1, len(sequence)))
            chosen = np.sort(rng.choice(usable, min(self.clip_length, len(usable)), replace=False)).tolist()
            boxes, frames = {}, []
            for index in chosen:
                box, visible = sequence.annotation(index)
                if visible:
                    boxes[index] = box
                    # Encoded and decoded as video is; pairs share the few frames.
                    frames.append(decode_frame(sequence.frame_bytes(index), sequence.name))
            if len(boxes) >= 2:
                visible = np.ones(len(boxes), dtype=bool)
                return Clip(
                    sequence.name,
                    clip,
                    list(boxes),
                    np.stack(list(boxes.values())),
                    visible,
                    partial(_reduced, frames),
                )
        raise SequenceError(
            f"{MAX_BAD_DRAWS} rendered sequences in a row show their target in fewer than 2 of {self.clip_length} frames.",
            "too_few_visible",
        )

    def any_clip(self, rng: np.random.Generator) -> int:
        """See [`ClipSource`]."""
        return int(rng.integers(2**40, 2**41))

    def describe(self) -> dict[str, Any]:
        """See [`ClipSource`]: size and length of the sequences, what paints them, and the seed."""
        world = self.world
        painters = [type(source).__name__ for source in getattr(world.textures, "sources", [world.textures])]
        sizes = {"size": list(world.size), "length": world.length, "patches": world.patches}
        return {**super().describe(), **sizes, "textures": painters, "seed": self.seed}


def _reduced(frames: list[Image.Image], position: int, reduction: int) -> Image.Image:
    return frames[position] if reduction == 1 else frames[position].reduce(reduction)


class FiniteClips(ClipSource):
    """Clips that are all known; a subclass says which of them belong to a shard."""

    @abstractmethod
    def groups(self, shard: int) -> list[range]:
        """Numbers of the clips of a shard, in groups that are best read together."""

    def order(self, shards: list[int], seed: int) -> Iterator[tuple[int, int]]:
        """See [`ClipSource`]; groups, and the clips in them, are in another order in each epoch."""
        groups = [group for shard in shards for group in self.groups(shard)]
        if not groups:
            raise SequenceError(
                f"The shards {shards} of {self!r} hold no clips. Use fewer processes and workers.", "empty"
            )
        for epoch in count():
            rng = np.random.default_rng([seed, epoch, shards[0]])
            for group in rng.permutation(len(groups)):
                for clip in rng.permutation(groups[group]):
                    yield epoch, int(clip)

    def any_clip(self, rng: np.random.Generator) -> int:
        """See [`ClipSource`]."""
        first = int(rng.integers(self.num_shards))  # it may hold no clip, all others cannot
        shards = ((first + step) % self.num_shards for step in range(self.num_shards))
        groups = next(groups for shard in shards if (groups := self.groups(shard)))
        return int(rng.choice(groups[rng.integers(len(groups))]))


class SequenceClips(FiniteClips):
    """Clips of annotated sequences, cut, shared out and ordered as [`convert_dataset`] stores them.

    Args:
        sequences: The sequences, read without checks.
        stride: Most frames between two neighbouring ones of a clip, see [`cut_spans`]. Default: 8.
        num_shards: Number of shards, lowered to that of the spans. Default: 8.
        max_bad: Largest share of sequences that may be unusable; they are left out. Default: 0.01.

    Attributes:
        left_out (`Counter[str]`): Number of sequences left out by cause, one of [`CAUSES`].

    Raises:
        SequenceError: `sequences` is empty, or more of them than allowed cannot be used.
    """

    def __init__(self, sequences: list[Sequence], *, stride: int = 8, num_shards: int = 8, max_bad: float = 0.01):
        if num_shards < 1:
            raise ValueError(f"`num_shards` must be at least 1, got {num_shards}.")
        if not sequences:
            raise SequenceError("`sequences` is empty. Give at least one sequence.", "empty")
        self.sequences, self.stride = sequences, stride
        spans, self.left_out = self._cut(max_bad)
        self.num_shards = min(num_shards, len(spans))
        shards = [self._rows(number, own) for number, own in enumerate(deal(spans, self.num_shards))]
        self._clips = [row for rows in shards for row in rows]
        self._edges = [0, *accumulate(len(rows) for rows in shards)]

    def __repr__(self) -> str:
        return f"SequenceClips(<{len(self.sequences)} sequences>)"

    def __len__(self) -> int:
        return len(self._clips)

    def describe(self) -> dict[str, Any]:
        """See [`ClipSource`]: the number of sequences, and of the clips cut out of them."""
        return {**super().describe(), "sequences": len(self.sequences), "clips": len(self)}

    def _cut(self, max_bad: float) -> tuple[list[tuple[int, Span]], Counter[str]]:
        spans, errors = [], []
        for index, sequence in enumerate(self.sequences):
            try:
                check_usable(sequence)
                spans += [(index, span) for span in cut_spans(sequence.name, len(sequence), self.stride)]
            except SequenceError as error:
                errors.append(error)
        left_out = Counter(error.cause for error in errors)
        if errors and (not spans or len(errors) > max_bad * len(self.sequences)):
            raise SequenceError(
                f"{len(errors)} of {len(self.sequences)} sequences cannot be used ({describe_causes(left_out)}), where "
                f"{100 * max_bad:g} % are allowed. Mend or remove them, or set `max_bad`; of a part of a data set shorten its list of sequences, or "
                f"give another split. The first: {errors[0]}",
                errors[0].cause,
            )
        if errors:
            logger.warning(
                "%d of %d sequences are left out (%s), the first: %s",
                len(errors),
                len(self.sequences),
                describe_causes(left_out),
                errors[0],
            )
        return spans, left_out

    def _rows(self, shard: int, spans: list[tuple[int, Span]]) -> list[tuple[int, range]]:
        rows = []
        for index, span in spans:
            visible = self.sequences[index].visible
            rows += [(index, frames) for frames in span.rows(self.stride) if has_pair(visible[frames], len(visible))]
        return [rows[position] for position in row_order(shard, len(rows))]

    def groups(self, shard: int) -> list[range]:
        """See [`FiniteClips`]."""
        first, last = self._edges[shard : shard + 2]
        return [range(start, min(start + GROUP_ROWS, last)) for start in range(first, last, GROUP_ROWS)]

    def read(self, clip: int) -> Clip:
        """See [`ClipSource`]."""
        index, frames = self._clips[clip]
        sequence = self.sequences[index]
        if frames[-1] >= len(sequence):
            raise SequenceError(
                f"{sequence.name}: its annotation has {len(sequence)} rows, but had more when the clips were cut. Restore it.",
                "length_mismatch",
            )

        def frame(position: int, reduction: int) -> Image.Image:
            # Not by the sequence, which compares with its first frame: if that one is broken, all others still serve.
            number = frames[position]
            return decode_frame(sequence.frame_bytes(number), f"{sequence.name}, frame {number}", reduction)

        return Clip(sequence.name, frames[0], frames, sequence.boxes[frames], sequence.visible[frames], frame)
