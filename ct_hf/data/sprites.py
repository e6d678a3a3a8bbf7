"""Things of rendered sequences: a picture with an outline that moves, turns, grows, bends and changes its light."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from .motion import Camera, Wobble
from .shapes import SIDE, limb, mirrored, random_outline, split_field
from .textures import TextureSource


_ROLL = 24  # pixels by which the picture of a rolling thing may shift under its outline


class Look:
    """What a thing is made of, apart from where it is: a picture, and outlines that flow into each other.

    Args:
        picture: RGB image of side [`SIDE`], or larger by what it may roll.
        outlines: Fields of side [`SIDE`], see [`random_outline`]; two of them are blended in time.
        limbs: `(angle, reach, radius, squeeze)` of parts that swing, see [`limb`].
        sharpness: How steep the rim is; higher is crisper.
    """

    def __init__(
        self,
        picture: Image.Image,
        outlines: list[Image.Image],
        limbs: list[tuple[float, float, float, float]],
        sharpness: float,
    ):
        self.picture, self.outlines, self.limbs = picture, outlines, limbs
        rim = np.clip(128 + (np.arange(256) - 128) * sharpness, 0, 255).astype(int)
        # Tables from a field to the mask that is painted with, and to what counts as the thing.
        self.rim, self.solid = rim.tolist(), np.where(rim >= 128, 255, 0).tolist()

    @classmethod
    def draw(cls, rng: np.random.Generator, textures: TextureSource) -> "Look":
        """Draws a new look: a cut-out of the source, or a texture with a random shape."""
        cutout = textures.cutout(rng, SIDE) if rng.random() < 0.5 else None
        if cutout is not None:
            # Alpha is already as steep as it should be; blurred a little, it can be turned without stairs.
            alpha = cutout.getchannel("A").filter(ImageFilter.BoxBlur(1))
            return cls(cutout.convert("RGB"), [alpha], [], float(rng.uniform(1, 3)))
        rolls = rng.random() < 0.25
        side = SIDE + 2 * _ROLL * rolls
        picture = textures.texture(rng, (side, side))
        outlines = [random_outline(rng), random_outline(rng)]
        if not rolls:
            if rng.random() < 0.3:
                picture = Image.composite(picture, textures.texture(rng, (side, side)), split_field(rng))
            if rng.random() < 0.25:
                picture = mirrored(picture)
            if rng.random() < 0.5:
                shade = outlines[0].point(_shading(rng.uniform(0.2, 0.8)))
                picture = ImageChops.multiply(picture, Image.merge("RGB", [shade] * 3))
        limbs = [
            (rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.6), rng.uniform(0.2, 0.38), rng.uniform(0.25, 1))
            for _ in range(rng.choice([0, 1, 2, 4], p=[0.5, 0.15, 0.2, 0.15]))
        ]
        return cls(picture, outlines, limbs, float(np.exp(rng.uniform(np.log(8), np.log(40)))))

    def variant(self, rng: np.random.Generator, textures: TextureSource) -> "Look":
        """Draws something like it: of its colours or of its shape, but not of both."""
        if rng.random() < 0.5:
            other = Look.draw(rng, textures)
            picture = self.picture.transpose(Image.Transpose(int(rng.integers(7))))
            return Look(picture.resize((SIDE, SIDE)), other.outlines, other.limbs, 10.0)
        red, green, blue = (self.picture.getchannel(int(channel)) for channel in rng.permutation(3))
        picture = Image.merge("RGB", [red, green, blue])
        picture = ImageChops.invert(picture) if rng.random() < 0.3 else picture
        look = Look(picture, self.outlines, self.limbs, 10.0)
        look.rim, look.solid = self.rim, self.solid
        return look

    @cached_property
    def bands(self) -> tuple[Image.Image, ...]:
        """The picture's channels, which every frame needs anew."""
        return self.picture.split()

    def field(self, shape: float, swing: float) -> Image.Image:
        """Outline at a time, before its rim is sharpened."""
        outline = self.outlines[0]
        if len(self.outlines) > 1:
            outline = Image.blend(*self.outlines, 0.5 + 0.5 * float(np.clip(shape, -1, 1)))
        if self.limbs:
            outline = outline.copy()
        for number, (angle, reach, radius, squeeze) in enumerate(self.limbs):
            part, corner = limb(angle + (swing if number % 2 else -swing), reach, radius, squeeze)
            place = (*corner, corner[0] + part.width, corner[1] + part.height)
            outline.paste(ImageChops.lighter(outline.crop(place), part), corner)
        return outline


@dataclass
class _Moment:
    """A thing at a time: its pose, the part of the frame that it covers, and how its square is transformed to that."""

    look: Look
    time: float
    pose: list[float]
    size: tuple[int, int]
    corner: tuple[int, int]
    affine: tuple

    @cached_property
    def patch(self) -> Image.Image:
        """Picture and, as a fourth channel, outline."""
        bands = self.look.bands
        if self.look.picture.width > SIDE:
            left, top = (int(_ROLL + shift) for shift in self.pose[8:])
            bands = [band.crop((left, top, left + SIDE, top + SIDE)) for band in bands]
        picture = Image.merge("RGBX", [*bands, self.look.field(self.pose[0], self.pose[6])])
        return picture.transform(self.size, *self.affine)


