"""Random changes of a training pair: colour, brightness and mirroring."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Augmentation:
    """The original recipe of OSTrack, on 8-bit crops.

    Args:
        grayscale: Probability that a pair is turned to grey.
        flip: Probability that a whole pair is mirrored left to right.
        crop_flip: Probability that the templates, and independently the search crops, are mirrored left to right.
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
        searches: np.ndarray,
        template_boxes: np.ndarray,
        search_boxes: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Changes one pair; the arguments stay as they are.

        Args:
            rng: Source of all draws.
            templates: `(num_templates, 3, height, width)` uint8.
            searches: `(num_search_frames, 3, height, width)` uint8.
            template_boxes: `(num_templates, 4)` cxcywh in [0, 1] of each crop.
            search_boxes: `(num_search_frames, 4)` cxcywh in [0, 1] of each crop.

        Returns:
            The four arrays, changed.
        """
        gray, flip, template_flip, search_flip = rng.random(4) < (
            self.grayscale,
            self.flip,
            self.crop_flip,
            self.crop_flip,
        )
        factors = rng.uniform(1 - self.brightness, 1 + self.brightness, len(templates) + len(searches))
        if gray:
            templates, searches = _grayscale(templates), _grayscale(searches)
        tables = np.clip(np.rint(np.arange(256) * factors[:, None]), 0, 255).astype(np.uint8)
        templates = _look_up(templates, tables[: len(templates)])
        searches = _look_up(searches, tables[len(templates) :])
        if flip != template_flip:
            templates, template_boxes = _mirror(templates, template_boxes)
        if flip != search_flip:
            searches, search_boxes = _mirror(searches, search_boxes)
        return templates, searches, template_boxes, search_boxes


def _grayscale(crops: np.ndarray) -> np.ndarray:
    red, green, blue = torch.from_numpy(crops).unbind(1)
    gray = red * 0.299 + green * 0.587 + blue * 0.114
    return gray.round_().to(torch.uint8).unsqueeze(1).expand(crops.shape).numpy()


def _look_up(crops: np.ndarray, tables: np.ndarray) -> np.ndarray:
    # Indexing a table by bytes would turn them to integers of eight bytes first.
    changed = bytearray().join(crop.tobytes().translate(table) for table, crop in zip(tables, crops, strict=True))
    return np.frombuffer(changed, dtype=np.uint8).reshape(crops.shape)


def _mirror(crops: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    boxes = boxes.copy()
    boxes[..., 0] = 1 - boxes[..., 0]
    return torch.from_numpy(crops).flip(-1).numpy(), boxes
