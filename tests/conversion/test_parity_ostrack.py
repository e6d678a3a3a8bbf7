"""Parity with the original OSTrack models, on fixtures that stay outside the repository; test_ostrack.py always runs."""

import gc
import importlib.util
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ct_hf.conversion import convert_checkpoint
from ct_hf.conversion.key_table import apply_key_table
from ct_hf.conversion.ostrack import TABLE, VARIANTS
from ct_hf.models import OSTrackConfig, OSTrackModel

from .checkpoints import save_original


PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
MODELS = ["ostrack_vitb_256_mae_32x4_ep300", "ostrack_vitb_256_mae_ce_32x4_ep300"]
LARGE = "ostrack_vitb_384_mae_ce_32x4_ep300"
CALLS = [(MODELS[0], "main"), (MODELS[1], "main"), (MODELS[1], "nomask"), (MODELS[1], "keep1")]

MAPS, BOXES, TOKENS, PIXELS = 5e-5, 1e-5, 5e-4, 0.05  # they agree ten times better and more

pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f"parity fixtures are not at {PARITY}")


@cache
def fill_rule():
    """Module of the fixtures that fills weights, inputs and frames."""
    location = importlib.util.spec_from_file_location("make_weights", PARITY / "make_weights.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


@cache
def load_spec(name):
    return fill_rule().load_spec(PARITY / name / "spec.json")


class Converted:
    """One original model, converted from a checkpoint file, with what the original made of the same inputs."""

    def __init__(self, name, folder):
        self.spec = load_spec(name)
        self.recorded = load_file(PARITY / name / "io.safetensors")
        path = folder / "OSTrack_ep0300.pth.tar"
        save_original(path, fill_rule().make_weights(self.spec))
        self.model, self.report = convert_checkpoint("ostrack", name.removeprefix("ostrack_"), path)
        path.unlink()
        self.calls = {}

    def call(self, tag):
        """States and output of a recorded call: `main`, `nomask` (all template tokens rank) or `keep1` (none go)."""
        if tag not in self.calls:
            model = self.model
            if tag == "nomask":
                changes = {**model.config.to_dict(), "elimination_template_region": "all"}
                with torch.device("meta"):
                    model = OSTrackModel(OSTrackConfig.from_dict(changes)).eval()
                model.load_state_dict(self.model.state_dict(), assign=True)
            inputs = fill_rule().make_inputs(self.spec)
            with torch.no_grad():
                template = inputs["template"].unsqueeze(1)
                states = [model.embed(template, inputs["search"], keep_all_tokens=tag == "keep1")]
                for layer in model.layers:
                    states.append(layer(states[-1]))
                self.calls[tag] = states, model.decode(states[-1])
        return self.calls[tag]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Converted models by name, each made once."""
    models = {}

    def get(name):
        if name not in models:
            models[name] = Converted(name, tmp_path_factory.mktemp(name))
        return models[name]

    yield get
    models.clear()
    gc.collect()


@pytest.mark.parametrize(("name", "tag"), CALLS)
class TestForward:
    def test_maps(self, converted, name, tag):
        recorded, (_, output) = converted(name).recorded, converted(name).call(tag)
        for field in ("score_map", "size_map", "offset_map"):
            torch.testing.assert_close(output[field], recorded[f"{tag}.{field}"], atol=MAPS, rtol=0)

    def test_boxes(self, converted, name, tag):
        recorded, (_, output) = converted(name).recorded, converted(name).call(tag)
        torch.testing.assert_close(output.pred_boxes, recorded[f"{tag}.pred_boxes"][:, 0], atol=BOXES, rtol=0)

    def test_boxes_under_the_window(self, converted, name, tag):
        recorded, (_, output) = converted(name).recorded, converted(name).call(tag)
        boxes, score = converted(name).model.locate(output)
        torch.testing.assert_close(boxes, recorded[f"{tag}.hann_pred_boxes"][:, 0], atol=BOXES, rtol=0)
        peak = recorded[f"{tag}.hann_response"].flatten(1).amax(dim=1)
        torch.testing.assert_close(score, peak, atol=MAPS, rtol=0)

    def test_tokens(self, converted, name, tag):
        case = converted(name)
        states, _ = case.call(tag)
        with torch.no_grad():
            normed = states[-1].replace(hidden_states=case.model.layernorm(states[-1].hidden_states))
        tokens = torch.cat(list(normed.groups().values()), dim=1)
        expected = {
            "backbone_ch8": tokens[..., :8],
            "backbone_token_mean": tokens.mean(dim=-1),
            "backbone_token_std": tokens.std(dim=-1),
        }
        for field, value in expected.items():
            torch.testing.assert_close(value, case.recorded[f"{tag}.{field}"], atol=TOKENS, rtol=0)

    def test_every_layer(self, converted, name, tag):
        """Number, mean, deviation, mean size, extremes and sum of the first sample's tokens after each layer."""
        case = converted(name)
        for layer, state in enumerate(case.call(tag)[0][1:]):
            tokens = state.hidden_states[0].double()
            numbers = [len(tokens), tokens.mean(), tokens.std(), tokens.abs().mean(), tokens.min(), tokens.max()]
            recorded = case.recorded[f"{tag}.block_stats_f64"][layer]
            torch.testing.assert_close(torch.tensor(numbers).double(), recorded[:6], atol=TOKENS, rtol=0)
            assert abs(tokens.sum() - recorded[6]) < TOKENS * len(tokens)

    def test_kept_tokens(self, converted, name, tag):
        case = converted(name)
        states, _ = case.call(tag)
        layers = [] if tag == "keep1" else case.model.config.elimination_layers
        for number, layer in enumerate(layers):
            kept = states[layer + 1].search_index.sort(dim=1).values
            assert torch.equal(kept.int(), case.recorded[f"{tag}.ce{number}_kept_index"].sort(dim=1).values.int())
        if not layers:
            assert states[-1].search_index is None


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_the_fixture_s(name):
    """A machine whose random numbers differ would fail here first."""
    spec = load_spec(name)
    few = {key: spec["state_dict"][key] for key in list(spec["state_dict"])[:6]}
    checks = {key: spec["weight_check"][key] for key in few}
    fill_rule().check_weights({"weight_check": checks}, fill_rule().make_weights({"state_dict": few}))


@pytest.mark.parametrize("name", MODELS)
def test_every_key_is_accounted_for(converted, name):
    case = converted(name)
    assert set(case.report.renamed) | set(case.report.dropped) == set(case.spec["state_dict"])
    assert set(case.report.dropped) == {"backbone.cls_token", "backbone.pos_embed"}
    assert sorted(ours for names in case.report.renamed.values() for ours in names) == sorted(case.model.state_dict())
    assert f"{len(case.report.renamed)} keys converted, 2 dropped" in str(case.report)


@pytest.mark.parametrize("sequence", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_tracker_loop(converted, name, sequence):
    case = converted(name)
    recorded = case.spec["tracker_loop"]["sequences"][sequence]
    frames = fill_rule().make_frames(case.spec)
    session = case.model.start(frames[0], recorded["init_bbox"])
    assert recorded["frames"]
    for entry in recorded["frames"]:
        track = session.update(frames[entry["frame"]])
        assert abs(torch.tensor(track.box) - torch.tensor(entry["target_bbox"])).max() < PIXELS
        assert abs(track.score - entry["response_max"]) < 1e-3


def test_large_model_has_the_original_s_keys_and_shapes():
    """OSTrack-384 by shapes alone."""
    spec = load_spec(LARGE)
    with torch.device("meta"):
        model = OSTrackModel(OSTrackConfig(**VARIANTS[LARGE.removeprefix("ostrack_")]))
    weights = {key: torch.empty(entry["shape"], device="meta") for key, entry in spec["state_dict"].items()}
    report = apply_key_table(TABLE, weights, model)
    assert set(report.renamed) | set(report.dropped) == set(spec["state_dict"])
    assert sorted(ours for names in report.renamed.values() for ours in names) == sorted(model.state_dict())
    assert sum(parameter.numel() for parameter in model.parameters()) == spec["num_parameters_used"]
    assert [layer.importance_rows for layer in model.layers if layer.keep_ratio < 1] == [[65]] * 3
