"""Key table of ODTrack's original checkpoints (github.com/GXNU-ZhongLab/ODTrack, `lib/models/odtrack`)."""

from typing import Any

import torch

from ..models.modeling_odtrack import ODTrackModel
from . import ostrack
from .key_table import KeyTable


_BASE = {"elimination_layers": [3, 6, 9], "elimination_keep_ratio": 0.7}
_LARGE = {
    **_BASE,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_GOT = {"num_templates": 4}

# The original's yamls, and the same with the epoch of its released weights, as its result folders are called. That of
# separate attention is among them because the trunk with elimination does not read that field.
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": _BASE,
    "baseline_300": _BASE,
    "baseline_got": {**_BASE, **_GOT},
    "baseline_got_100": {**_BASE, **_GOT},
    "baseline_large": _LARGE,
    "baseline_large_300": _LARGE,
    "baseline_large_got": {**_LARGE, **_GOT},
    "baseline_large_got_100": {**_LARGE, **_GOT},
    "baseline_sepattn": _BASE,
}

RENAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.cls_token", "embeddings.temporal_token"),
    (r"backbone\.cls_pos_embed", "embeddings.temporal_position_embeddings"),
    *ostrack.RENAMES,
)

DROPPED = {
    r"backbone\.pos_embed": (
        "the table before interpolation; its first row is stale, the temporal token's is read from `cls_pos_embed`"
    ),
}


def read_config(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Read the configuration fields that the shapes of an ODTrack checkpoint reveal; none, if it is not one."""
    return ostrack.read_config(weights) if "backbone.cls_pos_embed" in weights else {}


TABLE = KeyTable(ODTrackModel, VARIANTS, RENAMES, DROPPED, read_config)

__all__ = ["TABLE"]
