"""Key table of MixFormerV2's original checkpoints (github.com/MCG-NJU/MixFormerV2, `lib/models/mixformer2_vit`)."""

import math
import re
from typing import Any

import torch

from ..models.modeling_mixformerv2 import MixFormerV2Model
from .key_table import KeyTable


# Search factors: B is trained with 5.0, and its released commands say 5.0 against the 4.5 of its settings; S is trained with
# 4.5, and its released commands say 4.4 or 4.55 by data set.
_BASE: dict[str, Any] = {}
_SMALL = {
    "template_size": 112,
    "search_size": 224,
    "search_factor": 4.5,
    "num_hidden_layers": 4,
    "intermediate_size": 768,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "288_depth8_score": _BASE,
    "224_depth4_mlp1_score": _SMALL,
    "student_288_depth12": {"num_hidden_layers": 12, "num_bins": 72, "score_branch": False},
    "mixformerv2_b": _BASE,
    "mixformerv2_s": _SMALL,
}

_BLOCK = r"backbone\.blocks\.(\d+)\."

RENAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.patch_embed\.proj\.(weight|bias)", r"embeddings.patch_projection.\1"),
    (r"backbone\.pos_embed_t", "embeddings.template_position_embeddings"),
    (r"backbone\.pos_embed_s", "embeddings.search_position_embeddings"),
    (r"backbone\.reg_tokens", "embeddings.prediction_tokens"),
    (r"backbone\.pos_embed_reg", "embeddings.prediction_position_embeddings"),
    (_BLOCK + r"norm1\.(weight|bias)", r"layers.\1.layernorm_before.\2"),
    (_BLOCK + r"norm2\.(weight|bias)", r"layers.\1.layernorm_after.\2"),
    (_BLOCK + r"attn\.qkv\.(weight|bias)", " ".join(rf"layers.\1.attention.{name}_proj.\2" for name in "qkv")),
    (_BLOCK + r"attn\.proj\.(weight|bias)", r"layers.\1.attention.o_proj.\2"),
    (_BLOCK + r"mlp\.(fc[12])\.(weight|bias)", r"layers.\1.mlp.\2.\3"),
    (r"box_head\.layers\.0\.0\.(weight|bias)", r"head.dense.\1"),
    (r"box_head\.layers\.0\.1\.(weight|bias)", r"head.dense_norm.\1"),
    (r"box_head\.layers\.1\.0\.(weight|bias)", r"head.bins.\1"),
    (r"box_head\.layers\.1\.1\.(weight|bias)", r"head.bins_norm.\1"),
    (r"score_head\.layers\.0\.0\.(weight|bias)", r"head.score.fc1.\1"),
    (r"score_head\.layers\.1\.(weight|bias)", r"head.score.fc2.\1"),
)


def read_config(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Read the configuration fields that the shapes of a MixFormerV2 checkpoint reveal; none, if it is not one."""
    needed = (
        "backbone.patch_embed.proj.weight",
        "backbone.pos_embed_t",
        "backbone.pos_embed_s",
        "backbone.reg_tokens",
    )
    blocks = [int(match[1]) for key in weights if (match := re.match(_BLOCK, key))]
    if not blocks or any(key not in weights for key in needed):
        return {}
    patch = weights["backbone.patch_embed.proj.weight"]
    fields = {
        "num_hidden_layers": max(blocks) + 1,
        "hidden_size": patch.shape[0],
        "patch_size": patch.shape[-1],
        "template_size": math.isqrt(weights["backbone.pos_embed_t"].shape[1]) * patch.shape[-1],
        "search_size": math.isqrt(weights["backbone.pos_embed_s"].shape[1]) * patch.shape[-1],
        "score_branch": any(key.startswith("score_head.") for key in weights),
    }
    for name, key in {
        "intermediate_size": "backbone.blocks.0.mlp.fc1.weight",
        "num_bins": "box_head.layers.1.0.weight",
    }.items():
        if key in weights:
            fields[name] = weights[key].shape[0]
    return fields


TABLE = KeyTable(MixFormerV2Model, VARIANTS, RENAMES, {}, read_config)

__all__ = ["TABLE"]
