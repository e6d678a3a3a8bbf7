"""A video tracked into files: drawn video, boxes, table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from tqdm.auto import tqdm

from ..models.image_processing_tracker import Frame
from ..models.session import Track
from .batch import track_targets
from .drawing import draw_tracks
from .lost import LOW_SCORE, PATIENCE, LostWatch
from .video import Video
from .writer import VideoWriter


if TYPE_CHECKING:
    from ..models.tracker import PreTrainedTracker


SUFFIXES = (".mp4", ".txt", ".csv")


class Output(Protocol):
    """Something that takes the tracks of one frame after the other."""

    def add(self, frame: Frame, tracks: Sequence[Track], watches: Sequence[LostWatch]) -> None:
        """Take a frame, its tracks and what is known of their loss, one of each a target."""

    def close(self) -> None:
        """Leave a whole file."""


class DrawnVideo:
    """The video with its targets drawn, see [`~drawing.draw_tracks`]; frames of a live one at the times when they came."""

    def __init__(self, path: Path, rate: Fraction, live: bool = False):
        self.writer = VideoWriter(path, rate)
        self.close = self.writer.close
        self.live, self.started = live, None

    def add(self, frame: Frame, tracks: Sequence[Track], watches: Sequence[LostWatch]) -> None:
        """See [`Output`]."""
        low, lost = [watch.low > 0 for watch in watches], [watch.lost for watch in watches]
        now = time.perf_counter()
        self.started = now if self.started is None else self.started
        self.writer.write(draw_tracks(frame, tracks, low=low, lost=lost), now - self.started if self.live else None)


class BoxText:
    """The benchmarks' text: a row a frame, `x,y,w,h` of the first target, then of the second and so on, in pixels."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w", buffering=1, encoding="utf-8")  # whole rows, also of a process that is killed
        self.close = self.file.close

    def add(self, frame: Frame, tracks: Sequence[Track], watches: Sequence[LostWatch]) -> None:
        """See [`Output`]."""
        self.file.write(",".join(f"{value:.2f}" for track in tracks for value in track.box) + "\n")


class TrackTable:
    """A row a frame and target, with a header: frame from 0, target from 1, box in pixels, score, lost as 0 or 1."""

    def __init__(self, file: TextIO):
        self.file, self.number = file, 0
        self.file.write("frame,target,x,y,w,h,score,lost\n")

    def add(self, frame: Frame, tracks: Sequence[Track], watches: Sequence[LostWatch]) -> None:
        """See [`Output`]."""
        for target, (track, watch) in enumerate(zip(tracks, watches, strict=True), start=1):
            box = ",".join(f"{value:.2f}" for value in track.box)
            self.file.write(f"{self.number},{target},{box},{track.score:.4f},{int(watch.lost)}\n")
        self.number += 1

    def close(self) -> None:
        """See [`Output`]."""
        self.file.close()


def check_output(path: str | Path) -> Path:
    """
    Refuse the name of a file whose suffix is none of `SUFFIXES`.

    Raises:
        ValueError: another suffix, or a folder of that name.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`out` {path} must end in {', '.join(SUFFIXES)}: a drawn video, boxes or a table.")
    if path.is_dir():
        raise ValueError(f"`out` {path} is a folder. Give the name of a file.")
    return path


def open_output(path: str | Path, rate: Fraction, live: bool = False) -> Output:
    """
    Open a file for tracks, by its suffix.

    Args:
        path (`str` or `Path`): `.mp4` for the drawn video, `.txt` for boxes as benchmarks write them, `.csv` for a table.
        rate (`Fraction`): frames a second of a video.
        live (`bool`, *optional*, defaults to `False`): whether frames are to be seen at the times when they came.

    Raises:
        ValueError: another suffix.
    """
    path = check_output(path)
    if path.suffix.lower() == ".mp4":
        return DrawnVideo(path, rate, live)
    if path.suffix.lower() == ".txt":
        return BoxText(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return TrackTable(path.open("w", buffering=1, encoding="utf-8"))


@dataclass
class Recording:
    """
    What became of a recording.

    Args:
        num_frames (`int`): frames that were tracked, the first included.
        lost (`list[int]`): for each target, in how many of them it was lost.
        stopped (`bool`): whether it was stopped before the end.
    """

    num_frames: int
    lost: list[int]
    stopped: bool


def record_tracks(
    model: PreTrainedTracker,
    video: Video,
    boxes: Sequence[Sequence[float]],
    outputs: Sequence[str | Path | Output],
    *,
    threshold: float = LOW_SCORE,
    patience: int = PATIENCE,
    progress: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Recording:
    """
    Follow targets through a video and write what is found, frame by frame. However it ends, by the end of the video, by
    `stop` or by an error, the files are whole and hold all frames until then.

    Args:
        model ([`~models.tracker.PreTrainedTracker`]): tracker in evaluation mode.
        video ([`~video.Video`]): what [`~video.open_video`] opened.
        boxes (sequence of 4 floats each): `x, y, w, h` of each target in pixels of the first frame.
        outputs (sequence): files by name, see [`open_output`], or outputs that are open and stay so.
        threshold (`float`, *optional*, defaults to 0.25): scores below it are low, see [`~lost.LostWatch`].
        patience (`int`, *optional*, defaults to 5): low scores in a row with which a target is lost.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.
        stop (`Callable`, *optional*): asked after each frame whether to stop there.

    Returns:
        [`Recording`].

    Raises:
        VideoError: a frame cannot be read or is of another size.
        ValueError: a box or the name of an output cannot be used; the outputs are then not touched.
    """
    for each in outputs:
        if isinstance(each, str | Path) and check_output(each).resolve() == Path(video.name).resolve():
            raise ValueError(f"`out` {each} is the video itself. Give another name, so that it is not written over.")
    watches = [LostWatch(threshold, patience) for _ in boxes]
    lost, number, stopped = [0] * len(boxes), 0, False
    steps = track_targets(model, video, boxes)
    first = next(steps)  # boxes that cannot be used are found before a file of last time is written over
    with ExitStack() as stack:
        sinks = []
        for each in outputs:
            if isinstance(each, str | Path):
                sinks.append(open_output(each, video.rate, video.live))
                stack.callback(sinks[-1].close)
            else:
                sinks.append(each)
        bar = stack.enter_context(tqdm(total=video.num_frames, disable=not progress, unit="frame"))
        step = first
        while step is not None and not stopped:
            frame, tracks = step
            for index, (watch, track) in enumerate(zip(watches, tracks, strict=True)):
                lost[index] += watch.update(track.score)
            for sink in sinks:
                sink.add(frame, tracks, watches)
            number += 1
            bar.update()
            stopped = stop()
            step = None if stopped else next(steps, None)
    return Recording(number, lost, stopped)


__all__ = ["SUFFIXES", "BoxText", "DrawnVideo", "Output", "Recording", "TrackTable", "open_output", "record_tracks"]
