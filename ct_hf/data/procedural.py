"""Sequences rendered on the fly: moving textured targets in moving clutter, with exact boxes and no footage at all."""

import io
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from .sequences import Sequence
from .textures import ProceduralTextures, TextureSource


class ProceduralSequence(Sequence):
    """Sequence that is rendered frame by frame, in any order, as a pure function of `(seed, index)`.

    One target changes shape, size, aspect, orientation, shear and light in front of a background under a moving
    camera, among 1 to 4 distractors and, for part of the sequence, behind moving occluders. The box is the tight box
    of the target's mask clipped to the frame, as if nothing covered it; the target counts as visible while at least
    half of its mask is in the frame and a quarter of it is there to be seen.

    Args:
        seed: First part of the identity of the sequence.
        index: Second part.
        length: Number of frames.
        size: Width and height in pixels.
        textures: What paints targets and backgrounds.
    """

    def __init__(
        self,
        seed: int,
        index: int,
        length: int = 60,
        size: tuple[int, int] = (320, 240),
        textures: TextureSource | None = None,
    ):
        self.seed, self.index, self.length, self.size = seed, index, length, tuple(size)
        self.textures = ProceduralTextures() if textures is None else textures
        self.name = f"procedural-{seed}-{index}"

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"ProceduralSequence(seed={self.seed}, index={self.index}, length={self.length}, size={self.size})"

    @cached_property
    def boxes(self) -> np.ndarray:
        """`(length, 4)` float32 xywh in pixels; NaN where no pixel of the target is in the frame."""
        return np.stack([self.annotation(index)[0] for index in range(self.length)])

    @cached_property
    def visible(self) -> np.ndarray:
        """`(length,)` bool, see the class."""
        return np.array([self.annotation(index)[1] for index in range(self.length)])

    def annotation(self, index: int) -> tuple[np.ndarray, bool]:
        """Box `(4,)` float32 xywh and visibility of one frame, at the cost of the target's mask alone."""
        mask, corner = self._scene.target.mask(_check_index(index, self.length))
        solid = mask.point(_SOLID)
        inside = Image.new("L", self.size)
        inside.paste(solid, corner)
        edges = inside.getbbox()
        if edges is None:
            return np.full(4, np.nan, dtype=np.float32), False
        box = np.array([edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]], dtype=np.float32)
        area, area_inside = solid.histogram()[255], inside.histogram()[255]
        cover = self._scene.cover(index)
        # A crop may reach beyond the image, where it is filled with zeros.
        area_hidden = 0 if cover is None else inside.crop(cover).histogram()[255]
        return box, area_inside >= 0.5 * area and area_inside - area_hidden >= 0.25 * area

    def frame(self, index: int) -> Image.Image:
        """RGB image of one frame."""
        return self._scene.render(_check_index(index, self.length))

    def frame_bytes(self, index: int) -> bytes:
        """JPEG of one frame at quality 90."""
        buffer = io.BytesIO()
        self.frame(index).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    @cached_property
    def _scene(self) -> "_Scene":
        return _Scene(np.random.default_rng([self.seed, self.index]), self.length, self.size, self.textures)


@dataclass(frozen=True)
class ProceduralWorld:
    """Endless supply of procedural sequences for [`stream_clips`], which takes each clip from a sequence of its own.

    Args:
        length: Frames of each sequence.
        size: Width and height in pixels.
        textures: What paints targets and backgrounds.
    """

    length: int = 60
    size: tuple[int, int] = (320, 240)
    textures: TextureSource = field(default_factory=ProceduralTextures)

    def sequence(self, seed: int, index: int) -> ProceduralSequence:
        """One sequence of this world."""
        return ProceduralSequence(seed, index, self.length, self.size, self.textures)


def procedural_sequences(
    seed: int, count: int, length: int = 60, size: tuple[int, int] = (320, 240)
) -> list[ProceduralSequence]:
    """The first `count` procedural sequences of a seed, for evaluation.

    Args:
        seed: Choose another one than in training.
        count: Number of sequences.
        length: Frames of each sequence.
        size: Width and height in pixels.
    """
    return [ProceduralSequence(seed, index, length, size) for index in range(count)]


