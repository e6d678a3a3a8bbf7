"""Random changes of a training pair: colour, brightness and mirroring."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """The original recipe of OSTrack, on 8-bit crops.

    Args:
        grayscale: Probability that a pair is turned to grey.
        flip: Probability that a whole pair is mirrored left to right.
        crop_flip: Probability that the templates, and independently the search crop, are mirrored left to right.
        brightness: Each crop is multiplied by a factor drawn from `1 - brightness` to `1 + brightness`.
    """

    grayscale: float = 0.05
    flip: float = 0.5
    crop_flip: float = 0.5
    brightness: float = 0.2

    def __call__(
        self,
        rng: np.random.Generator,
        templates: np.ndarray,
        search: np.ndarray,
        template_boxes: np.ndarray,
        search_boxes: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Changes one pair; the arguments stay as they are.

        Args:
            rng: Source of all draws.
            templates: `(num_templates, height, width, 3)` uint8.
            search: `(height, width, 3)` uint8.
            template_boxes: `(num_templates, 4)` cxcywh in [0, 1] of each crop.
            search_boxes: `(4,)` cxcywh in [0, 1] of the search crop.

        Returns:
            The four arrays, changed.
        """
        gray, flip, template_flip, search_flip = rng.random(4) < (
            self.grayscale,
            self.flip,
            self.crop_flip,
            self.crop_flip,
        )
        factors = rng.uniform(1 - self.brightness, 1 + self.brightness, len(templates) + 1)
        if gray:
            templates, search = _grayscale(templates), _grayscale(search)
        templates = np.stack([_brighten(crop, factor) for crop, factor in zip(templates, factors, strict=False)])
        search = _brighten(search, factors[-1])
        if flip != template_flip:
            templates, template_boxes = _mirror(templates, template_boxes)
        if flip != search_flip:
            search, search_boxes = _mirror(search, search_boxes)
        return templates, search, template_boxes, search_boxes


def _grayscale(crops: np.ndarray) -> np.ndarray:
    gray = np.rint(crops @ np.array([0.299, 0.587, 0.114], dtype=np.float32)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def _brighten(crop: np.ndarray, factor: float) -> np.ndarray:
    table = np.clip(np.rint(np.arange(256) * factor), 0, 255).astype(np.uint8)
    return table[crop]


def _mirror(crops: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    boxes = boxes.copy()
    boxes[..., 0] = 1 - boxes[..., 0]
    return crops[..., ::-1, :], boxes
