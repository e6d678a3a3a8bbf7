"""Frames of video files, folders of images and cameras, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from transformers.utils import logging

from ..models.image_processing_tracker import Frame, as_frame, frame_size


if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream


logger = logging.get_logger(__name__)

DEFAULT_RATE = Fraction(30)  # frames a second where a source does not say


class VideoError(ValueError):
    """A video, or a frame of it, that cannot be used. The frames before it were good."""


def require_av() -> ModuleType:
    """
    PyAV, loaded when video is first read or written.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "PyAV reads and writes video but is not installed. Install it with: pip install ct_hf[video]"
        ) from error
    return av


@dataclass(frozen=True)
class Video:
    """
    Frames in their order, read while they are iterated over, so that an hour of video takes no more memory than a second.

    Args:
        name (`str`): what messages call it.
        rate (`Fraction`): frames a second; 30 where the source does not say. Videos of variable rate have their mean.
        num_frames (`int`, *optional*): how many frames the source claims to hold; `None` if it does not say.
        read (`Callable`): opens the source and gives its frames.
        live (`bool`, *optional*, defaults to `False`): whether frames come as they happen, by no rate that is known.
    """

    name: str
    rate: Fraction
    num_frames: int | None
    read: Callable[[], Iterator[np.ndarray]]
    live: bool = False

    def __iter__(self) -> Iterator[np.ndarray]:
        """
        Frames `(height, width, 3)`, uint8 RGB, turned as players show them.

        Raises:
            VideoError: a frame cannot be decoded, or is not of the first frame's size. The message names it.
        """
        return of_one_size(self.read(), self.name)


def open_video(source: str | Path | int) -> Video:
    """
    Open a video.

    A damaged video gives the frames before the damage. If data cannot be decoded, a [`VideoError`] names the first frame
    that is missing: to go on behind it would shift the numbers of all frames. What a decoder or container makes good by itself
    is taken as it comes, with a warning that names the frame: a damaged picture, a gap in time, an end before the one that
    the header tells.

    Args:
        source (`str`, `Path` or `int`):
            Video file or URL that FFmpeg reads; folder of `.jpg`, `.jpeg` or `.png` images, in the order of their names,
            numbers by value; or camera, `0` or `/dev/video0` (Linux).

    Returns:
        [`Video`].

    Raises:
        FileNotFoundError: there is no such file, folder or camera.
        VideoError: the file holds no video that can be read.
        ImportError: PyAV is not installed.
    """
    text = str(source)
    if text.isdigit() and not Path(text).exists():
        text = f"/dev/video{text}"
    path = Path(text)
    if path.is_dir():
        return _open_folder(path)
    if "://" not in text and not path.exists():
        raise FileNotFoundError(
            f"`source` {source} does not exist. Give a video file, a folder of images or a camera (0, /dev/video0)."
        )
    if path.is_char_device():
        return Video(text, DEFAULT_RATE, None, lambda: _decode(text, "v4l2"), live=True)
    if path.is_fifo():
        raise VideoError(
            f"`source` {source} is a pipe, of which the start cannot be read twice. Write it to a file first."
        )
    return _open_file(text)


def of_one_size(frames: Iterable[Frame], name: str) -> Iterator[Frame]:
    """
    Pass on frames as long as they can be used and are of one size.

    Args:
        frames (iterable of frames): see [`~models.image_processing_tracker.as_frame`].
        name (`str`): what the message calls the video.

    Raises:
        VideoError: a frame is none, cannot be read, or is of another size than the first; the message names it.
    """
    size = None
    for number, frame in enumerate(frames):
        try:
            frame = as_frame(frame)
            if isinstance(frame, Image.Image):
                frame.load()  # pixels of an opened file are read late, among frames of other videos
        except (TypeError, ValueError, OSError, SyntaxError) as error:
            raise VideoError(f"{name}, frame {number}: {error}") from error
        size = size or frame_size(frame)
        if frame_size(frame) != size:
            raise VideoError(
                f"{name}, frame {number}: {frame_size(frame)[0]}x{frame_size(frame)[1]} pixels, but the video started with "
                f"{size[0]}x{size[1]}. A target is followed through frames of one size: resize them, or cut the video there."
            )
        yield frame


