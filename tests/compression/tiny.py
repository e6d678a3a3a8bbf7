"""Tiny trackers, batches and pairs for the tests of compression."""

import itertools
from typing import Any

import numpy as np
import torch

from ct_hf.compression import MixedTracker, StagePlan, build_student
from ct_hf.data import CAUSES
from ct_hf.models import OSTrackConfig, OSTrackModel


TEMPLATE, SEARCH = 4, 16
"""Tokens of the tiny trackers' template and search crop."""


def make_config(layers: int = 4, **changes: Any) -> OSTrackConfig:
    fields = {
        "template_size": 32,
        "search_size": 64,
        "patch_size": 16,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "head_channels": 16,
    }
    return OSTrackConfig(num_hidden_layers=layers, **{**fields, **changes})


def make_tracker(layers: int = 4, seed: int = 0, spread: float = 0.1, **changes: Any) -> OSTrackModel:
    """A tracker whose weights are spread out, so that every layer and every head says something of its own."""
    torch.manual_seed(seed)
    model = OSTrackModel(make_config(layers, **changes))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(spread * torch.randn(tensor.shape))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model.eval()


def make_batch(size: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Normalised crops of noise with random labels within them."""
    generator = torch.Generator().manual_seed(seed)
    center = 0.3 + 0.4 * torch.rand(size, 2, generator=generator)
    extent = 0.2 + 0.3 * torch.rand(size, 2, generator=generator)
    batch = {
        "template_pixel_values": torch.randn(size, 1, 3, 32, 32, generator=generator),
        "search_pixel_values": torch.randn(size, 3, 64, 64, generator=generator),
        "template_boxes": torch.tensor([0.5, 0.5, 0.5, 0.5]).expand(size, 1, 4).contiguous(),
        "search_boxes": torch.cat([center, extent], dim=1),
    }
    return {name: value.to(dtype) for name, value in batch.items()}


def rows_of(batch: dict[str, torch.Tensor], rows: slice) -> dict[str, torch.Tensor]:
    return {name: value[rows] for name, value in batch.items()}


def make_pairs(count: int = 8, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Rows as [`PairSampler`] makes them: 8-bit crops of noise with random labels."""
    rng = np.random.default_rng(seed)
    return [
        {
            "template_pixel_values": rng.integers(0, 256, (1, 3, 32, 32), dtype=np.uint8),
            "search_pixel_values": rng.integers(0, 256, (3, 64, 64), dtype=np.uint8),
            "template_boxes": np.full((1, 4), 0.5, dtype=np.float32),
            "search_boxes": np.concatenate([rng.uniform(0.3, 0.7, 2), rng.uniform(0.2, 0.5, 2)]).astype(np.float32),
            "skipped": np.zeros(len(CAUSES), dtype=np.int64),
        }
        for _ in range(count)
    ]


def make_student(
    teacher: OSTrackModel, stages: int | str = 2, seed: int = 5, spread: float = 0.05, **changes: Any
) -> tuple[OSTrackModel, StagePlan]:
    """A student that has moved away from its teacher, and the plan that joins them; `stages` may be sizes (2-1-3)."""
    if isinstance(stages, str):
        plan = StagePlan.from_sizes([int(size) for size in stages.split("-")])
    else:
        plan = StagePlan.even(len(teacher.layers), stages)
    torch.manual_seed(seed)
    student, _ = build_student(teacher, plan, **changes)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(spread * torch.randn(parameter.shape))
    return student.train(), plan


NARROW = {"hidden_size": 16, "intermediate_size": 48}
"""Configuration of a student of unlike width: as many heads, each half as wide, and fewer neurons."""
WIDTHS = {"equal": {}, "unlike": NARROW}


def all_paths(stages):
    """Every path with a student stage in it."""
    return [path for path in itertools.product([True, False], repeat=stages) if any(path)]


def make_mixed(layers=4, stages=2, dtype=torch.float32, teacher_changes=None, student_changes=None, **arguments):
    teacher = make_tracker(layers, **(teacher_changes or {}))
    student, plan = make_student(teacher, stages, **(student_changes or {}))
    torch.manual_seed(9)
    mixed = MixedTracker(student.to(dtype), teacher.to(dtype), plan, **arguments).to(dtype)
    return mixed.train()


def gradients(mixed, loss):
    mixed.zero_grad(set_to_none=True)
    loss.backward()
    return {name: parameter.grad for name, parameter in mixed.named_parameters()}
