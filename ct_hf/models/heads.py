"""Prediction heads, each with its loss, its guidance by a teacher and its rule for tracking."""

import torch
import torch.nn.functional as F
from torch import nn

from .box_ops import box_overlaps, cxcywh_to_xyxy, full_precision, xyxy_to_cxcywh
from .tracker import TrackerOutput


GIOU_WEIGHT = 2.0
L1_WEIGHT = 5.0
PROBABILITY_MARGIN = 1e-4  # maps are clamped to [margin, 1 - margin], as the originals do


class ConvTower(nn.Module):
    """
    Four 3x3 convolutions with batch norm, each but the first halving the channels, and a 1x1 convolution.

    Args:
        in_channels (`int`): channels of the features.
        channels (`int`): channels of the first convolution.
        out_channels (`int`): channels of the map.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__()
        widths = [in_channels, *(channels // 2**i for i in range(4))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.projection = nn.Conv2d(widths[-1], out_channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features `(batch_size, in_channels, grid, grid)` to `(batch_size, out_channels, grid, grid)` in fp32."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = F.relu(norm(convolution(features)))
        return full_precision(self.projection(features))


def tokens_to_map(tokens: torch.Tensor, grid: int) -> torch.Tensor:
    """Lay tokens `(batch_size, grid * grid, channels)` in raster order out as `(batch_size, channels, grid, grid)`."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, grid, grid)


def hann_window(size: int, device: torch.device | None = None) -> torch.Tensor:
    """Hann window `(size, size)` without zeros at its ends, the originals' penalty on large displacement."""
    edge = torch.arange(1, size + 1, device=device, dtype=torch.float32)
    edge = 0.5 * (1 - torch.cos(2 * torch.pi * edge / (size + 1)))
    return torch.outer(edge, edge)


def gaussian_map(boxes: torch.Tensor, grid: int, min_overlap: float = 0.7) -> torch.Tensor:
    """
    Label of a score map: 1 in the cell of the target's centre, falling off as CenterNet's
    (https://huggingface.co/papers/1904.07850; the radius is CornerNet's, in the form that OSTrack uses).

    Args:
        boxes (`torch.Tensor` of shape `(batch_size, 4)`): `cx, cy, w, h` in [0, 1].
        grid (`int`): cells along a side.
        min_overlap (`float`, *optional*, defaults to 0.7): overlap that a box within the radius must keep.

    Returns:
        `torch.Tensor` of shape `(batch_size, 1, grid, grid)`.
    """
    width, height = (boxes[:, 2:].clamp(min=0) * grid).unbind(-1)
    total, area = width + height, width * height
    roots = [
        (total + (total**2 - 4 * area * (1 - min_overlap) / (1 + min_overlap)).sqrt()) / 2,
        (2 * total + (4 * total**2 - 16 * (1 - min_overlap) * area).sqrt()) / 2,
        (
            -2 * min_overlap * total
            + (4 * min_overlap**2 * total**2 + 16 * min_overlap * (1 - min_overlap) * area).sqrt()
        )
        / 2,
    ]
    radius = torch.stack(roots).amin(0).clamp(min=0).floor().view(-1, 1, 1)
    center = (boxes[:, :2] * grid).round().clamp(0, grid - 1)
    cells = torch.arange(grid, device=boxes.device, dtype=boxes.dtype)
    dx = (cells[None, None, :] - center[:, 0].view(-1, 1, 1)).expand(-1, grid, -1)
    dy = (cells[None, :, None] - center[:, 1].view(-1, 1, 1)).expand(-1, -1, grid)
    sigma = (2 * radius + 1) / 6
    label = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    label = torch.where(label < torch.finfo(torch.float64).eps, torch.zeros_like(label), label)
    inside = (dx.abs() <= radius) & (dy.abs() <= radius)
    return (label * inside).unsqueeze(1)


def focal_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """
    Focal loss of a score map (https://huggingface.co/papers/1904.07850, Eq. 1), from logits so that it stays finite.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, 1, grid, grid)`): scores before the sigmoid.
        label (`torch.Tensor` of shape `(batch_size, 1, grid, grid)`): see [`gaussian_map`].

    Returns:
        `torch.Tensor`: sum over the map, divided by the number of targets.
    """
    probability = logits.sigmoid()
    positive = label.eq(1).to(logits.dtype)
    hit = F.logsigmoid(logits) * (1 - probability) ** 2 * positive
    miss = F.logsigmoid(-logits) * probability**2 * (1 - label) ** 4 * (1 - positive)
    return -(hit + miss).sum() / positive.sum().clamp(min=1)


