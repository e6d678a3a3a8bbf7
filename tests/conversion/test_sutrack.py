"""Parity with the original SUTrack in tiny configurations; the full models are in test_parity_sutrack.py."""

import re

import pytest
import torch
from transformers import AutoModel

from ct_hf.conversion import CheckpointError, convert_checkpoint, convert_to_directory
from ct_hf.conversion.sutrack import TABLE, VARIANTS, null_text_features, read_config
from ct_hf.models import SUTrackConfig, SUTrackModel

from ..parity import fill_inputs, fill_weights, load_case
from .checkpoints import save_original
from .clip import clip_that_says, original_order, public_boxes


CASES = ["sutrack_tiny_two", "sutrack_tiny_one"]
CALLS = ["init", "rgb", "rgbx", "sentence"]
VARIANT = "sutrack_b224"


def inputs_of(spec, recorded, call):
    """What a recorded call gets, in the form of our forward."""
    drawn = fill_inputs(spec)
    template, search = drawn["template"], drawn["search"]
    boxes = public_boxes(torch.tensor(spec["annotations"]), spec["config"]["template_size"]).transpose(0, 1)
    if call in ("init", "rgb"):
        template, search = template[:, :, :3], search[:, :3]
    if call == "init":
        template, boxes = template[:1, :1].expand(1, *template.shape[1:]), boxes[:1, :1].expand(1, *boxes.shape[1:])
        search = search[:1]
    inputs = {"template_pixel_values": template, "search_pixel_values": search, "template_boxes": boxes}
    if call == "sentence":
        inputs["text_features"] = recorded["sentence_text"].expand(2, -1)
    return inputs


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Specification, recorded outputs, converted model and its report."""
    spec, recorded = load_case(request.param)
    path = save_original(tmp_path_factory.mktemp("original") / "SUTRACK_ep0180.pth.tar", fill_weights(spec))
    model, report = convert_checkpoint("sutrack", VARIANT, path, **spec["config"])
    return spec, recorded, model, report


@pytest.mark.parametrize("call", CALLS)
def test_forward(case, call):
    """Tokens, maps, task and boxes, with and without the window."""
    spec, recorded, model, _ = case
    with torch.no_grad():
        state = model.embed(**inputs_of(spec, recorded, call))
        for layer in model.layers:
            state = layer(state)
        output = model.decode(state)
        tokens = original_order(state.replace(hidden_states=model.layernorm(state.hidden_states)))
    boxes, score = model.locate(output)
    actual = {
        "tokens": tokens[..., ::4],
        "task_logits": output.auxiliary_logits,
        "pred_boxes": output.pred_boxes,
        "score_map": output.score_map,
        "size_map": output.size_map,
        "offset_map": output.offset_map,
        "hann_pred_boxes": boxes,
        "hann_score": score,
    }
    assert {f"{call}.{name}" for name in actual} == {name for name in recorded if name.startswith(f"{call}.")}
    for name, tensor in actual.items():
        tolerance = 2e-5 if name in ("tokens", "offset_map") else 1e-5
        torch.testing.assert_close(
            tensor, recorded[f"{call}.{name}"], atol=tolerance, rtol=0, msg=lambda m, n=name: n + m
        )


def test_calls_differ(case):
    """A recorded case in which an input did not matter would prove nothing of it."""
    _, recorded, *_ = case
    for one, other in (("rgb", "rgbx"), ("rgbx", "sentence")):
        assert (recorded[f"{one}.tokens"] - recorded[f"{other}.tokens"]).abs().max() > 0.1


def test_text_that_says_nothing(case):
    """The original runs CLIP on 77 zeros; one token is enough."""
    spec, recorded, model, _ = case
    torch.testing.assert_close(model.embeddings.null_text_features, recorded["null_text"][0], atol=1e-6, rtol=0)
    half = {key: tensor.half() for key, tensor in fill_weights(spec).items()}
    feature = null_text_features(half)
    assert feature.dtype == torch.float32
    torch.testing.assert_close(feature, recorded["null_text"][0], atol=1e-2, rtol=0)
    assert (recorded["null_text"] - recorded["sentence_text"]).abs().max() > 0.1


def test_every_key_is_accounted_for(case):
    spec, _, model, report = case
    assert set(report.renamed) | set(report.dropped) == set(spec["state_dict"])
    assert not set(report.renamed) & set(report.dropped)
    assert all(key.startswith(("text_encoder.clip.", "text_encoder.norm")) for key in report.dropped)
    assert all(report.dropped.values())
    ours = [name for names in report.renamed.values() for name in names]
    assert sorted(ours + report.computed) == sorted(model.state_dict())


def test_report_groups_what_is_dropped(case):
    *_, report = case
    lines = str(report).splitlines()
    assert lines[0] == f"{len(report.renamed)} keys converted, {len(report.dropped)} dropped on purpose"
    assert "  computed embeddings.null_text_features of the original weights" in lines
    assert len(lines) == 5
    assert re.search(r"dropped text_encoder\.norm1\.\w+ and 3 more: the original never runs these norms", str(report))


def test_configuration_is_read_from_the_shapes(case):
    spec, _, model, _ = case
    fields = read_config(fill_weights(spec))
    assert fields == {name: getattr(model.config, name) for name in fields}
    assert set(spec["config"]) - set(fields) == {"num_attention_heads", "num_templates"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_is_a_valid_configuration(variant):
    config = SUTrackConfig(**VARIANTS[variant])
    size, depth = {"t": (384, 12), "b": (512, 24), "l": (768, 40)}[variant.split("_")[1][0]]
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (size, depth, 3 * size)
    assert config.hidden_size == 64 * config.num_attention_heads
    assert (config.search_size, config.template_size) == (int(variant[-3:]), int(variant[-3:]) // 2)
    assert TABLE.model_class is SUTrackModel


@pytest.fixture
def spec():
    return load_case("sutrack_tiny_two")[0]


@pytest.fixture
def weights(spec):
    return fill_weights(spec)


@pytest.fixture
def convert(tmp_path, spec):
    """Convert weights, with some fields of the tiny configuration changed."""

    def run(weights, **changes):
        torch.save({"net": weights}, tmp_path / "tiny.pth.tar")
        return convert_checkpoint("sutrack", VARIANT, tmp_path / "tiny.pth.tar", **{**spec["config"], **changes})

    return run


class TestDoesNotFit:
    @pytest.mark.parametrize(
        ("changes", "advice"),
        [
            ({"num_hidden_layers": 4}, {"num_hidden_layers": 3}),
            ({"num_hidden_layers": 2}, {"num_hidden_layers": 3}),
            ({"stem_depth": 2}, {"stem_depth": 1}),
            ({"search_size": 96}, {"search_size": 64}),
            ({"hidden_size": 40, "intermediate_size": 96}, {"hidden_size": 32}),
            ({"intermediate_size": 64, "head_channels": 32}, {"intermediate_size": 96, "head_channels": 16}),
            ({"stem_mlp_ratio": 2, "num_tasks": 4}, {"stem_mlp_ratio": 3, "num_tasks": 5}),
            ({"task_head_channels": 8, "text_dim": 10}, {"task_head_channels": 16, "text_dim": 12}),
            ({"use_text": False}, {"use_text": True}),
        ],
    )
    def test_advice_can_be_followed(self, convert, weights, changes, advice):
        with pytest.raises(CheckpointError) as error:
            convert(weights, **changes)
        found = dict(re.findall(r"--set (\w+)=(\w+)", str(error.value)))
        assert found == {name: str(value) for name, value in advice.items()}
        convert(weights, **{**changes, **advice})

    def test_released_size(self, tmp_path, weights):
        torch.save({"net": weights}, tmp_path / "tiny.pth.tar")
        with pytest.raises(CheckpointError, match="--set hidden_size=32"):
            convert_checkpoint("sutrack", VARIANT, tmp_path / "tiny.pth.tar", num_hidden_layers=3)

    def test_missing_key(self, convert, weights):
        del weights["encoder.body.blocks.5.attn.q_bias"]
        with pytest.raises(CheckpointError, match=r"lacks what `layers\.1\.attention\.q_proj\.bias` needs \(1 of"):
            convert(weights)

    @pytest.mark.parametrize(
        "key", ["token_embedding.weight", "transformer.resblocks.1.mlp.c_fc.bias", "ln_final.bias"]
    )
    def test_missing_text_tower(self, convert, weights, key):
        del weights[f"text_encoder.clip.{key}"]
        with pytest.raises(CheckpointError, match=r"lacks what `embeddings\.null_text_features` needs \(1 of"):
            convert(weights)

    def test_text_tower_of_another_width(self, convert, weights):
        weights = {key: tensor for key, tensor in weights.items() if ".clip." not in key}
        with pytest.raises(
            CheckpointError, match=r"`embeddings.null_text_features` computed .* \(11,\), expected \(12,\)"
        ):
            convert({**weights, **clip_that_says(torch.zeros(11))})

    def test_surplus_key(self, convert, weights):
        weights["encoder.body.blocks.5.attn.k_bias"] = torch.zeros(32)
        with pytest.raises(
            CheckpointError, match=r"surplus key `encoder\.body\.blocks\.5\.attn\.k_bias`.*another model"
        ):
            convert(weights)

    def test_wrong_shape(self, convert, weights):
        weights["encoder.body.fc_norm.weight"] = torch.zeros(7)
        with pytest.raises(CheckpointError, match=r"gives `layernorm\.weight` shape \(7,\), expected \(32,\)"):
            convert(weights)

    def test_convolution_that_is_not_1x1(self, convert, weights):
        weights["encoder.body.blocks.0.mlp.fc1.weight"] = torch.zeros(24, 8, 3, 3)
        with pytest.raises(CheckpointError, match=r"fc1\.weight` shape \(24, 8, 3, 3\), expected \(24, 8\)"):
            convert(weights)

    def test_another_family(self, convert):
        ostrack = fill_weights(load_case("ostrack_tiny_plain")[0])
        with pytest.raises(CheckpointError, match="not a checkpoint of the family `sutrack`"):
            convert(ostrack)
        with pytest.raises(CheckpointError, match="not a checkpoint of the family `sutrack`"):
            convert({"encoder.body.pos_embed": torch.zeros(1, 20, 32)})

    def test_sutrack_is_no_ostrack(self, tmp_path, weights):
        torch.save({"net": weights}, tmp_path / "tiny.pth.tar")
        with pytest.raises(CheckpointError, match="not a checkpoint of the family `ostrack`"):
            convert_checkpoint("ostrack", "vitb_256_mae_32x4_ep300", tmp_path / "tiny.pth.tar")


def test_directory_loads_by_auto_classes(tmp_path, spec, weights):
    """The computed text feature is saved with the weights."""
    torch.save({"net": weights}, tmp_path / "tiny.pth.tar")
    convert_to_directory("sutrack", VARIANT, tmp_path / "tiny.pth.tar", tmp_path / "out", **spec["config"])
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert isinstance(model, SUTrackModel) and model.embeddings.null_text_features.any()
    recorded = load_case("sutrack_tiny_two")[1]
    with torch.no_grad():
        boxes = model(**inputs_of(spec, recorded, "rgb")).pred_boxes
    torch.testing.assert_close(boxes, recorded["rgb.pred_boxes"], atol=1e-5, rtol=0)
