"""What the tests of SUTrack's conversion share: CLIP towers, boxes and the order of tokens in the original's form."""

import torch

from ct_hf.models import TrackerState


def clip_that_says(feature: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights of a CLIP without blocks whose text tower says `feature`, bit for bit, whatever it is told."""
    width = len(feature)
    names = {
        "positional_embedding": torch.zeros(77, width),
        "text_projection": torch.zeros(width, width),
        "token_embedding.weight": torch.zeros(3, width),
        "ln_final.weight": torch.zeros(width),
        "ln_final.bias": torch.zeros(width),
        "logit_scale": torch.tensor(1.0),
        "visual.proj": torch.zeros(2, 2),
    }
    names["ln_final.bias"][0] = 1
    names["text_projection"][0] = feature
    return {f"text_encoder.clip.{name}": tensor for name, tensor in names.items()}


def public_boxes(boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Turn the original's template annotations, `x, y, w, h` over `size - 1`, into `cx, cy, w, h` over the crop."""
    shrink = (size - 1) / size
    boxes = boxes.double()
    center = 0.5 + (boxes[..., :2] + boxes[..., 2:] / 2 - 0.5) * shrink
    return torch.cat([center, boxes[..., 2:] * shrink], dim=-1).float()


def original_order(state: TrackerState) -> torch.Tensor:
    """Tokens as class, search, templates, text."""
    groups = state.groups()
    return torch.cat([groups["special"][:, :1], groups["search"], groups["template"], groups["special"][:, 1:]], dim=1)
