import numpy as np
import pytest
import torch
from transformers import AutoModel

from ct_hf.models import SUTrackConfig, TrackerImageProcessor
from ct_hf.models.cost import count_gmacs
from ct_hf.models.modeling_sutrack import SUTrackTemplateBank, foreground_share
from ct_hf.models.templates import TemplateCrop

from .contract import TrackerContract, perturb


def tiny(**changes):
    fields = {
        "template_size": 32,
        "search_size": 64,
        "patch_size": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "stem_depth": 1,
        "text_dim": 12,
        "head_channels": 16,
        "task_head_channels": 8,
    }
    return SUTrackConfig(**{**fields, **changes})


class TestTwoTemplates(TrackerContract):
    """As released: two RGB templates, a constant text token."""

    dropout = {"drop_path_rate": 0.3}
    output_shapes = {
        "score_map": (1, 8, 8),
        "score_logits": (1, 8, 8),
        "size_map": (2, 8, 8),
        "offset_map": (2, 8, 8),
        "auxiliary_logits": (5,),
    }

    def make_config(self):
        return tiny()


class TestOneTemplate(TestTwoTemplates):
    """Other sizes, without text."""

    dropout = {"drop_path_rate": 0.3, "attention_dropout": 0.2}
    output_shapes = {
        "score_map": (1, 5, 5),
        "score_logits": (1, 5, 5),
        "size_map": (2, 5, 5),
        "offset_map": (2, 5, 5),
        "auxiliary_logits": (3,),
    }

    def make_config(self):
        return tiny(
            num_templates=1,
            template_size=48,
            search_size=80,
            patch_size=16,
            hidden_size=24,
            num_attention_heads=3,
            intermediate_size=40,
            num_hidden_layers=4,
            stem_depth=2,
            stem_mlp_ratio=2,
            num_tasks=3,
            use_text=False,
            crop_channels=[3],
        )


