"""One-pass evaluation: each tracker starts on the first frame of a sequence and goes through it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..models.cost import count_parameters
from .hardware import describe_device
from .lock_step import run_trackers
from .protocols import Protocol, check_protocol, score_sequences
from .results import Speed


if TYPE_CHECKING:
    from ..data.sequences import Sequence
    from ..models.tracker import PreTrainedTracker


_CLOCK = (
    "crop, forward pass and box of a step, shared out over its sequences; frames decoded before; median of all frames"
)


@dataclass(frozen=True)
class TrackerResult:
    """
    How one tracker did.

    Args:
        name (`str`): name it was evaluated under.
        score (`dict[str, float]`): the protocol's figures over all sequences, in per cent, see [`score_sequences`].
        speed ([`Speed`], *optional*): how fast it was, see [`evaluate_trackers`]; `None` where boxes come from several runs
            under different conditions.
        parameters (`int`): number of parameters.
        per_sequence (`dict[str, dict[str, float]]`): the same by sequence.
        predictions (`dict[str, np.ndarray]`): by sequence, `x, y, w, h` in pixels of shape `(num_frames, 4)`; the first
            row is the box the tracker was started with.
    """

    name: str
    score: dict[str, float]
    speed: Speed | None
    parameters: int
    per_sequence: dict[str, dict[str, float]]
    predictions: dict[str, np.ndarray] = field(repr=False)

    @property
    def fps(self) -> float | None:
        """Frames per second, where the speed is known."""
        return self.speed.fps if self.speed else None


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
        """Figures without the predicted boxes, in plain types; NaN where there is none."""
        return {
            "sequences": self.num_sequences,
            "protocol": self.protocol,
            "trackers": [
                {
                    "name": tracker.name,
                    **tracker.score,
                    "fps": tracker.fps,
                    "conditions": tracker.speed.conditions if tracker.speed else None,
                    "parameters": tracker.parameters,
                    "per_sequence": tracker.per_sequence,
                }
                for tracker in self.trackers
            ],
        }


def check_evaluation(trackers: Mapping[str, PreTrainedTracker], sequences: list[Sequence], protocol: str) -> None:
    """Refuse what cannot be evaluated, before anything is tracked."""
    if not trackers:
        raise ValueError("`trackers` is empty, expected at least one tracker by name.")
    check_sequences(sequences, protocol)


def check_sequences(sequences: list[Sequence], protocol: str) -> None:
    """Refuse what no tracker can be evaluated on, before anything is tracked, or trained to be."""
    check_protocol(protocol)
    if not sequences:
        raise ValueError("`sequences` is empty, expected at least one. Check the folder or the split they come from.")
    check_names("sequences", sequences)
    for sequence in sequences:
        if len(sequence) < 2:
            raise ValueError(
                f"Sequence {sequence.name} has {len(sequence)} frame(s), but tracking needs at least 2. Leave it out."
            )
        box, visible = sequence.annotation(0)
        if not visible or not np.isfinite(box).all():
            raise ValueError(
                f"Sequence {sequence.name} does not show its target in frame 0, where a tracker has to start. Cut the "
                "frames before the first visible one."
            )
        if protocol in ("otb", "lasot") and sequence.annotated and np.isnan(sequence.boxes).any():
            frame = int(np.argmax(np.isnan(sequence.boxes).any(axis=1)))
            raise ValueError(
                f"Sequence {sequence.name} has no box in frame {frame}, but protocol `{protocol}` takes no NaN. Give "
                "`protocol='visible'`, or `'uav'` for the rules of UAV123."
            )


def check_names(argument: str, sequences: list[Sequence]) -> None:
    """Refuse sequences that share a name: what becomes of each is kept by it. Errors call them `argument`."""
    twice = sorted(name for name, count in Counter(sequence.name for sequence in sequences).items() if count > 1)
    if twice:
        raise ValueError(
            f"`{argument}` must have distinct names, got several called {', '.join(twice)}. Rename all but one of each."
        )


def check_annotated(sequences: list[Sequence]) -> None:
    """Refuse what can be tracked but not scored."""
    for sequence in sequences:
        if not sequence.annotated:
            raise ValueError(
                f"Sequence {sequence.name} has ground truth in frame 0 only: a server holds the rest, so there is nothing to "
                "score here. Evaluate another split, or write results for the server by `DatasetEvaluation` (`ct-hf evaluate --out`)."
            )


def protocol_arguments(sequences: list[Sequence], protocol: Protocol) -> dict[str, Any]:
    """What [`score_sequences`] has to know of some sequences, beside the predictions."""
    visible = [sequence.visible for sequence in sequences]
    return {
        "ground_truths": [sequence.boxes for sequence in sequences],
        "protocol": protocol,
        "visible": visible,
        "cover": [sequence.visible if sequence.cover is None else sequence.cover for sequence in sequences],
        "image_sizes": [sequence.size for sequence in sequences] if protocol == "got10k" else None,
    }


def speed_conditions(model: PreTrainedTracker, batch_size: int, num_processes: int = 1) -> dict[str, Any]:
    """Fields of [`Speed`] but the speed itself, for a tracker that is about to run here."""
    return {
        "device": describe_device(device_of(model), num_processes),
        "dtype": str(getattr(model, "dtype", torch.float32)).removeprefix("torch."),
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "warm_up": 0,
        "clock": _CLOCK,
    }


def device_of(model: PreTrainedTracker) -> torch.device:
    """Where a tracker's weights are; the processor for what has none, such as a baseline."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def judge(
    trackers: Mapping[str, PreTrainedTracker],
    sequences: list[Sequence],
    predictions: Mapping[str, Mapping[str, np.ndarray]],
    seconds: Mapping[str, Mapping[str, np.ndarray]],
    conditions: Mapping[str, dict[str, Any] | None],
    protocol: Protocol,
) -> EvaluationResult:
    """
    Score what trackers predicted.

    Args:
        trackers (`Mapping[str, PreTrainedTracker]`): trackers by name.
        sequences (`list[Sequence]`): what they tracked.
        predictions (`Mapping[str, Mapping[str, np.ndarray]]`): by tracker and sequence, boxes as a [`~lock_step.Run`] has them.
        seconds (`Mapping[str, Mapping[str, np.ndarray]]`): the same for the seconds; not looked at without conditions.
        conditions (`Mapping[str, dict]`): by tracker, what [`speed_conditions`] gave; `None` if they were not the same
            throughout.
        protocol (`str`): whose rules, see [`score_sequences`].

    Returns:
        [`EvaluationResult`]: in the order of the trackers and of the sequences.
    """
    names = [sequence.name for sequence in sequences]
    arguments = protocol_arguments(sequences, protocol)
    results = []
    for tracker, model in trackers.items():
        score = score_sequences([predictions[tracker][name] for name in names], **arguments)
        per_sequence = score.pop("per_sequence")
        speed = None
        if conditions[tracker]:
            # The start is another thing than a step, and the first frame's.
            steps = np.concatenate([seconds[tracker][name][1:] for name in names])
            speed = Speed(1 / float(np.median(steps)), **conditions[tracker])
        results.append(
            TrackerResult(
                name=tracker,
                score=score,
                speed=speed,
                parameters=count_parameters(model),
                per_sequence=dict(zip(names, per_sequence, strict=True)),
                predictions={name: predictions[tracker][name] for name in names},
            )
        )
    return EvaluationResult(trackers=results, num_sequences=len(sequences), protocol=protocol)


