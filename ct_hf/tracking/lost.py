"""When a target counts as lost."""

import math


LOW_SCORE = 0.25
PATIENCE = 5


class LostWatch:
    """
    Says of one target, frame by frame, whether it is lost.

    The rule: a score below `threshold` is low. A target is lost from the `patience`th low score in a row on, and found again
    with the first score that is not low. So one blurred frame is no alarm, and a target that comes back is believed at once.
    The tracker itself goes on searching where it saw the target last; while a target is lost, its boxes mean little.

    What a score means differs from tracker to tracker: center heads give the peak of a score map under a window, corner heads
    how sharp their corners are, score branches a trained judgement. Look at the scores of a video of yours where the target
    leaves, and choose a threshold between those before and after.

    Args:
        threshold (`float`, *optional*, defaults to 0.25): scores below it are low.
        patience (`int`, *optional*, defaults to 5): how many low scores in a row make a target lost, at least 1.

    Attributes:
        low (`int`): low scores in a row so far.

    Raises:
        ValueError: the threshold is not in [0, 1], or the patience is below 1.
    """

    def __init__(self, threshold: float = LOW_SCORE, patience: int = PATIENCE):
        if not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be in [0, 1], as scores are, got {threshold}.")
        if patience < 1:
            raise ValueError(f"`patience` must be at least 1 frame, got {patience}.")
        self.threshold, self.patience, self.low = threshold, patience, 0

    def update(self, score: float) -> bool:
        """
        Take the score of the next frame and say whether the target is lost.

        Raises:
            ValueError: the score is not finite.
        """
        if not math.isfinite(score):
            raise ValueError(f"`score` must be a finite number, got {score}.")
        self.low = self.low + 1 if score < self.threshold else 0
        return self.lost

    @property
    def lost(self) -> bool:
        """Whether the target is lost now."""
        return self.low >= self.patience


__all__ = ["LOW_SCORE", "PATIENCE", "LostWatch"]
