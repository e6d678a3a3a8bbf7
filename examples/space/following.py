"""A target followed through a video within the limits of the page, into files, with its scores and the speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from videos import message

from ct_hf.evaluation.one_pass import speed_conditions
from ct_hf.evaluation.results import Speed
from ct_hf.models.session import Track
from ct_hf.tracking import LostWatch, Video, VideoError, open_video, record_tracks
from ct_hf.tracking.record import DrawnVideo


if TYPE_CHECKING:
    from ct_hf.models import PreTrainedTracker


MAX_FRAMES = 600  # 20 s at 30 a second
MAX_SECONDS = 120.0  # of work, for trackers that are too slow for the machine
_CLOCK = "crop, forward pass and box; frames decoded before; median of all frames"
DRAWN_SIDE = 1280  # pixels of the drawn video, which a browser shows smaller still


@dataclass(frozen=True)
class Followed:
    """
    What became of a target.

    Args:
        scores (`list[float]`): by frame; the first is 1, that of the box that was given.
        lost (`list[bool]`): by frame, whether the target counts as lost.
        speed ([`~ct_hf.evaluation.results.Speed`], *optional*): of the tracker alone; `None` of a single frame.
        seconds (`float`): all of it, with reading, drawing and writing.
        video (`Path`): the frames with the box drawn.
        tables (`list[Path]`): boxes as benchmarks write them, and as a table with scores.
        ended (`str`): why it went no further than that, if it was not the end of the video; else empty.
    """

    scores: list[float]
    lost: list[bool]
    speed: Speed | None
    seconds: float
    video: Path
    tables: list[Path]
    ended: str


class _Judgement:
    """Scores, losses and seconds by frame; the clock runs from a frame that is decoded to the track in it."""

    def __init__(self, progress: Callable[[int, int | None], object]):
        self.scores: list[float] = []
        self.lost: list[bool] = []
        self.steps: list[float] = []
        self.started, self.progress, self.total = perf_counter(), progress, None

    def clocked(self, video: Video) -> Video:
        """A video whose frames start the clock as they are handed on."""
        self.total = min(video.num_frames, MAX_FRAMES) if video.num_frames else None

        def read() -> Iterator[np.ndarray]:
            for frame in video.read():
                self.handed = perf_counter()
                yield frame

        return replace(video, read=read)

    def add(self, frame: object, tracks: Sequence[Track], watches: Sequence[LostWatch]) -> None:
        """See [`~ct_hf.tracking.record.Output`]; has to be the first of the outputs."""
        self.steps.append(perf_counter() - self.handed)
        self.scores.append(tracks[0].score)
        self.lost.append(watches[0].lost)
        self.progress(len(self.scores), self.total)

    def close(self) -> None:
        """See [`~ct_hf.tracking.record.Output`]."""

    def limit(self) -> str:
        """The limit of the page that is reached, in words; empty if there is none."""
        if len(self.scores) >= MAX_FRAMES:
            return f"Only the first {MAX_FRAMES} frames are tracked on this page."
        if self.seconds() > MAX_SECONDS:
            return f"Stopped after {MAX_SECONDS:.0f} seconds of work, which is the limit of this page."
        return ""

    def seconds(self) -> float:
        """Since the beginning."""
        return perf_counter() - self.started


class _SmallVideo(DrawnVideo):
    """A drawn video of at most `DRAWN_SIDE` pixels a side; boxes stay those of the frame everywhere else."""

    def add(self, frame: np.ndarray, tracks: Sequence[Track], watches: Sequence[LostWatch]) -> None:
        """See [`~ct_hf.tracking.record.Output`]."""
        scale = DRAWN_SIDE / max(frame.shape[:2])
        if scale < 1:
            size = [round(side * scale) for side in frame.shape[1::-1]]
            frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
            tracks = [replace(track, box=track.box * scale) for track in tracks]
        super().add(frame, tracks, watches)


def follow_target(
    model: PreTrainedTracker,
    path: str | Path,
    box: Sequence[float],
    folder: str | Path,
    progress: Callable[[int, int | None], object] = lambda done, total: None,
) -> Followed:
    """
    Follow a target through the first `MAX_FRAMES` of a video, or as many as the tracker manages in `MAX_SECONDS`.

    Args:
        model ([`~ct_hf.models.PreTrainedTracker`]): tracker in evaluation mode.
        path (`str` or `Path`): video file.
        box (sequence of 4 floats): `x, y, w, h` of the target in pixels of the first frame.
        folder (`str` or `Path`): where the files go.
        progress (`Callable`, *optional*): told after each frame how many are done, and of how many if that is known.

    Returns:
        [`Followed`].

    Raises:
        VideoError: the video cannot be read. One that breaks off later is followed until there.
        ValueError: the box cannot be used, or the tracker predicted no place in the frame.
    """
    folder = Path(folder)
    drawn, tables = folder / "tracked.mp4", [folder / "boxes.txt", folder / "tracks.csv"]
    judgement = _Judgement(progress)
    ended = ""
    try:
        video = judgement.clocked(open_video(path))
        with closing(_SmallVideo(drawn, video.rate)) as small:
            outputs = [judgement, small, *tables]
            done = record_tracks(model, video, [box], outputs, progress=False, stop=lambda: bool(judgement.limit()))
        ended = judgement.limit() if done.stopped else ""
    except VideoError as error:
        ended = message(error, path)
        if len(judgement.scores) < 2:
            raise VideoError(ended) from error
    steps = judgement.steps[1:]  # the start is another thing than a step
    conditions = {**speed_conditions(model, 1), "clock": _CLOCK}
    speed = Speed(1 / float(np.median(steps)), **conditions) if steps else None
    return Followed(judgement.scores, judgement.lost, speed, judgement.seconds(), drawn, tables, ended)


__all__ = ["MAX_FRAMES", "MAX_SECONDS", "Followed", "follow_target"]
