import numpy as np
import pytest
import torch
from transformers import AutoModel

from ct_hf.models import MixFormerV2Config
from ct_hf.models.modeling_mixformerv2 import MixFormerV2Memory, MixFormerV2TemplateBank, sincos_table
from ct_hf.models.templates import TemplateCrop

from .contract import TrackerContract, assert_equal, perturb


BOX = [40.0, 30.0, 20.0, 16.0]


def tiny(**changes):
    fields = {
        "template_size": 32,
        "search_size": 64,
        "patch_size": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_bins": 12,
    }
    return MixFormerV2Config(**{**fields, **changes})


class TestScoreBranch(TrackerContract):
    dropout = {"drop_path_rate": 0.3}
    output_shapes = {"corner_probabilities": (4, 12), "corner_logits": (4, 12), "score_logits": ()}

    def make_config(self):
        return tiny()


class TestNoScoreBranch(TrackerContract):
    """Patches of 16, odd grids, other factors and four layers."""

    dropout = {"drop_path_rate": 0.3, "attention_dropout": 0.2}
    output_shapes = {"corner_probabilities": (4, 9), "corner_logits": (4, 9)}

    def make_config(self):
        return tiny(
            template_size=48,
            search_size=80,
            patch_size=16,
            search_factor=4.5,
            hidden_size=24,
            num_attention_heads=3,
            intermediate_size=40,
            num_hidden_layers=4,
            num_bins=9,
            score_branch=False,
            image_mean=[0.5, 0.4, 0.3],
            image_std=[0.2, 0.3, 0.4],
        )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return perturb(AutoModel.from_config(tiny())).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 3, 32, 32, generator=generator), torch.randn(2, 3, 64, 64, generator=generator)


