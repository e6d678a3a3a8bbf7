"""Boxes as tensors: forms and overlaps."""

import torch


def full_precision(tensor: torch.Tensor) -> torch.Tensor:
    """Cast half precision to fp32, in which predictions and losses are computed; fp32 and fp64 stay as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def cxcywh_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    """Turn boxes `(..., 4)` given by centre and size into left, top, right, bottom."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def xyxy_to_cxcywh(boxes: torch.Tensor) -> torch.Tensor:
    """Turn boxes `(..., 4)` given by left, top, right, bottom into centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_overlaps(boxes: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Overlap of boxes pair by pair (https://huggingface.co/papers/1902.09630).

    Where a box equals its target exactly the gradient of both is zero: ties of minimum and maximum share it evenly.

    Args:
        boxes (`torch.Tensor` of shape `(..., 4)`): left, top, right, bottom.
        targets (`torch.Tensor` of shape `(..., 4)`): left, top, right, bottom.

    Returns:
        `tuple` of two `torch.Tensor` of shape `(...,)`: intersection over union, and its generalised form.
    """
    tiny = torch.finfo(boxes.dtype).tiny
    area = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
    target_area = (targets[..., 2:] - targets[..., :2]).clamp(min=0).prod(-1)
    low = torch.maximum(boxes[..., :2], targets[..., :2])
    high = torch.minimum(boxes[..., 2:], targets[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    union = (area + target_area - intersection).clamp(min=tiny)
    hull_low = torch.minimum(boxes[..., :2], targets[..., :2])
    hull_high = torch.maximum(boxes[..., 2:], targets[..., 2:])
    hull = (hull_high - hull_low).clamp(min=0).prod(-1).clamp(min=tiny)
    # As a difference from 1, or rounding would leave a gradient at equality.
    iou = 1 - (union - intersection) / union
    return iou, iou - (hull - union) / hull
