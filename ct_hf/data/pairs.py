"""Streams of training pairs: what a Trainer takes."""

from collections.abc import Mapping
from pathlib import Path

from ..models.configuration_tracker import TrackerConfig
from ..names import public_name
from .augmentation import Augmentation
from .clip_sources import ClipSource, RenderedClips, SequenceClips
from .errors import SequenceError
from .layouts import LAYOUTS, read_dataset
from .procedural import ProceduralWorld
from .sampling import PairSampler
from .sequences import Sequence, read_sequences
from .stored_clips import StoredClips
from .streaming import PairReader, PairStream


Source = list[Sequence] | ProceduralWorld | ClipSource
"""What pairs can be drawn from."""


def stream_pairs(
    source: Source | Mapping[str, Source],
    config: TrackerConfig,
    *,
    seed: int,
    ratios: Mapping[str, float] | None = None,
    pairs_per_clip: int = 4,
    clip_length: int = 8,
    num_shards: int = 8,
    num_readers: int = 1,
    max_bad: float = 0.01,
    num_search_frames: int = 1,
    augmentation: Augmentation | None = Augmentation(),  # noqa: B008 - frozen
    center_jitter: float | None = None,
    scale_jitter: float = 0.25,
    draft: bool = False,
) -> PairStream:
    """Streams training pairs without end.

    Sequences are cut into clips of at most 32 frames, at most 200 frames apart, and each epoch draws some pairs from every
    clip, in another order. From the same sequences, and from clips that were stored of them, come the same pairs. Pairs of
    one clip come some way apart, so that no buffer need shuffle them. A draw that hits something broken is made again
    elsewhere, and counted in the column `skipped` of its pair, in the order of [`CAUSES`].

    Args:
        source: What to draw from: annotated sequences, a world that renders new ones, or [`StoredClips`]; or several data
            sets by their names.
        config: Configuration of the tracker the crops are for.
        seed: Seed of all draws.
        ratios: Pairs of each of several data sets, as `{"lasot": 1, "coco": 0.5}`; by default as many of each.
        pairs_per_clip: Pairs drawn from a clip in an epoch. Default: 4.
        clip_length: Frames rendered of each sequence of a world. Default: 8.
        num_shards: Parts of sequences on a disk that readers share out, at least as many as these. Default: 8.
        num_readers: Processes x workers that read the stream; the trainers of this library set it themselves. Default:
            1.
        max_bad: Largest share of broken sequences, and of draws that hit something broken, in each worker. Default:
            0.01.
        num_search_frames: Search crops of a pair, see [`PairSampler`]. Default: 1.
        augmentation: Changes of each pair; `None` for none. Default: OSTrack's.
        center_jitter: See [`PairSampler`].
        scale_jitter: See [`PairSampler`]. Default: 0.25.
        draft: See [`PairSampler`]. Default: `False`.

    Returns:
        Data set of the columns that [`PairSampler`] describes, without `frame_index`, with `skipped`, `(8,)` int64, and with
        `name`, which says sequence and frames; [`TrackingCollator`] makes batches of them. `take` ends it.

    Raises:
        SequenceError: There is no sequence, too many are broken, or, while streaming, too many draws hit what is.
        ValueError: Another argument is out of range.

    Example:
        >>> pairs = stream_pairs(read_sequences("videos", check=False), model.config, seed=0)
        >>> pairs = stream_pairs({"lasot": lasot, "got10k": StoredClips("user/got10k-clips")}, model.config, seed=0)
        >>> trainer = CompressionTrainer(model=student, teacher_model=teacher, args=args, train_dataset=pairs)
    """
    if pairs_per_clip < 1:
        raise ValueError(f"`pairs_per_clip` must be at least 1, got {pairs_per_clip}.")
    if not 0 <= max_bad <= 1:
        raise ValueError(f"`max_bad` must be a share from 0 to 1, got {max_bad}.")
    named = source if isinstance(source, Mapping) else {"": source}
    weights = _weights(list(named), ratios)
    clips = [_clips(one, seed, clip_length, num_shards, max_bad) for one in named.values()]
    sampler = PairSampler(
        config,
        num_search_frames=num_search_frames,
        augmentation=augmentation,
        center_jitter=center_jitter,
        scale_jitter=scale_jitter,
        draft=draft,
    )
    names = [_public_name(name) if name else "" for name in named]
    return PairStream(PairReader(clips, sampler, seed, pairs_per_clip, max_bad), weights, num_readers, names)


def open_source(place: str, num_shards: int = 8, max_bad: float = 0.01) -> ClipSource:
    """Opens a data set by one string, as scripts take it.

    Args:
        place: `LAYOUT:ROOT`, a data set in its own layout, of which the training split is read, such as
            `lasot:data/LaSOT`; a folder of sequences; a folder of stored clips, or a repository of them on the Hub.
        num_shards: See [`stream_pairs`]. Default: 8.
        max_bad: Largest share of broken sequences, which are left out. Default: 0.01.

    Raises:
        SequenceError: There is nothing of the kind, or too many sequences are broken.
        ConnectionError: The Hub cannot be reached.

    Example:
        >>> pairs = stream_pairs({place: open_source(place) for place in ("lasot:data/LaSOT", "user/clips")}, config, seed=0)
    """
    layout, colon, root = place.partition(":")
    if colon and layout in LAYOUTS:
        sequences = read_dataset(layout, root, LAYOUTS[layout].training_split, check=False)
    elif (
        (folder := Path(place)).is_dir()
        and not any(folder.glob("*.parquet"))
        and not any(folder.glob("data/*.parquet"))
    ):
        sequences = read_sequences(folder, check=False)
    elif colon and not folder.is_dir() and not root.startswith("//"):
        raise SequenceError(
            f"`place`={place!r}: {layout} is no layout, expected one of {', '.join(LAYOUTS)}.", "empty"
        )
    else:
        return StoredClips(place)
    return SequenceClips(sequences, num_shards=num_shards, max_bad=max_bad)


def _public_name(name: str) -> str:
    """What a data set may be called elsewhere, if its name is what [`open_source`] takes."""
    layout, colon, _ = name.partition(":")
    return layout if colon and layout in LAYOUTS else public_name(name)


def _weights(names: list[str], ratios: Mapping[str, float] | None) -> list[float]:
    """Probability of each data set."""
    if not names:
        raise ValueError("`source` names no data set. Give at least one.")
    ratios = dict.fromkeys(names, 1.0) if ratios is None else ratios
    if ratios.keys() != set(names) or not all(ratio > 0 for ratio in ratios.values()):
        raise ValueError(f"`ratios` must have a positive number for each of {', '.join(names)}, got {dict(ratios)}.")
    return [ratios[name] / sum(ratios.values()) for name in names]


def _clips(source: Source, seed: int, clip_length: int, num_shards: int, max_bad: float) -> ClipSource:
    if isinstance(source, ClipSource):
        return source
    if isinstance(source, ProceduralWorld):
        return RenderedClips(source, seed, clip_length)
    return SequenceClips(source, num_shards=num_shards, max_bad=max_bad)


__all__ = ["open_source", "stream_pairs"]
