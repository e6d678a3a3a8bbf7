"""Key table of SUTrack's original checkpoints (github.com/chenxin-dlut/SUTrack, `lib/models/sutrack`)."""

import math
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ..models.configuration_sutrack import SUTrackConfig
from ..models.modeling_sutrack import SUTrackModel
from .key_table import KeyTable, Renames


_TINY = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1152,
    "stem_depth": 1,
}
_LARGE = {
    "hidden_size": 768,
    "num_hidden_layers": 40,
    "num_attention_heads": 12,
    "intermediate_size": 2304,
    "stem_depth": 2,
}
_384 = {"template_size": 192, "search_size": 384}

VARIANTS: dict[str, dict[str, Any]] = {
    "sutrack_t224": _TINY,
    "sutrack_b224": {},
    "sutrack_b384": _384,
    "sutrack_l224": _LARGE,
    "sutrack_l384": {**_LARGE, **_384},
}

_BODY = r"encoder\.body\."
_BLOCK = _BODY + r"blocks\.(\d+)\."
_CLIP = "text_encoder.clip."
_TOWERS = {"ctr": "score", "offset": "offset", "size": "size"}


def renames(config: SUTrackConfig) -> Renames:
    """Patterns for a configuration: the original numbers the blocks of stem and trunk as one list."""
    first = 2 * config.stem_depth + 2

    def layer(name: str) -> Callable[[re.Match], str]:
        return lambda match: f"layers.{int(match[1]) - first}.{match.expand(name)}"

    def either(in_stem: str, in_layer: str) -> Callable[[re.Match], str]:
        return lambda match: match.expand(in_stem) if int(match[1]) < first else layer(in_layer)(match)

    def tower(part: str) -> Callable[[re.Match], str]:
        return lambda match: f"head.{_TOWERS[match[2]]}.{part}.{int(match[1]) - 1}.{match[3]}"

    stem = r"embeddings.stem.blocks.\1."
    return (
        (_BODY + r"patch_embed\.proj\.(weight|bias)", r"embeddings.stem.patch_projection.\1"),
        (_BODY + r"pos_embed", "embeddings.position_embeddings"),
        (_BODY + r"cls_token", "embeddings.class_token"),
        (_BODY + r"search_token", "embeddings.search_embedding"),
        (_BODY + r"template_(foreground|background)_token", r"embeddings.\1_embedding"),
        (_BLOCK + r"mlp\.(fc[12])\.(weight|bias)", stem + r"\2.\3"),
        (_BLOCK + r"norm\.(weight|bias)", stem + r"layernorm.\2"),
        (_BLOCK + r"reduction\.(weight|bias)", stem + r"reduction.\2"),
        (_BLOCK + r"norm2\.(weight|bias)", either(stem + r"layernorm.\2", r"layernorm_after.\2")),
        (_BLOCK + r"mlp\.ffn_ln\.(weight|bias)", either(stem + r"fc1_norm.\2", r"mlp.fc1_norm.\2")),
        (_BLOCK + r"norm1\.(weight|bias)", layer(r"layernorm_before.\2")),
        (_BLOCK + r"attn\.([qkv]_proj)\.weight", layer(r"attention.\2.weight")),
        (_BLOCK + r"attn\.([qv])_bias", layer(r"attention.\2_proj.bias")),
        (_BLOCK + r"attn\.proj\.(weight|bias)", layer(r"attention.o_proj.\2")),
        (_BLOCK + r"gamma_1", layer("attention_scale")),
        (_BLOCK + r"gamma_2", layer("mlp_scale")),
        (_BLOCK + r"mlp\.w1\.(weight|bias)", layer(r"mlp.fc1_gate.\2")),
        (_BLOCK + r"mlp\.w2\.(weight|bias)", layer(r"mlp.fc1.\2")),
        (_BLOCK + r"mlp\.w3\.(weight|bias)", layer(r"mlp.fc2.\2")),
        (_BODY + r"fc_norm\.(weight|bias)", r"layernorm.\1"),
        (r"text_encoder\.text_proj\.(weight|bias)", r"embeddings.text_proj.\1"),
        (r"task_decoder\.layers\.(\d+)\.(weight|bias)", r"task_head.projections.\1.\2"),
        (r"decoder\.conv([1-4])_(ctr|offset|size)\.0\.(weight|bias)", tower("convolutions")),
        (r"decoder\.conv([1-4])_(ctr|offset|size)\.1\.(\w+)", tower("norms")),
        (
            r"decoder\.conv5_(ctr|offset|size)\.(weight|bias)",
            lambda match: f"head.{_TOWERS[match[1]]}.projection.{match[2]}",
        ),
    )


