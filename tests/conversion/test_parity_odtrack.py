"""Parity with the original ODTrack, on fixtures that stay outside the repository; test_odtrack.py always runs."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ct_hf.conversion import convert_checkpoint
from ct_hf.conversion.key_table import apply_key_table
from ct_hf.conversion.odtrack import TABLE, VARIANTS
from ct_hf.models import ODTrackConfig, ODTrackModel

from .checkpoints import save_original


PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
NAME = "odtrack_baseline"
CALLS = {"call1": [0], "call2": [0, 1], "call3": [0, 1, 2, 3]}
"""Templates of each recorded call; each takes the temporal token of the one before."""

MAPS, BOXES, TOKENS, PIXELS = 1e-4, 1e-5, 5e-4, 0.05  # they agree ten times better and more

pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f"parity fixtures are not at {PARITY}")


class Case:
    """The original converted from a checkpoint file, and what it makes of the recorded inputs."""

    def __init__(self, folder: Path):
        location = importlib.util.spec_from_file_location("make_weights", PARITY / "make_weights.py")
        self.rule = importlib.util.module_from_spec(location)
        location.loader.exec_module(self.rule)
        self.spec = self.rule.load_spec(PARITY / NAME / "spec.json")
        self.recorded = load_file(PARITY / NAME / "io.safetensors")
        path = save_original(folder / "ODTrack_ep0300.pth.tar", self.rule.make_weights(self.spec))
        self.model, self.report = convert_checkpoint("odtrack", "baseline", path)
        path.unlink()
        inputs, memory, self.calls = self.rule.make_inputs(self.spec), None, {}
        for frame, (tag, templates) in enumerate(CALLS.items()):
            crops = torch.stack([inputs[f"template_{index}"] for index in templates], dim=1)
            with torch.no_grad():
                states = [self.model.embed(crops, inputs[f"search_{frame}"], memory=memory)]
                for layer in self.model.layers:
                    states.append(layer(states[-1]))
                output = self.model.decode(states[-1])
            self.calls[tag], memory = (states, output), output.memory


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp(NAME))


@pytest.mark.parametrize("tag", CALLS)
class TestThreeChainedCalls:
    def test_maps(self, case, tag):
        for field in ("score_map", "size_map", "offset_map"):
            expected = case.recorded[f"{tag}.{field}"]
            torch.testing.assert_close(case.calls[tag][1][field], expected, atol=MAPS, rtol=0)

    def test_boxes(self, case, tag):
        output = case.calls[tag][1]
        torch.testing.assert_close(output.pred_boxes, case.recorded[f"{tag}.pred_boxes"][:, 0], atol=BOXES, rtol=0)
        boxes, score = case.model.locate(output)
        torch.testing.assert_close(boxes, case.recorded[f"{tag}.hann_pred_boxes"][:, 0], atol=BOXES, rtol=0)
        peak = case.recorded[f"{tag}.hann_response"].flatten(1).amax(dim=1)
        torch.testing.assert_close(score, peak, atol=MAPS, rtol=0)

    def test_temporal_token(self, case, tag):
        memory = case.calls[tag][1].memory
        torch.testing.assert_close(memory.temporal_token, case.recorded[f"{tag}.track_query"], atol=TOKENS, rtol=0)

    def test_tokens(self, case, tag):
        states, _ = case.calls[tag]
        with torch.no_grad():
            normed = states[-1].replace(hidden_states=case.model.layernorm(states[-1].hidden_states))
        tokens = torch.cat(list(normed.groups().values()), dim=1)
        assert tokens.shape[1] == 1 + 144 * len(CALLS[tag]) + 576
        expected = {
            "backbone_ch8": tokens[..., :8],
            "backbone_token_mean": tokens.mean(dim=-1),
            "backbone_token_std": tokens.std(dim=-1),
        }
        for field, value in expected.items():
            torch.testing.assert_close(value, case.recorded[f"{tag}.{field}"], atol=TOKENS, rtol=0)

    def test_every_layer(self, case, tag):
        """First tokens, and number, mean, deviation, mean size, extremes and sum of the first sample's tokens."""
        for layer, state in enumerate(case.calls[tag][0][1:]):
            tokens = state.hidden_states[0].double()
            numbers = [len(tokens), tokens.mean(), tokens.std(), tokens.abs().mean(), tokens.min(), tokens.max()]
            recorded = case.recorded[f"{tag}.block_stats_f64"][layer]
            torch.testing.assert_close(torch.tensor(numbers).double(), recorded[:6], atol=TOKENS, rtol=0)
            assert abs(tokens.sum() - recorded[6]) < TOKENS * len(tokens)
            first = case.recorded[f"{tag}.block_first4_tokens_ch8"][layer]
            torch.testing.assert_close(state.hidden_states[0, :4, :8], first, atol=TOKENS, rtol=0)

    def test_kept_tokens(self, case, tag):
        states, _ = case.calls[tag]
        layers = case.model.config.elimination_layers
        assert layers == [3, 6, 9]
        for number, layer in enumerate(layers):
            kept = states[layer + 1].search_index.sort(dim=1).values
            recorded = case.recorded[f"{tag}.ce{number}_kept_index"].sort(dim=1).values
            assert torch.equal(kept.int(), recorded.int())


