"""Random replacement: how likely a stage runs in the student, and which stages do."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np


Path = tuple[bool, ...]
Shape = Literal["progressive", "cosine", "constant", "linear"]


@dataclass(frozen=True)
class ReplacementSchedule:
    """
    Replacement rate over training (section 3.4 and Eq. 1 of the paper; its slope is right for 0.5 only, this one for any
    first rate).

    Args:
        initial (`float`, *optional*, defaults to 0.5): rate at the start, in (0, 1].
        warmup (`float`, *optional*, defaults to 0.1): share of training before it rises.
        finetune (`float`, *optional*, defaults to 0.1): share of training at the end during which it is 1.
        shape (`str`, *optional*, defaults to `"progressive"`): how it gets from the first to 1 between the two: in a straight
            line (the paper's), along half a cosine (`"cosine"`), or in one step at the end (`"constant"`). `"linear"` rises in
            a straight line over the whole training, without warm-up or end.

    Raises:
        ValueError: a value is out of range.
    """

    initial: float = 0.5
    warmup: float = 0.1
    finetune: float = 0.1
    shape: Shape = "progressive"

    def __post_init__(self):
        if not 0 < self.initial <= 1:
            raise ValueError(f"`p_init` must be in (0, 1], got {self.initial}.")
        if min(self.warmup, self.finetune) < 0 or self.warmup + self.finetune >= 1:
            raise ValueError(
                "`warmup_share` and `finetune_share` must not be negative and leave some training between them, got "
                f"{self.warmup} and {self.finetune}."
            )

        if self.shape not in get_args(Shape):
            raise ValueError(
                f"`replacement_schedule` must be one of {', '.join(get_args(Shape))}, got {self.shape!r}."
            )

    def rate(self, step: int, total: int) -> float:
        """
        Probability that a stage runs in the student.

        Args:
            step (`int`): optimizer steps done.
            total (`int`): optimizer steps in all.

        Returns:
            `float`: in (0, 1].
        """
        start, end = (0, total) if self.shape == "linear" else (self.warmup * total, (1 - self.finetune) * total)
        if step < start:
            return float(self.initial)
        if step >= end:
            return 1.0
        risen = (step - start) / (end - start)
        if self.shape == "cosine":
            risen = 0.5 - 0.5 * math.cos(math.pi * risen)
        return float(self.initial) if self.shape == "constant" else self.initial + (1 - self.initial) * risen

    def finetune_start(self, total: int) -> int:
        """First optimizer step at which the rate is 1."""
        if self.initial == 1:
            return 0
        return total if self.shape == "linear" else math.ceil((1 - self.finetune) * total)


def draw_path(rate: float, num_stages: int, *key: int) -> Path:
    """
    Draw which stages run in the student; without any, one is chosen uniformly.

    A pure function of its arguments: resumed runs, micro-batches and ranks with the same key agree.

    Args:
        rate (`float`): replacement rate.
        num_stages (`int`): number of stages.
        *key (`int`): what the draw depends on: seed and optimizer step, and per sample its index in the global batch.

    Returns:
        `tuple[bool, ...]`: `True` where a stage runs in the student.
    """
    generator = np.random.default_rng([value % 2**63 for value in key])
    path = generator.random(num_stages) < rate
    if not path.any():
        path[generator.integers(num_stages)] = True
    return tuple(path.tolist())


__all__ = ["Path", "ReplacementSchedule", "draw_path"]
