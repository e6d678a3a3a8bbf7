"""Trackers going through annotated sequences, several sequences at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ..models.session import PredictionError, Track, TrackingSession, check_prediction
from ..tracking.batch import update_together


if TYPE_CHECKING:
    from PIL import Image

    from ..data.sequences import Sequence
    from ..models.tracker import PreTrainedTracker


@dataclass(frozen=True)
class Run:
    """
    One tracker's way through one sequence.

    Args:
        tracker (`str`): name of the tracker.
        sequence (`str`): name of the sequence.
        boxes (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels; the first row is the box of the start.
        seconds (`np.ndarray` of shape `(num_frames,)`): what each frame took, the first that of the start. A step of several
            sequences at once is shared out evenly.
    """

    tracker: str
    sequence: str
    boxes: np.ndarray
    seconds: np.ndarray


def run_trackers(
    trackers: Mapping[str, PreTrainedTracker],
    sequences: Mapping[str, list[Sequence]],
    *,
    batch_size: int = 1,
    progress: bool = True,
) -> Iterator[Run]:
    """
    Run trackers once through each of their sequences, `batch_size` of them in lock-step.

    The trackers take turns batch by batch, so that a machine which slows down or speeds up meanwhile does it to all of
    them. A batch is of sequences of like lengths, so that it stays full almost to its end.

    Args:
        trackers (`Mapping[str, PreTrainedTracker]`): trackers in evaluation mode by name.
        sequences (`Mapping[str, list[Sequence]]`): by tracker, what it is to track.
        batch_size (`int`, *optional*, defaults to 1): sequences at a time; with 1 they keep their order.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar of frames.

    Yields:
        [`Run`]: each as soon as it is finished.

    Raises:
        ValueError: `batch_size` is below 1; a frame is of another size than its sequence's first; a tracker predicts NaN.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    batches = {name: _batches(sequences[name], batch_size) for name in trackers}
    total = sum(len(sequence) for name in trackers for sequence in sequences[name])
    with tqdm(total=total, disable=not progress, unit="frame") as bar:
        for turn in range(max(map(len, batches.values()))):
            for name, model in trackers.items():
                for batch in batches[name][turn : turn + 1]:
                    yield from _run_batch(name, model, batch, bar)


def _batches(sequences: list[Sequence], batch_size: int) -> list[list[Sequence]]:
    if batch_size > 1:
        sequences = sorted(sequences, key=len, reverse=True)
    return [sequences[start : start + batch_size] for start in range(0, len(sequences), batch_size)]


class _Lane:
    """One sequence of a batch on its way."""

    def __init__(self, model: PreTrainedTracker, sequence: Sequence):
        self.sequence = sequence
        frame = sequence.frame(0)
        frame.load()
        self.size = frame.size
        start = time.perf_counter()
        self.session = model.start(frame, sequence.boxes[0])
        self.seconds = [time.perf_counter() - start]
        self.boxes = [np.asarray(sequence.boxes[0], dtype=np.float64)]

    def next_frame(self) -> Image.Image:
        """Decoded already, so that this is not under the clock."""
        index = len(self.boxes)
        frame = self.sequence.frame(index)
        frame.load()
        if frame.size != self.size:
            raise ValueError(
                f"Sequence {self.sequence.name}: frame {index} is {frame.size[0]}x{frame.size[1]} pixels, but frame 0 is "
                f"{self.size[0]}x{self.size[1]}. All frames of a sequence must have one size; resize them or leave it out."
            )
        return frame

    def finished(self, tracker: str) -> Run:
        """The whole of it."""
        return Run(tracker, self.sequence.name, np.stack(self.boxes), np.array(self.seconds))


def _run_batch(name: str, model: PreTrainedTracker, sequences: list[Sequence], bar: tqdm) -> Iterator[Run]:
    lanes = [_Lane(model, sequence) for sequence in sequences]
    bar.update(len(lanes))
    while lanes:
        bar.set_description(f"{name} on {lanes[0].sequence.name}{f' and {len(lanes) - 1} more' * (len(lanes) > 1)}")
        frames = [lane.next_frame() for lane in lanes]
        start = time.perf_counter()
        tracks = _update(name, lanes, frames)
        seconds = (time.perf_counter() - start) / len(lanes)
        for lane, track in zip(lanes, tracks, strict=True):
            lane.boxes.append(track.box)
            lane.seconds.append(seconds)
        bar.update(len(lanes))
        yield from (lane.finished(name) for lane in lanes if len(lane.boxes) == len(lane.sequence))
        lanes = [lane for lane in lanes if len(lane.boxes) < len(lane.sequence)]


def _update(tracker: str, lanes: list[_Lane], frames: list[Image.Image]) -> list[Track]:
    sessions = [lane.session for lane in lanes]
    try:
        if len(lanes) > 1 and isinstance(sessions[0], TrackingSession):
            return update_together(sessions, frames)
        tracks = []
        for lane, frame in zip(lanes, frames, strict=True):
            track = lane.session.update(frame)
            # What only looks like a tracker, as a baseline does, may not have looked at its own answer.
            check_prediction(lane.session, len(lane.boxes), track.box, track.score)
            tracks.append(track)
        return tracks
    except PredictionError as error:
        name = next(lane.sequence.name for lane in lanes if lane.session is error.session)
        raise PredictionError(f"Tracker {tracker}, sequence {name}: {error}", error.session) from error


__all__ = ["Run", "run_trackers"]