def test_weights_are_the_fixture_s(case):
    """A machine whose random numbers differ would fail here first."""
    few = {key: case.spec["state_dict"][key] for key in list(case.spec["state_dict"])[:6]}
    checks = {key: case.spec["weight_check"][key] for key in few}
    case.rule.check_weights({"weight_check": checks}, case.rule.make_weights({"state_dict": few}))


def test_every_key_is_accounted_for(case):
    assert set(case.report.renamed) | set(case.report.dropped) == set(case.spec["state_dict"])
    assert set(case.report.dropped) == {"backbone.pos_embed"}
    assert sorted(ours for names in case.report.renamed.values() for ours in names) == sorted(case.model.state_dict())
    used = sum(parameter.numel() for parameter in case.model.parameters())
    assert used == case.spec["num_parameters_used"]


@pytest.mark.parametrize("sequence", [0, 1])
def test_tracker_loop(case, sequence):
    """Boxes, scores and the templates chosen, up to the sixth frame, the first with four of them."""
    recorded = case.spec["tracker_loop"]["sequences"][sequence]
    frames = case.rule.make_frames(case.spec)
    session = case.model.start(frames[0], recorded["init_bbox"])
    assert recorded["frames"] and session.memory is None
    for entry in recorded["frames"]:
        assert session.templates.frames(entry["frame"]) == entry["memory_frame_indexes"]
        track = session.update(frames[entry["frame"]])
        assert abs(torch.tensor(track.box) - torch.tensor(entry["target_bbox"])).max() < PIXELS
        assert abs(track.score - entry["response_max"]) < 1e-3


def test_large_model_has_the_original_s_keys_and_shapes(case):
    """ODTrack-L by shapes alone: they are the base model's in twice the depth and 4/3 of the width."""
    widths, shapes = {768: 1024, 2304: 3072, 3072: 4096}, {}
    for key, entry in case.spec["state_dict"].items():
        shape = [widths.get(size, size) for size in entry["shape"]]
        numbers = range(24) if key.startswith("backbone.blocks.0.") else [None]
        if numbers != [None] or not key.startswith("backbone.blocks."):
            names = [key if number is None else key.replace(".0.", f".{number}.", 1) for number in numbers]
            shapes |= dict.fromkeys(names, shape)
    assert len(shapes) == 387
    with torch.device("meta"):
        model = ODTrackModel(ODTrackConfig(**VARIANTS["baseline_large"]))
    report = apply_key_table(TABLE, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, model)
    assert set(report.renamed) | {"backbone.pos_embed"} == set(shapes)
    assert sorted(ours for names in report.renamed.values() for ours in names) == sorted(model.state_dict())
    assert [layer.importance_rows for layer in model.layers if layer.keep_ratio < 1] == [[65]] * 3
