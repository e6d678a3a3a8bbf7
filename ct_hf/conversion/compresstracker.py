"""Key table of CompressTracker's released students of OSTrack (github.com/LingyiHongfd/CompressTracker)."""

from typing import Any

import torch

from ..models.modeling_ostrack import OSTrackModel
from . import ostrack
from .key_table import KeyTable


_BLOCKS = "distill_blocks"

# With and without the family's name in front, as the original's yamls and its released files are called.
VARIANTS: dict[str, dict[str, Any]] = {
    f"{prefix}vitb_256_{layers}": {"num_hidden_layers": layers}
    for prefix in ("", "compresstracker_")
    for layers in (2, 3, 4, 6)
}

# A checkpoint of the original's training holds two more copies of the teacher than its test-time model.
DROPPED = {
    **ostrack.DROPPED,
    r"backbone\.blocks\..+": "a teacher layer that stood in for the student's in training; no student path uses it",
    r"ori_backbone\..+": "the frozen teacher that the student was compared with in training",
    r"ori_box_head\..+": "the frozen teacher's head, which guided the student in training",
}


def read_config(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Read the configuration fields that the shapes of a student's checkpoint reveal; none, if it is not one."""
    return ostrack.read_config(weights, blocks=_BLOCKS)


TABLE = KeyTable(
    OSTrackModel, VARIANTS, ostrack.trunk_renames(_BLOCKS), DROPPED, read_config, family="compresstracker"
)

__all__ = ["TABLE"]
