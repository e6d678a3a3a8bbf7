"""Random outlines for rendered things, as fields of 8-bit values that pass 128 at the outline."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageOps


SIDE = 128
"""Side of the square in which a thing and its mask are kept, in pixels. Everything lies in the disk within."""


def random_outline(rng: np.random.Generator) -> Image.Image:
    """Draws a blob, an ellipse or a rounded polygon, a third of them symmetric, a few with a hole.

    Returns:
        Image of mode `L` of side [`SIDE`], above 128 inside, falling off from there.
    """
    kind = rng.choice(["blob", "ellipse", "polygon"], p=[0.5, 0.2, 0.3])
    turn = float(rng.uniform(0, 2 * np.pi))
    if kind == "blob":
        waves = zip(range(2, 7), rng.normal(0, 0.3, 5), rng.uniform(0, 6, 5), strict=True)
        radius = 1 + sum(
            float(height) / (order - 1) * np.cos(order * _ANGLE + shift) for order, height, shift in waves
        )
    elif kind == "ellipse":
        ratio = float(rng.uniform(0.35, 1))
        radius = ratio / np.sqrt((ratio * np.cos(_ANGLE - turn)) ** 2 + np.sin(_ANGLE - turn) ** 2)
    else:
        sector = float(2 * np.pi / rng.integers(3, 7))
        edge = float(np.cos(sector / 2)) / np.cos((_ANGLE - turn) % sector - sector / 2)
        radius = (edge**-6 + float(rng.uniform(0.9, 1.2)) ** -6) ** (-1 / 6)
    radius = np.clip(radius * 0.85 / radius.max(), 0.2, 0.85)
    outline = _image(128 + 160 * (radius - _RADIUS))
    if rng.random() < 0.33:
        outline = mirrored(outline)
    if rng.random() < 0.12:
        outline = ImageChops.subtract(outline, _disk(rng.uniform(-0.3, 0.3, 2), rng.uniform(0.1, 0.25)))
    return outline


def mirrored(image: Image.Image) -> Image.Image:
    """The left half of an image, and its mirror image on the right."""
    half = image.crop((0, 0, image.width // 2, image.height))
    image = image.copy()
    image.paste(ImageOps.mirror(half), (image.width - half.width, 0))
    return image


def split_field(rng: np.random.Generator) -> Image.Image:
    """Draws a mask of mode `L` that parts the square along a straight line or into bands."""
    angle, offset = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(-0.3, 0.3))
    across = _AXIS * np.cos(angle) + _AXIS[:, None] * np.sin(angle) + offset
    if rng.random() < 0.3:
        across = np.sin(across * float(rng.uniform(4, 12)))
    return _image(128 + 2000 * across)


def limb(angle: float, reach: float, radius: float, squeeze: float) -> tuple[Image.Image, tuple[int, int]]:
    """An elongated part that sticks out of a thing.

    Args:
        angle: Where it points to, in radians.
        reach: Distance of its centre from the thing's, in half sides of the square.
        radius: Half of its length, in half sides of the square.
        squeeze: Width by length, in (0, 1].

    Returns:
        Field of mode `L`, and the place of its upper left corner in the thing's square.
    """
    half = max(2, int(radius * SIDE / 2))
    capsule = _capsule(2 * half, max(2, int(2 * half * squeeze)))
    field = capsule.rotate(-np.degrees(angle), Image.Resampling.BILINEAR, expand=True)
    x, y = (SIDE / 2 * (1 + reach * trig(angle)) for trig in (np.cos, np.sin))
    return field, (int(x - field.width / 2), int(y - field.height / 2))


@lru_cache(maxsize=256)
def _capsule(length: int, width: int) -> Image.Image:
    return _ROUND.resize((length, width))


def _disk(center: np.ndarray, radius: float) -> Image.Image:
    distance = np.hypot(_AXIS - float(center[0]), _AXIS[:, None] - float(center[1]))
    return _image(320 * (float(radius) - distance) * 4)


def _image(values: np.ndarray) -> Image.Image:
    field = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return field.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


# Fields are smooth, so they are computed at half of the resolution.
_AXIS = (np.arange(SIDE // 2, dtype=np.float32) + 0.5) / (SIDE / 4) - 1
_RADIUS = np.hypot(_AXIS, _AXIS[:, None])
_ANGLE = np.arctan2(_AXIS[:, None], _AXIS)
_ROUND = _image(128 + 160 * (0.9 - _RADIUS))