class TestAttention:
    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_is_one_attention_under_a_mask(self, model, implementation):
        """Templates (5 tokens) see themselves, the other 7 see all 12."""
        model.set_attn_implementation(implementation)
        attention = model.layers[0].attention
        tokens = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            query, key, value = (
                getattr(attention, f"{name}_proj")(tokens).view(2, 12, 2, 8).transpose(1, 2) for name in "qkv"
            )
            scores = query @ key.mT / 8**0.5
            scores[:, :, :5, 5:] = -torch.inf
            expected = attention.o_proj((scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(2, 12, 16))
            torch.testing.assert_close(attention(tokens, 5), expected, atol=1e-6, rtol=0)

    def test_templates_do_not_see_the_search_crop(self, model, inputs):
        templates, search = inputs
        with torch.no_grad():
            states = [
                model(templates, pixels, output_hidden_states=True).hidden_states for pixels in (search, -search)
            ]
        for ours, others in zip(*states, strict=True):
            assert torch.equal(ours[:, :32], others[:, :32])
        assert not torch.allclose(states[0][-1][:, 32:], states[1][-1][:, 32:])

    def test_prediction_sees_both_templates(self, model, inputs):
        templates, search = inputs
        with torch.no_grad():
            whole = model(templates, search).pred_boxes
            for number in (0, 1):
                changed = templates.clone()
                changed[:, number].neg_()
                assert (model(changed, search).pred_boxes - whole).abs().min(dim=0).values.max() > 1e-5


class TestTables:
    def test_by_hand(self):
        """Channels: sine and cosine of the column, then of the row; two frequencies of eight channels."""
        table = sincos_table(3, 8)[0].view(3, 3, 8)
        for row in range(3):
            for column in range(3):
                expected = [f(place * rate) for place in (column, row) for f in (np.sin, np.cos) for rate in (1, 0.01)]
                assert table[row, column].tolist() == pytest.approx(expected, abs=1e-6)

    def test_are_fixed_and_saved(self, model):
        names = {f"embeddings.{name}_position_embeddings" for name in ("template", "search")}
        assert names <= set(model.state_dict()) and not names & {name for name, _ in model.named_parameters()}

    def test_a_new_model_has_them(self):
        embeddings = AutoModel.from_config(tiny()).embeddings
        assert torch.equal(embeddings.template_position_embeddings, sincos_table(4, 16))
        assert torch.equal(embeddings.search_position_embeddings, sincos_table(8, 16))
        assert not embeddings.prediction_position_embeddings.any() and embeddings.prediction_tokens.std() > 0.005

    def test_a_checkpoint_without_them_gets_new_ones(self, tmp_path):
        model = AutoModel.from_config(tiny())
        state = {name: tensor for name, tensor in model.state_dict().items() if "embeddings.search_pos" not in name}
        model.save_pretrained(tmp_path, state_dict=state)
        loaded = AutoModel.from_pretrained(tmp_path)
        assert torch.equal(loaded.embeddings.search_position_embeddings, sincos_table(8, 16))


class TestMemory:
    def test_same_prediction_as_without(self, model, inputs):
        templates, search = inputs
        with torch.no_grad():
            memory = model.remember_templates(templates)
            expected = model(templates, search)
            output = model(torch.zeros_like(templates), search, memory=memory)
        assert expected.memory is None
        for name, tensor in expected.items():
            torch.testing.assert_close(output[name], tensor, atol=1e-6, rtol=0)
        assert_equal(output.memory, memory)

    def test_of_other_templates_is_another_prediction(self, model, inputs):
        templates, search = inputs
        with torch.no_grad():
            output = model(templates, search, memory=model.remember_templates(-templates))
            torch.testing.assert_close(output.pred_boxes, model(-templates, search).pred_boxes, atol=1e-6, rtol=0)
            assert not torch.allclose(output.pred_boxes, model(templates, search).pred_boxes, atol=1e-4)

    @pytest.mark.parametrize("use", ["training", "compressing"])
    def test_only_in_evaluation(self, model, inputs, use):
        """Where templates are to be learnt from they are encoded."""
        templates, search = inputs
        memory = model.remember_templates(-templates)
        model.train(use == "training")
        state = model.embed(templates, search, memory=memory, keep_all_tokens=use == "compressing")
        assert state.template_keys is None and state.layout == model.boundaries[0].layout
        assert torch.equal(state.hidden_states, model.embed(templates, search).hidden_states)

    def test_has_no_gradient(self, model, inputs):
        memory = model.remember_templates(inputs[0])
        assert not memory.template_keys.requires_grad and not memory.template_values.requires_grad

    def test_rows_of_several_sessions_join(self, model, inputs):
        """So that targets can be tracked in one batch."""
        templates, search = inputs
        with torch.no_grad():
            rows = [model.remember_templates(templates[row : row + 1]) for row in range(2)]
            memory = MixFormerV2Memory(**{name: torch.cat([row[name] for row in rows]) for name in rows[0]})
            output = model(templates, search, memory=memory)
            torch.testing.assert_close(output.pred_boxes, model(templates, search).pred_boxes, atol=1e-6, rtol=0)

    def test_of_another_tracker_is_refused(self, model, inputs):
        templates, search = inputs
        other = AutoModel.from_config(tiny(num_hidden_layers=2)).eval()
        message = r"`memory` holds `template_keys` of shape \(2, 2, 2, 32, 8\), expected \(2, 3, 2, 32, 8\)"
        with pytest.raises(ValueError, match=message):
            model(templates, search, memory=other.remember_templates(templates))
        with pytest.raises(ValueError, match="expected .1, 3, 2, 32, 8"):
            model(templates[:1], search[:1], memory=model.remember_templates(templates))

    def test_wrong_templates_are_refused(self, model, inputs):
        with pytest.raises(
            ValueError, match=r"`template_pixel_values` has shape \(2, 1, .*expected \(batch_size, 2, 3"
        ):
            model.remember_templates(inputs[0][:, :1])

    def test_export_with_remembered_templates(self, model, inputs):
        templates, search = inputs
        with torch.no_grad():
            arguments = {"memory": model.remember_templates(templates), "return_dict": True}
            program = torch.export.export(model, (templates, search), arguments)
            others = {"memory": model.remember_templates(-templates), "return_dict": True}
            actual = program.module()(templates, -search, **others)
            assert_equal(actual.pred_boxes, model(-templates, -search).pred_boxes, atol=1e-6)


class TestSession:
    @pytest.fixture
    def frames(self):
        return np.random.default_rng(0).integers(0, 256, (9, 80, 100, 3), dtype=np.uint8)

    @pytest.fixture
    def renewing(self, model):
        """A model every frame of which is good enough to give a template; every third frame it is renewed."""
        model.config.update_threshold, model.config.update_interval = 0.0, 3
        return model

    @staticmethod
    def count_templates(model):
        """Numbers of template crops and search crops that went through the patch projection, in order."""
        counts = []
        model.embeddings.patch_projection.register_forward_pre_hook(
            lambda _, args: counts.append(tuple(args[0].shape))
        )
        return counts

    def test_remembering_changes_no_track(self, renewing, frames):
        """Box for box as a session whose model encodes its templates in each frame, also across renewals."""
        session, plain = renewing.start(frames[0], BOX), renewing.start(frames[0], BOX)
        for frame in frames[1:]:
            track = session.update(frame)
            inputs = plain.inputs(frame)
            shown = torch.stack([plain.templates.first.pixel_values, plain.templates.online.pixel_values], dim=1)
            with torch.inference_mode():
                expected = plain.advance(renewing(shown, inputs["search_pixel_values"]))
            assert track.box == pytest.approx(expected.box, abs=1e-3)
            assert track.score == pytest.approx(expected.score, abs=1e-6)
            assert np.array_equal(session.templates.online.box, plain.templates.online.box)
        assert session.templates.online is not session.templates.first

    def test_templates_are_encoded_when_they_change(self, renewing, frames):
        counts = self.count_templates(renewing)
        session = renewing.start(frames[0], BOX)
        for frame in frames[1:]:
            session.update(frame)
        search, templates = (1, 3, 64, 64), (2, 3, 32, 32)
        # Frame 1 is the first; the renewals in frames 3 and 6 show in frames 4 and 7.
        assert counts == [
            shape for number in range(1, 9) for shape in ([templates] * (number in (1, 4, 7)) + [search])
        ]

    def test_templates_set_from_outside_are_encoded(self, model, frames):
        """As the benchmark's session with the template of another sequence does."""
        session, other = model.start(frames[0], BOX), model.start(frames[1], [10.0, 10.0, 30.0, 30.0])
        session.update(frames[1])
        session.templates = other.templates
        inputs = session.inputs(frames[2])
        with torch.no_grad():
            output, plain = model(**inputs), model(**{**inputs, "memory": None})
        assert torch.equal(inputs["template_pixel_values"][:, 0], other.templates.first.pixel_values)
        torch.testing.assert_close(output.pred_boxes, plain.pred_boxes, atol=1e-6, rtol=0)

    def test_no_renewal_without_a_score_branch(self, frames):
        model = AutoModel.from_config(tiny(score_branch=False, update_threshold=0.0, update_interval=1)).eval()
        session = model.start(frames[0], BOX)
        for frame in frames[1:4]:
            assert 0 < session.update(frame).score <= 1
        assert session.templates.online is session.templates.first


class TestTemplateBank:
    @pytest.fixture
    def bank(self):
        return MixFormerV2TemplateBank(tiny(update_interval=4), self.crop(0))

    @staticmethod
    def crop(number):
        return TemplateCrop(torch.full((1, 3, 32, 32), float(number)), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))

    def shown(self, bank, scores):
        """Frame that the second template is of, for each frame from 1, given the scores of the frames."""
        numbers = []
        for frame, score in enumerate(scores, start=1):
            first, online = bank.select(frame)
            assert first.pixel_values[0, 0, 0, 0] == 0
            numbers.append(int(online.pixel_values[0, 0, 0, 0]))
            bank.update(frame, score, lambda frame=frame: self.crop(frame))
        return numbers

    def test_best_candidate_of_each_interval(self, bank):
        """Of frames 1 to 4 the second, of 5 to 8 the last, which counts in its own interval."""
        scores = [0.6, 0.9, 0.7, 0.9, 0.6, 0.55, 0.2, 0.8, 0.1]
        assert self.shown(bank, scores) == [0, 0, 0, 0, 2, 2, 2, 2, 8]

    def test_first_template_again_where_no_score_was_good(self, bank):
        assert self.shown(bank, [0.9, 0.1, 0.1, 0.1, 0.5, 0.4, 0.3, 0.2, 0.1]) == [0, 0, 0, 0, 1, 1, 1, 1, 0]

    def test_only_better_crops_are_cut(self, bank):
        cut = []
        for frame, score in enumerate([0.5, 0.6, 0.55, 0.7], start=1):
            bank.update(frame, score, lambda frame=frame: cut.append(frame) or self.crop(frame))
        assert cut == [2, 4]

    def test_threshold_is_the_configuration_s(self):
        bank = MixFormerV2TemplateBank(tiny(update_interval=1, update_threshold=0.8), self.crop(0))
        assert self.shown(bank, [0.75, 0.85, 0.75, 0.1]) == [0, 0, 2, 0]