DROPPED = {
    r"text_encoder\.clip\.(visual\..+|logit_scale)": "the part of CLIP that sees images never runs",
    r"text_encoder\.clip\..+": (
        "CLIP's text tower: what it says of no sentence is kept as `embeddings.null_text_features`, and sentences come as "
        "`text_features`"
    ),
    r"text_encoder\.norm[12]\.(weight|bias)": "the original never runs these norms",
}


def null_text_features(weights: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """
    Run CLIP's text tower on the 77 zeros that the original gives it where nothing is said of the target.

    It takes the feature at the largest token, which is the first one, and attention is causal: that token sees itself alone.

    Args:
        weights (`dict[str, torch.Tensor]`): original weights, those of CLIP in any precision.

    Returns:
        `torch.Tensor` of shape `(text_dim,)` in fp32; `None`, if the checkpoint does not hold the text tower.
    """

    def get(name: str) -> torch.Tensor:
        return weights[_CLIP + name].float()

    def norm(hidden: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(hidden, hidden.shape[-1:], get(f"{name}.weight"), get(f"{name}.bias"), eps=1e-5)

    def linear(hidden: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(hidden, get(f"{name}.weight"), get(f"{name}.bias"))

    pattern = re.compile(re.escape(_CLIP) + r"transformer\.resblocks\.(\d+)\.")
    depth = 1 + max((int(match[1]) for key in weights if (match := pattern.match(key))), default=-1)
    try:
        hidden = weights[f"{_CLIP}token_embedding.weight"][0].float() + get("positional_embedding")[0]
        for index in range(depth):
            block = f"transformer.resblocks.{index}"
            normed = norm(hidden, f"{block}.ln_1")
            # One token attends to itself wholly, so that its value is what comes out of attention.
            value_weight, value_bias = (get(f"{block}.attn.in_proj_{part}").chunk(3)[2] for part in ("weight", "bias"))
            hidden = hidden + linear(F.linear(normed, value_weight, value_bias), f"{block}.attn.out_proj")
            inner = linear(norm(hidden, f"{block}.ln_2"), f"{block}.mlp.c_fc")
            hidden = hidden + linear(inner * torch.sigmoid(1.702 * inner), f"{block}.mlp.c_proj")
        return norm(hidden, "ln_final") @ get("text_projection")
    except KeyError:
        return None


def read_config(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Read the configuration fields that the shapes of a SUTrack checkpoint reveal; none, if it is not one."""
    names = {
        "patch": "encoder.body.patch_embed.proj.weight",
        "positions": "encoder.body.pos_embed",
        "kinds": "encoder.body.template_foreground_token",
    }
    layers = [int(match[1]) for key in weights if (match := re.match(_BLOCK + r"attn\.", key))]
    if not layers or any(name not in weights for name in names.values()):
        return {}
    patch, positions = (weights[names[name]] for name in ("patch", "positions"))
    fields = {
        "num_hidden_layers": max(layers) - min(layers) + 1,
        "hidden_size": positions.shape[-1],
        "patch_size": 4 * patch.shape[-1],
        "stem_depth": (min(layers) - 2) // 2,
        "use_text": "text_encoder.text_proj.weight" in weights,
    }
    # Both tables are one: told apart where the search crop is twice the template, as in every released model.
    grid = math.isqrt(positions.shape[1] // 5)
    if 5 * grid**2 == positions.shape[1]:
        fields["template_size"] = grid * fields["patch_size"]
        fields["search_size"] = 2 * grid * fields["patch_size"]
    shapes = {
        "intermediate_size": (f"encoder.body.blocks.{min(layers)}.mlp.w1.weight", 0),
        "text_dim": ("text_encoder.text_proj.weight", 1),
        "head_channels": ("decoder.conv1_ctr.0.weight", 0),
        "task_head_channels": ("task_decoder.layers.0.weight", 0),
        "num_tasks": ("task_decoder.layers.2.weight", 0),
    }
    fields |= {name: weights[key].shape[dim] for name, (key, dim) in shapes.items() if key in weights}
    inner = weights.get("encoder.body.blocks.0.mlp.fc1.weight")
    return fields if inner is None else {**fields, "stem_mlp_ratio": inner.shape[0] // inner.shape[1]}


TABLE = KeyTable(
    SUTrackModel, VARIANTS, renames, DROPPED, read_config, {"embeddings.null_text_features": null_text_features}
)

__all__ = ["TABLE", "null_text_features"]
