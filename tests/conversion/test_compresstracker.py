"""Released students of CompressTracker, in tiny form always and in full where the fixtures are."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ct_hf.conversion import CheckpointError, convert_checkpoint
from ct_hf.conversion.compresstracker import TABLE, VARIANTS, read_config
from ct_hf.conversion.key_table import apply_key_table
from ct_hf.models import OSTrackConfig, OSTrackModel

from ..parity import assert_maps_close, fill_inputs, fill_weights, load_case
from .checkpoints import save_original


PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
NAME = "compresstracker_vitb_256_4"

needs_fixtures = pytest.mark.skipif(not PARITY.is_dir(), reason=f"parity fixtures are not at {PARITY}")


def convert(folder, weights, variant="vitb_256_2", **fields):
    path = save_original(folder / "CompressTracker_ep0500.pth.tar", weights)
    converted = convert_checkpoint("compresstracker", variant, path, **fields)
    path.unlink()
    return converted


@pytest.fixture(scope="module")
def tiny():
    return load_case("compresstracker_tiny")


@pytest.fixture
def weights(tiny):
    return fill_weights(tiny[0])


@pytest.fixture
def training_weights(tiny, weights):
    """What the original's training saves: the student and, twice, parts of its teacher."""
    generator = torch.Generator().manual_seed(0)
    shapes = tiny[0]["training_only"]
    teacher = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    assert {key.split(".")[0] for key in teacher} == {"backbone", "ori_backbone", "ori_box_head"}
    return {**teacher, **weights}


