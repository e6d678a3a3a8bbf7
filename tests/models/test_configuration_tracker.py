"""Configurations that somebody else wrote."""

import json
import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel

from ct_hf import MixFormerV2Config, ODTrackConfig, OSTrackConfig, SUTrackConfig


FAMILIES = [OSTrackConfig, SUTrackConfig, ODTrackConfig, MixFormerV2Config]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("hidden_size", 10**12),
        ("search_size", 16 * 10**9),
        ("template_size", 16 * 10**9),
        ("num_templates", 10**9),
        ("intermediate_size", 10**12),
        ("num_attention_heads", 10**9),
        ("search_factor", 1e300),
        ("search_factor", math.inf),
        ("template_factor", math.nan),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_built(family, name, value, tmp_path, monkeypatch):
    """From a file too, whose weights are not even looked at."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family.model_type, name: value}))
    monkeypatch.setattr("torch.nn.Module.__init__", None)  # nothing is built
    for build in (lambda: family(**{name: value}), lambda: AutoModel.from_pretrained(tmp_path)):
        with pytest.raises(StrictDataclassError) as caught:
            build()
        assert f"`{name}`" in str(caught.value.__cause__ or caught.value)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (OSTrackConfig, "head_channels"),
        (SUTrackConfig, "stem_depth"),
        (SUTrackConfig, "text_dim"),
        (SUTrackConfig, "task_head_channels"),
        (MixFormerV2Config, "num_bins"),
    ],
)
def test_fields_of_a_family_are_too(family, name):
    with pytest.raises(StrictDataclassError, match=f"`{name}` is 1000000000000, expected at most"):
        family(**{name: 10**12})


def test_sizes_that_are_absurd_together():
    with pytest.raises(StrictDataclassError, match=r"1000 layers of `hidden_size` 49152 have .* parameters"):
        OSTrackConfig(num_hidden_layers=1000, hidden_size=49152)
    with pytest.raises(StrictDataclassError, match=r"24 layers of `hidden_size` 8192 have .* parameters"):
        SUTrackConfig(stem_depth=1024, stem_mlp_ratio=1024, hidden_size=8192)
    with pytest.raises(StrictDataclassError, match=r"`search_size` 4096 .* in patches of 1 have tokens of .* values"):
        OSTrackConfig(search_size=4096, template_size=4096, patch_size=1)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_large_trackers_are_fine(family):
    """Wider and deeper than the largest vision transformer (48 layers of 6144)."""
    config = family(
        num_hidden_layers=64, hidden_size=6144, intermediate_size=24576, num_attention_heads=48, search_size=1024
    )
    assert AutoConfig.for_model(**config.to_dict()).hidden_size == 6144