class TestSentences(TestTwoTemplates):
    def make_inputs(self, config, batch_size=2, seed=0):
        inputs = super().make_inputs(config, batch_size, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        return {**inputs, "text_features": torch.randn(batch_size, config.text_dim, generator=generator)}


class TestSecondModality(TestTwoTemplates):
    """Crops of six channels, in a tracker that takes no others; a session has RGB frames alone."""

    def make_config(self):
        return tiny(crop_channels=[6])

    def make_inputs(self, config, batch_size=2, seed=0):
        inputs = super().make_inputs(config, batch_size, seed)
        for name in ("template_pixel_values", "search_pixel_values"):
            inputs[name] = torch.cat([inputs[name], inputs[name].flip(-1)], dim=-3)
        return inputs

    def test_tracks(self, model):
        frame = np.zeros((80, 100, 3), dtype=np.uint8)
        session = model.start(frame, [30, 20, 20, 16])
        with pytest.raises(
            ValueError, match=r"`template_pixel_values` has shape \(1, 2, 3, 32, 32\), expected .*, 6, 32"
        ):
            session.update(frame)

    def test_takes_what_its_image_processor_makes(self, model):
        frame, box = np.zeros((80, 100, 3), dtype=np.uint8), [[30, 20, 20, 16]]
        processor = TrackerImageProcessor.from_config(model.config)
        with pytest.raises(ValueError, match=r"expected \(batch_size, 2, 6, 32, 32\)"):
            model(**processor(frame, boxes=box, target="template"), **processor(frame, boxes=box))

    def test_loads_as_remote_code_without_the_package(self):
        pytest.skip("ends in a tracked frame, which is RGB")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return perturb(AutoModel.from_config(tiny())).eval()


@pytest.fixture
def inputs():
    return TestTwoTemplates().make_inputs(tiny())


def tokens_of(model, inputs):
    with torch.no_grad():
        return model.embed(**inputs).groups()


class TestInputs:
    def test_rgb_is_duplicated(self, model, inputs):
        both = dict(inputs)
        for name in ("template_pixel_values", "search_pixel_values"):
            both[name] = torch.cat([inputs[name], inputs[name]], dim=-3)
        with torch.no_grad():
            assert torch.equal(model(**both).pred_boxes, model(**inputs).pred_boxes)
            both["search_pixel_values"] = torch.cat(
                [inputs["search_pixel_values"], inputs["search_pixel_values"] * 0], 1
            )
            assert not torch.equal(model(**both).score_map, model(**inputs).score_map)

    def test_channels_must_be_accepted(self, inputs):
        model = AutoModel.from_config(tiny(crop_channels=[3]))
        inputs["search_pixel_values"] = torch.zeros(2, 6, 64, 64)
        with pytest.raises(
            ValueError, match=r"shape \(2, 6, 64, 64\), expected \(batch_size, 3, 64, 64\).*`crop_chan"
        ):
            model(**inputs)
        inputs["search_pixel_values"] = torch.zeros(2, 4, 64, 64)
        with pytest.raises(ValueError, match=r"expected \(batch_size, 3 or 6, 64, 64\)"):
            AutoModel.from_config(tiny())(**inputs)

    def test_templates_need_boxes(self, model, inputs):
        boxes = inputs.pop("template_boxes")
        with pytest.raises(ValueError, match=r"`template_boxes` is missing, expected .* \(batch_size, 2, 4\)"):
            model(**inputs)
        for wrong in (boxes[:, :1], boxes[:1], boxes[..., :3]):
            with pytest.raises(ValueError, match=r"`template_boxes` has shape .*, expected .* \(2, 2, 4\)"):
                model(**inputs, template_boxes=wrong)

    def test_number_of_templates(self, model, inputs):
        inputs["template_pixel_values"] = inputs["template_pixel_values"][:, :1]
        with pytest.raises(ValueError, match=r"shape \(2, 1, 3, 32, 32\), expected \(batch_size, 2, 3 or 6, 32, 32\)"):
            model(**inputs)

    def test_text_features(self, model, inputs):
        """None is the stored feature; another moves the last token and nothing else of the embedding."""
        stored = model.embeddings.null_text_features.expand(2, -1)
        default = tokens_of(model, inputs)
        same, other = (tokens_of(model, {**inputs, "text_features": text}) for text in (stored, stored + 1))
        assert torch.equal(default["special"], same["special"])
        assert torch.equal(default["search"], other["search"]) and torch.equal(default["template"], other["template"])
        assert torch.equal(default["special"][:, 0], other["special"][:, 0])
        assert not torch.isclose(default["special"][:, 1], other["special"][:, 1]).all()

    def test_text_features_that_do_not_fit(self, model, inputs):
        with pytest.raises(ValueError, match=r"`text_features` has shape \(2, 11\), expected \(2, 12\)"):
            model(**inputs, text_features=torch.zeros(2, 11))
        mute, frame = AutoModel.from_config(tiny(use_text=False)).eval(), np.zeros((80, 100, 3), dtype=np.uint8)
        with pytest.raises(ValueError, match="`text_features` was given, but `use_text` .* is False"):
            mute.embed(**inputs, text_features=torch.zeros(2, 12))
        with pytest.raises(ValueError, match="`text_features` was given, but SUTrackModel reads no text"):
            mute(**inputs, text_features=torch.zeros(2, 12))
        with pytest.raises(ValueError, match="`text_features` was given, but SUTrackModel reads no text"):
            mute.start(frame, [30, 20, 20, 16], text_features=torch.zeros(12))
        for shape in ((11,), (2, 12)):
            with pytest.raises(ValueError, match="`text_features` has shape .*, expected .*: one sentence feature"):
                model.start(frame, [30, 20, 20, 16], text_features=torch.zeros(shape))

    def test_session_tells_the_model_what_it_was_told(self, model):
        torch.manual_seed(1)
        frames = [np.random.default_rng(index).integers(0, 255, (80, 100, 3), dtype=np.uint8) for index in range(2)]
        box, text = [30, 20, 20, 16], torch.randn(model.config.text_dim)
        session = model.start(frames[0], box, text_features=text)
        assert torch.equal(session.inputs(frames[1])["text_features"], text[None])
        tracks = [
            model.start(frames[0], box, text_features=told).update(frames[1])
            for told in (None, model.embeddings.null_text_features, 30 * text)
        ]
        np.testing.assert_array_equal(tracks[0].box, tracks[1].box)
        assert not np.allclose(tracks[0].score, tracks[2].score, atol=1e-5)


class TestTokenTypes:
    def test_share_of_pixels(self):
        """Counted pixel by pixel in the original's coordinates: pixels over 31 there, 32 in the mask."""
        boxes = torch.tensor([[0.5, 0.5, 0.37, 0.61], [0.21, 0.9, 0.3, 0.5]])
        shares = foreground_share(boxes, 32, 8)
        assert shares.shape == (2, 16)
        for box, share in zip(boxes.double(), shares, strict=True):
            center, extent = 31 / 2 + (box[:2] - 0.5) * 32, box[2:] * 32
            low = (center - extent / 2) / 31 * 32
            high = low + extent / 31 * 32
            mask = torch.zeros(32, 32)
            for y in range(32):
                for x in range(32):
                    mask[y, x] = low[0] <= x < high[0] and low[1] <= y < high[1]
            expected = [mask[y : y + 8, x : x + 8].mean() for y in range(0, 32, 8) for x in range(0, 32, 8)]
            assert torch.equal(share, torch.stack(expected))
        assert not torch.equal(shares[0], shares[1])

    def test_the_original_s_wider_box(self):
        """27.5 pixels around the middle hold 27 columns of pixels, by the original's division by 31 they hold 29."""
        assert foreground_share(torch.tensor([[0.5, 0.5, 27.5 / 32, 27.5 / 32]]), 32, 32).item() == (29 / 32) ** 2

    def test_kinds_are_mixed_by_the_share(self, model, inputs):
        """Where a patch lies in the box wholly, half or not at all."""
        inputs["template_boxes"] = torch.tensor([0.5, 0.5, 0.4, 0.4]).expand(2, 2, 4)
        inside = tokens_of(model, inputs)
        inputs["template_boxes"] = torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(2, 2, 4)
        outside = tokens_of(model, inputs)
        difference = model.embeddings.foreground_embedding - model.embeddings.background_embedding
        share = foreground_share(torch.tensor([[0.5, 0.5, 0.4, 0.4]]), 32, 8)[0].repeat(2)
        assert {0.0, 1.0} & set(share.tolist()) and len(share.unique()) > 1
        expected = (share[:, None] * difference).expand(2, -1, -1)
        torch.testing.assert_close(inside["template"] - outside["template"], expected, atol=1e-5, rtol=0)
        assert torch.equal(inside["search"], outside["search"])


class TestTemplates:
    """The first one stays, the newest sure one takes the other place."""

    def crops(self, count):
        return [TemplateCrop(torch.full((1, 3, 2, 2), float(i)), torch.full((1, 4), float(i))) for i in range(count)]

    def test_policy(self):
        crops = self.crops(5)
        bank = SUTrackTemplateBank(tiny(template_update_interval=10), crops[0])
        assert bank.select(1) == [crops[0]] * 2
        for frame, score, crop, held in (
            (9, 0.99, 1, [0, 0]),
            (10, 0.70, 1, [0, 0]),
            (20, 0.71, 2, [0, 2]),
            (21, 0.99, 3, [0, 2]),
            (30, 0.69, 3, [0, 2]),
            (40, 0.90, 4, [0, 4]),
        ):
            bank.update(frame, score, lambda crop=crop: crops[crop])
            assert bank.select(frame + 1) == [crops[index] for index in held], frame

    def test_one_template_is_never_cut_again(self):
        first = self.crops(1)[0]
        bank = SUTrackTemplateBank(tiny(num_templates=1, template_update_interval=1), first)
        bank.update(1, 1.0, lambda: pytest.fail("cut a template"))
        assert bank.select(2) == [first]

    def test_three_templates_are_bounded(self):
        crops = self.crops(6)
        bank = SUTrackTemplateBank(tiny(num_templates=3, template_update_interval=1), crops[0])
        for frame in range(1, 6):
            bank.update(frame, 1.0, lambda frame=frame: crops[frame])
        assert bank.select(6) == [crops[0], crops[4], crops[5]]

    def test_session_takes_new_templates(self):
        torch.manual_seed(0)
        config = tiny(template_update_interval=2, template_update_threshold=0.0)
        model = perturb(AutoModel.from_config(config)).eval()
        frames = np.random.default_rng(0).integers(0, 256, (4, 80, 100, 3), dtype=np.uint8)
        session = model.start(frames[0], [30, 20, 20, 16])
        held = []
        for frame in frames[1:]:
            inputs = session.inputs(frame)
            held.append(inputs["template_pixel_values"][0])
            with torch.no_grad():
                session.advance(model(**inputs))
        assert torch.equal(held[0][0], held[0][1]) and torch.equal(held[1], held[0])
        assert torch.equal(held[2][0], held[0][0]) and not torch.equal(held[2][1], held[0][0])


def test_guidance_of_the_task_head(model, inputs):
    """Nothing to learn where both say the same; else more the further they are apart, and the teacher learns nothing."""
    with torch.no_grad():
        output, target = model(**inputs), model(**inputs)
    output.auxiliary_logits.requires_grad_(), target.auxiliary_logits.requires_grad_()
    term = model.compute_guidance(output, target)["guidance_task"]
    term.backward()
    assert term == 0 and not output.auxiliary_logits.grad.any() and target.auxiliary_logits.grad is None
    target.auxiliary_logits = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 2.0, 0, 0]])
    output.auxiliary_logits = torch.zeros(2, 5)
    expected = (target.auxiliary_logits.softmax(1) * (5 * target.auxiliary_logits.softmax(1)).log()).sum(1).mean()
    torch.testing.assert_close(model.compute_guidance(output, target)["guidance_task"], expected)
    assert not any("task" in name for name in model.compute_loss(output, torch.full((2, 4), 0.5)))


