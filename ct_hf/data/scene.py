"""What is in a rendered sequence: a background under a camera, a target, its like and unlike neighbours, what covers it."""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from .motion import Camera, Wobble
from .patches import Patch
from .shapes import SIDE
from .sprites import Look, Sprite
from .textures import TextureSource


class Scene:
    """Everything of a sequence that does not change in time, and how one frame is put together.

    Args:
        rng: Source of all randomness; it is used up here, frames need none.
        size: Width and height of a frame in pixels.
        textures: What paints targets and backgrounds.
        patches: Probability that the target is a part of the background.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], textures: TextureSource, patches: float):
        self.size = size
        margin = rng.uniform(0.1, 0.35)
        canvas = tuple(int(side * (1 + 2 * margin)) for side in size)
        self.background = textures.texture(rng, canvas)
        self.camera = Camera(rng, canvas, size)
        self.shutter = rng.uniform(0.2, 0.9) if rng.random() < 0.4 else 0.0

        self.extent = min(size) * float(np.exp(rng.uniform(np.log(0.2), np.log(0.5))))
        look = Look.draw(rng, textures)
        if rng.random() < 0.1:  # hard to tell from what is around it
            look.picture = _part(rng, self.background)
        home = (0.5 + rng.uniform(-0.15, 0.15, 2)) * size
        # One target in ten stands, so that only the camera moves; one in ten goes far enough to leave and return.
        roam = rng.choice([0.02, rng.uniform(0.2, 0.4), 0.7], p=[0.1, 0.8, 0.1])
        if rng.random() < patches:
            self.target = Patch(rng, self.background, self.camera, self.extent, size)
        else:
            self.target = self._sprite(rng, look, self.extent, home, roam)
        # Most have company near them, or the one thing in view would be found without knowing what is looked for.
        count = rng.choice(6, p=[0.05, 0.15, 0.25, 0.25, 0.2, 0.1])
        neighbours = [self._neighbour(rng, textures, look) for _ in range(count)]
        ahead = rng.random(count) < 0.3
        self.behind = [neighbour for neighbour, before in zip(neighbours, ahead, strict=True) if not before]
        if rng.random() < 0.25:
            self.behind.append(self._carrier(rng, textures))
        self.ahead = [neighbour for neighbour, before in zip(neighbours, ahead, strict=True) if before]
        self.ahead += [self._occluder(rng, textures) for _ in range(rng.choice(3, p=[0.55, 0.3, 0.15]))]

        # Brightness and contrast over time; colour of the light, noise of the sensor and sharpness of the lens.
        self.light = Wobble(rng, [rng.uniform(0, 0.3), rng.uniform(0, 20)])
        self.tint = rng.uniform(0.85, 1.15, 3) if rng.random() < 0.4 else np.ones(3)
        self.noise = _noise(rng, size, rng.uniform(2, 10)) if rng.random() < 0.35 else None
        self.softness = rng.uniform(0.4, 1.2) if rng.random() < 0.25 else 0.0
        self.quality = int(rng.uniform(45, 96))

    def render(self, time: int) -> Image.Image:
        """One frame."""
        frame = self.camera.view(self.background, time)
        if self.shutter:
            frame = self._blur_background(frame, time)
        for sprite in (*self.behind, self.target, *self.ahead):
            sprite.render(frame, time)
        if self.softness:
            frame = frame.filter(ImageFilter.BoxBlur(self.softness))
        gain, bias = self.light(time)
        frame = frame.point(_gains(np.exp(gain) * self.tint, bias))
        if self.noise is not None:
            # The same tile from another place in each frame.
            left, top = 37 * time % 64, 23 * time % 64
            tile = self.noise.crop((left, top, left + self.size[0], top + self.size[1]))
            frame = ImageChops.add(frame, tile, scale=1, offset=-128)
        return frame

    def target_mask(self, time: int) -> tuple[Image.Image, Image.Image, int]:
        """What of the target lies in the frame, and what of that can be seen.

        Args:
            time: Number of the frame.

        Returns:
            Two masks of mode `L` and the frame's size, 255 where the target is; and the whole target's area in pixels.
        """
        solid, corner = self.target.mask(time)
        inside = Image.new("L", self.size)
        inside.paste(solid, corner)
        seen = inside.copy()
        for sprite in self.ahead:
            if sprite.in_view(self.size, time):
                cover, corner = sprite.mask(time)
                seen.paste(0, corner, cover)
        return inside, seen, solid.histogram()[255]

    def _sprite(self, rng: np.random.Generator, look: Look, extent: float, home: np.ndarray, roam: float) -> Sprite:
        # Half of all things belong to the place and move with it when the camera does.
        camera = self.camera if rng.random() < 0.5 else None
        return Sprite(rng, look, extent, home, self.size, camera, roam, self.shutter)

    def _neighbour(self, rng: np.random.Generator, textures: TextureSource, look: Look) -> Sprite:
        """A thing like the target or not; three in five keep it company."""
        look = look.variant(rng, textures) if rng.random() < 0.5 else Look.draw(rng, textures)
        extent = self.extent * np.exp(rng.normal(0, 0.3))
        if rng.random() < 0.4:
            place = (0.5 + rng.uniform(-0.5, 0.5, 2)) * self.size
            return self._sprite(rng, look, extent, place, rng.uniform(0.05, 0.3))
        angle = rng.uniform(0, 2 * np.pi)
        aside = rng.uniform(0.7, 1.5) * self.extent * np.array([np.cos(angle), np.sin(angle)])
        home, camera = self.target.home + aside, self.target.camera
        companion = Sprite(rng, look, extent, home, self.size, camera, rng.uniform(0, 0.1), self.shutter)
        own = companion.place
        companion.place = lambda time: np.add(own(time), self.target.place(time))
        return companion

    def _carrier(self, rng: np.random.Generator, textures: TextureSource) -> Sprite:
        """A larger thing that the target is a part of, as a face is of a person."""
        extent = self.extent * rng.uniform(1.3, 2.5)
        place = self.target.home + rng.uniform(-0.5, 0.5, 2) * extent
        look = Look.draw(rng, textures)
        carrier = Sprite(rng, look, extent, place, self.size, self.target.camera, 0.0, self.shutter)
        carrier.place = self.target.place
        return carrier

    def _occluder(self, rng: np.random.Generator, textures: TextureSource) -> Sprite:
        look = Look.draw(rng, textures)
        place = self.target.home + rng.choice([-1, 1], 2) * rng.uniform(0.6, 2, 2) * self.extent
        occluder = self._sprite(rng, look, self.extent * rng.uniform(0.5, 1.1), place, rng.uniform(0.02, 0.15))
        if rng.random() < 0.4:  # a post or a beam
            occluder.aspect = rng.choice([-1, 1]) * rng.uniform(1.2, 2.2)
            occluder.angle = 0.0
        return occluder

    def _blur_background(self, frame: Image.Image, time: int) -> Image.Image:
        middle = np.array(self.background.size) / 2
        step = self.camera.project(middle, time + 0.5)[0] - self.camera.project(middle, time - 0.5)[0]
        radius = tuple((0.5 * self.shutter * np.abs(step)).tolist())
        return frame.filter(ImageFilter.BoxBlur(radius)) if max(radius) > 0.5 else frame


def _part(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """A square part of an image, of the size of a thing's picture."""
    side = rng.uniform(0.2, 0.5) * min(image.size)
    left, top = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _noise(rng: np.random.Generator, size: tuple[int, int], strength: float) -> Image.Image:
    """Tile of noise around 128, 64 pixels larger than a frame."""
    shape = (size[1] + 64, size[0] + 64, 3)
    spread = int(strength)
    return Image.fromarray(rng.integers(128 - spread, 129 + spread, shape, dtype=np.uint8))


def _gains(gains: np.ndarray, bias: float) -> list[int]:
    """Tables of the channels, one after the other."""
    return np.clip(np.arange(256) * gains[:, None] + bias, 0, 255).astype(int).ravel().tolist()
