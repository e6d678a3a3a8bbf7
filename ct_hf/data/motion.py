"""How things and cameras of rendered sequences move: smooth, random, and known at any time without the times before."""

import math

import numpy as np
from PIL import Image


class Wobble:
    """Smooth random motion of several values around 0: sums of three sines.

    Args:
        rng: Source of all randomness.
        amplitudes: Largest value that each of them can take.
        slowest: Longest period, in frames. Default: 200.
        fastest: Shortest period, in frames. Default: 25.
        fastest_rate: Largest change of any value from one frame to the next; periods are stretched to keep to it.
            Default: any.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        amplitudes: list[float],
        slowest: float = 200,
        fastest: float = 25,
        fastest_rate: float = np.inf,
    ):
        shape = (3, len(amplitudes))
        self.speed = 2 * np.pi / np.exp(rng.uniform(np.log(fastest), np.log(slowest), shape))
        self.phase = rng.uniform(0, 2 * np.pi, shape)
        self.weight = rng.uniform(0.2, 1, shape)
        self.weight *= np.asarray(amplitudes) / self.weight.sum(axis=0)
        self.speed *= np.minimum(1, fastest_rate / np.maximum((self.weight * self.speed).sum(axis=0), 1e-9))

    def __call__(self, time: float) -> list[float]:
        """The values at a time, in frames."""
        return (self.weight * np.sin(self.speed * time + self.phase)).sum(axis=0).tolist()


class Camera:
    """Moving view of a canvas that is larger than the frame, which it never leaves.

    It pans; a third of all cameras also zooms, and a third turns and tilts (perspective) too.

    Args:
        rng: Source of all randomness.
        canvas: Width and height of what is looked at, in pixels.
        frame: Width and height of the view, in pixels, at most those of the canvas.
    """

    def __init__(self, rng: np.random.Generator, canvas: tuple[int, int], frame: tuple[int, int]):
        self.canvas, self.frame = np.array(canvas), np.array(frame)
        self.kind = rng.choice(["pan", "zoom", "tilt"])
        spare = (self.canvas - self.frame) / 2
        # Pan in x and y, log zoom, rotation, perspective in x and y. A fifth of all cameras stands almost still.
        pan = spare * (0.05 if rng.random() < 0.2 else rng.uniform(0.3, 1))
        self._pose = Wobble(
            rng,
            [*pan, rng.uniform(0.05, 0.25), rng.uniform(0.02, 0.2), 0.25 / frame[0], 0.25 / frame[1]],
            fastest=rng.uniform(20, 60),
            fastest_rate=0.05 * max(frame),
        )
        self._matrices: dict[float, np.ndarray] = {}
        self._inverses: dict[float, list[list[float]]] = {}

    def matrix(self, time: float) -> np.ndarray:
        """Homography `(3, 3)` from points of the frame to points of the canvas; everything that stands there asks for it."""
        if time not in self._matrices:
            self._matrices[time] = self._matrix(time)
        return self._matrices[time]

    def _matrix(self, time: float) -> np.ndarray:
        x, y, log_zoom, angle, tilt_x, tilt_y = self._pose(time)
        if self.kind == "pan":
            log_zoom = angle = tilt_x = tilt_y = 0.0
        elif self.kind == "zoom":
            angle = tilt_x = tilt_y = 0.0
        cos, sin = np.exp(log_zoom) * np.cos(angle), np.exp(log_zoom) * np.sin(angle)
        width, height = self.frame
        centered = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
        view = np.array([[cos, -sin, 0], [sin, cos, 0], [tilt_x, tilt_y, 1]]) @ centered
        corners = view @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
        corners = corners[:2] / corners[2]
        low, high = corners.min(axis=1), corners.max(axis=1)
        shrink = min(1.0, *(self.canvas / (high - low)))
        # Nothing lies beyond the canvas, so the view is pushed back where it would reach over the edge.
        shift = np.clip(self.canvas / 2 + (x, y), -low * shrink, self.canvas - high * shrink)
        view = np.array([[shrink, 0, shift[0]], [0, shrink, shift[1]], [0, 0, 1]]) @ view
        return view / view[2, 2]

    def view(self, canvas: Image.Image, time: float) -> Image.Image:
        """What the camera sees at a time."""
        size, matrix = tuple(self.frame.tolist()), self.matrix(time)
        (a, _, x), (_, _, y), _ = matrix
        if self.kind == "pan":
            return canvas.crop((round(x), round(y), round(x) + size[0], round(y) + size[1]))
        if self.kind == "zoom":
            return canvas.resize(size, Image.Resampling.BILINEAR, box=self._inside(x, y, a))
        return canvas.transform(
            size, Image.Transform.PERSPECTIVE, matrix.ravel()[:8].tolist(), Image.Resampling.BILINEAR
        )

    def _inside(self, x: float, y: float, zoom: float) -> tuple[float, ...]:
        low = np.maximum((x, y), 0)
        return (*low.tolist(), *np.minimum(low + zoom * self.frame, self.canvas).tolist())

    def project(self, point: np.ndarray, time: float) -> tuple[np.ndarray, float, float]:
        """Where a point of the canvas is in the frame.

        Args:
            point: `(2,)` in pixels of the canvas.
            time: In frames.

        Returns:
            Its place `(2,)` in pixels of the frame, and how much the canvas there is enlarged and turned (radians).
        """
        if time not in self._inverses:
            self._inverses[time] = np.linalg.inv(self.matrix(time)).tolist()
        (a, b, c), (d, e, f), (g, h, i) = self._inverses[time]
        x, y = point.tolist()
        # In plain numbers: arrays of two cost ten times as much, and every thing of every frame comes by here.
        left, top, depth = a * x + b * y + c, d * x + e * y + f, g * x + h * y + i
        place = left / depth, top / depth
        step = (left + a) / (depth + g) - place[0], (top + d) / (depth + g) - place[1]
        return np.array(place), math.hypot(*step), math.atan2(step[1], step[0])
