"""Parity with the original MixFormerV2 in tiny configurations; the full model is in test_parity_mixformerv2.py."""

import re

import numpy as np
import pytest
import torch

from ct_hf.conversion import CheckpointError, convert_checkpoint
from ct_hf.conversion.mixformerv2 import VARIANTS, read_config
from ct_hf.models import MixFormerV2Config, MixFormerV2Model

from ..parity import fill_inputs, fill_weights, load_case
from .checkpoints import save_original


CASES = ["mixformerv2_tiny_score", "mixformerv2_tiny_plain"]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Recorded outputs, converted model, its report, its inputs, all its states and its output."""
    spec, recorded = load_case(request.param)
    path = save_original(tmp_path_factory.mktemp("original") / "mixformerv2.pth.tar", fill_weights(spec))
    model, report = convert_checkpoint("mixformerv2", "288_depth8_score", path, **spec["config"])
    inputs = fill_inputs(spec)
    templates, search = torch.stack([inputs["template"], inputs["online"]], dim=1), inputs["search"]
    with torch.no_grad():
        states = [model.embed(templates, search)]
        for layer in model.layers:
            states.append(layer(states[-1]))
        output = model.decode(states[-1])
    return spec, recorded, model, report, (templates, search), states, output


def test_tokens_of_the_trunk(case):
    _, recorded, _, _, _, states, _ = case
    torch.testing.assert_close(states[1].hidden_states, recorded["tokens_of_first_layer"], atol=2e-5, rtol=0)
    torch.testing.assert_close(states[-1].hidden_states, recorded["tokens"], atol=2e-5, rtol=0)


def test_distributions_and_boxes(case):
    _, recorded, model, _, _, _, output = case
    torch.testing.assert_close(output.corner_logits, recorded["logits"], atol=2e-5, rtol=0)
    torch.testing.assert_close(output.corner_probabilities, recorded["probabilities"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.pred_boxes, recorded["pred_boxes"], atol=1e-5, rtol=0)
    assert torch.equal(model.locate(output)[0], output.pred_boxes)


def test_scores(case):
    _, recorded, model, _, _, _, output = case
    if model.config.score_branch:
        torch.testing.assert_close(output.score_logits, recorded["pred_scores"], atol=1e-5, rtol=0)
        torch.testing.assert_close(output.score, recorded["pred_scores"].sigmoid(), atol=1e-5, rtol=0)
    else:
        assert "pred_scores" not in recorded and output.score_logits is None


def test_remembered_templates(case):
    """As the original's own cached way, and as its whole forward."""
    _, recorded, model, _, (templates, search), _, _ = case
    with torch.no_grad():
        state = model.embed(templates, search, memory=model.remember_templates(templates))
        for layer in model.layers:
            state = layer(state)
        output = model.decode(state)
    prediction = state.groups()["special"]
    torch.testing.assert_close(prediction[:1], recorded["cached_prediction_tokens"], atol=2e-5, rtol=0)
    torch.testing.assert_close(output.pred_boxes, recorded["pred_boxes"], atol=1e-5, rtol=0)


def test_position_tables_of_a_new_model(case):
    spec, recorded, *_ = case
    embeddings = MixFormerV2Model(MixFormerV2Config(**spec["config"])).embeddings
    for name, key in (("template", "t"), ("search", "s")):
        table = getattr(embeddings, f"{name}_position_embeddings")
        torch.testing.assert_close(table, recorded[f"built_pos_embed_{key}"], atol=1e-6, rtol=0)


def test_every_key_is_accounted_for(case):
    spec, _, model, report, *_ = case
    assert set(report.renamed) == set(spec["state_dict"])
    assert report.dropped == {}
    assert sorted(name for names in report.renamed.values() for name in names) == sorted(model.state_dict())


def test_configuration_is_read_from_the_shapes(case):
    spec, _, model, *_ = case
    fields = read_config(fill_weights(spec))
    assert fields == {name: getattr(model.config, name) for name in fields}
    assert set(fields) == (set(spec["config"]) - {"num_attention_heads"}) | {"patch_size", "score_branch"}