@pytest.mark.parametrize("form", ["test", "training", "parallel training"])
def test_outputs(tiny, weights, training_weights, form, tmp_path):
    """Each form of a checkpoint becomes the same student, whose outputs are the original's."""
    spec, recorded = tiny
    weights = weights if form == "test" else training_weights
    if form.startswith("parallel"):
        weights = {f"module.{key}": tensor for key, tensor in weights.items()}
    model, _ = convert(tmp_path, weights, **spec["config"])
    inputs = fill_inputs(spec)
    with torch.no_grad():
        output = model(inputs["template"].unsqueeze(1), inputs["search"])
        state = model.embed(inputs["template"].unsqueeze(1), inputs["search"])
        for layer in model.layers:
            state = layer(state)
        tokens = model.layernorm(state.hidden_states)
    for name in ("score_map", "size_map", "offset_map"):
        assert_maps_close(output[name], recorded[name])
    torch.testing.assert_close(output.pred_boxes, recorded["pred_boxes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.locate(output)[0], recorded["hann_pred_boxes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens, recorded["tokens"], atol=2e-5, rtol=0)


def test_every_key_is_accounted_for(tiny, training_weights, tmp_path):
    model, report = convert(tmp_path, training_weights, **tiny[0]["config"])
    assert set(report.renamed) | set(report.dropped) == set(training_weights)
    unused = {"backbone.cls_token", "backbone.pos_embed"}
    assert set(report.dropped) == unused | set(tiny[0]["training_only"])
    assert all("training" in report.dropped[key] for key in tiny[0]["training_only"])
    assert sorted(name for names in report.renamed.values() for name in names) == sorted(model.state_dict())
    assert re.search(r"dropped ori_box_head\.\S+ and \d+ more: the frozen teacher's head", str(report))


def test_it_is_an_ostrack_student(tiny, weights, tmp_path):
    model, _ = convert(tmp_path, weights, **tiny[0]["config"])
    assert type(model) is OSTrackModel and len(model.layers) == 2 and not model.training


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_is_a_valid_configuration(variant):
    config = OSTrackConfig(**VARIANTS[variant])
    assert config.num_hidden_layers == int(variant.split("_")[-1])
    assert (config.template_size, config.search_size, config.elimination_layers) == (128, 256, [])
    assert variant.removeprefix("compresstracker_") in VARIANTS


class TestDoesNotFit:
    def test_another_depth(self, tiny, training_weights, tmp_path):
        """The student's depth is advised, not the teacher's."""
        for layers in (3, 1):
            with pytest.raises(CheckpointError, match=r"--set num_hidden_layers=2\.$"):
                convert(tmp_path, training_weights, **{**tiny[0]["config"], "num_hidden_layers": layers})
        assert read_config(training_weights)["num_hidden_layers"] == 2

    def test_its_teacher(self, tmp_path):
        spec, _ = load_case("ostrack_tiny_plain")
        with pytest.raises(CheckpointError, match="not a checkpoint of the family `compresstracker`"):
            convert(tmp_path, fill_weights(spec), **spec["config"])

    @pytest.mark.parametrize("form", ["test", "training"])
    def test_given_to_ostrack(self, tiny, weights, training_weights, form, tmp_path):
        weights = weights if form == "test" else training_weights
        path = save_original(tmp_path / "CompressTracker_ep0500.pth.tar", weights)
        with pytest.raises(CheckpointError, match=r"surplus key `(backbone\.distill_blocks|backbone\.blocks|ori_)"):
            convert_checkpoint("ostrack", "vitb_256_mae_32x4_ep300", path, **tiny[0]["config"])

    def test_missing_key(self, tiny, training_weights, tmp_path):
        """The teacher's layer of the same number does not stand in for it."""
        del training_weights["backbone.distill_blocks.1.attn.proj.weight"]
        with pytest.raises(CheckpointError, match=r"lacks what `layers\.1\.attention\.o_proj\.weight` needs \(1 of"):
            convert(tmp_path, training_weights, **tiny[0]["config"])


@needs_fixtures
class TestFull:
    @pytest.fixture(scope="class")
    def rule(self):
        location = importlib.util.spec_from_file_location("make_weights", PARITY / "make_weights.py")
        module = importlib.util.module_from_spec(location)
        location.loader.exec_module(module)
        return module

    @pytest.fixture(scope="class")
    def spec(self, rule):
        return rule.load_spec(PARITY / NAME / "spec.json")

    @pytest.fixture(scope="class")
    def recorded(self):
        return load_file(PARITY / NAME / "io.safetensors")

    @pytest.fixture(scope="class")
    def model(self, rule, spec, tmp_path_factory):
        model, report = convert(tmp_path_factory.mktemp(NAME), rule.make_weights(spec), "vitb_256_4")
        assert len(spec["state_dict"]) == 146 == len(report.renamed) + 2
        return model

    def test_forward(self, rule, spec, recorded, model):
        inputs = rule.make_inputs(spec)
        with torch.no_grad():
            output = model(inputs["template"].unsqueeze(1), inputs["search"], output_hidden_states=[4])
            tokens = model.layernorm(output.hidden_states[0])
        for name in ("score_map", "size_map", "offset_map"):
            torch.testing.assert_close(output[name], recorded[f"main.{name}"], atol=5e-5, rtol=0)
        torch.testing.assert_close(output.pred_boxes, recorded["main.pred_boxes"][:, 0], atol=1e-5, rtol=0)
        boxes, _ = model.locate(output)
        torch.testing.assert_close(boxes, recorded["main.hann_pred_boxes"][:, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(tokens[..., :8], recorded["main.backbone_ch8"], atol=5e-4, rtol=0)

    @pytest.mark.parametrize("sequence", [0, 1])
    def test_tracker_loop(self, rule, spec, model, sequence):
        loop = spec["tracker_loop"]["sequences"][sequence]
        frames = rule.make_frames(spec)
        session = model.start(frames[0], loop["init_bbox"])
        assert loop["frames"]
        for entry in loop["frames"]:
            track = session.update(frames[entry["frame"]])
            assert abs(torch.tensor(track.box) - torch.tensor(entry["target_bbox"])).max() < 0.05
            assert abs(track.score - entry["response_max"]) < 1e-3

    def test_training_form(self, spec):
        """All 532 keys of the original's training model, by shapes alone."""
        shapes = {key: entry["shape"] for key, entry in spec["state_dict"].items()}
        for key in list(shapes):
            if key.startswith("backbone.distill_blocks.0."):
                layers = [key.replace("distill_blocks.0", f"blocks.{layer}") for layer in range(12)]
                shapes |= dict.fromkeys([name for own in layers for name in (own, f"ori_{own}")], shapes[key])
            elif not key.startswith("backbone.distill_blocks."):
                shapes[f"ori_{key}"] = shapes[key]
        assert len(shapes) == 532
        with torch.device("meta"):
            model = OSTrackModel(OSTrackConfig(**VARIANTS["vitb_256_4"]))
        weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        report = apply_key_table(TABLE, weights, model)
        assert len(report.renamed) == 144 and len(report.dropped) == 388
        assert sorted(ours for names in report.renamed.values() for ours in names) == sorted(model.state_dict())