class TestConfiguration:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"search_size": 60}, "`search_size` .60. must be a multiple of `patch_size` .8."),
            ({"hidden_size": 15}, "`hidden_size` .15. must be a multiple of `num_attention_heads`"),
            ({"hidden_size": 18}, "`hidden_size` .18. must be a multiple of 4"),
            ({"num_templates": 1}, "`num_templates` of MixFormerV2 must be 2, got 1"),
            ({"num_templates": 3}, "`num_templates` of MixFormerV2 must be 2, got 3"),
            ({"num_bins": 2}, "`num_bins` must be at least 3, got 2"),
            ({"update_interval": 0}, "`update_interval` must be positive, got 0"),
            ({"update_threshold": 1.5}, "`update_threshold` must be in .0, 1., got 1.5"),
            ({"drop_path_rate": 1.0}, "`drop_path_rate` must be in"),
        ],
    )
    def test_refusals(self, fields, message):
        with pytest.raises(Exception, match=message):
            tiny(**fields)

    def test_student(self):
        config = tiny(drop_path_rate=0.1, update_interval=10)
        student = config.for_student(2, intermediate_size=8)
        assert (student.num_hidden_layers, student.intermediate_size, student.num_bins) == (2, 8, 12)
        assert (student.drop_path_rate, student.update_interval) == (0.0, 10)
        assert config.for_student(2, drop_path_rate=0.2).drop_path_rate == 0.2
