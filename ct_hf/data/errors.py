"""What can be wrong with a sequence."""

from collections.abc import Mapping


CAUSES = (
    "bad_box",
    "corrupt_image",
    "empty",
    "frame_size",
    "length_mismatch",
    "missing_frame",
    "missing_ground_truth",
    "too_few_visible",
)
"""What can be wrong with a sequence, in the order in which a stream counts it."""


class SequenceError(ValueError):
    """Raised for a sequence that cannot be read.

    Args:
        message: What was found, where, and what to do.
        cause: One of [`CAUSES`], for counting; empty where a DataLoader's worker raised it, of whose errors torch keeps the
            class and the text.
    """

    def __init__(self, message: str, cause: str = ""):
        super().__init__(message)
        self.cause = cause

    def __reduce__(self):
        # By default a copy would forget `cause`.
        return type(self), (str(self), self.cause)


def describe_causes(counts: Mapping[str, int]) -> str:
    """Counts by cause in words, for instance `corrupt_image: 3, frame_size: 1`."""
    return ", ".join(f"{cause}: {count}" for cause, count in sorted(counts.items()) if count) or "none"


__all__ = ["CAUSES", "SequenceError", "describe_causes"]
