"""Several targets and several videos in lock-step: one forward pass a step for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils import ModelOutput, logging

from ..models.image_processing_tracker import Frame
from ..models.session import PredictionError, Track, TrackingSession, check_prediction
from .video import VideoError, of_one_size


if TYPE_CHECKING:
    from ..models.tracker import PreTrainedTracker


logger = logging.get_logger(__name__)


def _shapes(value: Any) -> Any:
    """Shapes of all tensors of an input; inputs of equal shapes fit into one batch."""
    if isinstance(value, dict | ModelOutput):
        return tuple((name, _shapes(part)) for name, part in value.items())
    return tuple(value.shape) if value is not None else None


def _join(values: Sequence[Any]) -> Any:
    """Batch of inputs that are batches of one."""
    first = values[0]
    if len(values) == 1 or first is None:
        return first
    if isinstance(first, ModelOutput):
        return type(first)(**{name: torch.cat([value[name] for value in values]) for name in first})
    return torch.cat(list(values))


def _row(memory: ModelOutput | None, row: int) -> ModelOutput | None:
    """Memory of one sample."""
    if memory is None:
        return None
    return type(memory)(**{name: tensor[row : row + 1] for name, tensor in memory.items()})


@torch.inference_mode()
def update_together(sessions: Sequence[TrackingSession], frames: Sequence[Frame]) -> list[Track]:
    """
    Find several targets in their next frames, with one forward pass for all sessions whose inputs are of one shape.

    Sessions differ in shape while their trackers look at different numbers of templates. The tracks are those that
    `session.update` would give, but for the rounding of batched matrix products.

    Args:
        sessions (sequence of [`~models.session.TrackingSession`]): sessions of one model, at any frame of any video.
        frames (sequence of frames): the next frame of each.

    Returns:
        `list[Track]`: one a session.

    Raises:
        ValueError: the numbers of sessions and frames differ, a session comes twice, or sessions are of different models.
    """
    if len(sessions) != len(frames):
        raise ValueError(
            f"`sessions` holds {len(sessions)} but `frames` {len(frames)}; give one frame for each session."
        )
    if len(set(map(id, sessions))) < len(sessions) or len({id(session.model) for session in sessions}) > 1:
        raise ValueError("`sessions` must be distinct sessions of one model. Update those of another model apart.")
    groups: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
    for index, (session, frame) in enumerate(zip(sessions, frames, strict=True)):
        inputs = session.inputs(frame)
        groups.setdefault(_shapes(inputs), []).append((index, inputs))
    # All frames are looked at before any session moves on, so that after an error they can be given again.
    found: dict[int, tuple[np.ndarray, ModelOutput | None]] = {}
    model = sessions[0].model if sessions else None
    for members in groups.values():
        batch = {name: _join([inputs[name] for _, inputs in members]) for name in members[0][1]}
        output = model(**batch, return_dict=True)
        boxes, scores = model.locate(output)
        # One transfer for all: each waits for the device.
        answers = torch.cat([boxes.float(), scores.float().unsqueeze(1)], dim=1).cpu().numpy()
        for row, (index, _) in enumerate(members):
            found[index] = answers[row], _row(output.memory, row)
    for index, session in enumerate(sessions):
        check_prediction(session, session.frame_number + 1, found[index][0][:4], float(found[index][0][4]))
    places = (found[index] for index in range(len(sessions)))
    return [
        session.settle(answer[:4], float(answer[4]), memory)
        for session, (answer, memory) in zip(sessions, places, strict=True)
    ]


def track_targets(
    model: PreTrainedTracker, frames: Iterable[Frame], boxes: Iterable[Sequence[float]]
) -> Iterator[tuple[Frame, list[Track]]]:
    """
    Follow several targets through one video.

    Args:
        model ([`~models.tracker.PreTrainedTracker`]): tracker in evaluation mode.
        frames (iterable of frames): a [`Video`], or any frames; read as they are needed.
        boxes (iterable of 4 floats each): `x, y, w, h` of each target in pixels of the first frame.

    Yields:
        `tuple[Frame, list[Track]]`: each frame and one track a target. Those of the first frame are the given boxes with
        score 1.

    Raises:
        VideoError: there is no frame, or one that cannot be read or is of another size; what was yielded before stands.
        ValueError: there is no box, or a box is not finite, has no area or lies outside the frame.
    """
    boxes = list(boxes)
    if not boxes:
        raise ValueError("`boxes` is empty, expected at least one box x, y, w, h.")
    sessions: list[TrackingSession] = []
    for frame in of_one_size(frames, getattr(frames, "name", "`frames`")):
        if sessions:
            yield frame, update_together(sessions, [frame] * len(sessions))
        else:
            # Not by `model.start`, which is the original's where `torch.compile` has wrapped the model.
            sessions = [TrackingSession(model, frame, box) for box in boxes]
            yield frame, [Track(session.box.copy(), 1.0) for session in sessions]
    if not sessions:
        raise VideoError("`frames` holds no frame.")


@dataclass
class _Run:
    """One video on its way."""

    name: str
    frames: Iterator[Frame]
    session: TrackingSession
    tracks: list[Track] = field(default_factory=list)


def _start(model: PreTrainedTracker, number: int, frames: Iterable[Frame], box: Sequence[float]) -> _Run:
    name = getattr(frames, "name", f"video {number}")
    frames = of_one_size(frames, name)
    first = next(frames, None)
    if first is None:
        raise VideoError(f"{name} holds no frame.")
    session = TrackingSession(model, first, box)
    return _Run(name, frames, session, [Track(session.box.copy(), 1.0)])


def _next_frame(run: _Run) -> Frame | None:
    """Next frame, `None` at the end, also at an early one."""
    try:
        return next(run.frames, None)
    except VideoError as error:
        logger.warning(f"{error} Its {len(run.tracks)} frames up to there are kept.")
        return None


def _update(running: dict[int, _Run], frames: dict[int, Frame]) -> dict[int, Track | None]:
    """Tracks by video, `None` where the tracker has diverged; no session moves on before all answers are looked at."""
    left, lost = list(running), {}
    while True:
        try:
            sessions = [running[number].session for number in left]
            tracks = update_together(sessions, [frames[number] for number in left])
            return {**dict(zip(left, tracks, strict=True)), **lost}
        except PredictionError as error:
            number = next(number for number in left if running[number].session is error.session)
            logger.warning(f"{running[number].name}: {error} Its frames up to there are kept.")
            left.remove(number)
            lost[number] = None


def track_videos(
    model: PreTrainedTracker, videos: Iterable[tuple[Iterable[Frame], Sequence[float]]], *, batch_size: int = 8
) -> Iterator[list[Track]]:
    """
    Follow one target through each of several videos, of which `batch_size` are on their way at any time: when one ends, the
    next takes its place.

    A video that breaks off, by a frame that cannot be read or used, is of another size, or in which the tracker predicts NaN,
    keeps its tracks up to there, with a warning that names the frame; the other videos go on. One without a first frame has
    none.

    Args:
        model ([`~models.tracker.PreTrainedTracker`]): tracker in evaluation mode.
        videos (iterable of `tuple`): for each video its frames, which are read as they are needed, and the target's
            `x, y, w, h` in pixels of the first. A target in several videos, or several in one, are so many videos.
        batch_size (`int`, *optional*, defaults to 8): videos at a time.

    Yields:
        `list[Track]`: one a frame, in the order of the videos. The first is the given box with score 1.

    Raises:
        ValueError: `batch_size` is below 1, or a box cannot be used in its video's first frame.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    waiting = enumerate(videos)
    running: dict[int, _Run] = {}
    finished: dict[int, list[Track]] = {}
    due = 0
    while True:
        while due in finished:
            yield finished.pop(due)
            due += 1
        while len(running) < batch_size and (video := next(waiting, None)) is not None:
            number, (frames, box) = video
            try:
                running[number] = _start(model, number, frames, box)
            except VideoError as error:
                logger.warning(f"{error} It has no track.")
                finished[number] = []
        if not running:
            yield from (finished[number] for number in sorted(finished))
            return
        frames = {number: _next_frame(run) for number, run in running.items()}
        for number in [number for number, frame in frames.items() if frame is None]:
            finished[number] = running.pop(number).tracks
        for number, track in _update(running, frames).items():
            if track is None:
                finished[number] = running.pop(number).tracks
            else:
                running[number].tracks.append(track)


__all__ = ["track_targets", "track_videos", "update_together"]
