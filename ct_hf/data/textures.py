"""Random textures, drawn without any image files."""

from typing import Protocol

import numpy as np
from PIL import Image, ImageChops, ImageDraw


_GRAYS = np.arange(256)


class TextureSource(Protocol):
    """What paints targets and backgrounds: drawn textures, or photographs."""

    def texture(self, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
        """Draws an RGB image that depends on nothing but the state of `rng`.

        Args:
            rng: Source of all randomness.
            size: Width and height in pixels.
        """

    def cutout(self, rng: np.random.Generator, side: int) -> Image.Image | None:
        """Draws a thing with an outline of its own, or `None` where the source has none.

        Args:
            rng: Source of all randomness.
            side: Side of the square image in pixels. What can be seen lies in the disk within.

        Returns:
            RGBA image, or `None`.
        """


class ProceduralTextures:
    """Diverse textures: noise of many scales, stripes, checkers, blotches, gradients and scattered shapes.

    A texture is a field of 8-bit values looked up in a random palette (smooth, stepped or two-toned), at times a
    patchwork of two such textures, with scattered shapes or with fine detail.
    """

    def texture(self, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
        """Draws one RGB texture, see [`TextureSource`]."""
        image = _layer(rng, size)
        if rng.random() < 0.5:
            seams = _noise(rng, size, octaves=2).point(_step(rng.uniform(100, 150), softness=rng.choice([1.0, 12.0])))
            image = Image.composite(image, _layer(rng, size), seams)
        if rng.random() < 0.45:
            _scatter(rng, image)
        if rng.random() < 0.6:
            detail = _noise(rng, size, octaves=2, coarsest=max(size) // 8).point(_line(rng.uniform(0.3, 0.9), 255))
            image = ImageChops.multiply(image, Image.merge("RGB", [detail] * 3))
        return image

    def cutout(self, rng: np.random.Generator, side: int) -> None:
        """None: textures have no outlines, see [`TextureSource`]."""


def _layer(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    kind = rng.choice(["noise", "stripes", "checkers", "blotches", "gradient"], p=[0.3, 0.2, 0.12, 0.23, 0.15])
    if kind == "noise":
        field, palette = _noise(rng, size, octaves=5), _palette(rng, "smooth")
    elif kind == "blotches":
        field, palette = _noise(rng, size, octaves=3), _palette(rng, "steps")
    elif kind == "gradient":
        field, palette = _noise(rng, size, octaves=1, coarsest=2), _palette(rng, "smooth")
    elif kind == "stripes":
        field = _wave(rng, size, rng.uniform(0, np.pi))
        palette = _palette(rng, rng.choice(["steps", "periodic"]))
    else:
        angle = rng.uniform(0, np.pi)
        field = ImageChops.difference(
            _wave(rng, size, angle).point(_step(128)), _wave(rng, size, angle + np.pi / 2).point(_step(128))
        )
        field = ImageChops.add(field, _noise(rng, size, octaves=4), scale=2)
        palette = _palette(rng, "smooth")
    field.putpalette(palette)
    return field.convert("RGB")


def _noise(rng: np.random.Generator, size: tuple[int, int], octaves: int, coarsest: int | None = None) -> Image.Image:
    """Smooth noise stretched to the full range of 8 bits; often longer in one direction than in the other."""
    cells = coarsest or rng.integers(2, 7)
    stretch = np.exp(rng.normal(0, 0.4))
    gain = rng.uniform(0.4, 0.75)
    image = None
    for octave in range(octaves):
        width = int(np.clip(cells * stretch * 2**octave, 2, size[0]))
        height = int(np.clip(cells / stretch * 2**octave, 2, size[1]))
        grid = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
        layer = grid.resize(size, Image.Resampling.BICUBIC)
        weight = gain**octave
        # Fades each finer octave in by its share of the total amplitude.
        image = layer if image is None else Image.blend(image, layer, weight / sum(gain**k for k in range(octave + 1)))
    low, high = image.getextrema()
    scale = 255 / max(high - low, 1)
    return image.point(_table((_GRAYS - low) * scale))


def _wave(rng: np.random.Generator, size: tuple[int, int], angle: float) -> Image.Image:
    """Saw-tooth of 3 to 16 periods across the image, bent by noise half of the time."""
    width, height = size
    frequency = 256 * 256 * np.exp(rng.uniform(np.log(3), np.log(16))) / max(size)
    # Of the phase no more than two bytes count, the upper of which is the value; sums that overflow keep them.
    columns, rows = (
        (np.arange(side) * frequency * trig(angle)).astype(np.int32).astype(np.uint16)
        for side, trig in ((width, np.cos), (height, np.sin))
    )
    phase = columns + rows[:, None]
    if rng.random() < 0.5:
        bend = np.asarray(_noise(rng, size, octaves=2), dtype=np.uint16)
        phase += bend * np.uint16(rng.uniform(50, 500))
    phase >>= 8
    return Image.fromarray(phase.astype(np.uint8))


def _palette(rng: np.random.Generator, kind: str) -> list[int]:
    """256 RGB colours as a flat list: a smooth run, hard steps, or a smooth run that ends where it begins."""
    count = int(rng.integers(2, 6))
    # Half of all palettes are of one hue and differ in brightness mostly, as most things are.
    if rng.random() < 0.5:
        colors = rng.uniform(0, 255, 3) * rng.uniform(0.2, 1.3, (count, 1)) + rng.normal(0, 15, (count, 3))
    else:
        colors = rng.uniform(0, 255, (count, 3))
    if colors.max(axis=0).sum() - colors.min(axis=0).sum() < 150:
        colors[0] = 255 - colors[-1]
    # Saturated colours are rare outside of drawings.
    gray = colors.mean(axis=1, keepdims=True)
    colors = gray + rng.uniform(0.15, 1) * (colors - gray)
    if kind == "steps":
        edges = np.sort(rng.uniform(40, 215, count - 1))
        table = colors[np.searchsorted(edges, _GRAYS)]
    else:
        if kind == "periodic":
            colors = np.concatenate([colors, colors[:1]])
        stops = np.linspace(0, 255, len(colors))
        table = np.stack([np.interp(_GRAYS, stops, channel) for channel in colors.T], axis=1)
    return np.clip(table, 0, 255).astype(np.uint8).ravel().tolist()


def _scatter(rng: np.random.Generator, image: Image.Image) -> None:
    """Draws a few dozen figures of one or two palettes onto the image."""
    draw = ImageDraw.Draw(image)
    palette = np.array(_palette(rng, "smooth"), dtype=np.uint8).reshape(-1, 3)
    extent = max(image.size) * rng.uniform(0.03, 0.15)
    for _ in range(int(rng.integers(4, 40))):
        x, y = rng.uniform(0, image.size[0]), rng.uniform(0, image.size[1])
        width, height = extent * np.exp(rng.normal(0, 0.5, 2))
        color = tuple(palette[rng.integers(256)].tolist())
        figure = rng.integers(4)
        if figure == 0:
            draw.ellipse([x - width, y - height, x + width, y + height], fill=color)
        elif figure == 1:
            draw.rectangle([x - width, y - height, x + width, y + height], fill=color)
        elif figure == 2:
            end = (x + 3 * rng.normal() * width, y + 3 * rng.normal() * height)
            draw.line([(x, y), end], fill=color, width=max(1, int(extent * rng.uniform(0.1, 0.5))))
        else:
            corners = rng.normal(0, 1, (int(rng.integers(3, 6)), 2)) * (width, height) + (x, y)
            draw.polygon([tuple(corner) for corner in corners.tolist()], fill=color)


def _step(threshold: float, softness: float = 1.0) -> list[int]:
    """Table that maps values below the threshold to 0 and above it to 255."""
    return _table(128 + (_GRAYS - threshold) * 128 / softness)


def _line(low: float, high: float) -> list[int]:
    """Table that maps 0..255 to `low * high`..`high`."""
    return _table(np.linspace(low * high, high, 256))


def _table(values: np.ndarray) -> list[int]:
    return np.clip(values, 0, 255).astype(np.uint8).tolist()
