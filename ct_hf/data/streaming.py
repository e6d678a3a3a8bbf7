"""Endless streams of training pairs, of which any part can be passed over without being read."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from datasets import DatasetInfo, Features, IterableDataset, Value
from datasets.iterable_dataset import ExamplesIterable

from .clip_sources import MAX_BAD_DRAWS, Clip, ClipSource, FiniteClips
from .errors import CAUSES, SequenceError, describe_causes
from .sampling import PairSampler


logger = logging.getLogger(__name__)

COLUMNS = ("template_pixel_values", "search_pixel_values", "template_boxes", "search_boxes", "skipped", "name")

_NUMBER = Features({"source": Value("int64"), "epoch": Value("int64"), "clip": Value("int64"), "pair": Value("int64")})
_UNREAD = {**{name: np.empty(0) for name in COLUMNS}, "name": ""}
_APART = 64  # pairs between two of the same clip
_EARLY = 1000  # draws; before, as many may be bad as of so many


@dataclass
class PairReader:
    """Makes pairs of their numbers.

    Args:
        sources: Where clips come from; a number names one by its position.
        sampler: Draws pairs from clips.
        seed: Seed of all draws.
        pairs_per_clip: Pairs that are drawn from a clip in an epoch.
        max_bad: Largest share of draws that may hit something broken.
        batches_before: Batches of this process that come as rows without pixels.
        batch_size: Pairs of each of these.
    """

    sources: list[ClipSource]
    sampler: PairSampler
    seed: int
    pairs_per_clip: int
    max_bad: float
    batches_before: int = 0
    batch_size: int = 0

    def __post_init__(self):
        self._draws, self._bad = 0, Counter()
        self._kept: list[dict[int, Clip | SequenceError]] = [{} for _ in self.sources]

    def __call__(self, number: dict[str, int], index: int) -> dict[str, np.ndarray]:
        """The pair of a number, whose position in the stream is `index`.

        Raises:
            SequenceError: Too much of what was drawn is broken.
        """
        if index < self._num_before():
            return _UNREAD
        source, skipped = self.sources[number["source"]], Counter()
        for attempt in range(MAX_BAD_DRAWS):
            try:
                if attempt == 0:
                    clip = self._clip(number["source"], number["clip"], last=number["pair"] == self.pairs_per_clip - 1)
                else:
                    own = [self.seed, number["source"], number["clip"], number["epoch"], number["pair"], attempt]
                    clip = source.read(source.any_clip(np.random.default_rng(own)))
                rng = clip.generator(self.seed, number["epoch"], number["pair"], attempt)
                pair = self.sampler.draw(clip, rng)
            except SequenceError as error:
                skipped[error.cause] += 1
                self._count(error)
            else:
                self._draws += 1
                pair["skipped"] = np.array([skipped[cause] for cause in CAUSES])
                pair["name"] = f"{clip.name}, frames {', '.join(map(str, pair['frame_index']))}"
                return {name: pair[name] for name in COLUMNS}
        raise SequenceError(
            f"{MAX_BAD_DRAWS} draws in a row could not be used ({describe_causes(skipped)}). Check the data.",
            skipped.most_common(1)[0][0],
        )

    def _num_before(self) -> int:
        """Pairs that this worker has no need to read. Batches are dealt to workers in turn."""
        worker = torch.utils.data.get_worker_info()
        mine = range(worker.id, self.batches_before, worker.num_workers) if worker else range(self.batches_before)
        return len(mine) * self.batch_size

    def _clip(self, source: int, number: int, last: bool) -> Clip:
        """A clip, kept from the first of its pairs that is drawn to the last; a broken one is as broken for all of them."""
        kept = self._kept[source]
        if number not in kept:
            try:
                kept[number] = self.sources[source].read(number)
            except SequenceError as error:
                kept[number] = error
        clip = kept.pop(number) if last else kept[number]
        if isinstance(clip, SequenceError):
            raise clip
        return clip

    def _count(self, error: SequenceError) -> None:
        self._draws += 1
        self._bad[error.cause] += 1
        if self._bad.total() > self.max_bad * max(self._draws, _EARLY):
            raise SequenceError(
                f"{self._bad.total()} of {self._draws} draws hit something broken ({describe_causes(self._bad)}), where "
                f"{100 * self.max_bad:g} % are allowed. Mend the data, or set `max_bad`; the last: {error}",
                error.cause,
            ) from error


class PairStream(IterableDataset):
    """Data set of training pairs without end, of which any part can be passed over without being read.

    A pair is a function of the seed, its epoch, its clip and its number there, whoever draws it. Each clip of an epoch is
    drawn from by one reader: a worker of a process, or the process if it has none. Pairs of one clip come some way apart, as
    they are alike. Readers share out shards: all clips are drawn from equally often if the number of shards is a multiple of
    that of readers, and a warning says where it is not.

    Args:
        reader: Makes pairs of their numbers.
        probabilities: Shares of the reader's sources among the pairs.
        num_readers: Readers that share the clips; [`TrackerTrainer`] sees to it. Default: 1.
        names: What the sources are called; by default they have no names.

    Raises:
        ValueError: A source has fewer shards than there are readers.
    """

    def __init__(
        self,
        reader: PairReader,
        probabilities: list[float],
        num_readers: int = 1,
        names: list[str] | None = None,
    ):
        for source in reader.sources:
            if source.num_shards < num_readers:
                raise ValueError(
                    f"{source!r} has {source.num_shards} shards for {num_readers} readers (processes x workers). Use fewer "
                    "workers or, for sequences, a larger `num_shards`; stored clips have a shard for each file."
                )
            if isinstance(source, FiniteClips) and source.num_shards % num_readers:
                least, most = source.num_shards // num_readers, -(-source.num_shards // num_readers)
                logger.warning(
                    "%r has %d shards for %d readers (processes x workers): some clips are drawn from %.3g times as often as "
                    "others. Use a number of workers that divides it or, for sequences, a `num_shards` that they divide.",
                    source,
                    source.num_shards,
                    num_readers,
                    most / least,
                )
        self._reader, self._probabilities = reader, probabilities
        self._names = names or [""] * len(probabilities)
        # `datasets` shares lists out, here one element to each reader, and hands the rest to all.
        shared = {
            "readers": list(range(num_readers)),
            "num_readers": num_readers,
            "sources": tuple(reader.sources),
            "probabilities": tuple(probabilities),
            "seed": reader.seed,
            "pairs_per_clip": reader.pairs_per_clip,
        }
        # `from_generator` would take a hash of all sequences first, minutes for a data set of images.
        numbers = IterableDataset(ExamplesIterable(_mixed, shared), DatasetInfo(features=_NUMBER))
        super().__init__(numbers.map(reader, with_indices=True, remove_columns=list(_NUMBER))._ex_iterable)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """See [`~datasets.IterableDataset`].

        Raises:
            ValueError: There are fewer readers here than the stream is shared out among, and some clips would never come.
        """
        worker = torch.utils.data.get_worker_info()
        here = worker.num_workers if worker else 1
        if self.num_shards > here:
            raise ValueError(
                f"`num_readers` is {self.num_shards}, but {here} read this stream: the clips of the others would never come. "
                "Give as many as there are processes x workers; the trainers of this library do."
            )
        yield from super().__iter__()

    def shared(self, num_readers: int, batches_before: int = 0, batch_size: int = 0) -> PairStream:
        """The stream for some readers, who go on after batches that come as rows without pixels, and cost nothing.

        Args:
            num_readers: Readers that share the clips.
            batches_before: Batches that each process has seen. Default: 0.
            batch_size: Pairs of each. Default: 0.
        """
        reader = replace(self._reader, batches_before=batches_before, batch_size=batch_size)
        return PairStream(reader, self._probabilities, num_readers, self._names)

    def describe(self) -> list[dict[str, Any]]:
        """What is streamed: name, share of the pairs and kind of each source, ready for JSON and free of paths."""
        sources = zip(self._names, self._probabilities, self._reader.sources, strict=True)
        return [
            {**({"name": name} if name else {}), "share": share, **source.describe()}
            for name, share, source in sources
        ]


def _mixed(
    readers: list[int],
    num_readers: int,
    sources: tuple[ClipSource, ...],
    probabilities: tuple[float, ...],
    seed: int,
    pairs_per_clip: int,
) -> Iterator[tuple[int, dict[str, int]]]:
    """Numbers of the pairs of one reader, each with its place. Each reader draws sources of its own, or all processes would
    read the same data set at a time, and the mixture of a batch of all of them would vary as that of one.
    """
    (own,) = readers
    numbers = [
        _numbers(source, clips.order(list(range(own, clips.num_shards, num_readers)), seed), pairs_per_clip)
        for source, clips in enumerate(sources)
    ]
    rng = np.random.default_rng([seed, own])
    for place in count():
        source = rng.choice(len(numbers), p=probabilities) if len(numbers) > 1 else 0
        yield place, next(numbers[source])


def _numbers(source: int, order: Iterator[tuple[int, int]], pairs_per_clip: int) -> Iterator[dict[str, int]]:
    """Numbers of the pairs of a source: of every clip the first ones come while earlier clips are not yet over."""
    spacing = -(-_APART // pairs_per_clip)  # clips that are begun between two pairs of the same one
    recent = deque(maxlen=(pairs_per_clip - 1) * spacing + 1)
    for clip in order:
        recent.append(clip)
        for pair, (epoch, number) in enumerate(list(recent)[::-spacing]):
            yield {"source": source, "epoch": epoch, "clip": number, "pair": pair}


__all__ = ["COLUMNS", "PairReader", "PairStream"]