def evaluate_trackers(
    trackers: Mapping[str, PreTrainedTracker],
    sequences: Iterable[Sequence],
    *,
    protocol: Protocol = "visible",
    batch_size: int = 1,
    progress: bool = True,
) -> EvaluationResult:
    """
    Run trackers once through each sequence and score them by the rules of a benchmark, see [`score_sequences`].

    A tracker starts with the ground truth of the first frame and sees no other. The trackers take turns batch by batch, so
    that a machine which slows down or speeds up meanwhile does it to all of them. The speed is 1 / median of the seconds of
    a step (crop, forward pass and box) a sequence in it, over all frames of all sequences; a frame is read and decoded
    before the clock starts, and the start on the first frame does not count. With `batch_size=1` it is what a camera would
    get, with more it is throughput.

    Args:
        trackers (`Mapping[str, PreTrainedTracker]`): trackers in evaluation mode by name, each on its own device.
        sequences (iterable of [`~data.sequences.Sequence`]): annotated sequences with distinct names, visible in frame 0.
        protocol (`str`, *optional*, defaults to `"visible"`): whose rules. The default suits folders and procedural
            sequences: OSTrack's figures, on the frames that show the target. `"got10k"` takes the visible frames for those
            with a cover above 0 where sequences have no `cover`.
        batch_size (`int`, *optional*, defaults to 1): sequences that are tracked in lock-step, with one forward pass a step
            for all of them. Boxes are the same but for rounding.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

    Returns:
        [`EvaluationResult`]: scores, speeds and predicted boxes.

    Raises:
        ValueError: there is no tracker or no sequence; another protocol; `batch_size` is below 1; two sequences share a name; a sequence has one
            frame only, does not show its target in frame 0, or has a frame of another size than its first; a tracker
            predicts NaN.
    """
    sequences = list(sequences)
    check_evaluation(trackers, sequences, protocol)
    check_annotated(sequences)
    predictions: dict[str, dict[str, np.ndarray]] = {name: {} for name in trackers}
    seconds: dict[str, dict[str, np.ndarray]] = {name: {} for name in trackers}
    at_once = min(batch_size, len(sequences))
    conditions = {name: speed_conditions(model, at_once) for name, model in trackers.items()}
    for run in run_trackers(trackers, dict.fromkeys(trackers, sequences), batch_size=batch_size, progress=progress):
        predictions[run.tracker][run.sequence] = run.boxes
        seconds[run.tracker][run.sequence] = run.seconds
    return judge(trackers, sequences, predictions, seconds, conditions, protocol)


__all__ = ["EvaluationResult", "TrackerResult", "evaluate_trackers"]
