"""Parity with the original OSTrack in tiny configurations; the full models are in test_parity_ostrack.py."""

import pytest
import torch

from ct_hf.conversion import convert_checkpoint
from ct_hf.conversion.ostrack import TABLE, VARIANTS, read_config
from ct_hf.models import OSTrackConfig, OSTrackModel

from ..parity import assert_maps_close, fill_inputs, fill_weights, load_case
from .checkpoints import save_original


CASES = ["ostrack_tiny_plain", "ostrack_tiny_ce_center", "ostrack_tiny_ce_all", "ostrack_tiny_corner"]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Recorded outputs, converted model, its report, all its states and its output."""
    spec, recorded = load_case(request.param)
    path = save_original(tmp_path_factory.mktemp("original") / "OSTrack_ep0300.pth.tar", fill_weights(spec))
    model, report = convert_checkpoint("ostrack", "vitb_256_mae_32x4_ep300", path, **spec["config"])
    inputs = fill_inputs(spec)
    with torch.no_grad():
        states = [model.embed(inputs["template"].unsqueeze(1), inputs["search"])]
        for layer in model.layers:
            states.append(layer(states[-1]))
        output = model.decode(states[-1])
    return spec, recorded, model, report, states, output


def test_tokens_of_the_trunk(case):
    _, recorded, model, _, states, _ = case
    normed = states[-1].replace(hidden_states=model.layernorm(states[-1].hidden_states))
    tokens = torch.cat(list(normed.groups().values()), dim=1)
    torch.testing.assert_close(tokens, recorded["tokens"], atol=2e-5, rtol=0)


def test_maps(case):
    _, recorded, _, _, _, output = case
    for name in ("score_map", "size_map", "offset_map"):
        if name in recorded:
            assert_maps_close(output[name], recorded[name])
    if "corner_maps" in recorded:
        maps = output.corner_logits.flatten(2).softmax(dim=2).view_as(recorded["corner_maps"])
        torch.testing.assert_close(maps, recorded["corner_maps"], atol=1e-5, rtol=0)


def test_boxes(case):
    _, recorded, model, _, _, output = case
    torch.testing.assert_close(output.pred_boxes, recorded["pred_boxes"], atol=1e-5, rtol=0)
    if "hann_pred_boxes" in recorded:
        torch.testing.assert_close(model.locate(output)[0], recorded["hann_pred_boxes"], atol=1e-5, rtol=0)


def test_kept_tokens(case):
    spec, recorded, model, _, states, _ = case
    for number, layer in enumerate(spec["config"].get("elimination_layers", [])):
        kept = states[layer + 1].search_index.sort(dim=1).values
        assert torch.equal(kept.int(), recorded[f"kept{number}"])
    if not model.config.elimination_layers:
        assert states[-1].search_index is None


def test_every_key_is_accounted_for(case):
    spec, _, model, report, _, _ = case
    assert set(report.renamed) | set(report.dropped) == set(spec["state_dict"])
    assert not set(report.renamed) & set(report.dropped)
    assert set(report.dropped) == {"backbone.cls_token", "backbone.pos_embed"}
    assert sorted(name for names in report.renamed.values() for name in names) == sorted(model.state_dict())


def test_configuration_is_read_from_the_shapes(case):
    spec, _, model, *_ = case
    fields = read_config(fill_weights(spec))
    assert fields == {name: getattr(model.config, name) for name in fields}
    unread = {"num_attention_heads", "elimination_layers", "elimination_keep_ratio", "elimination_template_region"}
    assert set(fields) | unread == set(spec["config"]) | unread | {"patch_size", "qkv_bias"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_is_a_valid_configuration(variant):
    config = OSTrackConfig(**VARIANTS[variant])
    assert ("_ce_" in variant) == bool(config.elimination_layers)
    assert config.search_size == int(variant.split("_")[1])
    assert TABLE.model_class is OSTrackModel
