"""Textures and cut-outs from photographs in a folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .frames import to_rgb
from .textures import ProceduralTextures, TextureSource


logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LARGEST = 900  # pixels of the longer side that are kept in memory
_SMALLEST = 96  # pixels of the shorter side that a photograph must have


class Photographs:
    """Photographs as a source of textures, and those with a transparent background as cut-out things.

    Images are read once, at first use, and kept at up to 900 pixels. Files that cannot be read or are smaller than 96
    pixels are skipped with a warning.

    Args:
        folder: Folder of images (`.jpg`, `.jpeg`, `.png`, `.webp`), searched with all folders below.
        part: `"all"`; or `"train"` or `"test"`, which share no image: each fifth is for testing. Default: `"all"`.

    Raises:
        ValueError: The folder does not exist or holds no usable image, or `part` is not one of the three.
    """

    def __init__(self, folder: str | Path, part: str = "all"):
        self.folder = Path(folder)
        if part not in ("all", "train", "test"):
            raise ValueError(f'`part` must be "all", "train" or "test", got {part!r}.')
        if not self.folder.is_dir():
            raise ValueError(f"`folder`={str(folder)!r} is not a folder. Give a folder of photographs.")
        files = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        kept = {"all": range(5), "train": range(4), "test": range(4, 5)}[part]
        self.files = [file for number, file in enumerate(files) if number % 5 in kept]
        self.part = part
        if not self.files:
            raise ValueError(
                f"`folder`={str(folder)!r} holds no images for part {part!r}. Expected files that end in "
                f"{', '.join(SUFFIXES)}, at least 5 of them for two parts."
            )

    def __repr__(self) -> str:
        return f"Photographs({str(self.folder)!r}, part={self.part!r})"

    def __getstate__(self) -> dict:
        # Workers read the files themselves: pixels are not sent to them.
        return {name: value for name, value in self.__dict__.items() if name not in ("_images", "_solid", "_cut")}

    def texture(self, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
        """A part of a photograph, mirrored at times, in changed colours at times; see [`TextureSource`]."""
        for _ in range(4):
            photograph = self._solid[rng.integers(len(self._solid))]
            region = _region(rng, photograph, size)
            image = photograph.resize(size, Image.Resampling.BILINEAR, box=region, reducing_gap=2)
            # A patch of clear sky is not a thing that anybody could follow.
            if np.std(image.resize((8, 8)), axis=(0, 1)).max() > 8:
                break
        if rng.random() < 0.5:
            image = ImageOps.mirror(image)
        return _recolor(rng, image)

    def cutout(self, rng: np.random.Generator, side: int) -> Image.Image | None:
        """A thing from a photograph with a transparent background; see [`TextureSource`]."""
        if not self._cut:
            return None
        thing = self._cut[rng.integers(len(self._cut))]
        # All of it has to lie in the disk within the square.
        scale = 0.95 * side / np.hypot(*thing.size)
        thing = thing.resize([max(1, round(length * scale)) for length in thing.size], Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            thing = ImageOps.mirror(thing)
        alpha = thing.getchannel("A")
        colors = _recolor(rng, thing.convert("RGB"))
        # Colours under the transparent part would shine through at the rim, so the things' own mean is put there.
        inside = np.asarray(colors)[np.asarray(alpha) > 127]
        square = Image.new("RGB", (side, side), tuple(inside.mean(axis=0).astype(int).tolist()) if len(inside) else 0)
        mask = Image.new("L", (side, side))
        corner = ((side - thing.width) // 2, (side - thing.height) // 2)
        square.paste(colors, corner, alpha)
        mask.paste(alpha, corner)
        square.putalpha(mask)
        return square

    @cached_property
    def _images(self) -> list[Image.Image]:
        images = []
        for file in self.files:
            try:
                images.append(_read(file))
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                logger.warning("%s is left out: %s", file, error)
        if not any(image.mode == "RGB" for image in images):
            raise ValueError(f"none of the {len(self.files)} files of {self!r} is a photograph without transparency.")
        return images

    @cached_property
    def _solid(self) -> list[Image.Image]:
        return [image for image in self._images if image.mode == "RGB"]

    @cached_property
    def _cut(self) -> list[Image.Image]:
        return [image for image in self._images if image.mode == "RGBA"]


class TextureMix:
    """Several sources, of which each thing and each background takes one.

    Args:
        sources: The sources.
        weights: How often each is taken; normalised to a sum of 1.
    """

    def __init__(self, sources: Sequence[TextureSource], weights: Sequence[float]):
        if len(sources) != len(weights) or not sources:
            raise ValueError(f"`weights` must be one for each of {len(sources)} sources, got {len(weights)}.")
        self.sources = list(sources)
        self.weights = np.asarray(weights, dtype=float) / sum(weights)

    def texture(self, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
        """Texture of one of the sources, see [`TextureSource`]."""
        return self._pick(rng).texture(rng, size)

    def cutout(self, rng: np.random.Generator, side: int) -> Image.Image | None:
        """Cut-out of one of the sources, see [`TextureSource`]."""
        return self._pick(rng).cutout(rng, side)

    def _pick(self, rng: np.random.Generator) -> TextureSource:
        return self.sources[rng.choice(len(self.sources), p=self.weights)]


def rendered_textures(photographs: str | Path | None = None) -> TextureSource:
    """What a rendered world is painted with for training.

    Args:
        photographs: Folder of photographs, of which four fifths are used, for four things in five; the other fifth is
            [`Photographs`]`(photographs, "test")`. Without a folder, textures alone, which need no files.
    """
    if photographs is None:
        return ProceduralTextures()
    return TextureMix([Photographs(photographs, "train"), ProceduralTextures()], [0.8, 0.2])


def _read(file: Path) -> Image.Image:
    """RGB image, or RGBA cropped to what can be seen if a good part of it is transparent."""
    with Image.open(file) as image:
        image.draft("RGB", (2 * _LARGEST, 2 * _LARGEST))
        if min(image.size) < _SMALLEST:
            raise ValueError(f"it is of {image.width}x{image.height} pixels, expected at least {_SMALLEST}")
        clear = "A" in image.getbands() or "transparency" in image.info
        image = image.convert("RGBA") if clear else to_rgb(image.copy())
        image.thumbnail((_LARGEST, _LARGEST), reducing_gap=2)
    if not clear:
        return image
    alpha = image.getchannel("A")
    if alpha.histogram()[0] < 0.05 * image.width * image.height:
        return image.convert("RGB")
    return image.crop(alpha.point([255 if value > 127 else 0 for value in range(256)]).getbbox())


def _region(rng: np.random.Generator, image: Image.Image, size: tuple[int, int]) -> tuple[float, ...]:
    """Random box of the given shape, from half of the asked size, as far as there is that much, to all there is."""
    largest = min(image.width / size[0], image.height / size[1])
    scale = np.exp(rng.uniform(np.log(min(0.5, largest)), np.log(largest)))
    width, height = scale * size[0], scale * size[1]
    left, top = rng.uniform(0, max(0, image.width - width)), rng.uniform(0, max(0, image.height - height))
    return left, top, min(left + width, image.width), min(top + height, image.height)


def _recolor(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Changes colours of a third of all images: other channels, gains and contrast."""
    if rng.random() > 0.33:
        return image
    if rng.random() < 0.4:
        image = Image.merge("RGB", [image.getchannel(int(channel)) for channel in rng.permutation(3)])
    gains = rng.uniform(0.7, 1.3, 3)
    powers = np.exp(rng.normal(0, 0.2, 3))
    ramp = np.arange(256) / 255
    table = [np.clip(255 * gain * ramp**power, 0, 255) for gain, power in zip(gains, powers, strict=True)]
    return image.point(np.concatenate(table).astype(int).tolist())