def _open_folder(path: Path) -> Video:
    from ..data.frames import decode_frame, sorted_frames

    files = sorted_frames(path)

    def read() -> Iterator[np.ndarray]:
        for number, file in enumerate(files):
            try:
                yield np.asarray(decode_frame(file.read_bytes(), str(file)))
            except (OSError, ValueError) as error:
                raise VideoError(f"{path}, frame {number}: {error}") from error

    return Video(str(path), DEFAULT_RATE, len(files), read)


def _open_file(name: str) -> Video:
    av = require_av()
    try:
        with av.open(_for_ffmpeg(name)) as container:
            if not container.streams.video:
                raise VideoError(f"{name} holds no video, expected a file with a video stream.")
            stream = container.streams.video[0]
            rate, number = _rate(stream), stream.frames or None
    except av.FFmpegError as error:
        raise VideoError(
            f"{name} is not a video that can be read ({error.strerror}). Check that it was copied or downloaded whole."
        ) from error
    return Video(name, rate, number, lambda: _decode(name))


def _decode(name: str, container_format: str | None = None) -> Iterator[np.ndarray]:
    av = require_av()
    # A name of its own: at the end of the interpreter, where a generator may still be open, the module is empty.
    number, failure = 0, av.FFmpegError
    try:
        with av.open(_for_ffmpeg(name), format=container_format) as container:
            stream = container.streams.video[0]
            check = _Check(name, container, stream)
            for frame in container.decode(stream):
                check.frame(number, frame)
                yield _upright(frame)
                number += 1
            check.end(number)
    except failure as error:
        raise VideoError(
            f"{name}, frame {number}: cannot be decoded ({error.strerror}). The frames before it are good; repair the file, "
            "or cut it there, to go on."
        ) from error
    if not number:
        raise VideoError(f"{name} holds no frame.")


def _for_ffmpeg(name: str) -> str:
    """A file by its absolute path: FFmpeg takes what stands before a colon in a name for a protocol."""
    return os.path.abspath(name) if Path(name).exists() else name


class _Check:
    """Warns, once each, of frames that are damaged, missing in the middle or missing at the end."""

    def __init__(self, name: str, container: InputContainer, stream: VideoStream):
        self.name = name
        self.step = float(1 / _rate(stream))
        self.expected = stream.frames
        self.duration = container.duration / 1e6 if container.duration else 0.0
        self.start = self.last = None
        self.damaged = self.gap = False

    def frame(self, number: int, frame: VideoFrame) -> None:
        if frame.is_corrupt and not self.damaged:
            logger.warning(f"{self.name}, frame {number} is damaged; its picture, and those after it, may be wrong.")
            self.damaged = True
        if frame.time is None:
            return
        if self.last is not None and frame.time - self.last > 2.5 * self.step and not self.gap:
            logger.warning(
                f"{self.name}, frame {number} comes {frame.time - self.last:.2f} s after the one before: frames are missing "
                "there, or the video's rate varies. Frames are numbered as they are found."
            )
            self.gap = True
        self.start = frame.time if self.start is None else self.start
        self.last = frame.time

    def end(self, number: int) -> None:
        if self.expected and number < self.expected:
            logger.warning(
                f"{self.name} ends after frame {number - 1}, but its header says that it has {self.expected}."
            )
        elif not self.expected and self.last is not None:
            seconds = self.last - self.start + self.step
            # Half a second is left to sound that outlasts the picture.
            if self.duration - seconds > 0.5 + self.step:
                logger.warning(
                    f"{self.name} ends after frame {number - 1}, at {seconds:.2f} s, but its header says that it lasts "
                    f"{self.duration:.2f} s."
                )


def _rate(stream: VideoStream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)


def _upright(frame: VideoFrame) -> np.ndarray:
    """Pixels of a frame, turned and mirrored as its metadata ask for (phones), by quarters of a circle."""
    pixels = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # Where a pixel goes: across by a and c, down by b and d of it; FFmpeg's own angle knows of no mirror.
    a, b, _, c, d = np.frombuffer(matrix, dtype="<i4")[:5].tolist()
    across, down = a, d
    if abs(b) > abs(a):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


__all__ = ["DEFAULT_RATE", "Video", "VideoError", "of_one_size", "open_video", "require_av"]