def box_losses(boxes: torch.Tensor, targets: torch.Tensor, prefix: str = "") -> dict[str, torch.Tensor]:
    """
    Weighted GIoU and L1 losses of boxes.

    Args:
        boxes (`torch.Tensor` of shape `(batch_size, 4)`): `cx, cy, w, h` in [0, 1].
        targets (`torch.Tensor` of shape `(batch_size, 4)`): the same.
        prefix (`str`, *optional*, defaults to `""`): start of the names.

    Returns:
        `dict[str, torch.Tensor]`: `giou` (weight 2) and `l1` (weight 5), on edges.
    """
    boxes, targets = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets)
    _, giou = box_overlaps(boxes, targets)
    return {
        f"{prefix}giou": GIOU_WEIGHT * (1 - giou).mean(),
        f"{prefix}l1": L1_WEIGHT * (boxes - targets).abs().mean(),
    }


def categorical_divergence(logits: torch.Tensor, target_logits: torch.Tensor) -> torch.Tensor:
    """
    Kullback-Leibler divergence of two sets of distributions, summed over all of them.

    Args:
        logits (`torch.Tensor` of shape `(..., classes)`): before the softmax.
        target_logits (`torch.Tensor` of shape `(..., classes)`): the same of the teacher.
    """
    target, logits = target_logits.log_softmax(dim=-1), logits.log_softmax(dim=-1)
    # The last two terms sum to zero; with them every logit's gradient is exactly zero at equality.
    return (target.exp() * (target - logits) + logits.exp() - target.exp()).sum()


def clip_to_crop(boxes: torch.Tensor) -> torch.Tensor:
    """Clip label boxes `(batch_size, 4)`, `cx, cy, w, h`, to the crop [0, 1], as the originals do."""
    return xyxy_to_cxcywh(cxcywh_to_xyxy(full_precision(boxes)).clamp(0, 1))


