"""Parity with the original ODTrack in tiny configurations; the full model is in test_parity_odtrack.py."""

import pytest
import torch

from ct_hf.conversion import CheckpointError, convert_checkpoint
from ct_hf.conversion.odtrack import TABLE, VARIANTS, read_config
from ct_hf.models import ODTrackConfig, ODTrackModel

from ..parity import fill_inputs, fill_weights, load_case
from .checkpoints import save_original


CASES = ["odtrack_tiny_plain", "odtrack_tiny_ce"]


def convert(folder, weights, **fields):
    path = save_original(folder / "ODTrack_ep0300.pth.tar", weights)
    return convert_checkpoint("odtrack", "baseline", path, **fields)


def fields_of(spec):
    return {"elimination_layers": [], **spec["config"]}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Recorded outputs, converted model, its report, and states and output of three calls chained by the memory."""
    spec, recorded = load_case(request.param)
    model, report = convert(tmp_path_factory.mktemp("original"), fill_weights(spec), **fields_of(spec))
    inputs, memory, calls = fill_inputs(spec), None, {}
    for frame, (tag, templates) in enumerate(spec["calls"].items()):
        crops = torch.stack([inputs[f"template_{index}"] for index in templates], dim=1)
        with torch.no_grad():
            states = [model.embed(crops, inputs[f"search_{frame}"], memory=memory)]
            for layer in model.layers:
                states.append(layer(states[-1]))
            output = model.decode(states[-1])
        calls[tag], memory = (states, output), output.memory
    return spec, recorded, model, report, calls


def test_outputs(case):
    _, recorded, model, _, calls = case
    assert len(calls) == 3
    for tag, (_, output) in calls.items():
        for name in ("score_map", "size_map", "offset_map"):  # the head's input is scaled by products of tokens
            torch.testing.assert_close(output[name], recorded[f"{tag}.{name}"], atol=5e-5, rtol=0)
        torch.testing.assert_close(output.pred_boxes, recorded[f"{tag}.pred_boxes"], atol=1e-5, rtol=0)
        boxes, _ = model.locate(output)
        torch.testing.assert_close(boxes, recorded[f"{tag}.hann_pred_boxes"], atol=1e-5, rtol=0)
        token = output.memory.temporal_token
        torch.testing.assert_close(token, recorded[f"{tag}.temporal_token"], atol=2e-5, rtol=0)


def test_tokens_of_the_trunk(case):
    """With one and with four templates."""
    _, recorded, model, _, calls = case
    for tag in ("call1", "call3"):
        state = calls[tag][0][-1]
        groups = state.replace(hidden_states=model.layernorm(state.hidden_states)).groups()
        assert list(groups) == ["special", "template", "search"]
        tokens = torch.cat(list(groups.values()), dim=1)
        torch.testing.assert_close(tokens, recorded[f"{tag}.tokens"], atol=2e-5, rtol=0)


def test_kept_tokens(case):
    spec, recorded, _, _, calls = case
    for tag, (states, _) in calls.items():
        for number, layer in enumerate(spec["config"].get("elimination_layers", [])):
            kept = states[layer + 1].search_index.sort(dim=1).values
            assert torch.equal(kept.int(), recorded[f"{tag}.kept{number}"])


def test_every_key_is_accounted_for(case):
    spec, _, model, report, _ = case
    assert set(report.renamed) | set(report.dropped) == set(spec["state_dict"])
    assert set(report.dropped) == {"backbone.pos_embed"}
    assert sorted(name for names in report.renamed.values() for name in names) == sorted(model.state_dict())


def test_position_of_the_temporal_token_is_its_own_key(case):
    """In the original's memory it shares storage with the first row of `pos_embed`; in a file both may differ."""
    spec, _, model, *_ = case
    weights = fill_weights(spec)
    ours, table = model.embeddings.temporal_position_embeddings, weights["backbone.pos_embed"][:, :1]
    assert torch.equal(ours, weights["backbone.cls_pos_embed"]) and not torch.equal(ours, table)


def test_shared_storage_is_parted(tmp_path):
    """A checkpoint in which the tables are one tensor converts, and the model saves."""
    spec, _ = load_case("odtrack_tiny_plain")
    weights = fill_weights(spec)
    weights["backbone.cls_pos_embed"] = weights["backbone.pos_embed"][:, :1]
    model, _ = convert(tmp_path, weights, **fields_of(spec))
    model.save_pretrained(tmp_path / "out")
    assert torch.equal(model.embeddings.temporal_position_embeddings, weights["backbone.pos_embed"][:, :1])


def test_configuration_is_read_from_the_shapes(case):
    spec, _, model, *_ = case
    fields = read_config(fill_weights(spec))
    assert fields == {name: getattr(model.config, name) for name in fields}
    assert {"hidden_size", "num_hidden_layers", "template_size", "search_size", "head_channels"} <= set(fields)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_is_a_valid_configuration(variant):
    config = ODTrackConfig(**VARIANTS[variant])
    assert config.elimination_layers == [3, 6, 9]
    assert (config.template_size, config.search_size, config.search_factor) == (192, 384, 5.0)
    assert config.num_templates == (4 if "got" in variant else 3)
    large = "large" in variant
    assert (config.hidden_size, config.num_hidden_layers) == ((1024, 24) if large else (768, 12))
    assert config.hidden_size // config.num_attention_heads == 64
    assert config.intermediate_size == 4 * config.hidden_size
    assert TABLE.model_class is ODTrackModel


class TestDoesNotFit:
    @pytest.fixture
    def spec(self):
        return load_case("odtrack_tiny_ce")[0]

    def test_a_checkpoint_of_ostrack(self, tmp_path, spec):
        ostrack, _ = load_case("ostrack_tiny_plain")
        with pytest.raises(CheckpointError, match="not a checkpoint of the family `odtrack`"):
            convert(tmp_path, fill_weights(ostrack), **fields_of(spec))

    def test_given_to_ostrack(self, tmp_path, spec):
        path = save_original(tmp_path / "ODTrack_ep0300.pth.tar", fill_weights(spec))
        fields = {**spec["config"]}
        with pytest.raises(CheckpointError, match="surplus key `backbone.cls_pos_embed`"):
            convert_checkpoint("ostrack", "vitb_256_mae_32x4_ep300", path, **fields)

    def test_another_size(self, tmp_path, spec):
        with pytest.raises(CheckpointError, match="--set num_hidden_layers=4"):
            convert(tmp_path, fill_weights(spec), **{**fields_of(spec), "num_hidden_layers": 6})
        with pytest.raises(CheckpointError, match=r"shape .* expected .*--set search_size=96\."):
            convert(tmp_path, fill_weights(spec), **{**fields_of(spec), "search_size": 128})

    def test_missing_and_surplus_keys(self, tmp_path, spec):
        weights = fill_weights(spec)
        with pytest.raises(CheckpointError, match="surplus key `backbone.dist_token`"):
            convert(tmp_path, {**weights, "backbone.dist_token": torch.zeros(1, 1, 32)}, **fields_of(spec))
        del weights["backbone.cls_token"]
        with pytest.raises(CheckpointError, match="lacks what `embeddings.temporal_token` needs .1 of"):
            convert(tmp_path, weights, **fields_of(spec))
