"""Things of rendered sequences: a picture with an outline that moves, turns, grows, bends and changes its light."""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from .motion import Camera, Wobble
from .shapes import SIDE, limb, mirrored, random_outline, split_field
from .textures import TextureSource


SOLID = [255 if value >= 128 else 0 for value in range(256)]
"""Table from a soft mask to what counts as the thing."""

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
        self.rim = np.clip(128 + (np.arange(256) - 128) * sharpness, 0, 255).astype(int).tolist()

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
        look.rim = self.rim
        return look

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
        shutter: Share of the time between two frames in which its motion blurs it.
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
        """Mask of the thing around its place: an 8-bit image and the position of its corner in the frame."""
        pose = self.pose(time)
        size, corner, affine = self._window(time, pose)
        return self.look.field(pose[0], pose[6]).transform(size, *affine).point(self.look.rim), corner

    def render(self, frame: Image.Image, time: float) -> None:
        """Pastes the thing onto a frame."""
        pose = self.pose(time)
        size, corner, affine = self._window(time, pose)
        if corner[0] >= frame.width or corner[1] >= frame.height or corner[0] <= -size[0] or corner[1] <= -size[1]:
            return
        picture = self.look.picture
        if picture.width > SIDE:
            left, top = (int(_ROLL + shift) for shift in pose[8:])
            picture = picture.crop((left, top, left + SIDE, top + SIDE))
        # The mask rides along as a fourth channel: one transform instead of two.
        picture = Image.merge("RGBX", [*picture.split(), self.look.field(pose[0], pose[6])])
        patch = picture.transform(size, *affine)
        pixels = Image.blend(Image.new("RGB", size), patch.convert("RGB"), float(np.exp(pose[7])))
        mask = patch.getchannel(3).point(self.look.rim)
        if self.shutter:
            step = np.abs(self.center(time + 0.5)[0] - self.center(time - 0.5)[0])
            radius = tuple((0.5 * self.shutter * step).tolist())
            if max(radius) > 0.5:
                mask, pixels = mask.filter(ImageFilter.BoxBlur(radius)), pixels.filter(ImageFilter.BoxBlur(radius))
        frame.paste(pixels, corner, mask)

    def _window(self, time: float, pose: list[float]) -> tuple[tuple[int, int], tuple[int, int], tuple]:
        """Size and corner of the part of the frame that the thing covers, and how its square is transformed to it."""
        _, log_size, log_aspect, angle, shear_x, shear_y = pose[:6]
        (x, y), enlarged, turned = self.center(time)
        scale = enlarged * self.extent / SIDE * np.exp(log_size)
        stretch = np.exp(0.5 * (self.aspect + log_aspect))
        angle += self.angle + turned
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        forward = rotation @ np.array([[scale * stretch, shear_x * scale], [shear_y * scale, scale / stretch]])
        # Everything lies in the disk of the square, and this is how far the disk reaches when mapped.
        half = np.hypot(forward[:, 0], forward[:, 1]) * SIDE / 2
        left, top = int(np.floor(x - half[0])), int(np.floor(y - half[1]))
        size = (int(np.ceil(x + half[0])) - left, int(np.ceil(y + half[1])) - top)
        (a, b), (c, d) = np.linalg.inv(forward).tolist()
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
