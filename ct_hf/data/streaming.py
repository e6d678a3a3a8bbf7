"""Endless streams of clips: rows of a few annotated frames, ready for [`PairSampler`]."""

from typing import Any

import numpy as np
from datasets import Features, Image, IterableDataset, List, Value

from .errors import CAUSES, SequenceError
from .procedural import ProceduralWorld
from .sequences import Sequence


CLIP_FEATURES = Features(
    {
        "name": Value("string"),
        "clip": Value("int64"),
        "frames": List(Image(decode=False)),
        "frame_index": List(Value("int32")),
        "boxes": List(List(Value("float32"), length=4)),
        "visible": List(Value("bool")),
        "skipped": List(Value("int64")),
    }
)
"""Columns of a clip. Frames are undecoded image files; `skipped` counts, in the order of [`CAUSES`], the draws that were
given up on the way to this clip."""

MAX_BAD_CLIPS = 1000
"""So many clips without a single usable one end a stream with an error."""


def stream_clips(
    sequences: list[Sequence] | ProceduralWorld,
    *,
    seed: int,
    clip_length: int = 8,
    max_gap: int = 200,
    num_shards: int = 8,
    num_clips: int | None = None,
) -> IterableDataset:
    """Streams clips drawn at random from sequences.

    Every clip is a pure function of `seed`, its shard and its number in the shard, whoever reads it, so that a resumed
    run sees the same clips. By `skip` or `load_state_dict` only numbers are passed over; a Trainer that resumes fetches
    and drops what it had seen. Each shard draws from all sequences. One process reads its shards
    one after the other, so that of an endless stream it reads the first it was given.

    Args:
        sequences: What to draw from, each sequence with the same probability; or a world, of which every clip takes a
            new sequence.
        seed: Seed of all draws.
        clip_length: Most frames of a clip; sequences with fewer visible frames give shorter clips.
        max_gap: Most frames between the first and the last frame of a clip.
        num_shards: Number of shards, a multiple of (processes x DataLoader workers).
        num_clips: Length of the stream; endless if `None`.

    Returns:
        Data set of [`CLIP_FEATURES`].

    Raises:
        SequenceError: `sequences` is empty, or, while streaming, none can be read.
        ValueError: Another argument is out of range.

    Example:
        >>> clips = stream_clips(ProceduralWorld(), seed=0)
        >>> pairs = clips.map(PairSampler(config, seed=0), batched=True, batch_size=1, remove_columns=clips.column_names)
    """
    for name, value, least in (
        ("clip_length", clip_length, 2),
        ("max_gap", max_gap, 1),
        ("num_shards", num_shards, 1),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    if not isinstance(sequences, ProceduralWorld) and len(sequences) == 0:
        raise SequenceError("`sequences` is empty. Give at least one sequence.", "empty")
    # Rows of numbers first and pixels in a map: `skip` passes over numbers, and nothing is read or rendered.
    numbers = IterableDataset.from_generator(
        _clip_numbers,
        features=Features({"shard": Value("int64"), "clip": Value("int64")}),
        gen_kwargs={"shards": list(range(num_shards)), "num_shards": num_shards, "num_clips": num_clips},
    )
    reader = _ClipReader(sequences, seed, clip_length, max_gap, num_shards)
    return numbers.map(reader, remove_columns=numbers.column_names, features=CLIP_FEATURES)


def _clip_numbers(shards: list[int], num_shards: int, num_clips: int | None):
    for shard in shards:
        clip = 0
        while num_clips is None or clip * num_shards + shard < num_clips:
            yield {"shard": shard, "clip": clip}
            clip += 1


class _ClipReader:
    """Reads or renders the clip of a given number."""

    def __init__(
        self,
        sequences: list[Sequence] | ProceduralWorld,
        seed: int,
        clip_length: int,
        max_gap: int,
        num_shards: int,
    ):
        self.sequences, self.seed = sequences, seed
        self.clip_length, self.max_gap, self.num_shards = clip_length, max_gap, num_shards

    def __call__(self, row: dict[str, int]) -> dict[str, Any]:
        number = row["clip"] * self.num_shards + row["shard"]
        rng = np.random.default_rng([self.seed, row["shard"], row["clip"]])
        skipped = [0] * len(CAUSES)
        for attempt in range(MAX_BAD_CLIPS):
            try:
                clip = self._read(rng, number, attempt)
            except SequenceError as error:
                skipped[CAUSES.index(error.cause)] += 1
                last = error
            else:
                return {**clip, "clip": number, "skipped": skipped}
        raise SequenceError(
            f"{MAX_BAD_CLIPS} clips in a row could not be read ({describe_skipped(skipped)}). Check the sequences; the "
            f"last problem was: {last}",
            last.cause,
        )

    def _read(self, rng: np.random.Generator, number: int, attempt: int) -> dict[str, Any]:
        if isinstance(self.sequences, ProceduralWorld):
            # Attempts after the first are rare; they take worlds no other clip uses.
            sequence = self.sequences.sequence(self.seed, number + attempt * 2**40)
        else:
            sequence = self.sequences[rng.integers(len(self.sequences))]
        start = rng.integers(max(1, len(sequence) - self.max_gap))
        stop = min(start + self.max_gap + 1, len(sequence))
        if isinstance(self.sequences, ProceduralWorld):
            # Whether a rendered target is visible is only known by drawing it.
            usable = np.arange(start, stop)
        else:
            usable = start + np.flatnonzero(sequence.visible[start:stop])
        chosen = np.sort(rng.choice(usable, min(self.clip_length, len(usable)), replace=False)).tolist()
        annotations = {index: sequence.annotation(index) for index in chosen}
        boxes = {index: box.tolist() for index, (box, visible) in annotations.items() if visible}
        if len(boxes) < 2:
            raise SequenceError(
                f"Sequence {sequence.name!r} shows its target in {len(boxes)} of the frames {start}..{stop - 1}, a "
                "clip needs 2.",
                "too_few_visible",
            )
        return {
            "name": sequence.name,
            "frames": [{"bytes": sequence.frame_bytes(index), "path": None} for index in boxes],
            "frame_index": list(boxes),
            "boxes": list(boxes.values()),
            "visible": [True] * len(boxes),
        }


def describe_skipped(skipped: list[int] | np.ndarray) -> str:
    """Counts by cause in words, for instance `corrupt_image: 3, frame_size: 1`."""
    return ", ".join(f"{cause}: {count}" for cause, count in zip(CAUSES, skipped, strict=True) if count) or "none"
