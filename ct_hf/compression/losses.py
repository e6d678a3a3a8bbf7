"""What the student learns from the teacher's hidden states."""

import torch

from ..models.box_ops import full_precision
from ..models.tracker import TrackerState


def mimicking_loss(state: TrackerState, teacher_state: TrackerState) -> torch.Tensor:
    """
    Distance of hidden states (section 3.3 of the paper): mean squared difference over tokens and channels in each token
    group, averaged over the groups, so that few template tokens weigh as much as many search tokens.

    Args:
        state ([`TrackerState`]): state of the mixed path at a boundary, in the teacher's width.
        teacher_state ([`TrackerState`]): the teacher's own state there; no gradient flows into it.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`, fp32.
    """
    targets = teacher_state.groups()
    with torch.autocast(state.hidden_states.device.type, enabled=False):
        distances = [
            (full_precision(tokens) - full_precision(targets[name].detach())).pow(2).mean(dim=(1, 2))
            for name, tokens in state.groups().items()
        ]
        return torch.stack(distances).mean(dim=0)


__all__ = ["mimicking_loss"]
