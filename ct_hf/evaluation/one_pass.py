"""One-pass evaluation: each tracker starts on the first frame of a sequence and goes through it once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ..models.cost import count_parameters
from .protocols import Protocol, check_protocol, score_sequences


if TYPE_CHECKING:
    from ..data.sequences import Sequence
    from ..models.tracker import PreTrainedTracker


@dataclass(frozen=True)
class TrackerResult:
    """
    How one tracker did.

    Args:
        name (`str`): name it was evaluated under.
        score (`dict[str, float]`): the protocol's figures over all sequences, in per cent, see [`score_sequences`].
        fps (`float`): frames per second, 1 / median of the seconds of `session.update`.
        parameters (`int`): number of parameters.
        per_sequence (`dict[str, dict[str, float]]`): the same by sequence.
        predictions (`dict[str, np.ndarray]`): by sequence, `x, y, w, h` in pixels of shape `(num_frames, 4)`; the first
            row is the box the tracker was started with.
    """

    name: str
    score: dict[str, float]
    fps: float
    parameters: int
    per_sequence: dict[str, dict[str, float]]
    predictions: dict[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class EvaluationResult:
    """
    How some trackers did on the same sequences.

    Args:
        trackers (`list[TrackerResult]`): one a tracker, in the order in which they were given.
        num_sequences (`int`): number of sequences.
        protocol (`str`): whose rules made the figures.
    """

    trackers: list[TrackerResult]
    num_sequences: int
    protocol: Protocol

    def to_dict(self) -> dict[str, Any]:
        """Figures without the predicted boxes, ready for JSON."""
        return {
            "sequences": self.num_sequences,
            "protocol": self.protocol,
            "trackers": [
                {
                    "name": tracker.name,
                    **tracker.score,
                    "fps": tracker.fps,
                    "parameters": tracker.parameters,
                    "per_sequence": tracker.per_sequence,
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
        if not sequence.annotated:
            raise ValueError(
                f"Sequence {sequence.name} has ground truth in frame 0 only: a server holds the rest, so there is nothing to "
                "score here. Evaluate another split."
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
        if not np.isfinite(track.box).all():
            raise ValueError(
                f"Sequence {sequence.name}: the tracker predicted {np.asarray(track.box).tolist()} in frame {index}, expected "
                "four finite numbers. Look for NaN in its weights or in what it computed."
            )
        boxes.append(track.box)
    return np.stack(boxes), seconds


def _score(predictions: dict[str, np.ndarray], sequences: list[Sequence], protocol: Protocol) -> dict[str, Any]:
    visible = [sequence.visible for sequence in sequences]
    return score_sequences(
        [predictions[sequence.name] for sequence in sequences],
        [sequence.boxes for sequence in sequences],
        protocol=protocol,
        visible=visible,
        cover=[sequence.visible if sequence.cover is None else sequence.cover for sequence in sequences],
        image_sizes=[sequence.size for sequence in sequences] if protocol == "got10k" else None,
    )


def evaluate_trackers(
    trackers: Mapping[str, PreTrainedTracker],
    sequences: Iterable[Sequence],
    *,
    protocol: Protocol = "visible",
    progress: bool = True,
) -> EvaluationResult:
    """
    Run trackers once through each sequence and score them by the rules of a benchmark, see [`score_sequences`].

    A tracker starts with the ground truth of the first frame and sees no other. The trackers take turns in each sequence,
    so that a machine which slows down or speeds up meanwhile does it to all of them. The speed is 1 / median of the
    seconds of `session.update` (crop, forward pass and box) over all frames of all sequences; a frame is read and decoded
    before the clock starts, and the start on the first frame is not timed.

    Args:
        trackers (`Mapping[str, PreTrainedTracker]`): trackers in evaluation mode by name, each on its own device.
        sequences (iterable of [`~data.sequences.Sequence`]): annotated sequences with distinct names, visible in frame 0.
        protocol (`str`, *optional*, defaults to `"visible"`): whose rules. The default suits folders and procedural
            sequences: OSTrack's figures, on the frames that show the target. `"got10k"` takes the visible frames for those
            with a cover above 0 where sequences have no `cover`.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

    Returns:
        [`EvaluationResult`]: scores, speeds and predicted boxes.

    Raises:
        ValueError: there is no tracker or no sequence; another protocol; two sequences share a name; a sequence has one
            frame only, does not show its target in frame 0, or has a frame of another size than its first; a tracker
            predicts NaN.
    """
    sequences = list(sequences)
    if not trackers:
        raise ValueError("`trackers` is empty, expected at least one tracker by name.")
    check_protocol(protocol)
    _check_sequences(sequences)
    predictions: dict[str, dict[str, np.ndarray]] = {name: {} for name in trackers}
    seconds: dict[str, list[float]] = {name: [] for name in trackers}
    with tqdm(total=len(sequences) * len(trackers), disable=not progress, unit="run") as bar:
        for sequence in sequences:
            for name, model in trackers.items():
                bar.set_description(f"{name} on {sequence.name}")
                predictions[name][sequence.name], taken = _track(model, sequence)
                seconds[name] += taken
                bar.update()
    results = []
    for name, model in trackers.items():
        score = _score(predictions[name], sequences, protocol)
        per_sequence = score.pop("per_sequence")
        results.append(
            TrackerResult(
                name=name,
                score=score,
                fps=1 / float(np.median(seconds[name])),
                parameters=count_parameters(model),
                per_sequence=dict(zip(predictions[name], per_sequence, strict=True)),
                predictions=predictions[name],
            )
        )
    return EvaluationResult(trackers=results, num_sequences=len(sequences), protocol=protocol)


__all__ = ["EvaluationResult", "TrackerResult", "evaluate_trackers"]
