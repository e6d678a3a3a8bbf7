"""A tiny SUTrack and its batches for the tests of compression."""

from typing import Any

import torch

from ct_hf.compression import MixedTracker, StagePlan, build_student
from ct_hf.models import SUTrackConfig, SUTrackModel

from .tiny import make_batch


NARROW = {"hidden_size": 16, "intermediate_size": 32}
"""Configuration of a student of unlike width: as many heads, each half as wide, and fewer neurons."""
WIDTHS = {"equal": {}, "unlike": NARROW}


def make_sutrack(layers: int = 6, seed: int = 0, **changes: Any) -> SUTrackModel:
    """A teacher whose weights are spread out, so that every layer and every head says something of its own."""
    fields = {
        "template_size": 32,
        "search_size": 64,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "stem_depth": 1,
        "text_dim": 8,
        "head_channels": 16,
        "task_head_channels": 16,
        "layer_scale_init_value": 0.5,
    }
    torch.manual_seed(seed)
    model = SUTrackModel(SUTrackConfig(**{**fields, **changes}))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn(tensor.shape))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model.eval()


def make_sutrack_batch(size: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two different templates with boxes of their own."""
    batch = make_batch(size, seed)
    generator = torch.Generator().manual_seed(seed + 100)
    boxes = torch.cat([torch.full((size, 2, 2), 0.5), 0.3 + 0.3 * torch.rand(size, 2, 2, generator=generator)], dim=-1)
    templates = torch.cat([batch["template_pixel_values"], batch["template_pixel_values"].flip(-1)], dim=1)
    return {**batch, "template_pixel_values": templates, "template_boxes": boxes}


def make_sutrack_mixed(stages: str = "3-1-2", teacher: SUTrackModel | None = None, **changes: Any) -> MixedTracker:
    """A teacher of six layers and its student of one layer a stage."""
    plan = StagePlan.from_sizes([int(size) for size in stages.split("-")])
    teacher = teacher or make_sutrack(plan.teacher_cuts[-1])
    weights = {name: changes.pop(name) for name in list(changes) if name.endswith("_weight")}
    torch.manual_seed(5)
    student, _ = build_student(teacher, plan, **changes)
    torch.manual_seed(9)
    return MixedTracker(student, teacher, plan, **weights).train()