class CenterHead(nn.Module):
    """
    Score, offset and size maps; the box is read where the score is highest (OSTrack's head).

    Args:
        in_channels (`int`): width of the tokens.
        channels (`int`): channels of the first convolution of each tower.
        grid (`int`): cells along a side of the search crop.
    """

    def __init__(self, in_channels: int, channels: int, grid: int):
        super().__init__()
        self.grid = grid
        self.score = ConvTower(in_channels, channels, 1)
        self.offset = ConvTower(in_channels, channels, 2)
        self.size = ConvTower(in_channels, channels, 2)

    def forward(self, search_tokens: torch.Tensor) -> TrackerOutput:
        """Predict from search tokens `(batch_size, grid * grid, in_channels)` in raster order."""
        features = tokens_to_map(search_tokens, self.grid)
        score_logits, offset_map, size_logits = self.score(features), self.offset(features), self.size(features)
        score_map = score_logits.sigmoid().clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
        size_map = size_logits.sigmoid().clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
        boxes, score = self.read_boxes(score_map, size_map, offset_map)
        return TrackerOutput(
            pred_boxes=boxes,
            score=score,
            score_map=score_map,
            score_logits=score_logits,
            size_map=size_map,
            offset_map=offset_map,
        )

    def read_boxes(
        self, response: torch.Tensor, size_map: torch.Tensor, offset_map: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes `(batch_size, 4)` and the peak `(batch_size,)` of a response map `(batch_size, 1, grid, grid)`."""
        score, cell = response.flatten(1).max(dim=1)
        index = cell.view(-1, 1, 1).expand(-1, 2, 1)
        size = size_map.flatten(2).gather(2, index).squeeze(2)
        offset = offset_map.flatten(2).gather(2, index).squeeze(2)
        corner = torch.stack([cell % self.grid, cell // self.grid], dim=1)
        return torch.cat([(corner + offset) / self.grid, size], dim=1), score

    def locate(self, output: TrackerOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """See [`~tracker.PreTrainedTracker.locate`]: the maps are read where window times score is highest."""
        response = output.score_map * hann_window(self.grid, output.score_map.device)
        return self.read_boxes(response, output.size_map, output.offset_map)

    def compute_loss(self, output: TrackerOutput, search_boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """See [`~tracker.PreTrainedTracker.compute_loss`]: focal + 2 GIoU + 5 L1."""
        with torch.autocast(search_boxes.device.type, enabled=False):
            focal = focal_loss(output.score_logits, gaussian_map(full_precision(search_boxes), self.grid))
            return {"focal": focal, **box_losses(output.pred_boxes, clip_to_crop(search_boxes))}

    def compute_guidance(self, output: TrackerOutput, teacher_output: TrackerOutput) -> dict[str, torch.Tensor]:
        """
        See [`~tracker.PreTrainedTracker.compute_guidance`]: 2 GIoU + 5 L1 to the teacher's box, and the divergence of each
        cell's score, summed over the map. The released code has no map term: its boxes come from a hard peak, so the
        teacher never reaches the student's score map.
        """
        with torch.autocast(output.pred_boxes.device.type, enabled=False):
            target = teacher_output.score_logits.detach()
            probability = target.sigmoid()
            cross_entropy = F.binary_cross_entropy_with_logits(output.score_logits, probability, reduction="none")
            entropy = F.binary_cross_entropy_with_logits(target, probability, reduction="none")
            divergence = (cross_entropy - entropy).sum() / target.shape[0]
            boxes = box_losses(output.pred_boxes, teacher_output.pred_boxes.detach(), prefix="guidance_")
            return {"guidance_map": divergence, **boxes}


class CornerHead(nn.Module):
    """
    A heat map for the upper left and one for the lower right corner, read by their expectation (STARK's head,
    https://huggingface.co/papers/2103.17154, as OSTrack offers it).

    Args:
        in_channels (`int`): width of the tokens.
        channels (`int`): channels of the first convolution of each tower.
        grid (`int`): cells along a side of the search crop.
    """

    def __init__(self, in_channels: int, channels: int, grid: int):
        super().__init__()
        self.grid = grid
        self.top_left = ConvTower(in_channels, channels, 1)
        self.bottom_right = ConvTower(in_channels, channels, 1)

    def forward(self, search_tokens: torch.Tensor) -> TrackerOutput:
        """Predict from search tokens `(batch_size, grid * grid, in_channels)` in raster order."""
        features = tokens_to_map(search_tokens, self.grid)
        logits = torch.cat([self.top_left(features), self.bottom_right(features)], dim=1)
        probability = logits.flatten(2).softmax(dim=2)
        cells = torch.arange(self.grid, device=logits.device, dtype=logits.dtype) / self.grid
        x = (probability.view_as(logits).sum(2) * cells).sum(-1)
        y = (probability.view_as(logits).sum(3) * cells).sum(-1)
        corners = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
        score = probability.amax(dim=2).mean(dim=1)
        return TrackerOutput(pred_boxes=xyxy_to_cxcywh(corners), score=score, corner_logits=logits)

    def locate(self, output: TrackerOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """See [`~tracker.PreTrainedTracker.locate`]: expectations need no window."""
        return output.pred_boxes, output.score

    def compute_loss(self, output: TrackerOutput, search_boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """See [`~tracker.PreTrainedTracker.compute_loss`]: 2 GIoU + 5 L1."""
        with torch.autocast(search_boxes.device.type, enabled=False):
            return box_losses(output.pred_boxes, clip_to_crop(search_boxes))

    def compute_guidance(self, output: TrackerOutput, teacher_output: TrackerOutput) -> dict[str, torch.Tensor]:
        """See [`~tracker.PreTrainedTracker.compute_guidance`]: 2 GIoU + 5 L1, and the divergence of each corner's map."""
        with torch.autocast(output.pred_boxes.device.type, enabled=False):
            target = teacher_output.corner_logits.detach().flatten(2)
            divergence = categorical_divergence(output.corner_logits.flatten(2), target) / target.shape[0]
            boxes = box_losses(output.pred_boxes, teacher_output.pred_boxes.detach(), prefix="guidance_")
            return {"guidance_map": divergence, **boxes}


__all__ = ["CenterHead", "CornerHead", "gaussian_map", "hann_window"]
