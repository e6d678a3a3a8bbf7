"""Key table of OSTrack's original checkpoints (github.com/botaoye/OSTrack, `lib/models/ostrack`)."""

import math
import re
from typing import Any

import torch

from ..models.modeling_ostrack import OSTrackModel
from .key_table import KeyTable


_ELIMINATION = {"elimination_layers": [3, 6, 9], "elimination_keep_ratio": 0.7}
_LARGE = {"template_size": 192, "search_size": 384, "search_factor": 5.0}

VARIANTS: dict[str, dict[str, Any]] = {
    "vitb_256_mae_32x4_ep300": {},
    "vitb_256_mae_ce_32x4_ep300": _ELIMINATION,
    "vitb_256_mae_ce_32x4_got10k_ep100": _ELIMINATION,
    "vitb_384_mae_32x4_ep300": _LARGE,
    "vitb_384_mae_ce_32x4_ep300": {**_LARGE, **_ELIMINATION},
    "vitb_384_mae_ce_32x4_got10k_ep100": {**_LARGE, **_ELIMINATION},
}

_CENTER = {"ctr": "score", "offset": "offset", "size": "size"}
_CORNER = {"tl": "top_left", "br": "bottom_right"}


def _head_renames() -> tuple[tuple[str, str], ...]:
    renames = []
    for branch, tower in {**_CENTER, **_CORNER}.items():
        for index in range(4):
            start = rf"box_head\.conv{index + 1}_{branch}\."
            renames.append((start + r"0\.(weight|bias)", rf"head.{tower}.convolutions.{index}.\1"))
            renames.append((start + r"1\.(\w+)", rf"head.{tower}.norms.{index}.\1"))
        renames.append((rf"box_head\.conv5_{branch}\.(weight|bias)", rf"head.{tower}.projection.\1"))
    return tuple(renames)


def trunk_renames(blocks: str = "blocks") -> tuple[tuple[str, str], ...]:
    """Renames of an OSTrack whose trunk is called `backbone.<blocks>` in the original, see [`~key_table.KeyTable`]."""
    block = rf"backbone\.{blocks}\.(\d+)\."
    return (
        (r"backbone\.patch_embed\.proj\.(weight|bias)", r"embeddings.patch_projection.\1"),
        (r"backbone\.pos_embed_z", "embeddings.template_position_embeddings"),
        (r"backbone\.pos_embed_x", "embeddings.search_position_embeddings"),
        (block + r"norm1\.(weight|bias)", r"layers.\1.layernorm_before.\2"),
        (block + r"norm2\.(weight|bias)", r"layers.\1.layernorm_after.\2"),
        (block + r"attn\.qkv\.(weight|bias)", " ".join(rf"layers.\1.attention.{name}_proj.\2" for name in "qkv")),
        (block + r"attn\.proj\.(weight|bias)", r"layers.\1.attention.o_proj.\2"),
        (block + r"mlp\.(fc[12])\.(weight|bias)", r"layers.\1.mlp.\2.\3"),
        (r"backbone\.norm\.(weight|bias)", r"layernorm.\1"),
        *_head_renames(),
    )


RENAMES = trunk_renames()

DROPPED = {
    r"backbone\.cls_token": "the original never puts its class token into the sequence",
    r"backbone\.pos_embed": "the table before interpolation; the tables of template and search are kept",
}


def read_config(weights: dict[str, torch.Tensor], blocks: str = "blocks") -> dict[str, Any]:
    """Read the configuration fields that the shapes of an OSTrack checkpoint reveal; none, if it is not one."""
    block = f"backbone.{blocks}."
    needed = ("backbone.patch_embed.proj.weight", "backbone.pos_embed_z", "backbone.pos_embed_x")
    layers = [int(match[1]) for key in weights if (match := re.match(re.escape(block) + r"(\d+)\.", key))]
    if not layers or any(key not in weights for key in needed):
        return {}
    patch = weights["backbone.patch_embed.proj.weight"]
    fields = {
        "num_hidden_layers": max(layers) + 1,
        "hidden_size": patch.shape[0],
        "patch_size": patch.shape[-1],
        "template_size": math.isqrt(weights["backbone.pos_embed_z"].shape[1]) * patch.shape[-1],
        "search_size": math.isqrt(weights["backbone.pos_embed_x"].shape[1]) * patch.shape[-1],
    }
    fields["qkv_bias"] = f"{block}0.attn.qkv.bias" in weights
    if f"{block}0.mlp.fc1.weight" in weights:
        fields["intermediate_size"] = weights[f"{block}0.mlp.fc1.weight"].shape[0]
    for head_type, branch in (("center", "ctr"), ("corner", "tl")):
        if f"box_head.conv1_{branch}.0.weight" in weights:
            fields["head_type"] = head_type
            fields["head_channels"] = weights[f"box_head.conv1_{branch}.0.weight"].shape[0]
    return fields


TABLE = KeyTable(OSTrackModel, VARIANTS, RENAMES, DROPPED, read_config)

__all__ = ["TABLE"]
