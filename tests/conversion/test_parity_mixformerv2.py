"""Parity with the original MixFormerV2-B, on fixtures that stay outside the repository; test_mixformerv2.py always runs."""

import gc
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ct_hf.conversion import convert_checkpoint
from ct_hf.conversion.key_table import apply_key_table
from ct_hf.conversion.mixformerv2 import TABLE, VARIANTS
from ct_hf.models import MixFormerV2Config, MixFormerV2Model

from .checkpoints import save_original


PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
FOLDER = PARITY / "mixformerv2_b"
CALLS = ["updated", "init", "batch2", "updated_builtin_pos"]
SIDES = "ltrb"

TOKENS, PROBABILITIES, BOXES, SCORES, PIXELS = 2e-4, 1e-5, 1e-5, 1e-4, 0.05

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"parity fixtures are not at {FOLDER}")


@cache
def fill_rule():
    """Module of the fixtures that fills weights."""
    location = importlib.util.spec_from_file_location("make_weights", PARITY / "make_weights.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


@cache
def spec():
    return fill_rule().load_spec(FOLDER / "spec.json")


def inputs_of(call):
    """Templates and search crop of a recorded call."""
    inputs = {}
    for seed, group in ((0, "seed0"), (3, "seed3")):
        generator = torch.Generator().manual_seed(seed)
        inputs |= {name: torch.randn(shape, generator=generator) for name, shape in spec()["inputs"][group]}
    for name, total in spec()["inputs"]["checksums_f64_sum"].items():
        assert inputs[name].double().sum().item() == pytest.approx(total, abs=1e-6), "another machine's random numbers"
    first, second, search = {"init": ("t0", "t0", "x0"), "batch2": ("b_t0", "b_t1", "b_x")}.get(
        call, ("t0", "t1", "x0")
    )
    return torch.stack([inputs[first], inputs[second]], dim=1), inputs[search]


def make_frames(count):
    """Frames of the recorded video, by the rule in the specification."""
    y, x = np.mgrid[0:240, 0:320].astype(np.int64)
    frames = []
    for k in range(count):
        frame = np.stack(
            [(x * 3 + y * 5 + k * 7) % 256, ((x * y) // 7 + k * 3) % 256, (x * 2 + (y * y) // 11 + k * 5) % 256],
            axis=2,
        )
        left, top = 130 + 4 * k, 90 + 2 * k
        column, row = x - left, y - top
        inside = (column >= 0) & (column < 48) & (row >= 0) & (row < 36)
        patch = np.stack([(column * 5) % 256, (row * 7) % 256, ((column + row) * 3) % 256], axis=2)
        frames.append(np.where(inside[..., None], patch, frame).astype(np.uint8))
    return frames


class Converted:
    """The original, converted from a checkpoint file, and what it made of recorded inputs."""

    def __init__(self, folder):
        path = folder / "mixformerv2_base.pth.tar"
        save_original(path, fill_rule().make_weights(spec()))
        self.model, self.report = convert_checkpoint("mixformerv2", "288_depth8_score", path)
        path.unlink()
        self.calls = {}

    def call(self, tag):
        """States and output of a recorded call."""
        if tag not in self.calls:
            embeddings, filled = self.model.embeddings, {}
            if tag == "updated_builtin_pos":
                for name, table in fresh_tables().items():
                    filled[name] = getattr(embeddings, name)
                    setattr(embeddings, name, table)
            templates, search = inputs_of(tag)
            with torch.no_grad():
                states = [self.model.embed(templates, search)]
                for layer in self.model.layers:
                    states.append(layer(states[-1]))
                self.calls[tag] = states, self.model.decode(states[-1])
            for name, table in filled.items():
                setattr(embeddings, name, table)
        return self.calls[tag]


@cache
def fresh_tables():
    """Position tables of a new model."""
    return dict(MixFormerV2Model(MixFormerV2Config(num_hidden_layers=1)).embeddings.named_buffers())


@pytest.fixture(scope="module")
def recorded():
    return load_file(FOLDER / "io.safetensors")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    case = [Converted(tmp_path_factory.mktemp("mixformerv2"))]
    yield case[0]
    case.clear()
    gc.collect()


def test_weights_are_the_fixture_s():
    """A machine whose random numbers differ would fail here first."""
    few = {key: spec()["state_dict"][key] for key in list(spec()["state_dict"])[:6]}
    checks = {key: spec()["weight_check"][key] for key in few}
    fill_rule().check_weights({"weight_check": checks}, fill_rule().make_weights({"state_dict": few}))


class TestForward:
    @pytest.mark.parametrize("call", CALLS)
    def test_distributions(self, converted, recorded, call):
        """In the order left, top, right, bottom."""
        probabilities = converted.call(call)[1].corner_probabilities
        for side, actual in zip(SIDES, probabilities.unbind(1), strict=True):
            torch.testing.assert_close(actual, recorded[f"{call}/prob_{side}"], atol=PROBABILITIES, rtol=0)

    @pytest.mark.parametrize("call", CALLS[:3])
    def test_logits(self, converted, recorded, call):
        for side, actual in zip(SIDES, converted.call(call)[1].corner_logits.unbind(1), strict=True):
            torch.testing.assert_close(actual, recorded[f"{call}/logit_{side}"], atol=TOKENS, rtol=0)

    @pytest.mark.parametrize("call", CALLS)
    def test_boxes(self, converted, recorded, call):
        output = converted.call(call)[1]
        torch.testing.assert_close(output.pred_boxes, recorded[f"{call}/pred_boxes"][:, 0], atol=BOXES, rtol=0)

    @pytest.mark.parametrize("call", CALLS)
    def test_scores(self, converted, recorded, call):
        output = converted.call(call)[1]
        torch.testing.assert_close(output.score_logits, recorded[f"{call}/pred_scores"], atol=SCORES, rtol=0)
        torch.testing.assert_close(output.score, recorded[f"{call}/pred_scores"].sigmoid(), atol=SCORES, rtol=0)

    @pytest.mark.parametrize("call", CALLS[:3])
    def test_tokens(self, converted, recorded, call):
        state = converted.call(call)[0][-1]
        tokens = state.hidden_states
        torch.testing.assert_close(state.groups()["special"], recorded[f"{call}/reg_tokens"], atol=TOKENS, rtol=0)
        torch.testing.assert_close(tokens[..., :8], recorded[f"{call}/final_tokens_first8"], atol=TOKENS, rtol=0)
        for row, numbers in enumerate(recorded[f"{call}/final_tokens_stats_f64"]):
            check_statistics(tokens[row], numbers)

    @pytest.mark.parametrize("call", CALLS[:3])
    def test_remembered_templates(self, converted, recorded, call):
        """The shorter way that the original meant to take gives its boxes too."""
        templates, search = inputs_of(call)
        with torch.no_grad():
            memory = converted.model.remember_templates(templates)
            output = converted.model(torch.zeros_like(templates), search, memory=memory)
        torch.testing.assert_close(output.pred_boxes, recorded[f"{call}/pred_boxes"][:, 0], atol=BOXES, rtol=0)
        torch.testing.assert_close(output.score_logits, recorded[f"{call}/pred_scores"], atol=SCORES, rtol=0)


def check_statistics(tokens, numbers):
    """Sum, sum of sizes, norm, mean, deviation, least and largest of all numbers."""
    tokens = tokens.double()
    sums = torch.stack([tokens.sum(), tokens.abs().sum()])
    torch.testing.assert_close(sums, numbers[:2], atol=TOKENS * len(tokens), rtol=1e-5)
    torch.testing.assert_close(tokens.norm(), numbers[2], atol=0, rtol=1e-5)
    others = torch.stack([tokens.mean(), tokens.std(unbiased=False), tokens.min(), tokens.max()])
    torch.testing.assert_close(others, numbers[3:], atol=TOKENS, rtol=0)


def test_every_layer(converted, recorded):
    states = converted.call("updated")[0]
    assert len(states) == len(recorded["updated/block_stats_f64"]) == 9
    for index, state in enumerate(states):
        tokens = state.hidden_states[0]
        check_statistics(tokens, recorded["updated/block_stats_f64"][index])
        places = torch.tensor([(j * (tokens.numel() - 1)) // 31 for j in range(32)])
        probes = recorded["updated/block_probes"][index]
        torch.testing.assert_close(tokens.flatten()[places], probes, atol=TOKENS, rtol=0)


def test_position_tables_of_a_new_model(recorded):
    tables = fresh_tables()
    for index, (name, key) in enumerate((("template", "t"), ("search", "s"))):
        table = tables[f"{name}_position_embeddings"]
        torch.testing.assert_close(table[..., :8], recorded[f"builtin_pos_embed_{key}_first8"], atol=1e-6, rtol=0)
        check_statistics(table[0], recorded["builtin_pos_embed_stats_f64"][index])


def test_every_key_is_accounted_for(converted):
    assert set(converted.report.renamed) == set(spec()["state_dict"])
    assert not converted.report.dropped
    names = sorted(ours for names in converted.report.renamed.values() for ours in names)
    assert names == sorted(converted.model.state_dict())
    trainable = sum(parameter.numel() for parameter in converted.model.parameters())
    assert trainable == spec()["config"]["params"]["trainable"]


def test_tracker_loop(converted):
    """Boxes, scores and the renewal of the second template, every second frame."""
    recorded = spec()["loop"]
    frames = make_frames(len(recorded["frames"]) + 1)
    config = converted.model.config
    interval, config.update_interval = config.update_interval, recorded["overrides"]["update_interval"]
    try:
        session = converted.model.start(frames[0], [130, 90, 48, 36])
        for entry in recorded["frames"]:
            track = session.update(frames[entry["frame"]])
            assert np.abs(track.box - np.array(entry["target_bbox"])).max() < PIXELS, entry["frame"]
            assert track.score == pytest.approx(entry["conf_score"], abs=1e-3)
            assert (session.templates.online is session.templates.first) == entry["online_is_initial"]
            best = max(entry["max_pred_score_after"], config.update_threshold)
            assert session.templates.best_score == pytest.approx(best, abs=1e-3)
    finally:
        config.update_interval = interval


def test_loop_s_first_template(converted, recorded):
    session = converted.model.start(make_frames(1)[0], [130, 90, 48, 36])
    processor = session.processor
    expected = processor.normalize(recorded["loop/template_crop_u8"].permute(2, 0, 1)).unsqueeze(0)
    difference = (session.templates.first.pixel_values - expected).abs() * torch.tensor(0.229) * 255
    assert difference.max() < 1.1, "within a grey level"


@pytest.mark.parametrize("variant", ["224_depth4_mlp1_score", "student_288_depth12"])
def test_other_variants_take_the_original_s_keys(variant):
    """By shapes alone, derived from B's: fewer or more blocks, narrower MLP, other tables, another number of bins."""
    config = MixFormerV2Config(**VARIANTS[variant])
    shapes = {}
    for index in range(config.num_hidden_layers):
        for key, entry in spec()["state_dict"].items():
            if key.startswith("backbone.blocks.0."):
                shapes[key.replace(".0.", f".{index}.", 1)] = entry["shape"]
    shapes |= {key: e["shape"] for key, e in spec()["state_dict"].items() if not key.startswith("backbone.blocks.")}
    narrow = {3072: config.intermediate_size, 96: config.num_bins}
    shapes = {key: [narrow.get(size, size) for size in shape] for key, shape in shapes.items()}
    shapes["backbone.pos_embed_t"][1] = (config.template_size // 16) ** 2
    shapes["backbone.pos_embed_s"][1] = (config.search_size // 16) ** 2
    shapes = {key: shape for key, shape in shapes.items() if config.score_branch or not key.startswith("score_head.")}
    with torch.device("meta"):
        model = MixFormerV2Model(config)
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    report = apply_key_table(TABLE, weights, model)
    assert sorted(ours for names in report.renamed.values() for ours in names) == sorted(model.state_dict())
