import re

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from ct_hf.conversion import FAMILIES, CheckpointError, convert_checkpoint, convert_to_directory
from ct_hf.conversion.key_table import apply_key_table
from ct_hf.models import OSTrackConfig, OSTrackModel

from ..parity import fill_inputs, fill_weights, load_case


VARIANT = "vitb_256_mae_32x4_ep300"


@pytest.fixture(scope="module")
def spec():
    return load_case("ostrack_tiny_plain")[0]


@pytest.fixture
def weights(spec):
    return fill_weights(spec)


@pytest.fixture
def convert(tmp_path, spec):
    """Convert weights, with some fields of the tiny configuration changed."""

    def run(weights, **changes):
        torch.save({"net": weights}, tmp_path / "tiny.pth.tar")
        return convert_checkpoint("ostrack", VARIANT, tmp_path / "tiny.pth.tar", **{**spec["config"], **changes})

    return run


class TestUnknown:
    def test_family(self, tmp_path):
        with pytest.raises(ValueError, match=f"`family` must be one of {', '.join(sorted(FAMILIES))}, got 'ostrak'"):
            convert_checkpoint("ostrak", VARIANT, tmp_path)

    def test_variant(self, tmp_path):
        with pytest.raises(ValueError, match=f"`variant` of ostrack must be one of {VARIANT}, .*got 'vitb'"):
            convert_checkpoint("ostrack", "vitb", tmp_path)

    def test_field(self, convert, weights):
        with pytest.raises(
            ValueError, match="`num_layers` is not a field of OSTrackConfig; its fields are .*num_hidden_layers"
        ):
            convert(weights, num_layers=4)


class TestDoesNotFit:
    """The message names the first key and the configuration that would fit."""

    def test_deeper_checkpoint(self, convert, weights):
        for key in [key for key in weights if key.startswith("backbone.blocks.3.")]:
            for index in (4, 5):
                weights[key.replace(".3.", f".{index}.", 1)] = weights[key]
        with pytest.raises(CheckpointError, match=r"surplus key `backbone\.blocks\.4\..*--set num_hidden_layers=6\.$"):
            convert(weights)
        assert convert(weights, num_hidden_layers=6)[0].config.num_hidden_layers == 6

    def test_shallower_checkpoint(self, convert, weights):
        message = r"lacks what `layers\.4\..*` needs \(32 of 176 .*: --set num_hidden_layers=4\.$"
        with pytest.raises(CheckpointError, match=re.compile(message.replace("32 of 176", r"\d+ of \d+"))):
            convert(weights, num_hidden_layers=6)

    @pytest.mark.parametrize(
        ("changes", "key", "advice"),
        [
            ({"search_size": 256}, "backbone.pos_embed_x", "--set search_size=128"),
            ({"template_size": 128}, "backbone.pos_embed_z", "--set template_size=64"),
            ({"intermediate_size": 64}, "backbone.blocks.0.mlp.fc1.weight", "--set intermediate_size=128"),
            ({"head_channels": 32}, "box_head.conv1_ctr.0.weight", "--set head_channels=16"),
            ({"hidden_size": 64}, "backbone.", "--set hidden_size=32"),
            ({"patch_size": 8}, "backbone.", "--set patch_size=16"),
        ],
    )
    def test_other_sizes(self, convert, weights, changes, key, advice):
        with pytest.raises(CheckpointError, match=f"key `{re.escape(key)}.* shape .*expected .*{advice}"):
            convert(weights, **changes)
        assert convert(weights)

    def test_other_head(self, convert, weights):
        with pytest.raises(CheckpointError, match="surplus key `box_head.conv1_ctr.0.weight`.*--set head_type=center"):
            convert(weights, head_type="corner")

    def test_missing_key(self, convert, weights):
        del weights["backbone.blocks.2.attn.proj.weight"]
        expected = r"lacks what `layers\.2\.attention\.o_proj\.weight` needs \(1 of .*fits; the file is incomplete"
        with pytest.raises(CheckpointError, match=expected):
            convert(weights)

    def test_surplus_key(self, convert, weights):
        weights["backbone.blocks.2.attn.relative_position_bias_table"] = torch.zeros(1)
        expected = "surplus key `backbone.blocks.2.attn.relative_position_bias_table`.*of another model of the family"
        with pytest.raises(CheckpointError, match=expected):
            convert(weights)

    def test_wrong_shape(self, convert, weights):
        weights["backbone.norm.weight"] = torch.zeros(7)
        with pytest.raises(
            CheckpointError, match=r"`backbone\.norm\.weight` gives `layernorm\.weight` shape \(7,\), expected \(32,\)"
        ):
            convert(weights)

    def test_another_family(self, convert):
        with pytest.raises(CheckpointError, match="`vit.encoder.weight`.*not a checkpoint of the family `ostrack`"):
            convert({"vit.encoder.weight": torch.zeros(2)})

    @pytest.mark.parametrize("kind", ["surplus", "shape", "missing"])
    def test_the_model_is_left_as_it_was(self, spec, weights, kind):
        if kind == "surplus":
            weights["another"] = torch.zeros(1)
        elif kind == "shape":
            weights["backbone.norm.bias"] = torch.zeros(1)
        else:
            del weights["backbone.norm.bias"]
        model = OSTrackModel(OSTrackConfig(**spec["config"]))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(CheckpointError):
            apply_key_table(FAMILIES["ostrack"], weights, model)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class TestConverted:
    def test_model_is_ready_to_use(self, convert, weights, spec):
        model, _ = convert(weights)
        assert not model.training
        assert {name: getattr(model.config, name) for name in spec["config"]} == spec["config"]

    def test_weights_are_the_model_s_own(self, spec, weights):
        """Changing the model does not change the tensors it was made from, nor one another."""
        model = OSTrackModel(OSTrackConfig(**spec["config"]))
        before = {name: tensor.clone() for name, tensor in weights.items()}
        apply_key_table(FAMILIES["ostrack"], weights, model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())

    def test_fused_projections_are_split_in_order(self, convert, weights):
        model, report = convert(weights)
        fused = weights["backbone.blocks.1.attn.qkv.weight"]
        attention = model.layers[1].attention
        parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        assert torch.equal(torch.cat(parts), fused)
        names = [f"layers.1.attention.{name}_proj.weight" for name in "qkv"]
        assert report.renamed["backbone.blocks.1.attn.qkv.weight"] == names

    def test_report_says_why(self, convert, weights):
        _, report = convert(weights)
        assert str(report).splitlines()[0] == f"{len(weights) - 2} keys converted, 2 dropped on purpose"
        assert "dropped backbone.cls_token: the original never puts its class token into the sequence" in str(report)

    def test_directory_loads_by_auto_classes(self, tmp_path, weights, spec, convert):
        torch.save({"net": weights}, tmp_path / "tiny.pth.tar")
        out = tmp_path / "out" / "tiny"
        report = convert_to_directory("ostrack", VARIANT, tmp_path / "tiny.pth.tar", out, **spec["config"])
        assert report.renamed
        assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {
            path.name for path in out.iterdir()
        }
        model = AutoModel.from_pretrained(out)
        processor = AutoImageProcessor.from_pretrained(out)
        assert (processor.template_size, processor.search_size) == (64, 128)
        inputs = fill_inputs(spec)
        arguments = inputs["template"].unsqueeze(1), inputs["search"]
        with torch.no_grad():
            assert torch.equal(model(*arguments).pred_boxes, convert(weights)[0](*arguments).pred_boxes)