class Sprite:
    """A thing that moves on its own, or stands on what the camera looks at.

    Args:
        rng: Source of all randomness.
        look: What it is made of.
        extent: Its size, in pixels of the frame.
        home: `(2,)` middle of the places it goes to, in pixels of the frame as it is at time 0.
        frame: Width and height of the frame in pixels.
        camera: Whose motion it follows; `None` for none.
        roam: How far it may go from there, as a share of the frame.
        shutter: Share of the time between two frames in which its motion blurs it. Default: 0.0.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        look: Look,
        extent: float,
        home: np.ndarray,
        frame: tuple[int, int],
        camera: Camera | None,
        roam: float,
        shutter: float = 0.0,
    ):
        self.look, self.extent, self.home, self.camera, self.shutter = look, extent, home, camera, shutter
        self._now: _Moment | None = None  # a frame is often asked for its box first and then for its pixels
        if camera is not None:
            x, y, z = camera.matrix(0) @ (*home, 1)
            self.anchor = np.array([x / z, y / z])
            _, self.first_scale, self.first_angle = camera.project(self.anchor, 0)
        # From nearly still to 0.4 of its size from frame to frame: a search region must be able to follow.
        self.place = Wobble(
            rng,
            [roam * frame[0], roam * frame[1]],
            fastest=rng.uniform(20, 80),
            fastest_rate=0.4 * extent / np.sqrt(2),
        )
        # Of people, cars and most other things one side is two to four times the other.
        self.aspect = rng.normal(0, 0.6)
        self.angle = rng.choice([0, rng.uniform(-0.5, 0.5), rng.uniform(-np.pi, np.pi)], p=[0.5, 0.25, 0.25])
        # Shape, log size, log aspect, angle, two shears, swing of limbs, log brightness, shift of the picture.
        grows, turns = rng.uniform(0.05, 0.5), rng.choice([0.08, rng.uniform(0.1, 0.9)])
        self.pose = Wobble(rng, [1.2, grows, 0.15, turns, 0.12, 0.12, 0.8, 0.15, _ROLL, _ROLL])

    def center(self, time: float) -> tuple[np.ndarray, float, float]:
        """Place `(2,)` in pixels of the frame, scale and angle by the camera."""
        own = np.array(self.place(time))
        if self.camera is None:
            return self.home + own, 1.0, 0.0
        place, scale, angle = self.camera.project(self.anchor, time)
        return place + own, scale / self.first_scale, angle - self.first_angle

    def mask(self, time: float) -> tuple[Image.Image, tuple[int, int]]:
        """Mask of the thing around its place: 255 where it is, and the position of the mask's corner in the frame."""
        now = self._at(time)
        return now.patch.getchannel(3).point(self.look.solid), now.corner

    def in_view(self, frame: tuple[int, int], time: float) -> bool:
        """Whether it may reach into a frame of some width and height."""
        now = self._at(time)
        return all(-size < corner < side for size, corner, side in zip(now.size, now.corner, frame, strict=True))

    def render(self, frame: Image.Image, time: float) -> None:
        """Pastes the thing onto a frame."""
        if not self.in_view(frame.size, time):
            return
        now = self._at(time)
        pixels = Image.blend(Image.new("RGB", now.size), now.patch.convert("RGB"), float(np.exp(now.pose[7])))
        mask = now.patch.getchannel(3).point(self.look.rim)
        if self.shutter:
            step = np.abs(self.center(time + 0.5)[0] - self.center(time - 0.5)[0])
            radius = tuple((0.5 * self.shutter * step).tolist())
            if max(radius) > 0.5:
                mask, pixels = mask.filter(ImageFilter.BoxBlur(radius)), pixels.filter(ImageFilter.BoxBlur(radius))
        frame.paste(pixels, now.corner, mask)

    def _at(self, time: float) -> "_Moment":
        if self._now is None or self._now.time != time:
            pose = self.pose(time)
            self._now = _Moment(self.look, time, pose, *self._window(time, pose))
        return self._now

    def _window(self, time: float, pose: list[float]) -> tuple[tuple[int, int], tuple[int, int], tuple]:
        """Size and corner of the part of the frame that the thing covers, and how its square is transformed to it."""
        _, log_size, log_aspect, angle, shear_x, shear_y = pose[:6]
        place, enlarged, turned = self.center(time)
        x, y = place.tolist()
        scale = enlarged * self.extent / SIDE * math.exp(log_size)
        stretch = math.exp(0.5 * (self.aspect + log_aspect))
        angle += self.angle + turned
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        # Sheared and stretched, then turned; in plain numbers, since arrays of four cost ten times as much.
        a, b = cos * stretch - sin * shear_y, cos * shear_x - sin / stretch
        c, d = sin * stretch + cos * shear_y, sin * shear_x + cos / stretch
        # Everything lies in the disk of the square, and this is how far the disk reaches when mapped.
        half_x, half_y = math.hypot(a, b) * SIDE / 2, math.hypot(c, d) * SIDE / 2
        left, top = math.floor(x - half_x), math.floor(y - half_y)
        size = (math.ceil(x + half_x) - left, math.ceil(y + half_y) - top)
        area = a * d - b * c
        a, b, c, d = d / area, -b / area, -c / area, a / area
        center = SIDE / 2
        offset_x, offset_y = left - x, top - y
        coefficients = (
            a, b, a * offset_x + b * offset_y + center,
            c, d, c * offset_x + d * offset_y + center,
        )  # fmt: skip
        return size, (left, top), (Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def _shading(strength: float) -> list[int]:
    """Table from a field of [`random_outline`] to brightness: darker towards the rim."""
    return np.clip(255 * (1 - strength * (1 - (np.arange(256) - 100) / 120)), 80, 255).astype(int).tolist()
