"""Streams of training pairs: what a Trainer takes."""

from datasets import IterableDataset

from ..models.configuration_tracker import TrackerConfig
from .augmentation import Augmentation
from .procedural import ProceduralWorld
from .sampling import PairSampler
from .sequences import Sequence
from .streaming import stream_clips


def stream_pairs(
    sequences: list[Sequence] | ProceduralWorld,
    config: TrackerConfig,
    *,
    seed: int,
    clip_length: int = 8,
    pairs_per_clip: int = 4,
    num_clips: int | None = None,
    augmentation: Augmentation | None = Augmentation(),  # noqa: B008 - frozen
    scale_jitter: float = 0.25,
) -> IterableDataset:
    """Streams training pairs drawn at random from sequences.

    Args:
        sequences: What to draw from: annotated sequences, or a world that renders new ones without end.
        config: Configuration of the tracker the crops are for.
        seed: Seed of all draws.
        clip_length: Frames read or rendered at a time.
        pairs_per_clip: Pairs drawn from these.
        num_clips: Clips until the stream ends; endless if `None`, as training needs it.
        augmentation: Changes of each pair; `None` for none.
        scale_jitter: Standard deviation of the log of the factors by which a search crop's size is changed.

    Returns:
        Data set of the columns that [`PairSampler`] describes; [`TrackingCollator`] makes batches of them.

    Example:
        >>> pairs = stream_pairs(read_sequences("sequences"), model.config, seed=0)
        >>> trainer = CompressionTrainer(model=student, teacher_model=teacher, args=args, train_dataset=pairs)
    """
    clips = stream_clips(sequences, seed=seed, clip_length=clip_length, num_clips=num_clips)
    sampler = PairSampler(
        config, seed=seed, pairs_per_clip=pairs_per_clip, augmentation=augmentation, scale_jitter=scale_jitter
    )
    return clips.map(sampler, batched=True, batch_size=1, remove_columns=clips.column_names)


__all__ = ["stream_pairs"]
