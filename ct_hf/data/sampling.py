"""Training pairs from clips: which frames, which crops, which label."""

from typing import Any

import numpy as np

from ..models.image_processing_tracker import CropWindow
from .annotation import check_box
from .augmentation import Augmentation
from .clip_sources import Clip
from .crops import cut_crop, frame_pixels
from .errors import SequenceError


class PairSampler:
    """Draws training pairs from clips.

    Templates and search frames are drawn as OSTrack's "causal" sampling does: the target is visible in all, and search
    frames come last; they are at most as far apart as the frames of a clip, 200. A clip of one frame, of a data set of
    images, gives it to templates and search alike. A search crop is shifted and scaled at random around its target.

    Args:
        config: Configuration of the tracker: `template_size`, `search_size`, `template_factor`, `search_factor` and
            `num_templates` are used.
        num_search_frames: Search crops of a pair, in order of time, for trackers that carry a memory from frame to
            frame. Default: 1.
        augmentation: Changes of each pair; `None` for none. Default: OSTrack's.
        center_jitter: Largest shift of the search crop is half of this, in units of the target's mean side; by default
            the largest at which the whole target stays in view, `search_factor - 1`: OSTrack's 3 at a factor of 4 (at 5 it
            takes 3.5).
        scale_jitter: Standard deviation of the log of the factors by which the search crop's size is changed. Default:
            0.25.
        draft: Whether the frames of a pair are decoded to 1/2, 1/4 or 1/8 of their size where all its crops are still
            made smaller than that. JPEG frames much larger than the crops then cost a part of the time; the crops are
            smoother than those a tracker gets when it tracks. Default: `False`.

    Example:
        >>> pair = PairSampler(config).draw(source.read(0), np.random.default_rng(0))
        >>> {name: (value.shape, value.dtype) for name, value in pair.items()}
        {'template_pixel_values': ((1, 3, 128, 128), dtype('uint8')),
         'search_pixel_values': ((3, 256, 256), dtype('uint8')),
         'template_boxes': ((1, 4), dtype('float32')),
         'search_boxes': ((4,), dtype('float32')),
         'frame_index': ((2,), dtype('int32'))}
    """

    def __init__(
        self,
        config: Any,
        *,
        num_search_frames: int = 1,
        augmentation: Augmentation | None = Augmentation(),  # noqa: B008 - frozen
        center_jitter: float | None = None,
        scale_jitter: float = 0.25,
        draft: bool = False,
    ):
        if num_search_frames < 1:
            raise ValueError(f"`num_search_frames` must be at least 1, got {num_search_frames}.")
        self.template_size, self.template_factor = config.template_size, config.template_factor
        self.search_size, self.search_factor = config.search_size, config.search_factor
        self.num_templates, self.num_search_frames = config.num_templates, num_search_frames
        self.augmentation = augmentation
        self.center_jitter = config.search_factor - 1 if center_jitter is None else center_jitter
        self.scale_jitter = scale_jitter
        self.draft = draft

    def draw(self, clip: Clip, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draws a pair, which depends on the arguments alone.

        Args:
            clip: Where from. Frames that are drawn are decoded, no others.
            rng: Source of all draws.

        Returns:
            Crops and boxes, with one dimension more for the search crop where there are several, and `frame_index`,
            `(num_templates + num_search_frames,)`: the numbers of the frames, search frames last.

        Raises:
            SequenceError: The target is visible in too few frames, or an image or a box that was drawn is broken.
        """
        chosen = self._choose(clip, rng)
        num, views = self.num_templates, [(self.template_factor, self.template_size)] * self.num_templates
        views += [(self.search_factor, self.search_size)] * self.num_search_frames
        boxes = clip.boxes[chosen].astype(np.float64)
        with np.errstate(invalid="ignore"):  # boxes are checked below, as that needs the frames
            targets = np.stack([*boxes[:num], *(self._jitter(box, rng) for box in boxes[num:])])
            reduction = _reduction(targets, views) if self.draft else 1
        frames = {position: clip.frame(position, reduction) for position in set(chosen)}
        if len({frame.size for frame in frames.values()}) > 1:
            raise SequenceError(f"{clip.name}: the frames of clip {clip.number} are of different sizes.", "frame_size")
        for position, frame in frames.items():
            size = frame.width * reduction, frame.height * reduction
            check_box(clip.boxes[position], size, f"{clip.name}, frame {clip.frame_index[position]}")

        pixels = {position: frame_pixels(frame) for position, frame in frames.items()}
        crops, labels = [], []
        for position, box, target, view in zip(chosen, boxes / reduction, targets / reduction, views, strict=True):
            window = CropWindow.around(target, *view)
            crops.append(cut_crop(window, pixels[position]))
            labels.append(window.to_crop(box))
        crops = _stack(crops[:num]), _stack(crops[num:]), np.stack(labels[:num]), np.stack(labels[num:])
        if self.augmentation is not None:
            crops = self.augmentation(rng, *crops)
        templates, searches, template_boxes, search_boxes = crops
        one = self.num_search_frames == 1
        return {
            "template_pixel_values": templates,
            "search_pixel_values": searches[0] if one else searches,
            "template_boxes": template_boxes.astype(np.float32),
            "search_boxes": (search_boxes[0] if one else search_boxes).astype(np.float32),
            "frame_index": np.array([clip.frame_index[position] for position in chosen], dtype=np.int32),
        }

    def _choose(self, clip: Clip, rng: np.random.Generator) -> list[int]:
        """Positions in the clip of the templates, then of the search frames, each in order of time."""
        visible = np.flatnonzero(clip.visible)
        if len(clip.visible) == len(visible) == 1:
            return [0] * (self.num_templates + self.num_search_frames)
        if len(visible) < 2:
            raise SequenceError(
                f"{clip.name}: the target is visible in {len(visible)} frames of clip {clip.number}, a pair needs 2.",
                "too_few_visible",
            )
        first, last = np.sort(rng.choice(len(visible), 2, replace=False))
        searches = np.sort([*rng.integers(first + 1, last + 1, self.num_search_frames - 1), last])
        templates = np.sort([first, *rng.integers(0, searches[0], self.num_templates - 1)])
        return visible[[*templates, *searches]].tolist()

    def _jitter(self, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = box[2:] * np.exp(rng.normal(size=2) * self.scale_jitter)
        center = box[:2] + box[2:] / 2 + np.sqrt(size.prod()) * self.center_jitter * (rng.random(2) - 0.5)
        return np.concatenate([center - size / 2, size])


def _stack(crops: list[np.ndarray]) -> np.ndarray:
    return crops[0][None] if len(crops) == 1 else np.stack(crops)  # one crop needs no copy


def _reduction(targets: np.ndarray, views: list[tuple[float, int]]) -> int:
    """The largest of 1, 2, 4 and 8 to one over which frames may be made smaller without a crop that is then enlarged."""
    factors, sides = np.array(views).T
    spare = (np.sqrt(targets[:, 2:].prod(axis=1)) * factors / sides).min()
    return next((reduction for reduction in (8, 4, 2) if spare >= reduction), 1)


__all__ = ["PairSampler"]