class TestFields:
    """What a user types is checked, and the advice can be followed."""

    def test_advice_fits(self, convert, weights, spec):
        """What the message says, with the number of heads that it asks for, converts."""
        with pytest.raises(CheckpointError) as error:
            convert(weights, hidden_size=48, intermediate_size=64, num_attention_heads=4)
        advice = dict(re.findall(r"--set (\w+)=(\w+)", str(error.value)))
        assert advice == {"hidden_size": "32", "intermediate_size": str(spec["config"]["intermediate_size"])}
        assert "attention heads does not show in weights" in str(error.value)
        convert(weights, **{name: int(value) for name, value in advice.items()})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"hidden_size": "abc"}, "hidden_size"),
            ({"elimination_layers": "1,3"}, "elimination_layers"),
            ({"num_attention_heads": 0}, "`num_attention_heads` must be positive"),
            ({"patch_size": -16}, "`patch_size` must be positive"),
            ({"num_attention_heads": 5}, "multiple of `num_attention_heads`"),
            ({"drop_path_rate": 1.5}, r"`drop_path_rate` must be in \[0, 1\)"),
            ({"template_factor": float("nan")}, "`template_factor` must be positive"),
            ({"image_mean": [0.5, 0.5]}, "`image_mean` must hold one value a channel"),
        ],
    )
    def test_values_that_do_not_fit(self, convert, weights, changes, message):
        with pytest.raises(ValueError, match=message):
            convert(weights, **changes)

    def test_without_bias(self, convert, weights):
        bare = {key: tensor for key, tensor in weights.items() if not key.endswith("qkv.bias")}
        with pytest.raises(CheckpointError, match="--set qkv_bias=False"):
            convert(bare)
        assert convert(bare, qkv_bias=False)[0].layers[0].attention.q_proj.bias is None


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.net."])
def test_weights_of_wrapped_models(convert, weights, prefix):
    plain, _ = convert(weights)
    parallel, _ = convert({f"{prefix}{key}": tensor for key, tensor in weights.items()})
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), parallel.state_dict().values(), strict=True)
    )


def test_weights_that_are_not_finite(convert, weights):
    weights["backbone.norm.weight"][0] = torch.nan
    with pytest.raises(CheckpointError, match="`backbone.norm.weight` holds values that are not finite"):
        convert(weights)


def test_out_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match="`out` out is a file"):
        convert_to_directory("ostrack", VARIANT, tmp_path / "weights.pth", tmp_path / "out")
