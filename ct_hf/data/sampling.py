"""Training pairs from clips: which frames, which crops, which label."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..models.image_processing_tracker import CropWindow
from .annotation import check_box
from .augmentation import Augmentation
from .errors import CAUSES, SequenceError
from .frames import decode_frame
from .streaming import MAX_BAD_CLIPS, describe_skipped


class PairSampler:
    """Draws training pairs from the rows of [`stream_clips`], for [`~datasets.IterableDataset.map`].

    Templates and search frames are drawn as OSTrack's "causal" sampling does: the target is visible in all, and the
    search frame is the last of them. The search crop is shifted and scaled at random around its target. A pair whose
    image or box is broken is left out and counted in the column `skipped` of the next good pair of the stream.

    Each pair is a pure function of `seed`, the clip's name and number, and the pair's number; `skipped` also depends on
    the rows before.

    Args:
        config: Configuration of the tracker: `template_size`, `search_size`, `template_factor`, `search_factor` and
            `num_templates` are used.
        seed: Seed of all draws.
        pairs_per_clip: Pairs drawn from each clip.
        augmentation: Changes of each pair; `None` for none.
        center_jitter: Largest shift of the search crop is half of this, in units of the target's mean side; by default
            the largest at which the whole target stays in view, `search_factor - 1`: OSTrack's 3 at a factor of 4 (at 5 it
            takes 3.5).
        scale_jitter: Standard deviation of the log of the factors by which the search crop's size is changed.

    Example:
        >>> pairs = clips.map(PairSampler(config, seed=0), batched=True, batch_size=1, remove_columns=clips.column_names)
        >>> {name: (value.shape, value.dtype) for name, value in next(iter(pairs)).items()}
        {'template_pixel_values': ((1, 3, 128, 128), dtype('uint8')),
         'search_pixel_values': ((3, 256, 256), dtype('uint8')),
         'template_boxes': ((1, 4), dtype('float32')),
         'search_boxes': ((4,), dtype('float32')),
         'skipped': ((8,), dtype('int64'))}
    """

    def __init__(
        self,
        config: Any,
        *,
        seed: int,
        pairs_per_clip: int = 4,
        augmentation: Augmentation | None = Augmentation(),  # noqa: B008 - frozen
        center_jitter: float | None = None,
        scale_jitter: float = 0.25,
    ):
        if pairs_per_clip < 1:
            raise ValueError(f"`pairs_per_clip` must be at least 1, got {pairs_per_clip}.")
        self.template_size, self.template_factor = config.template_size, config.template_factor
        self.search_size, self.search_factor = config.search_size, config.search_factor
        self.num_templates = config.num_templates
        self.seed = seed
        self.pairs_per_clip = pairs_per_clip
        self.augmentation = augmentation
        self.center_jitter = config.search_factor - 1 if center_jitter is None else center_jitter
        self.scale_jitter = scale_jitter
        self._pending = np.zeros(len(CAUSES), dtype=np.int64)
        self._bad_clips = 0

    def __call__(self, rows: dict[str, list]) -> dict[str, list[np.ndarray]]:
        """Draws the pairs of a batch of clips.

        Args:
            rows: Columns of clips, see [`CLIP_FEATURES`]; `skipped` may be missing.

        Returns:
            Columns of pairs, at most `pairs_per_clip` for each clip.

        Raises:
            SequenceError: None of the last 1000 clips had a usable pair.
        """
        pairs = []
        for index in range(len(rows["name"])):
            pairs += self.pairs({name: rows[name][index] for name in _Clip.COLUMNS if name in rows})
        return {name: [pair[name] for pair in pairs] for name in _COLUMNS}

    def pairs(self, row: dict[str, Any]) -> list[dict[str, np.ndarray]]:
        """Draws the pairs of one clip.

        Args:
            row: One row of clips.

        Returns:
            At most `pairs_per_clip` pairs, with `frame_index`, `(num_templates + 1,)` int32, beside the columns of the
            stream: the numbers of their frames, the search frame's last.

        Raises:
            SequenceError: None of the last 1000 clips had a usable pair.
        """
        clip = _Clip(**{name: row[name] for name in _Clip.COLUMNS if name in row})
        self._pending += clip.skipped
        pairs = []
        for number in range(self.pairs_per_clip):
            rng = np.random.default_rng([self.seed, zlib.crc32(clip.name.encode()), clip.clip, number])
            try:
                pairs.append(self._pair(clip, rng))
            except SequenceError as error:
                self._pending[CAUSES.index(error.cause)] += 1
                last = error
        if not pairs:
            self._bad_clips += 1
            if self._bad_clips >= MAX_BAD_CLIPS:
                raise SequenceError(
                    f"{self._bad_clips} clips in a row gave no training pair ({describe_skipped(self._pending)}). Check "
                    f"the data; the last problem was: {last}",
                    last.cause,
                )
            return []
        for pair in pairs:
            pair["skipped"] = np.zeros_like(self._pending)
        # All that was met so far is reported at once, so that nothing waits when a stream is left between two clips.
        pairs[0]["skipped"] = self._pending
        self._pending = np.zeros_like(self._pending)
        self._bad_clips = 0
        return pairs

    def _pair(self, clip: "_Clip", rng: np.random.Generator) -> dict[str, np.ndarray]:
        chosen = self._choose(clip, rng)
        frames = [clip.frame(position) for position in chosen]
        if len({frame.size for frame in frames}) > 1:
            raise SequenceError(
                f"{clip.name}: the frames of clip {clip.clip} are of different sizes.",
                "frame_size",
            )
        for position, frame in zip(chosen, frames, strict=True):
            check_box(clip.boxes[position], frame.size, f"{clip.name}, frame {clip.frame_index[position]}")
        boxes = [np.asarray(clip.boxes[position], dtype=np.float64) for position in chosen]

        windows = [CropWindow.around(box, self.template_factor, self.template_size) for box in boxes[:-1]]
        templates = np.stack([window.extract(frame) for window, frame in zip(windows, frames, strict=False)])
        template_boxes = np.stack([window.to_crop(box) for window, box in zip(windows, boxes, strict=False)])
        window = CropWindow.around(self._jitter(boxes[-1], rng), self.search_factor, self.search_size)
        search, search_boxes = window.extract(frames[-1]), window.to_crop(boxes[-1])
        if self.augmentation is not None:
            templates, search, template_boxes, search_boxes = self.augmentation(
                rng, templates, search, template_boxes, search_boxes
            )
        return {
            "template_pixel_values": np.ascontiguousarray(templates.transpose(0, 3, 1, 2)),
            "search_pixel_values": np.ascontiguousarray(search.transpose(2, 0, 1)),
            "template_boxes": template_boxes.astype(np.float32),
            "search_boxes": search_boxes.astype(np.float32),
            "frame_index": np.array([clip.frame_index[position] for position in chosen], dtype=np.int32),
        }

    def _choose(self, clip: "_Clip", rng: np.random.Generator) -> list[int]:
        """Positions in the clip of the templates, in order of time, and of the search frame, which comes last."""
        if not len(clip.frames) == len(clip.frame_index) == len(clip.boxes) == len(clip.visible):
            raise SequenceError(
                f"{clip.name}: clip {clip.clip} has {len(clip.frames)} frames, {len(clip.frame_index)} frame indices, "
                f"{len(clip.boxes)} boxes and {len(clip.visible)} flags of visibility. Expected as many of each.",
                "length_mismatch",
            )
        visible = np.flatnonzero(clip.visible)
        if len(visible) < 2:
            raise SequenceError(
                f"{clip.name}: the target is visible in {len(visible)} frames of clip {clip.clip}, a pair needs 2.",
                "too_few_visible",
            )
        first, last = np.sort(rng.choice(len(visible), 2, replace=False))
        extra = rng.integers(0, last, self.num_templates - 1)
        return visible[[*np.sort([first, *extra]), last]].tolist()

    def _jitter(self, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = box[2:] * np.exp(rng.normal(size=2) * self.scale_jitter)
        center = box[:2] + box[2:] / 2 + np.sqrt(size.prod()) * self.center_jitter * (rng.random(2) - 0.5)
        return np.concatenate([center - size / 2, size])


_COLUMNS = ("template_pixel_values", "search_pixel_values", "template_boxes", "search_boxes", "skipped")


@dataclass
class _Clip:
    """One row of clips, of which every frame is decoded at most once, and only when a pair uses it."""

    name: str
    clip: int
    frames: list[dict[str, Any]]
    frame_index: list[int]
    boxes: list[list[float]]
    visible: list[bool]
    skipped: list[int] | int = 0

    COLUMNS = ("name", "clip", "frames", "frame_index", "boxes", "visible", "skipped")

    def __post_init__(self):
        self._decoded: dict[int, Image.Image | SequenceError] = {}

    def frame(self, position: int) -> Image.Image:
        if position not in self._decoded:
            where, data = f"{self.name}, frame {self.frame_index[position]}", self.frames[position]["bytes"]
            try:
                if data is None:
                    raise SequenceError(f"{where} has no bytes. Store the image files in the clips.", "missing_frame")
                self._decoded[position] = decode_frame(data, where)
            except SequenceError as error:
                self._decoded[position] = error
        frame = self._decoded[position]
        if isinstance(frame, SequenceError):
            raise frame
        return frame