_SOLID = [255 if value >= 128 else 0 for value in range(256)]
_SPRITE = 96
"""Side of the square in which a sprite and its mask are kept, in pixels."""


def _check_index(index: int, length: int) -> int:
    if not 0 <= index < length:
        raise IndexError(f"`index`={index} is not a frame of a sequence of {length} frames.")
    return index


class _Wobble:
    """Smooth random motion of several values around 0: sums of sines, known at any time without the times before."""

    def __init__(self, rng: np.random.Generator, amplitudes: list[float], slowest: float = 200, fastest: float = 25):
        shape = (3, len(amplitudes))
        self.speed = 2 * np.pi / np.exp(rng.uniform(np.log(fastest), np.log(slowest), shape))
        self.phase = rng.uniform(0, 2 * np.pi, shape)
        self.weight = rng.uniform(0.2, 1, shape)
        self.weight *= np.asarray(amplitudes) / self.weight.sum(axis=0)

    def __call__(self, time: float) -> list[float]:
        return (self.weight * np.sin(self.speed * time + self.phase)).sum(axis=0).tolist()


class _Sprite:
    """One textured thing with a shape that changes.

    Its mask is where a field of 8-bit values exceeds 128; fields are blended in time, so that one outline flows into
    the other, and up to two limbs swing around it.
    """

    def __init__(
        self, rng: np.random.Generator, texture: Image.Image, extent: float, spread: float, frame_size: tuple[int, int]
    ):
        self.outlines = [_outline(rng), _outline(rng)]
        if rng.random() < 0.5:
            shade = self.outlines[0].point(_shading(rng.uniform(0.2, 0.9)))
            texture = ImageChops.multiply(texture, Image.merge("RGB", [shade] * 3))
        self.channels = texture.split()
        self.limbs = [
            (rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.55), rng.uniform(0.25, 0.5))
            for _ in range(rng.choice([0, 1, 2], p=[0.5, 0.25, 0.25]))
        ]
        width, height = frame_size
        self.home = (0.5 + spread * rng.uniform(-0.5, 0.5, 2)) * frame_size
        # How fast things move goes from nearly still to half of the target's size from frame to frame.
        roam = rng.uniform(0.1, 0.45)
        self.place = _Wobble(rng, [roam * width, roam * height], fastest=rng.uniform(20, 80))
        self.extent = extent
        self.aspect = rng.normal(0, 0.3)
        self.angle = rng.choice([0, rng.uniform(-np.pi, np.pi)])
        # Shape, log size, log aspect, angle, two shears, limb angle, log brightness.
        self.pose = _Wobble(rng, [0.6, rng.uniform(0.05, 0.35), 0.15, rng.uniform(0.05, 0.8), 0.15, 0.15, 1.0, 0.2])

    def mask(self, time: float) -> tuple[Image.Image, tuple[int, int]]:
        """Mask of the sprite around its place: an 8-bit image and the position of its corner in the frame."""
        pose = self.pose(time)
        size, corner, affine = self._window(time, pose)
        return self._outline(pose).transform(size, *affine).point(_SHARPEN), corner

    def draw(self, frame: Image.Image, time: float) -> None:
        """Pastes the sprite onto a frame."""
        pose = self.pose(time)
        size, corner, affine = self._window(time, pose)
        # The mask rides along as a fourth channel: one transform instead of two.
        patch = Image.merge("RGBX", [*self.channels, self._outline(pose)]).transform(size, *affine)
        pixels = Image.blend(Image.new("RGB", size), patch.convert("RGB"), float(np.exp(pose[7])))
        frame.paste(pixels, corner, patch.getchannel(3).point(_SHARPEN))

    def _window(self, time: float, pose: list[float]) -> tuple[tuple[int, int], tuple[int, int], tuple]:
        """Size and corner of the part of the frame that the sprite covers, and how the sprite is transformed to it."""
        _, log_size, log_aspect, angle, shear_x, shear_y, _, _ = pose
        scale = self.extent / _SPRITE * np.exp(log_size)
        stretch = np.exp(0.5 * (self.aspect + log_aspect))
        angle += self.angle
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        forward = rotation @ np.array([[scale * stretch, shear_x * scale], [shear_y * scale, scale / stretch]])
        # Everything lies in the disk of the sprite's square, and this is how far the disk reaches when mapped.
        half = np.hypot(forward[:, 0], forward[:, 1]) * _SPRITE / 2
        x, y = (home + shift for home, shift in zip(self.home, self.place(time), strict=True))
        left, top = int(np.floor(x - half[0])), int(np.floor(y - half[1]))
        size = (int(np.ceil(x + half[0])) - left, int(np.ceil(y + half[1])) - top)
        (a, b), (c, d) = np.linalg.inv(forward).tolist()
        center = _SPRITE / 2
        offset_x, offset_y = left - x, top - y
        coefficients = (
            a, b, a * offset_x + b * offset_y + center,
            c, d, c * offset_x + d * offset_y + center,
        )  # fmt: skip
        return size, (left, top), (Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)

    def _outline(self, pose: list[float]) -> Image.Image:
        outline = Image.blend(*self.outlines, 0.5 + 0.5 * float(np.clip(pose[0] * 2, -1, 1)))
        for angle, reach, radius in self.limbs:
            x, y = (reach * trig(angle + pose[6]) * _SPRITE / 2 for trig in (np.cos, np.sin))
            side = int(radius * _SPRITE / 2)
            box = (int(_SPRITE / 2 + x - side), int(_SPRITE / 2 + y - side))
            limb = Image.new("L", outline.size)
            limb.paste(_DISK.resize((2 * side, 2 * side)), box)
            outline = ImageChops.lighter(outline, limb)
        return outline