def test_multiply_accumulates_are_counted(model):
    assert count_gmacs(model, 2) == pytest.approx(2 * count_gmacs(model))


class TestConfiguration:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"search_size": 60}, "`search_size` .60. must be a multiple of `patch_size` .8."),
            ({"template_size": 36}, "`template_size` .36. must be a multiple of `patch_size` .8."),
            ({"template_size": 0}, "`template_size` must be positive"),
            ({"patch_size": 6, "search_size": 60}, "`patch_size` .6. must be a multiple of 4"),
            ({"hidden_size": 18}, "`hidden_size` .18. must be a multiple of 4"),
            ({"num_attention_heads": 3}, "`hidden_size` .16. must be a multiple of `num_attention_heads` .3."),
            ({"num_templates": 0}, "`num_templates` must be positive"),
            ({"crop_channels": [4]}, "`crop_channels` must be some of 3 and 6, got .4."),
            ({"crop_channels": []}, "`crop_channels` must be some of 3 and 6"),
            ({"stem_depth": 0}, "`stem_depth` must be positive"),
            ({"drop_path_rate": 1.0}, "`drop_path_rate` must be in"),
            ({"template_update_interval": 0}, "`template_update_interval` must be positive"),
            ({"template_update_threshold": 1.5}, "`template_update_threshold` must be in .0, 1., got 1.5"),
            ({"head_channels": 4}, "`head_channels` must be at least 8"),
        ],
    )
    def test_refusals(self, fields, message):
        with pytest.raises(Exception, match=message):
            tiny(**fields)

    def test_student(self):
        config = tiny(drop_path_rate=0.1, crop_channels=[6], template_update_interval=7)
        student = config.for_student(2, hidden_size=8, num_attention_heads=1)
        assert (student.num_hidden_layers, student.hidden_size, student.num_attention_heads) == (2, 8, 1)
        assert (student.drop_path_rate, student.crop_channels, student.template_update_interval) == (0.0, [6], 7)
        assert config.for_student(2, drop_path_rate=0.2).drop_path_rate == 0.2
        with pytest.raises(ValueError, match="`hiden_size` is not a field of SUTrackConfig"):
            config.for_student(2, hiden_size=8)


def test_new_layers_start_small():
    layer = AutoModel.from_config(tiny(layer_scale_init_value=0.25)).layers[1]
    assert (layer.attention_scale == 0.25).all() and (layer.mlp_scale == 0.25).all()


def test_drop_path_rises_with_depth():
    model = AutoModel.from_config(tiny(drop_path_rate=0.2))
    assert [layer.drop_path_rate for layer in model.layers] == [0.0, 0.1, 0.2]
