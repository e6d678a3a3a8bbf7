"""What several runs of the same kind say together: means, spreads, and differences with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """
    How much better one row is than another.

    Args:
        mean (`float`): difference of success AUC, in per cent.
        low (`float`): lower end of the interval that holds 95 % of the bootstrap's means.
        high (`float`): its upper end.
        seeds (`int`): seeds that both rows have.
    """

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def paired_bootstrap(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], judged_on: str, draws: int = DRAWS
) -> Difference:
    """
    Difference of two rows whose runs share seeds, hence pairs of training, and sequences.

    Seeds and sequences are drawn again with replacement, both at once: a method is better if it is so for other seeds and on
    other videos of the kind. With one seed, only sequences are drawn.

    Args:
        first (sequence of `dict`): results of [`training.execute`], one a seed.
        second (sequence of `dict`): those it is compared with.
        judged_on (`str`): name of the set of sequences.
        draws (`int`, *optional*, defaults to 10,000): of the bootstrap.

    Returns:
        [`Difference`]: of the first from the second.

    Raises:
        ValueError: the rows share no seed, or were judged on different sequences.
    """
    ours, theirs = ({result["seed"]: result["per_sequence"][judged_on] for result in row} for row in (first, second))
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        raise ValueError(f"the rows share no seed: {sorted(ours)} and {sorted(theirs)}.")
    if any(ours[seed].keys() != theirs[seed].keys() for seed in seeds):
        raise ValueError(f"the rows were judged on different sequences of {judged_on!r}.")
    names = sorted(ours[seeds[0]])
    gaps = np.array([[ours[seed][name] - theirs[seed][name] for name in names] for seed in seeds])
    rng = np.random.default_rng(0)
    of_seeds = rng.integers(len(seeds), size=(draws, len(seeds)))
    # Over seeds first: a draw of sequences is then a weighted mean of their columns.
    counts = np.stack(
        [np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)) for _ in range(draws)]
    )
    means = (gaps[of_seeds].mean(axis=1) * counts).sum(axis=1) / len(names)
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float(gaps.mean()), float(low), float(high), len(seeds))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, as text; the mean alone of one seed."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
