"""What every tracker must hold, whatever its family."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from ct_hf.models import PreTrainedTracker, TrackerConfig, TrackerImageProcessor, TrackerOutput
from ct_hf.models.session import clip_box

from .contract_tools import LOAD_WITHOUT_THE_PACKAGE, Exported, assert_equal, perturb, tensors_of
from .contract_training import TrainingContract


class TrackerContract(TrainingContract):
    """
    The suite. A family inherits it once for each kind of configuration:

    ```python
    class TestMyTracker(TrackerContract):
        output_shapes = {"score_map": (1, 8, 8)}

        def make_config(self):
            return MyTrackerConfig(template_size=32, search_size=64, hidden_size=16, num_hidden_layers=3)
    ```

    Attributes:
        output_shapes (`dict[str, tuple[int, ...]]`): fields of the output beside `pred_boxes` and `score`, with their
            shapes without the batch.
        dropout (`dict[str, float]`): configuration fields that make training random.
        remembers_templates (`bool`): whether it computes something of its templates once.
    """

    output_shapes: dict[str, tuple[int, ...]] = {}
    dropout: dict[str, float] = {}
    remembers_templates = True

    def make_config(self) -> TrackerConfig:
        """Tiny configuration of three layers or so."""
        raise NotImplementedError

    def make_inputs(self, config: TrackerConfig, batch_size: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
        """Inputs of the forward without the label; a family with more inputs adds them."""
        generator = torch.Generator().manual_seed(seed)
        template = (batch_size, config.num_templates, 3, config.template_size, config.template_size)
        search = (batch_size, 3, config.search_size, config.search_size)
        boxes = torch.tensor([0.5, 0.5, 0.4, 0.5]).expand(batch_size, config.num_templates, 4).contiguous()
        return {
            "template_pixel_values": torch.randn(template, generator=generator),
            "search_pixel_values": torch.randn(search, generator=generator),
            "template_boxes": boxes,
        }

    @pytest.fixture
    def config(self) -> TrackerConfig:
        return self.make_config()

    @pytest.fixture
    def model(self, config) -> PreTrainedTracker:
        torch.manual_seed(0)
        return perturb(AutoModel.from_config(config)).eval()

    @pytest.fixture
    def inputs(self, config) -> dict[str, torch.Tensor]:
        return self.make_inputs(config)

    @pytest.fixture
    def labels(self) -> torch.Tensor:
        return torch.tensor([[0.5, 0.45, 0.3, 0.2], [0.3, 0.6, 0.25, 0.4]])

    # What a family says of itself

    def test_configuration_names_sizes_and_factors(self, config):
        for name in ("template_size", "search_size", "num_templates", "num_hidden_layers", "hidden_size"):
            assert isinstance(getattr(config, name), int), name
        for name in ("template_factor", "search_factor"):
            assert getattr(config, name) > 0, name
        assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()

    def test_main_input_and_label(self, model):
        assert model.main_input_name == "search_pixel_values"
        assert model.accepts_loss_kwargs is False

    def test_boundaries(self, model, inputs):
        """One more than layers, each with the width and layout that the states there really have."""
        assert [boundary.index for boundary in model.boundaries] == list(range(len(model.layers) + 1))
        assert len(model.layers) == model.config.num_hidden_layers
        state = model.embed(**inputs, keep_all_tokens=True)
        for boundary, layer in itertools.zip_longest(model.boundaries, model.layers):
            assert state.hidden_states.shape[1:] == (sum(number for _, number in boundary.layout), boundary.width)
            assert state.layout == boundary.layout
            state = layer(state) if layer is not None else state

    def test_groups(self, model, inputs):
        """Template and search tokens are there, complete, after embedding and after the last layer."""
        state = model.embed(**inputs)
        for layer in [None, *model.layers]:
            state = layer(state) if layer is not None else state
            groups = state.groups()
            assert {"template", "search"} <= set(groups) <= {"template", "search", "special"}
            assert {name: group.shape[1] for name, group in groups.items()} == dict(state.layout)
        if model.embed(**inputs, keep_all_tokens=True).search_index is None:
            start = model.embed(**inputs, keep_all_tokens=True)
            assert torch.equal(torch.cat(list(start.groups().values()), dim=1), start.hidden_states)

    # The public forward

    def test_output_fields(self, model, inputs, labels):
        with torch.no_grad():
            output = model(**inputs)
            loss_output = model(**inputs, search_boxes=labels)
        assert isinstance(output, TrackerOutput)
        shapes = {"pred_boxes": (4,), "score": (), **self.output_shapes}
        for name, shape in shapes.items():
            assert output[name].shape == (2, *shape), name
            assert output[name].dtype == torch.float32, name
        assert output.loss is None and output.loss_dict is None and output.hidden_states is None
        assert ((output.score >= 0) & (output.score <= 1)).all()
        assert loss_output.loss.shape == ()
        torch.testing.assert_close(loss_output.loss, sum(loss_output.loss_dict.values()))
        assert {"giou", "l1"} <= set(loss_output.loss_dict)
        torch.testing.assert_close(loss_output.pred_boxes, output.pred_boxes)

    def test_remembered_templates_stand_in_for_their_crops(self, model, inputs):
        """In evaluation mode, with the same prediction; a family may also remember nothing."""
        template_boxes = inputs["template_boxes"]
        with torch.no_grad():
            memory = model.remember_templates(inputs["template_pixel_values"], template_boxes)
            assert (memory is not None) == self.remembers_templates
            if memory is None:
                return
            other = {**inputs, "template_pixel_values": torch.zeros_like(inputs["template_pixel_values"])}
            remembered, plain = model(**other, memory=memory), model(**inputs)
            torch.testing.assert_close(remembered.pred_boxes, plain.pred_boxes, atol=1e-6, rtol=0)
            expected = model.embed(**inputs, keep_all_tokens=True).hidden_states
            model.train()
            trained = model.embed(**inputs, memory=memory, keep_all_tokens=True).hidden_states
        assert torch.equal(trained, expected)
        first = {name: tensor[:1] for name, tensor in inputs.items()}
        with pytest.raises(ValueError, match=r"`memory` holds `\w+` of shape .*, expected .*remember_templates"):
            model.eval()(**first, memory=memory)

    def test_tuple_has_the_loss_first(self, model, inputs, labels):
        with torch.no_grad():
            output = model(**inputs, search_boxes=labels)
            as_tuple = model(**inputs, search_boxes=labels, return_dict=False)
        assert isinstance(as_tuple, tuple)
        assert torch.equal(as_tuple[0], output.loss)
        assert any(isinstance(part, torch.Tensor) and torch.equal(part, output.pred_boxes) for part in as_tuple)

    def test_hidden_states_of_boundaries(self, model, inputs):
        last = len(model.layers)
        with torch.no_grad():
            everywhere = model(**inputs, output_hidden_states=True).hidden_states
            some = model(**inputs, output_hidden_states=[0, last]).hidden_states
            none = model(**inputs, output_hidden_states=False).hidden_states
            state = model.embed(**inputs)
        assert len(everywhere) == last + 1 and none is None
        assert torch.equal(everywhere[0], state.hidden_states)
        assert_equal(some, (everywhere[0], everywhere[last]))

    @pytest.mark.parametrize("name", ["template_pixel_values", "search_pixel_values"])
    def test_wrong_shapes_are_refused(self, model, inputs, name):
        """The message names the argument, what came and what was expected."""
        size = model.config.template_size if name.startswith("template") else model.config.search_size
        for wrong in (inputs[name][..., :-1], inputs[name][..., :1, :, :], inputs[name][0]):
            with pytest.raises(ValueError, match=f"`{name}` has shape .*expected .*{size}"):
                model(**{**inputs, name: wrong})

    def test_three_acts_are_the_forward(self, model, inputs):
        with torch.no_grad():
            state = model.embed(**inputs)
            for layer in model.layers:
                state = layer(state)
            assert_equal(model.decode(state), model(**inputs))

    def test_text_is_read_or_refused(self, model, inputs):
        if model.text_dim is not None:
            return
        text, frame = torch.zeros(2, 8), np.zeros((80, 100, 3), dtype=np.uint8)
        with pytest.raises(ValueError, match="`text_features` was given, but .* reads no text"):
            model(**inputs, text_features=text)
        with pytest.raises(ValueError, match="`text_features` was given, but .* reads no text"):
            model.start(frame, [30, 20, 20, 16], text_features=text[0])

    def test_chained_frames(self, model, inputs, labels):
        """Frames given at once are as frames given one by one with the memory passed on; without memory, an error."""
        frames = [inputs["search_pixel_values"], inputs["search_pixel_values"].flip(-1)]
        chain = {**inputs, "search_pixel_values": torch.stack(frames, dim=1)}
        if not model.carries_memory:
            with pytest.raises(ValueError, match="2 chained frames.*no memory"):
                model(**chain)
            return
        boxes = torch.stack([labels, labels.flip(0)], dim=1)
        with torch.no_grad():
            chained = model(**chain, search_boxes=boxes)
            first = model(**{**inputs, "search_pixel_values": frames[0]}, search_boxes=boxes[:, 0])
            later = {**inputs, "search_pixel_values": frames[1]}
            second = model(**later, search_boxes=boxes[:, 1], memory=first.memory)
            alone = model(**later)
        assert_equal(chained.pred_boxes, torch.stack([first.pred_boxes, second.pred_boxes], dim=1))
        assert_equal(chained.memory, second.memory)
        torch.testing.assert_close(chained.loss, (first.loss + second.loss) / 2)
        assert not torch.equal(alone.pred_boxes, second.pred_boxes), "the memory makes no difference"
        assert not any(tensor.requires_grad for tensor in tensors_of(model(**inputs).memory).values())
        with pytest.raises(ValueError, match="`search_boxes` has shape"):
            model(**chain, search_boxes=labels)

    # Save and load

    def test_save_and_load(self, model, inputs, tmp_path):
        """Every weight and buffer is back, also buffers that are in no checkpoint and were built on the meta device."""
        model.save_pretrained(tmp_path)
        loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is type(model) and not loaded.training
        assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert_equal(dict(loaded.named_buffers()) | dict(loaded.named_parameters()), self.everything(model))
        with torch.no_grad():
            assert_equal(loaded(**inputs), model(**inputs))

    @staticmethod
    def everything(model: PreTrainedTracker) -> dict[str, torch.Tensor]:
        return dict(model.named_buffers()) | dict(model.named_parameters())

    def test_load_leaves_nothing_out(self, model, tmp_path):
        """A fresh random seed makes no difference to a loaded model."""
        model.save_pretrained(tmp_path)
        torch.manual_seed(1)
        first = AutoModel.from_pretrained(tmp_path)
        torch.manual_seed(2)
        assert_equal(self.everything(AutoModel.from_pretrained(tmp_path)), self.everything(first))

    def test_initialisation_is_complete(self, config):
        """A tracker made from scratch holds no uninitialised memory, and the seed decides all of it."""
        models = []
        for _ in range(2):
            torch.manual_seed(3)
            models.append(AutoModel.from_config(config))
            assert all(tensor.isfinite().all() for tensor in self.everything(models[-1]).values())
        assert_equal(self.everything(models[0]), self.everything(models[1]))

    def test_configuration_and_processor_travel(self, model, tmp_path):
        processor = TrackerImageProcessor.from_config(model.config)
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        assert AutoConfig.from_pretrained(tmp_path).to_dict() == {
            **model.config.to_dict(),
            "_name_or_path": str(tmp_path),
        }
        assert AutoImageProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()

    def test_loads_as_remote_code_without_the_package(self, model, inputs, tmp_path, monkeypatch, fresh_python):
        """AutoModel and AutoImageProcessor, outputs bit for bit, and a tracked frame."""
        processor = TrackerImageProcessor.from_config(model.config)
        for cls, auto in (
            (type(model.config), "AutoConfig"),
            (type(model), "AutoModel"),
            (TrackerImageProcessor, "AutoImageProcessor"),
        ):
            monkeypatch.setattr(cls, "_auto_class", None)  # restored after the test
            cls.register_for_auto_class(auto)
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        frames, box = (
            np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3), dtype=np.uint8),
            [40.0, 30.0, 24.0, 18.0],
        )
        save_file(
            {**inputs, "frames": torch.from_numpy(frames), "box": torch.tensor(box)}, folder / "inputs.safetensors"
        )
        fresh_python(LOAD_WITHOUT_THE_PACKAGE, tmp_path, folder)
        results = load_file(folder / "results.safetensors")
        with torch.no_grad():
            assert torch.equal(results["pred_boxes"], model(**inputs).pred_boxes)
        assert torch.equal(results["crop"], processor(frames[1], boxes=[box])["search_pixel_values"])
        track = model.start(frames[0], box).update(frames[1])
        assert results["track"].tolist() == [*track.box.tolist(), track.score]

    # Numerics

    def test_eager_equals_sdpa(self, model, inputs):
        assert model.config._attn_implementation == "sdpa"
        with torch.no_grad():
            expected = model(**inputs, output_hidden_states=True)
            model.set_attn_implementation("eager")
            assert model.config._attn_implementation == "eager"
            assert_equal(model(**inputs, output_hidden_states=True), expected, atol=1e-4)

    def test_batch_equals_singles(self, model):
        inputs = self.make_inputs(model.config, batch_size=3)
        with torch.no_grad():
            batch = tensors_of(model(**inputs))
            for row in range(3):
                single = tensors_of(model(**{name: value[row : row + 1] for name, value in inputs.items()}))
                assert_equal(single, {name: value[row : row + 1] for name, value in batch.items()}, atol=1e-4)

    def test_finite_in_bf16_weights(self, model, inputs, labels):
        """Trunk in bf16, predictions and losses in fp32; also where scores saturate."""
        model = model.to(torch.bfloat16)
        inputs = {name: value.to(torch.bfloat16) for name, value in inputs.items()}
        for scale in (1, 50):
            output = model(
                **{**inputs, "search_pixel_values": scale * inputs["search_pixel_values"]}, search_boxes=labels
            )
            output.loss.backward()
            self.check_finite_and_fp32(model, output)

    def test_loaded_in_bf16(self, model, inputs, tmp_path):
        """Weights come in the type that is asked for, buffers do not; templates may be remembered in any."""
        model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
        assert loaded.dtype == torch.bfloat16
        with torch.no_grad():
            assert loaded(**inputs).pred_boxes.isfinite().all()
            templates = {name: value for name, value in inputs.items() if name.startswith("template")}
            loaded.remember_templates(**templates)
        if templates["template_pixel_values"].shape[2] == 3:  # sessions track in RGB
            frames = np.random.default_rng(0).integers(0, 256, (2, 80, 100, 3), dtype=np.uint8)
            assert np.isfinite(loaded.start(frames[0], [30, 20, 20, 16]).update(frames[1]).box).all()

    def test_finite_in_bf16_autocast(self, model, inputs, labels):
        for scale in (1, 50):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                search = scale * inputs["search_pixel_values"]
                output = model.train()(**{**inputs, "search_pixel_values": search}, search_boxes=labels)
            output.loss.backward()
            self.check_finite_and_fp32(model, output)

    def check_finite_and_fp32(self, model: PreTrainedTracker, output: TrackerOutput) -> None:
        for name, tensor in tensors_of(output).items():
            assert tensor.isfinite().all(), name
        for name in ("pred_boxes", "score", *self.output_shapes):
            assert output[name].dtype == torch.float32, name
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name

    # Out of the module

    def test_export(self, model, inputs):
        """`torch.export` gives a program with the model's own outputs, also for another batch than it was traced with."""
        names, size = list(inputs), torch.export.Dim("size", min=2, max=64)
        shapes = ({0: size},) * len(names)
        program = torch.export.export(
            Exported(model, names), tuple(inputs.values()), dynamic_shapes={"inputs": shapes}
        )
        others = self.make_inputs(model.config, batch_size=3, seed=1)
        with torch.no_grad():
            actual = program.module()(*others.values())
            assert_equal(actual, tuple(tensors_of(model(**others)).values()), atol=1e-5)

    def test_takes_what_its_image_processor_makes(self, model):
        """Templates as often as it wants them, with the boxes in them, and nothing that it does not take."""
        frames = np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3), dtype=np.uint8)
        processor, box = TrackerImageProcessor.from_config(model.config), [30.0, 24.0, 28.0, 20.0]
        templates = processor(frames[0], boxes=[box], target="template", return_tensors="pt")
        search = processor(frames[1], boxes=[box])
        with torch.inference_mode():
            boxes, scores = model.locate(model(**templates, **search))
        assert torch.isfinite(boxes).all() and templates["template_boxes"].shape == (1, model.config.num_templates, 4)
        session = model.start(frames[0], box)
        if len(session.templates.select(1)) < model.config.num_templates:
            return  # it looks at fewer templates at first
        track = session.update(frames[1])
        assert float(scores[0]) == pytest.approx(track.score, abs=1e-5)
        found = clip_box(search.windows[0].to_frame(boxes[0].float().numpy()), (120, 90))
        np.testing.assert_allclose(found, track.box, atol=1e-3)

    @pytest.mark.parametrize("shape", [(1, 4), (2, 1, 4), (4,)])
    def test_labels_of_another_shape_are_refused(self, model, inputs, shape):
        """Broadcast, each crop would be trained on the labels of all."""
        with pytest.raises(ValueError, match=r"`search_boxes` has shape .*, expected one box"):
            model(**inputs, search_boxes=torch.full(shape, 0.5))

    def test_tracks(self, model):
        """The session's boxes stay in the frame, and two sessions of one model do not disturb each other."""
        frames = np.random.default_rng(0).integers(0, 256, (4, 80, 100, 3), dtype=np.uint8)
        boxes = ([30.0, 20.0, 20.0, 16.0], [60.0, 50.0, 12.0, 20.0])
        alone = []
        for box in boxes:
            session = model.start(frames[0], box)
            alone.append([session.update(frame).box for frame in frames[1:]])
        sessions = [model.start(frames[0], box) for box in boxes]
        for index, frame in enumerate(frames[1:]):
            for number, session in enumerate(sessions):
                track = session.update(frame)
                assert np.array_equal(track.box, alone[number][index])
                assert (track.box[:2] >= 0).all() and (track.box[:2] + track.box[2:] <= [100, 80]).all()
                assert 0 <= track.score <= 1