class _Scene:
    """Everything of a sequence that does not change in time, and how one frame is put together."""

    def __init__(self, rng: np.random.Generator, length: int, size: tuple[int, int], textures: TextureSource):
        self.length, self.size = length, size
        width, height = size
        margin = rng.uniform(0.1, 0.25)
        canvas = tuple(int(side * (1 + 2 * margin)) for side in size)
        self.background = textures.texture(rng, canvas)
        self.moves = rng.choice(["pan", "zoom", "turn"])
        # Pan in x and y, log zoom, rotation.
        self.camera = _Wobble(rng, [margin * width * 0.6, margin * height * 0.6, 0.08, 0.06], fastest=40)
        self.light = _Wobble(rng, [rng.uniform(0, 0.35), rng.uniform(0, 25)])
        self.blur = rng.uniform(0.5, 1.5) if rng.random() < 0.2 else 0.0
        self.blur_time = rng.uniform(0, length)

        extent = min(size) * np.exp(rng.uniform(np.log(0.18), np.log(0.45)))
        texture = textures.texture(rng, (_SPRITE, _SPRITE))
        self.target = _Sprite(rng, texture, extent, 0.5, size)
        self.distractors = []
        for _ in range(rng.integers(1, 5)):
            if rng.random() < 0.5:
                channels = rng.permutation(3)
                likeness = Image.merge("RGB", [texture.getchannel(int(channel)) for channel in channels])
                likeness = ImageChops.invert(likeness) if rng.random() < 0.3 else likeness
            else:
                likeness = textures.texture(rng, (_SPRITE, _SPRITE))
            self.distractors.append(_Sprite(rng, likeness, extent * np.exp(rng.normal(0, 0.35)), 1.0, size))

        self.occluder = None
        if rng.random() < 0.45:
            # A post or a beam, at most half as thick as the target is long.
            thickness = max(3, int(extent * rng.uniform(0.2, 0.5)))
            bar = (thickness, 2 * height) if rng.random() < 0.7 else (2 * width, thickness)
            self.occluder = textures.texture(rng, bar)
            self.occluder_start, self.occluder_end = np.sort(rng.uniform(-0.2, 1.2, 2)) * length
            self.occluder_place = _Wobble(rng, [0.5 * width, 0.5 * height])

    def render(self, time: int) -> Image.Image:
        frame = self._view(time)
        for sprite in self.distractors:
            sprite.draw(frame, time)
        self.target.draw(frame, time)
        cover = self.cover(time)
        if cover is not None:
            frame.paste(self.occluder, cover[:2])
        if self.blur > 0 and abs(time - self.blur_time) < self.length / 4:
            frame = frame.filter(ImageFilter.BoxBlur(self.blur))
        gain, bias = self.light(time)
        return frame.point(_gain(np.exp(gain), bias) * 3)

    def cover(self, time: int) -> tuple[int, int, int, int] | None:
        """Left, upper, right and lower edge of the occluder, when there is one."""
        if self.occluder is None or not self.occluder_start <= time <= self.occluder_end:
            return None
        x, y = self.occluder_place(time)
        width, height = self.occluder.size
        left, top = int((self.size[0] - width) / 2 + x), int((self.size[1] - height) / 2 + y)
        return left, top, left + width, top + height

    def _view(self, time: int) -> Image.Image:
        """What the camera sees of the background."""
        x, y, log_zoom, angle = self.camera(time)
        width, height = self.size
        center_x, center_y = self.background.width / 2 + x, self.background.height / 2 + y
        if self.moves == "pan":
            left, top = round(center_x - width / 2), round(center_y - height / 2)
            return self.background.crop((left, top, left + width, top + height))
        # Zooms in a little always, since a turned view must not leave the canvas.
        zoom = np.exp(log_zoom - 0.15)
        if self.moves == "zoom":
            half = (zoom * width / 2, zoom * height / 2)
            box = (center_x - half[0], center_y - half[1], center_x + half[0], center_y + half[1])
            return self.background.resize(self.size, Image.Resampling.BILINEAR, box=box)
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        coefficients = (
            cos, -sin, center_x - cos * width / 2 + sin * height / 2,
            sin, cos, center_y - sin * width / 2 - cos * height / 2,
        )  # fmt: skip
        return self.background.transform(self.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def _outline(rng: np.random.Generator) -> Image.Image:
    """Field that falls off from the centre and passes 128 at a blob, an ellipse or a rounded polygon."""
    kind = rng.choice(["blob", "ellipse", "polygon"], p=[0.4, 0.25, 0.35])
    turn = float(rng.uniform(0, 2 * np.pi))
    if kind == "blob":
        radius = 1 + sum(
            float(rng.normal(0, 0.25) / (order - 1)) * np.cos(order * _ANGLE + float(rng.uniform(0, 6)))
            for order in range(2, 6)
        )
    elif kind == "ellipse":
        ratio = float(rng.uniform(0.4, 1))
        radius = ratio / np.sqrt((ratio * np.cos(_ANGLE - turn)) ** 2 + np.sin(_ANGLE - turn) ** 2)
    else:
        sides = float(2 * np.pi / rng.integers(3, 7))
        edge = float(np.cos(sides / 2)) / np.cos((_ANGLE - turn) % sides - sides / 2)
        radius = (edge**-6 + float(rng.uniform(0.9, 1.2)) ** -6) ** (-1 / 6)
    radius = np.clip(radius * 0.85 / radius.max(), 0.2, 0.85)
    return Image.fromarray(np.clip(128 + 160 * (radius - _RADIUS), 0, 255).astype(np.uint8))


def _shading(strength: float) -> list[int]:
    """Table from a field of [`_outline`] to brightness: darker towards the rim."""
    return np.clip(255 * (1 - strength * (1 - (np.arange(256) - 100) / 120)), 80, 255).astype(int).tolist()


def _gain(gain: float, bias: float = 0.0) -> list[int]:
    return np.clip(np.arange(256) * gain + bias, 0, 255).astype(int).tolist()


_AXIS = (np.arange(_SPRITE, dtype=np.float32) + 0.5) / (_SPRITE / 2) - 1
_RADIUS = np.hypot(_AXIS, _AXIS[:, None])
_ANGLE = np.arctan2(_AXIS[:, None], _AXIS)
_DISK = Image.fromarray(np.clip(128 + 160 * (0.9 - _RADIUS), 0, 255).astype(np.uint8))
_SHARPEN = np.clip(128 + (np.arange(256) - 128) * 40, 0, 255).astype(int).tolist()
