"""Sequences rendered on the fly: moving things in moving clutter, with exact boxes and no footage at all."""

import io
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count as numbers
from itertools import islice

import numpy as np
from PIL import Image

from .scene import Scene
from .sequences import Sequence
from .textures import ProceduralTextures, TextureSource


class ProceduralSequence(Sequence):
    """Sequence that is rendered frame by frame, in any order, as a pure function of `(seed, index)`.

    A target changes shape, size (up to threefold), aspect, orientation, shear and light, may leave the frame and return,
    and moves in front of a background under a camera that pans, zooms, turns and tilts, among up to 5 neighbours of its
    colours, of its shape or of neither, most of which keep it company, at times on a larger thing or behind occluders, with
    motion blur and noise. The box is the tight box of the target's mask clipped to the frame, as if nothing covered it; the
    target counts as visible while at least half of its mask is in the frame and a quarter of it is there to be seen.

    Args:
        seed: First part of the identity of the sequence.
        index: Second part.
        length: Number of frames. Default: 60.
        size: Width and height in pixels. Default: 320 and 240.
        textures: What paints targets and backgrounds.
        patches: Probability that the target is a part of the background, which only the template tells from the rest.
            Default: 0.0.
    """

    def __init__(
        self,
        seed: int,
        index: int,
        length: int = 60,
        size: tuple[int, int] = (320, 240),
        textures: TextureSource | None = None,
        patches: float = 0.0,
    ):
        self.seed, self.index, self.length, self.size = seed, index, length, tuple(size)
        self.textures = ProceduralTextures() if textures is None else textures
        self.patches = patches
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
        """Box `(4,)` float32 xywh and visibility of one frame, at the cost of a few masks."""
        inside, seen, area = self.scene.target_mask(_check_index(index, self.length))
        edges = inside.getbbox()
        if edges is None:
            return np.full(4, np.nan, dtype=np.float32), False
        box = np.array([edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]], dtype=np.float32)
        return box, inside.histogram()[255] >= 0.5 * area and seen.histogram()[255] >= 0.25 * area

    def frame(self, index: int) -> Image.Image:
        """RGB image of one frame."""
        return self.scene.render(_check_index(index, self.length))

    def frame_bytes(self, index: int) -> bytes:
        """JPEG of one frame, of a quality from 45 to 95 that belongs to the sequence."""
        buffer = io.BytesIO()
        self.frame(index).save(buffer, "JPEG", quality=self.scene.quality)
        return buffer.getvalue()

    @cached_property
    def scene(self) -> Scene:
        """What is rendered."""
        return Scene(np.random.default_rng([self.seed, self.index]), self.size, self.textures, self.patches)


@dataclass(frozen=True)
class ProceduralWorld:
    """Endless supply of procedural sequences for [`stream_pairs`], which takes each clip from a sequence of its own.

    Args:
        length: Frames of each sequence.
        size: Width and height in pixels.
        textures: What paints targets and backgrounds.
        patches: Probability that a target is a part of the background, which only the template tells from the rest.
    """

    length: int = 60
    size: tuple[int, int] = (320, 240)
    textures: TextureSource = field(default_factory=ProceduralTextures)
    patches: float = 0.15

    def sequence(self, seed: int, index: int) -> ProceduralSequence:
        """One sequence of this world."""
        return ProceduralSequence(seed, index, self.length, self.size, self.textures, self.patches)


def procedural_sequences(
    seed: int,
    count: int,
    length: int = 60,
    size: tuple[int, int] = (320, 240),
    textures: TextureSource | None = None,
) -> list[ProceduralSequence]:
    """The first procedural sequences of a seed that show their target in frame 0, for evaluation.

    Args:
        seed: Choose another one than in training.
        count: Number of sequences.
        length: Frames of each sequence. Default: 60.
        size: Width and height in pixels. Default: 320 and 240.
        textures: What paints targets and backgrounds.
    """
    sequences = (ProceduralSequence(seed, index, length, size, textures) for index in numbers())
    return list(islice((sequence for sequence in sequences if sequence.annotation(0)[1]), count))


def _check_index(index: int, length: int) -> int:
    if not 0 <= index < length:
        raise IndexError(f"`index`={index} is not a frame of a sequence of {length} frames.")
    return index
