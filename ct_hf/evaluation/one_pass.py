"""One-pass evaluation: each tracker starts on the first frame of a sequence and goes through it once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ..models.cost import count_parameters
from .metrics import SequenceScore, mean_score, score_sequence


if TYPE_CHECKING:
    from ..data.sequences import Sequence
    from ..models.tracker import PreTrainedTracker


@dataclass(frozen=True)
class TrackerResult:
    """
    How one tracker did.

    Args:
        name (`str`): name it was evaluated under.
        score ([`SequenceScore`]): mean over the sequences, each with weight 1.
        fps (`float`): frames per second, 1 / median of the seconds of `session.update`.
        parameters (`int`): number of parameters.
        per_sequence (`dict[str, SequenceScore]`): scores by sequence.
        predictions (`dict[str, np.ndarray]`): by sequence, `x, y, w, h` in pixels of shape `(num_frames, 4)`; the first
            row is the box the tracker was started with.
    """

    name: str
    score: SequenceScore
    fps: float
    parameters: int
    per_sequence: dict[str, SequenceScore]
    predictions: dict[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class EvaluationResult:
    """
    How some trackers did on the same sequences.

    Args:
        trackers (`list[TrackerResult]`): one a tracker, in the order in which they were given.
        num_sequences (`int`): number of sequences.
    """

    trackers: list[TrackerResult]
    num_sequences: int

    def to_dict(self) -> dict[str, Any]:
        """Figures without the predicted boxes, ready for JSON."""
        return {
            "sequences": self.num_sequences,
            "trackers": [
                {
                    "name": tracker.name,
                    **asdict(tracker.score),
                    "fps": tracker.fps,
                    "parameters": tracker.parameters,
                    "per_sequence": {name: asdict(score) for name, score in tracker.per_sequence.items()},
                }
                for tracker in self.trackers
            ],
        }


def _check_sequences(sequences: list[Sequence]) -> None:
    if not sequences:
        raise ValueError("`sequences` is empty, expected at least one. Check the folder or the split they come from.")
    names = [sequence.name for sequence in sequences]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"`sequences` must have distinct names, got several called {', '.join(twice)}.")
    for sequence in sequences:
        if len(sequence) < 2:
            raise ValueError(
                f"Sequence {sequence.name} has {len(sequence)} frame(s), but tracking needs at least 2. Leave it out."
            )
        if not sequence.visible[0] or not np.isfinite(sequence.boxes[0]).all():
            raise ValueError(
                f"Sequence {sequence.name} does not show its target in frame 0, where a tracker has to start. Cut the "
                "frames before the first visible one."
            )


def _track(model: PreTrainedTracker, sequence: Sequence) -> tuple[np.ndarray, list[float]]:
    frame = sequence.frame(0)
    size = frame.size
    boxes, seconds = [np.asarray(sequence.boxes[0], dtype=np.float64)], []
    session = model.start(frame, boxes[0])
    for index in range(1, len(sequence)):
        frame = sequence.frame(index)
        frame.load()  # images that are opened lazily would be decoded under the clock
        if frame.size != size:
            raise ValueError(
                f"Sequence {sequence.name}: frame {index} is {frame.size[0]}x{frame.size[1]} pixels, but frame 0 is "
                f"{size[0]}x{size[1]}. All frames of a sequence must have one size; resize them or leave it out."
            )
        start = time.perf_counter()
        track = session.update(frame)
        seconds.append(time.perf_counter() - start)
        boxes.append(track.box)
    return np.stack(boxes), seconds


def evaluate_trackers(
    trackers: Mapping[str, PreTrainedTracker], sequences: Iterable[Sequence], *, progress: bool = True
) -> EvaluationResult:
    """
    Run trackers once through each sequence and score them as OSTrack does, see [`score_sequence`].

    A tracker starts with the ground truth of the first frame and sees no other. The trackers take turns in each sequence,
    so that a machine which slows down or speeds up meanwhile does it to all of them. The speed is 1 / median of the
    seconds of `session.update` (crop, forward pass and box) over all frames of all sequences; a frame is read and decoded
    before the clock starts, and the start on the first frame is not timed.

    Args:
        trackers (`Mapping[str, PreTrainedTracker]`): trackers in evaluation mode by name, each on its own device.
        sequences (iterable of [`~data.sequences.Sequence`]): annotated sequences with distinct names, visible in frame 0.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

    Returns:
        [`EvaluationResult`]: scores, speeds and predicted boxes.

    Raises:
        ValueError: there is no tracker or no sequence; two sequences share a name; a sequence has one frame only, does not
            show its target in frame 0, or has a frame of another size than its first.
    """
    sequences = list(sequences)
    if not trackers:
        raise ValueError("`trackers` is empty, expected at least one tracker by name.")
    _check_sequences(sequences)
    scores: dict[str, dict[str, SequenceScore]] = {name: {} for name in trackers}
    predictions: dict[str, dict[str, np.ndarray]] = {name: {} for name in trackers}
    seconds: dict[str, list[float]] = {name: [] for name in trackers}
    with tqdm(total=len(sequences) * len(trackers), disable=not progress, unit="run") as bar:
        for sequence in sequences:
            for name, model in trackers.items():
                bar.set_description(f"{name} on {sequence.name}")
                boxes, taken = _track(model, sequence)
                scores[name][sequence.name] = score_sequence(boxes, sequence.boxes, sequence.visible)
                predictions[name][sequence.name] = boxes
                seconds[name] += taken
                bar.update()
    results = [
        TrackerResult(
            name=name,
            score=mean_score(list(scores[name].values())),
            fps=1 / float(np.median(seconds[name])),
            parameters=count_parameters(model),
            per_sequence=scores[name],
            predictions=predictions[name],
        )
        for name, model in trackers.items()
    ]
    return EvaluationResult(trackers=results, num_sequences=len(sequences))


__all__ = ["EvaluationResult", "TrackerResult", "evaluate_trackers"]
