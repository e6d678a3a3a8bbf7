"""Parts of the background as targets: nothing but the template tells where they are."""

import numpy as np
from PIL import Image, ImageDraw

from .motion import Camera


class Patch:
    """
    A rectangle of what the camera looks at, to be followed like a [`~sprites.Sprite`], but with no outline of its own.

    Args:
        rng: Source of all randomness.
        background: What the camera looks at.
        camera: How it looks at it.
        extent: Mean side of the rectangle in the frame at time 0, in pixels.
        frame: Width and height of the frame in pixels.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        background: Image.Image,
        camera: Camera,
        extent: float,
        frame: tuple[int, int],
    ):
        self.camera = camera
        stretch = np.exp(0.5 * rng.normal(0, 0.5))
        half = 0.5 * extent * np.array([stretch, 1 / stretch])
        homes = [half + rng.random(2) * np.maximum(frame - 2 * half, 0) for _ in range(4)]
        # Plain sky looks the same everywhere.
        view = camera.view(background, 0).convert("L")
        self.home = max(
            homes, key=lambda home: np.std(view.crop((*(home - half).astype(int), *(home + half).astype(int))))
        )
        corners = self.home[:, None] + half[:, None] * [[-1, 1, 1, -1], [-1, -1, 1, 1]]
        self.corners = camera.matrix(0) @ np.concatenate([corners, np.ones((1, 4))])

    def place(self, time: float) -> list[float]:
        """How far it has moved by itself: never."""
        return [0.0, 0.0]

    def mask(self, time: float) -> tuple[Image.Image, tuple[int, int]]:
        """Mask around its place: an 8-bit image and the position of its corner in the frame."""
        x, y, z = np.linalg.solve(self.camera.matrix(time), self.corners)
        points = np.stack([x / z, y / z], axis=1)
        corner = np.floor(points.min(axis=0)).astype(int)
        size = np.ceil(points.max(axis=0)).astype(int) - corner
        mask = Image.new("L", tuple(np.maximum(size, 1).tolist()))
        ImageDraw.Draw(mask).polygon([tuple(point) for point in (points - corner).tolist()], fill=255)
        return mask, tuple(corner.tolist())

    def render(self, frame: Image.Image, time: float) -> None:
        """Nothing to do: it is there already."""
