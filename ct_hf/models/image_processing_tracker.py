"""Crops of a target and its surroundings, and the mapping of boxes between frame and crop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from .configuration_tracker import TrackerConfig


MOST_FRAMES = 3
"""Frames by which a box may be as wide or as high: a window around more would fill the memory."""

Frame = Image.Image | np.ndarray | torch.Tensor


def frame_size(frame: Frame) -> tuple[int, int]:
    """Width and height of a frame, in pixels."""
    if isinstance(frame, Image.Image):
        return frame.size
    return frame.shape[1], frame.shape[0]


def as_frame(frame: Frame) -> Image.Image | np.ndarray:
    """
    Bring a frame into one of the two forms that crops are taken from, without copying pixels where possible.

    Args:
        frame (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            RGB or grey frame: an image of any mode, an array `(height, width, 3)` or `(height, width)` of uint8, or a
            uint8 tensor of these shapes or `(3, height, width)`.

    Returns:
        `PIL.Image.Image` in mode RGB, or `np.ndarray` of shape `(height, width, 3)` and type uint8.

    Raises:
        TypeError: the frame is none of these types, or not uint8.
        ValueError: the frame has another shape.
    """
    if isinstance(frame, Image.Image):
        if frame.mode.startswith(("I", "F")):
            raise TypeError(
                f"`frame` must hold 8 bits a channel, got a PIL image of mode {frame.mode}. Scale it to 0..255."
            )
        return frame if frame.mode == "RGB" else frame.convert("RGB")
    if isinstance(frame, torch.Tensor):
        frame = frame.detach().cpu().numpy()
        if frame.ndim == 3 and frame.shape[0] == 3 and frame.shape[2] != 3:
            frame = frame.transpose(1, 2, 0)
    if not isinstance(frame, np.ndarray):
        raise TypeError(f"`frame` must be a PIL image, a NumPy array or a torch tensor, got {type(frame).__name__}.")
    if frame.dtype != np.uint8:
        raise TypeError(f"`frame` must hold uint8 values in 0..255, got {frame.dtype}. Convert it first.")
    if frame.ndim == 2:
        frame = np.repeat(frame[:, :, None], 3, axis=2)
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"`frame` must have shape (height, width, 3), got {tuple(frame.shape)}.")
    return frame


def check_box(box: Sequence[float] | np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """
    Check a box and return it as float64.

    Args:
        box (sequence of 4 floats):
            `x, y, width, height` in pixels of the frame, from 0.
        size (`tuple[int, int]`, *optional*):
            Width and height of the frame; given, the box has to overlap it.

    Returns:
        `np.ndarray` of shape `(4,)`.

    Raises:
        ValueError: the box is not four finite numbers, has no area, lies outside the frame or is far larger.
    """
    try:
        values = np.asarray(box, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):  # no numbers
        values = np.empty(0)
    if values.shape != (4,) or not all(map(math.isfinite, values.tolist())):
        raise ValueError(f"`box` must be four finite numbers x, y, width, height, got {box}.")
    x, y, w, h = values.tolist()
    if w <= 0 or h <= 0 or w * h == 0:  # which underflows where both are almost 0
        raise ValueError(f"`box` must have positive width and height, got {values.tolist()}.")
    if size is not None:
        if x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0:
            raise ValueError(f"`box` {values.tolist()} lies outside the frame of {size[0]}x{size[1]} pixels.")
        if w > MOST_FRAMES * size[0] or h > MOST_FRAMES * size[1]:
            raise ValueError(
                f"`box` {values.tolist()} is more than {MOST_FRAMES} times as large as the frame of {size[0]}x{size[1]} pixels, "
                "expected x, y, width, height in its pixels."
            )
    return values


@dataclass(frozen=True)
class CropWindow:
    """
    Square window of a frame that becomes a crop.

    Args:
        left (`int`): left edge in pixels of the frame; may be negative.
        top (`int`): upper edge in pixels of the frame; may be negative.
        size (`int`): side in pixels of the frame.
        center (`tuple[float, float]`): unrounded centre of the box that the window was laid around.
        output_size (`int`): side of the crop in pixels.
    """

    left: int
    top: int
    size: int
    center: tuple[float, float]
    output_size: int

    @classmethod
    def around(cls, box: Sequence[float] | np.ndarray, factor: float, output_size: int) -> Self:
        """
        Lay a window around a box by the originals' rule: side `ceil(sqrt(w * h) * factor)`, Python's rounding of the edge.

        Args:
            box (sequence of 4 floats): `x, y, width, height` in pixels.
            factor (`float`): side of the window in units of `sqrt(w * h)`.
            output_size (`int`): side of the crop in pixels.

        Raises:
            ValueError: the box is not finite or has no area.
        """
        x, y, w, h = check_box(box).tolist()
        size = math.ceil(math.sqrt(w * h) * factor)
        left, top = round(x + 0.5 * w - size * 0.5), round(y + 0.5 * h - size * 0.5)
        return cls(left, top, size, (x + 0.5 * w, y + 0.5 * h), output_size)

    @property
    def scale(self) -> float:
        """Pixels of the crop per pixel of the frame."""
        return self.output_size / self.size

    def to_frame(self, boxes: np.ndarray) -> np.ndarray:
        """
        Map boxes of the crop to the frame.

        The crop's origin was rounded to whole pixels, the mapping uses the unrounded centre, as the originals do.

        Args:
            boxes (`np.ndarray` of shape `(..., 4)`): `cx, cy, w, h` in [0, 1] of the crop.

        Returns:
            `np.ndarray` of shape `(..., 4)`: `x, y, w, h` in pixels of the frame.
        """
        boxes = np.asarray(boxes, dtype=np.float64) * self.size
        corner = np.asarray(self.center) - 0.5 * self.size + boxes[..., :2] - 0.5 * boxes[..., 2:]
        return np.concatenate([corner, boxes[..., 2:]], axis=-1)

    def to_crop(self, boxes: np.ndarray) -> np.ndarray:
        """
        Map boxes of the frame to the crop; the inverse of [`CropWindow.to_frame`].

        The originals place training labels half a crop pixel further to the upper left, so that their mapping and its
        inverse do not meet; here they do.

        Args:
            boxes (`np.ndarray` of shape `(..., 4)`): `x, y, w, h` in pixels of the frame.

        Returns:
            `np.ndarray` of shape `(..., 4)`: `cx, cy, w, h` in [0, 1] of the crop (beyond where the box leaves it).
        """
        boxes = np.asarray(boxes, dtype=np.float64)
        center = boxes[..., :2] + 0.5 * boxes[..., 2:] - np.asarray(self.center) + 0.5 * self.size
        return np.concatenate([center, boxes[..., 2:]], axis=-1) / self.size

    def inside(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """
        The part of the window that shows the frame.

        The originals drop the frame's last column and row whenever the window reaches them; so does this.

        Args:
            size (`tuple[int, int]`): width and height of the frame in pixels.

        Returns:
            Left, top, right and bottom in pixels of the frame, the last two excluded; an empty part has no width and height.
        """
        left, top = max(0, self.left), max(0, self.top)
        right = min(self.left + self.size, size[0] - 1)
        bottom = min(self.top + self.size, size[1] - 1)
        return (left, top, right, bottom) if right > left and bottom > top else (left, top, left, top)

    def extract(self, frame: Image.Image | np.ndarray) -> np.ndarray:
        """
        Cut the window out of a frame, zeros where it leaves the frame, and resize it bilinearly without antialiasing.

        Args:
            frame (`PIL.Image.Image` or `np.ndarray`): RGB frame as [`as_frame`] returns it.

        Returns:
            `np.ndarray` of shape `(output_size, output_size, 3)`, uint8, bit for bit as OpenCV's `resize` makes it.
        """
        x1, y1, x2, y2 = self.inside(frame_size(frame))
        region = np.zeros((self.size, self.size, 3), dtype=np.uint8)
        if x2 > x1:
            inside = frame.crop((x1, y1, x2, y2)) if isinstance(frame, Image.Image) else frame[y1:y2, x1:x2]
            region[y1 - self.top : y2 - self.top, x1 - self.left : x2 - self.left] = inside
        return resize_bilinear(region, self.output_size)


def resize_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """
    Resize a square image as OpenCV's `INTER_LINEAR` does on uint8, bit for bit: no antialiasing, weights of 11 bits.

    Trackers were trained on exactly these pixels; Pillow's bilinear transform is darker by 0.4 grey levels on noise.

    Args:
        image (`np.ndarray` of shape `(side, side, 3)`): uint8.
        size (`int`): side of the result in pixels.

    Returns:
        `np.ndarray` of shape `(size, size, 3)`, uint8.
    """
    side = image.shape[0]
    if side == size:
        return image
    position = (np.arange(size) + 0.5) * (side / size) - 0.5
    low = np.floor(position).astype(np.int64)
    fraction = (position - low).astype(np.float32)
    # OpenCV clamps the weights of columns at the border, but only the indices of rows.
    column_fraction = np.where((low < 0) | (low >= side - 1), np.float32(0), fraction)

    def weights(part: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        high_weight = torch.from_numpy(np.rint(part * np.float32(2048)).astype(np.int32))
        low_weight = torch.from_numpy(np.rint((np.float32(1) - part) * np.float32(2048)).astype(np.int32))
        return low_weight, high_weight

    first, second = (torch.from_numpy(np.clip(low + step, 0, side - 1)) for step in (0, 1))
    pixels, upper, lower = torch.from_numpy(image), first, second
    if side > 2 * size:  # most rows of a large window are never looked at
        pixels = pixels.index_select(0, torch.cat([first, second]))
        upper, lower = torch.arange(2 * size, device="cpu").split(size)
    # A weight for each value of a row, as torch multiplies whole rows four times as fast as pixels of three values.
    low_weight, high_weight = (weight.repeat_interleave(3) for weight in weights(column_fraction))
    left, right = (pixels.index_select(1, column).flatten(1).to(torch.int32) for column in (first, second))
    columns = left.mul_(low_weight).add_(right.mul_(high_weight)).bitwise_right_shift_(4)
    low_weight, high_weight = (weight.unsqueeze(1) for weight in weights(fraction))
    rows = columns.index_select(0, upper).mul_(low_weight).bitwise_right_shift_(16)
    rows += columns.index_select(0, lower).mul_(high_weight).bitwise_right_shift_(16)
    return rows.add_(2).bitwise_right_shift_(2).to(torch.uint8).view(size, size, 3).numpy()


def normalize_pixels(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """
    Turn grey levels into what a tracker takes.

    Args:
        pixels (`torch.Tensor` of shape `(..., 3, height, width)`): uint8 RGB.
        mean (sequence of 3 floats): mean of each channel for values in [0, 1].
        std (sequence of 3 floats): standard deviation of each channel for values in [0, 1].

    Returns:
        `torch.Tensor` of the same shape, float32.
    """
    mean = torch.tensor(mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(std, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


class TrackerFeatures(BatchFeature):
    """
    Arguments of a tracker's forward, which also know where in the frames the crops are from.

    Attributes:
        windows (`list[CropWindow]`): window of each crop.
    """

    windows: list[CropWindow]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "windows": self.windows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.windows = state["windows"]


class TrackerImageProcessor(BaseImageProcessor):
    r"""
    Cuts template and search crops and normalises them. One class serves every family.

    Args:
        template_size (`int`, *optional*, defaults to 128): side of the template crop in pixels.
        search_size (`int`, *optional*, defaults to 256): side of the search crop in pixels.
        template_factor (`float`, *optional*, defaults to 2.0): side of the template window in units of `sqrt(w * h)`.
        search_factor (`float`, *optional*, defaults to 4.0): side of the search window in the same units.
        image_mean (`list[float]`, *optional*): mean of each channel; ImageNet's by default.
        image_std (`list[float]`, *optional*): standard deviation of each channel; ImageNet's by default.
        num_templates (`int`, *optional*, defaults to 1): template crops that the tracker looks at.

    Example:

    ```python
    >>> processor = AutoImageProcessor.from_pretrained("outputs/compress/student")
    >>> templates = processor(frame, boxes=[box], target="template")
    >>> search = processor(next_frame, boxes=[box])
    >>> with torch.no_grad():
    ...     boxes, scores = model.locate(model(**templates, **search))
    >>> search.windows[0].to_frame(boxes[0].numpy())
    ```
    """

    model_input_names = ["template_pixel_values", "search_pixel_values"]

    def __init__(
        self,
        template_size: int = 128,
        search_size: int = 256,
        template_factor: float = 2.0,
        search_factor: float = 4.0,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        num_templates: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.template_size = template_size
        self.search_size = search_size
        self.template_factor = template_factor
        self.search_factor = search_factor
        self.image_mean = image_mean if image_mean is not None else [0.485, 0.456, 0.406]
        self.image_std = image_std if image_std is not None else [0.229, 0.224, 0.225]
        self.num_templates = num_templates

    @classmethod
    def from_config(cls, config: TrackerConfig) -> Self:
        """Build the processor that fits a tracker's configuration."""
        names = ("template_size", "search_size", "template_factor", "search_factor", "image_mean", "image_std")
        return cls(**{name: getattr(config, name) for name in (*names, "num_templates")})

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, **options: Any) -> Any:
        """Push the processor alone, to a repository that is made private by default; a tracker takes its own along."""
        return super().push_to_hub(repo_id, private=private is not False, **options)

    def window(self, box: Sequence[float] | np.ndarray, target: Literal["template", "search"]) -> CropWindow:
        """Window of a template or search crop around a box `x, y, w, h` in pixels."""
        if target not in ("template", "search"):
            raise ValueError(f'`target` must be "template" or "search", got {target!r}.')
        return CropWindow.around(box, getattr(self, f"{target}_factor"), getattr(self, f"{target}_size"))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 pixels of shape `(..., 3, height, width)`, see [`normalize_pixels`]."""
        return normalize_pixels(pixels, self.image_mean, self.image_std)

    def preprocess(
        self,
        images: Frame | list[Frame],
        boxes: Sequence[Sequence[float]] | np.ndarray,
        target: Literal["template", "search"] = "search",
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Cut and normalise one crop for each frame and box: arguments of the tracker's forward.

        Args:
            images (frame or `list` of frames):
                One frame for all boxes, or one for each.
            boxes (`(number, 4)` floats):
                `x, y, w, h` in pixels of the frame: the target for a template, its last known box for a search region.
            target (`"template"` or `"search"`, *optional*, defaults to `"search"`):
                Which crop to cut.
            return_tensors (`str`, *optional*):
                `"pt"`, which is what comes anyway.

        Returns:
            [`TrackerFeatures`] with `template_pixel_values` `(number, num_templates, 3, size, size)`, each template as often as
            the tracker wants one, and `template_boxes` `(number, num_templates, 4)`, the target in it; or with
            `search_pixel_values` `(number, 3, size, size)`. Its attribute `windows`, a list of [`CropWindow`], maps boxes of
            the crops back to the frames.

        Raises:
            ValueError: the numbers of frames and boxes differ, a box or frame is not usable, a box lies outside its frame, or
                `return_tensors` is something else.
        """
        if return_tensors not in (None, "pt"):
            raise ValueError(f"`return_tensors` must be 'pt', got {return_tensors!r}: trackers take tensors of torch.")
        if kwargs:
            raise TypeError(
                f"unexpected argument `{next(iter(kwargs))}`; sizes and normalisation belong to the processor."
            )
        boxes = _rows_of_boxes(boxes)
        frames = images if isinstance(images, list) else [images] * len(boxes)
        if len(frames) != len(boxes):
            raise ValueError(
                f"`images` holds {len(frames)} frames but `boxes` {len(boxes)} boxes; give as many of each."
            )
        frames = [as_frame(frame) for frame in frames]
        for frame, box in zip(frames, boxes, strict=True):
            check_box(box, frame_size(frame))
        windows = [self.window(box, target) for box in boxes]
        crops = np.stack([window.extract(frame) for window, frame in zip(windows, frames, strict=True)])
        pixels = self.normalize(torch.from_numpy(crops).permute(0, 3, 1, 2))
        features = TrackerFeatures({f"{target}_pixel_values": pixels}, tensor_type=None)
        if target == "template":
            inside = np.stack([window.to_crop(box) for window, box in zip(windows, boxes, strict=True)])
            inside = torch.from_numpy(inside).to(torch.float32)
            features["template_pixel_values"] = pixels.unsqueeze(1).repeat(1, self.num_templates, 1, 1, 1)
            features["template_boxes"] = inside.unsqueeze(1).repeat(1, self.num_templates, 1)
        features.windows = windows
        return features


def _rows_of_boxes(boxes: Any) -> np.ndarray:
    """Boxes as `(number, 4)` float64, of rows or of a single one."""
    try:
        rows = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError):  # no numbers, or rows of different lengths
        rows = np.empty(0)
    rows = rows[None] if rows.shape == (4,) else rows
    if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows):
        raise ValueError(
            f"`boxes` must hold rows of four numbers x, y, width, height, one for each crop, got {boxes}."
        )
    return rows


__all__ = ["CropWindow", "TrackerImageProcessor"]
