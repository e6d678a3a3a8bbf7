"""What the student learns from the teacher's hidden states."""

from typing import Literal

import torch
from torch.nn import functional as F

from ..models.box_ops import full_precision
from ..models.tracker import TrackerState


Mimicking = Literal["mse", "smooth_l1", "cosine", "gram"]
MimickingStages = Literal["all", "student", "last"]


def mimicking_loss(state: TrackerState, teacher_state: TrackerState, distance: Mimicking = "mse") -> torch.Tensor:
    """
    Distance of hidden states (section 3.3 of the paper) in each token group, averaged over the groups, so that few template
    tokens weigh as much as many search tokens.

    Args:
        state ([`TrackerState`]): state of the mixed path at a boundary, in the teacher's width.
        teacher_state ([`TrackerState`]): the teacher's own state there; no gradient flows into it.
        distance (`str`, *optional*, defaults to `"mse"`):
            Mean over tokens and channels of the squared difference (`"mse"`, the paper's) or of the smooth L1 distance
            (`"smooth_l1"`); mean over tokens of 1 less the cosine of their angle (`"cosine"`); or mean squared difference of
            the cosines between all tokens of the group (`"gram"`), which leaves free what the channels mean.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`, fp32.
    """
    targets = teacher_state.groups()
    with torch.autocast(state.hidden_states.device.type, enabled=False):
        distances = [
            _distance(full_precision(tokens), full_precision(targets[name].detach()), distance)
            for name, tokens in state.groups().items()
        ]
        return torch.stack(distances).mean(dim=0)


def _distance(tokens: torch.Tensor, targets: torch.Tensor, kind: Mimicking) -> torch.Tensor:
    """`(batch_size,)` of two `(batch_size, num_tokens, width)`."""
    if kind == "smooth_l1":
        return F.smooth_l1_loss(tokens, targets, reduction="none").mean(dim=(1, 2))
    if kind == "cosine":
        return 1 - F.cosine_similarity(tokens, targets, dim=2).mean(dim=1)
    if kind == "gram":
        tokens, targets = F.normalize(tokens, dim=2), F.normalize(targets, dim=2)
        tokens, targets = tokens @ tokens.mT, targets @ targets.mT
    return (tokens - targets).pow(2).mean(dim=(1, 2))


__all__ = ["Mimicking", "MimickingStages", "mimicking_loss"]
