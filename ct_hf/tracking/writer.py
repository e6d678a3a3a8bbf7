"""Video files from frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .video import DEFAULT_RATE, VideoError, require_av


if TYPE_CHECKING:
    from av.video.stream import VideoStream


CODECS: dict[str, dict[str, str]] = {"libx264": {"preset": "veryfast", "crf": "20"}, "mpeg4": {}}
"""Encoders in the order in which they are tried, with their options."""

_FRAGMENT_SECONDS = 2
_SLOWEST = Fraction(1, 1001)  # frames a second


class VideoWriter:
    """
    Writes an mp4 file, H.264 where PyAV can encode it, else MPEG-4. A writer that is closed, also by an exception on the way
    out of its `with`, leaves a file that plays everywhere; of one whose process is killed, all but the last seconds play.

    Args:
        path (`str` or `Path`): file to write; it is made with the first frame, and its folder at once.
        rate (`Fraction` or `float`, *optional*, defaults to 30): frames a second.

    Raises:
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: str | Path, rate: Fraction | float = DEFAULT_RATE):
        self._av = require_av()
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rate = max(Fraction(rate).limit_denominator(1001), _SLOWEST)
        self._container: Any = None
        self._stream: VideoStream | None = None
        self._shape: tuple[int, ...] = ()
        self._place = -1

    def write(self, frame: np.ndarray, seconds: float | None = None) -> None:
        """
        Add a frame.

        Args:
            frame (`np.ndarray` of shape `(height, width, 3)`): uint8 RGB. Odd sides are lengthened by a pixel at the right
                or bottom, since the encoders take even ones only.
            seconds (`float`, *optional*): when it is to be seen, from the start of the video, kept to one over the rate; by
                default one over the rate after the frame before. No frame comes before or with another.

        Raises:
            VideoError: it is not of the first frame's size, or it cannot be encoded or written.
        """
        if self._stream is None:
            self._open(frame)
        if frame.shape != self._shape:
            raise VideoError(f"`frame` has shape {frame.shape}, expected that of the first frame: {self._shape}.")
        height, width = frame.shape[:2]
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        place = self._place + 1
        self._place = place if seconds is None else max(place, round(seconds * self.rate))
        picture.pts, picture.time_base = self._place, 1 / self.rate
        with self._writing():
            self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Finish the file."""
        if self._container is None:
            return
        container, self._container = self._container, None
        with self._writing():
            try:
                container.mux(self._stream.encode(None))
            finally:
                container.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            size = f"{self._shape[1]}x{self._shape[0]}" if self._shape else "its"
            raise VideoError(
                f"{self.path} cannot be written with frames of {size} pixels ({error.strerror}). Look at the disk and the name; "
                "encoders take no frames of more than 16384 pixels a side."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, frame: np.ndarray) -> None:
        codec = next(codec for codec in CODECS if codec in self._av.codecs_available)
        # Written in fragments, which a killed process leaves whole, and made a plain file when it is closed.
        flags = {"movflags": "+hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
        # Frames that come slowly do not wait for the next key frame.
        flags["frag_duration"] = str(_FRAGMENT_SECONDS * 10**6)
        self._shape = frame.shape
        height, width = frame.shape[:2]
        with self._writing():
            # Absolute: a colon in a name of its own would make it a URL.
            self._container = self._av.open(os.path.abspath(self.path), "w", format="mp4", container_options=flags)
        stream = self._container.add_stream(codec, rate=self.rate, options=CODECS[codec])
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.gop_size = max(1, round(_FRAGMENT_SECONDS * self.rate))
        if codec == "mpeg4":
            stream.bit_rate = int(width * height * self.rate / 5)
        self._stream = stream


__all__ = ["CODECS", "VideoWriter"]
