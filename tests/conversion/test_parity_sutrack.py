"""Parity with the original SUTrack models, on fixtures that stay outside the repository; test_sutrack.py always runs."""

import gc
import hashlib
import importlib.util
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ct_hf.compression import StagePlan, build_student
from ct_hf.conversion import CheckpointError, convert_checkpoint
from ct_hf.conversion.key_table import apply_key_table
from ct_hf.conversion.sutrack import TABLE, VARIANTS, null_text_features, read_config
from ct_hf.models import SUTrackConfig, SUTrackModel

from .checkpoints import save_original
from .clip import clip_that_says, original_order, public_boxes


PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
NAME, KEYS = "sutrack_b224", "sutrack_keys_only"
CASES = ["rgb_init", "rgb_updated", "rgb_notext", "rgbx", "batch2"]

MAPS, OFFSETS, BOXES, TOKENS, PIXELS = 5e-5, 2e-4, 1e-5, 1e-4, 0.05

pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f"parity fixtures are not at {PARITY}")


@cache
def fill_rule():
    """Module of the fixtures that fills weights."""
    location = importlib.util.spec_from_file_location("make_weights", PARITY / "make_weights.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


@cache
def load_json(folder, name):
    return json.loads((PARITY / folder / f"{name}.json").read_text())


def keys_of(variant):
    """Every key of an original checkpoint with its shape, CLIP included, on the meta device."""
    spec = load_json(NAME, "spec") if variant == NAME else load_json(KEYS, variant)
    entries = {**spec["state_dict"], **load_json(KEYS, "clip_vit_l14_keys")["state_dict"]}
    return {key: torch.empty(entry["shape"], device="meta") for key, entry in entries.items()}


def make_inputs(spec):
    """Inputs of every recorded case in the form of our forward."""
    drawn = {}
    for name in ("seed0", "seed2", "seed3"):
        generator = torch.Generator().manual_seed(int(name[-1]))
        for tensor, shape in spec["inputs"][name]:
            drawn[tensor] = torch.randn(shape, generator=generator)
    for name, total in spec["inputs"]["checksums_f64_sum"].items():
        assert name == "clip_vector" or drawn[name].double().sum().item() == pytest.approx(total, abs=1e-6)
    boxes = {
        key: spec["inputs"][f"{key}_xywh_normalised" if key == "A0" else key] for key in ("A0", "A1", "BA0", "BA1")
    }
    boxes = {key: public_boxes(torch.tensor(box), 112) for key, box in boxes.items()}

    def case(templates, search, kept):
        return {
            "template_pixel_values": torch.stack([drawn[name] for name in templates], dim=1),
            "search_pixel_values": drawn[search],
            "template_boxes": torch.stack([boxes[name] for name in kept], dim=1),
        }

    updated = case(["t0", "t1"], "x0", ["A0", "A1"])
    return {
        "rgb_init": case(["t0", "t0"], "x0", ["A0", "A0"]),
        "rgb_updated": updated,
        "rgb_notext": updated,
        "rgbx": case(["m_t0", "m_t1"], "m_x", ["A0", "A1"]),
        "batch2": case(["b_t0", "b_t1"], "b_x", ["BA0", "BA1"]),
    }


class Converted:
    """The original model, converted from a checkpoint file, with what the original made of the same inputs."""

    def __init__(self, folder):
        self.spec = load_json(NAME, "spec")
        self.recorded = load_file(PARITY / NAME / "io.safetensors")
        weights = fill_rule().make_weights(self.spec)
        path = save_original(
            folder / "SUTRACK_ep0180.pth.tar", {**weights, **clip_that_says(self.recorded["text/clip_vector"][0])}
        )
        self.model, self.report = convert_checkpoint("sutrack", NAME, path)
        path.unlink()
        self.inputs = make_inputs(self.spec)
        self.calls = {}

    def call(self, case):
        """States and output of a recorded case."""
        if case not in self.calls:
            model = self.model
            if case == "rgb_notext":
                with torch.device("meta"):
                    model = SUTrackModel(SUTrackConfig(use_text=False)).eval()
                weights = self.model.state_dict()
                model.load_state_dict({name: weights[name] for name in model.state_dict()}, assign=True)
            with torch.no_grad():
                states = [model.embed(**self.inputs[case])]
                for layer in model.layers:
                    states.append(layer(states[-1]))
                self.calls[case] = states, model.decode(states[-1])
        return self.calls[case]

    def tokens(self, case):
        """Normed tokens in the original's order."""
        state = self.call(case)[0][-1]
        with torch.no_grad():
            return original_order(state.replace(hidden_states=self.model.layernorm(state.hidden_states)))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    yield (case := Converted(tmp_path_factory.mktemp(NAME)))
    case.calls.clear()
    del case
    gc.collect()


def stats(tensor):
    tensor = tensor.double()
    return torch.stack(
        [
            tensor.sum(),
            tensor.abs().sum(),
            tensor.norm(),
            tensor.mean(),
            tensor.std(correction=0),
            tensor.min(),
            tensor.max(),
        ]
    )


def assert_stats(tensor, expected):
    """Sum, absolute sum, norm, mean, deviation and extremes; sums to what rounding adds up to."""
    actual = stats(tensor)
    torch.testing.assert_close(actual[3:], expected[3:], atol=TOKENS, rtol=0)
    torch.testing.assert_close(actual[:3], expected[:3], atol=TOKENS * tensor.numel() ** 0.5, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
class TestForward:
    def test_maps(self, converted, case):
        output = converted.call(case)[1]
        for name, tolerance in (("score_map", MAPS), ("size_map", MAPS), ("offset_map", OFFSETS)):
            torch.testing.assert_close(output[name], converted.recorded[f"{case}/{name}"], atol=tolerance, rtol=0)

    def test_boxes(self, converted, case):
        output, recorded = converted.call(case)[1], converted.recorded
        torch.testing.assert_close(output.pred_boxes, recorded[f"{case}/pred_boxes"][:, 0], atol=BOXES, rtol=0)
        boxes, score = converted.model.locate(output)
        torch.testing.assert_close(boxes, recorded[f"{case}/windowed_box"], atol=BOXES, rtol=0)
        torch.testing.assert_close(score, recorded[f"{case}/windowed_conf"][:, 0], atol=MAPS, rtol=0)

    def test_task(self, converted, case):
        logits = converted.call(case)[1].auxiliary_logits
        torch.testing.assert_close(logits, converted.recorded[f"{case}/task_logits"][:, 0], atol=BOXES, rtol=0)

    def test_tokens(self, converted, case):
        tokens, recorded = converted.tokens(case), converted.recorded
        expected = recorded[f"{case}/tokens"] if case == "rgb_init" else recorded[f"{case}/tokens_first8"]
        torch.testing.assert_close(tokens[..., : expected.shape[-1]], expected, atol=TOKENS, rtol=0)
        for row, numbers in zip(tokens, recorded[f"{case}/tokens_stats_f64"], strict=True):
            assert_stats(row, numbers)


def test_every_block(converted):
    """Stem and trunk one by one: numbers over all of the first element, and 32 probes in the original's order."""
    model, inputs, seen = converted.model, converted.inputs["rgb_init"], []
    with torch.no_grad():
        crops = [inputs["template_pixel_values"][0], inputs["search_pixel_values"]]
        crops = [torch.cat([crop, crop], dim=1) for crop in crops]
        features = [model.embeddings.stem.patch_projection(crop).permute(0, 2, 3, 1) for crop in crops]
        seen += [feature.permute(0, 3, 1, 2)[0] for feature in features]
        for block in model.embeddings.stem.blocks:
            features = [block(feature) for feature in features]
            seen += [feature.permute(0, 3, 1, 2)[0] for feature in features]
    seen += [original_order(state)[0] for state in converted.call("rgb_init")[0]]
    calls = converted.spec["block_calls"]
    assert len(seen) == len(calls)
    for tensor, call, numbers, probes in zip(
        seen,
        calls,
        converted.recorded["rgb_init/block_stats_f64"],
        converted.recorded["rgb_init/block_probes"],
        strict=True,
    ):
        assert list(tensor.shape) == call["shape_of_output"][1:], call["name"]
        assert_stats(tensor, numbers)
        index = torch.arange(32) * (tensor.numel() - 1) // 31
        torch.testing.assert_close(tensor.flatten()[index], probes, atol=TOKENS, rtol=0)


def test_student_of_four_layers(converted):
    """CT-SUTrack-4, as its card builds it: stages of six, each begun as its last layer."""
    student, report = build_student(converted.model, StagePlan.even(24, 4))
    assert report.layers == {0: 5, 1: 11, 2: 17, 3: 23} and not report.sliced and not report.random
    assert sum(parameter.numel() for parameter in student.parameters()) == pytest.approx(21.3e6, rel=0.01)
    with torch.no_grad():
        assert student.eval()(**converted.inputs["batch2"]).pred_boxes.isfinite().all()


def test_text_token(converted):
    """The stored feature is CLIP's, and its projection the original's token."""
    embeddings, recorded = converted.model.embeddings, converted.recorded
    assert torch.equal(embeddings.null_text_features, recorded["text/clip_vector"][0])
    with torch.no_grad():
        token = embeddings.text_proj(embeddings.null_text_features)
        spoken = converted.model(
            **converted.inputs["batch2"], text_features=recorded["text/clip_vector"].expand(2, -1)
        )
    torch.testing.assert_close(token, recorded["text/text_src"][0, 0], atol=BOXES, rtol=0)
    assert torch.equal(spoken.pred_boxes, converted.call("batch2")[1].pred_boxes)


def test_every_key_is_accounted_for(converted):
    report = converted.report
    assert set(converted.spec["state_dict"]) <= set(report.renamed) | set(report.dropped)
    ours = [name for names in report.renamed.values() for name in names]
    assert sorted(ours + report.computed) == sorted(converted.model.state_dict())
    assert report.computed == ["embeddings.null_text_features"]


def make_frame(number):
    """The synthetic video of the loop, by its rule."""
    y, x = np.mgrid[0:240, 0:320]
    red, green = (x * 3 + y * 5 + number * 7) % 256, ((x * y) // 7 + number * 3) % 256
    frame = np.stack([red, green, (x * 2 + (y * y) // 11 + number * 5) % 256], axis=-1)
    x0, y0 = 130 + 4 * number, 90 + 2 * number
    inside = (x >= x0) & (x < x0 + 48) & (y >= y0) & (y < y0 + 36)
    target = np.stack([(x - x0) * 5 % 256, (y - y0) * 7 % 256, (x - x0 + y - y0) * 3 % 256], axis=-1)
    return np.where(inside[..., None], target, frame).astype(np.uint8)


def test_tracker_loop(converted, monkeypatch):
    """Boxes, scores and templates of eight frames, in one of which a template is taken."""
    loop, recorded = converted.spec["loop"], converted.recorded
    overrides = loop["config_overrides"]
    monkeypatch.setattr(converted.model.config, "template_update_interval", overrides["TEST.UPDATE_INTERVALS.DEFAULT"])
    monkeypatch.setattr(
        converted.model.config, "template_update_threshold", overrides["TEST.UPDATE_THRESHOLD.DEFAULT"]
    )
    session = converted.model.start(make_frame(0), loop["init_template_crop"]["bbox"])
    crop = session.processor.window(loop["init_template_crop"]["bbox"], "template").extract(make_frame(0))
    assert hashlib.sha256(crop.tobytes()).hexdigest() == loop["init_template_crop"]["crop_sha256"]
    taken = []
    for entry in loop["frames"]:
        before = session.templates.select(0)[1]
        track = session.update(make_frame(entry["frame"]))
        index = entry["frame"] - 1
        assert np.abs(track.box - recorded["loop/target_bbox_f64"][index].numpy()).max() < PIXELS, entry["frame"]
        assert abs(track.score - entry["best_score"]) < 1e-3
        templates = session.templates.select(0)
        taken.append(templates[1] is not before)
        assert taken[-1] == entry["updated_template"]
        annotations = [public_boxes(torch.tensor([box]), 112) for box in entry["template_annos"]]
        for template, box in zip(templates, annotations, strict=False):
            torch.testing.assert_close(template.box, box, atol=1e-3, rtol=0)
    assert sum(taken) == 1


def test_clip_says_of_no_sentence():
    """A whole text tower, whose feature of 77 zeros was recorded."""
    spec = load_json(KEYS, "clip_null_text")
    weights = fill_rule().make_weights(spec)
    expected = load_file(PARITY / KEYS / "clip_null_text.safetensors")["clip_null"][0]
    torch.testing.assert_close(null_text_features(weights), expected, atol=2e-5, rtol=0)
    del weights["text_encoder.clip.transformer.resblocks.11.ln_2.bias"]
    assert null_text_features(weights) is None


@pytest.mark.parametrize("variant", [NAME, "sutrack_b384", "sutrack_l224", "sutrack_l384"])
class TestKeys:
    """Released models by shapes alone, CLIP and all."""

    def test_every_key_and_shape(self, variant):
        weights = keys_of(variant)
        with torch.device("meta"):
            model = SUTrackModel(SUTrackConfig(**VARIANTS[variant]))
        report = apply_key_table(TABLE, weights, model)
        assert set(report.renamed) | set(report.dropped) == set(weights)
        ours = [name for names in report.renamed.values() for name in names]
        assert sorted(ours + report.computed) == sorted(model.state_dict())
        kept = {key for key in report.dropped if not key.startswith("text_encoder.clip.")}
        assert kept == {f"text_encoder.norm{i}.{part}" for i in (1, 2) for part in ("weight", "bias")}
        assert len(report.dropped) == 446 + 4
        unused = sum(weights[key].numel() for key in kept)
        spec = load_json(NAME, "spec")["config"] if variant == NAME else load_json(KEYS, variant)
        total = spec["params"]["total_without_clip"]
        assert sum(parameter.numel() for parameter in model.parameters()) == total - unused
        width, heads = model.config.hidden_size, model.config.num_attention_heads
        assert width // heads == 64 and math.isqrt(model.embeddings.num_search) == model.head.grid

    def test_configuration_is_read_from_the_shapes(self, variant):
        config = SUTrackConfig(**VARIANTS[variant])
        fields = read_config(keys_of(variant))
        assert fields == {name: getattr(config, name) for name in fields}
        assert set(VARIANTS[variant]) - {"num_attention_heads"} <= set(fields)

    def test_another_size_is_refused_with_advice(self, variant):
        other = "sutrack_l384" if variant != "sutrack_l384" else NAME
        with torch.device("meta"):
            model = SUTrackModel(SUTrackConfig(**VARIANTS[other]))
        with pytest.raises(CheckpointError, match=r"This configuration would fit the checkpoint: --set \w+="):
            apply_key_table(TABLE, keys_of(variant), model)