def loop_frames(loop):
    """Frames of the recorded video: a patch of noise that moves over blocks of noise."""
    generator = torch.Generator().manual_seed(loop["seed"])
    (width, height), (x, y, w, h), step = loop["size"], loop["box"], loop["step"]
    blocks = torch.randint(0, 256, (height // 8, width // 8, 3), generator=generator)
    frames = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1).repeat(loop["num_frames"], 1, 1, 1)
    patch = torch.randint(0, 256, (h, w, 3), generator=generator)
    for number, frame in enumerate(frames):
        left, top = x + step[0] * number, y + step[1] * number
        frame[top : top + h, left : left + w] = patch
    return frames.to(torch.uint8).numpy()


@pytest.mark.parametrize("case", CASES[:1], indirect=True)
def test_tracker_loop(case):
    """Boxes, scores and renewals of the second template; templates are encoded only where they changed."""
    loop, model = case[0]["loop"], case[2]
    config = model.config
    assert config.search_factor == loop["search_factor"]
    interval, config.update_interval = config.update_interval, loop["update_interval"]
    try:
        frames = loop_frames(loop)
        session = model.start(frames[0], loop["box"])
        for frame, entry in zip(frames[1:], loop["frames"], strict=True):
            before = session.templates.online
            track = session.update(frame)
            assert np.abs(track.box - entry["box"]).max() < 0.05
            assert track.score == pytest.approx(entry["score"], abs=1e-3)
            assert (session.templates.online is not before) == entry["renewed"]
            assert (session.templates.online is session.templates.first) == entry["first"]
    finally:
        config.update_interval = interval
    assert [entry["renewed"] for entry in loop["frames"]].count(True) == 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_is_a_valid_configuration(variant):
    config = MixFormerV2Config(**VARIANTS[variant])
    sizes = {"mixformerv2_b": (288, 8), "mixformerv2_s": (224, 4)}
    expected = sizes.get(variant) or tuple(int(number) for number in re.findall(r"\d+", variant)[:2])
    assert (config.search_size, config.num_hidden_layers) == expected
    assert config.score_branch == (variant != "student_288_depth12")
    assert config.num_bins == (96 if config.score_branch else 72)
    assert config.intermediate_size == (768 if config.search_size == 224 else 3072)


def test_short_names_are_the_released_models():
    assert VARIANTS["mixformerv2_b"] == VARIANTS["288_depth8_score"]
    assert VARIANTS["mixformerv2_s"] == VARIANTS["224_depth4_mlp1_score"]


class TestDoesNotFit:
    """The message names the first key and the configuration that would fit."""

    @pytest.fixture
    def spec(self):
        return load_case(CASES[0])[0]

    @pytest.fixture
    def convert(self, tmp_path, spec):
        def run(weights, **changes):
            torch.save({"net": weights}, tmp_path / "tiny.pth.tar")
            fields = {**spec["config"], **changes}
            return convert_checkpoint("mixformerv2", "mixformerv2_b", tmp_path / "tiny.pth.tar", **fields)

        return run

    @pytest.mark.parametrize(
        ("changes", "key", "advice"),
        [
            ({"search_size": 96}, "backbone.pos_embed_s", "--set search_size=80"),
            ({"template_size": 64}, "backbone.pos_embed_t", "--set template_size=48"),
            ({"intermediate_size": 32}, "backbone.blocks.0.mlp.fc1.weight", "--set intermediate_size=64"),
            ({"hidden_size": 64}, "backbone.", "--set hidden_size=32"),
            ({"num_bins": 72}, "box_head.layers.1.0.weight", "--set num_bins=12"),
        ],
    )
    def test_other_sizes(self, convert, spec, changes, key, advice):
        with pytest.raises(CheckpointError, match=f"key `{re.escape(key)}.* shape .*expected .*{advice}"):
            convert(fill_weights(spec), **changes)

    def test_other_depths(self, convert, spec):
        with pytest.raises(CheckpointError, match=r"surplus key `backbone\.blocks\.2\..*--set num_hidden_layers=3\.$"):
            convert(fill_weights(spec), num_hidden_layers=2)
        with pytest.raises(CheckpointError, match=r"lacks what `layers\.3\..*--set num_hidden_layers=3\.$"):
            convert(fill_weights(spec), num_hidden_layers=4)

    def test_score_branch(self, convert, spec):
        with pytest.raises(
            CheckpointError, match="surplus key `score_head.layers.0.0.weight`.*--set score_branch=True"
        ):
            convert(fill_weights(spec), score_branch=False)
        weights = {key: value for key, value in fill_weights(spec).items() if not key.startswith("score_head.")}
        with pytest.raises(CheckpointError, match=r"lacks what `head\.score\.fc1\.weight`.*--set score_branch=False"):
            convert(weights)

    def test_another_family(self, convert):
        weights = fill_weights(load_case("ostrack_tiny_plain")[0])
        with pytest.raises(CheckpointError, match="not a checkpoint of the family `mixformerv2`"):
            convert(weights)

    def test_surplus_key(self, convert, spec):
        weights = fill_weights(spec) | {"backbone.cls_token": torch.zeros(1, 1, 32)}
        with pytest.raises(CheckpointError, match="surplus key `backbone.cls_token`.*of another model of the family"):
            convert(weights)
