import copy

import numpy as np
import pytest
import torch
from transformers import AutoModel

from ct_hf.models import ODTrackConfig
from ct_hf.models.modeling_odtrack import ODTrackMemory, ODTrackTemplateBank
from ct_hf.models.templates import TemplateCrop

from .contract import TrackerContract, assert_equal, perturb


def tiny(**changes):
    fields = {
        "template_size": 32,
        "search_size": 64,
        "patch_size": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "head_channels": 16,
        "num_templates": 2,
    }
    return ODTrackConfig(**{**fields, **changes})


class TestCenterHead(TrackerContract):
    remembers_templates = False
    dropout = {"drop_path_rate": 0.3}
    output_shapes = {"score_map": (1, 8, 8), "score_logits": (1, 8, 8), "size_map": (2, 8, 8), "offset_map": (2, 8, 8)}

    def make_config(self):
        return tiny()


class TestCandidateElimination(TestCenterHead):
    def make_config(self):
        return tiny(elimination_layers=[0, 1], elimination_keep_ratio=0.7)


class TestCornerHead(TrackerContract):
    remembers_templates = False
    dropout = {"attention_dropout": 0.3}
    output_shapes = {"corner_logits": (2, 8, 8)}

    def make_config(self):
        return tiny(head_type="corner", num_templates=1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return perturb(AutoModel.from_config(tiny())).eval()


@pytest.fixture
def eliminating():
    torch.manual_seed(0)
    return perturb(AutoModel.from_config(tiny(elimination_layers=[0, 1]))).eval()


def make_inputs(num_templates, batch_size=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    templates = torch.randn(batch_size, num_templates, 3, 32, 32, generator=generator)
    return templates, torch.randn(batch_size, 3, 64, 64, generator=generator)


class TestTemplates:
    @pytest.mark.parametrize("number", [1, 2, 5])
    def test_any_number(self, model, eliminating, number):
        """Whatever `num_templates` says; the state's layout tells how many there are."""
        for tracker in (model, eliminating):
            with torch.no_grad():
                state = tracker.embed(*make_inputs(number))
                for layer in tracker.layers:
                    state = layer(state)
                output = tracker.decode(state)
            assert state.layout == (("special", 1), ("template", 16 * number), ("search", 64))
            assert {name: group.shape[1] for name, group in state.groups().items()} == dict(state.layout)
            assert output.pred_boxes.isfinite().all()

    def test_all_are_looked_at(self, model):
        """Each under the same position table, so that their order makes no difference to the box."""
        templates, search = make_inputs(3)
        with torch.no_grad():
            boxes = model(templates, search).pred_boxes
            assert torch.allclose(model(templates[:, [2, 0, 1]], search).pred_boxes, boxes, atol=1e-5)
            for index in range(3):
                changed = templates.clone()
                changed[:, index] += 0.5
                assert not torch.allclose(model(changed, search).score_map, model(templates, search).score_map)

    def test_none_is_refused(self, model):
        templates, search = make_inputs(1)
        with pytest.raises(
            ValueError, match=r"`template_pixel_values` has shape \(2, 0, 3, 32, 32\), expected .*1, 3"
        ):
            model(templates[:, :0], search)

    def test_unlike_batches_are_refused(self, model):
        with pytest.raises(ValueError, match="`template_pixel_values` holds 2 samples but `search_pixel_values` 1"):
            model(make_inputs(1)[0], make_inputs(1, batch_size=1)[1])


class TestTemporalToken:
    def test_first_frame(self, model):
        """The token and its position, in front of template and search."""
        state = model.embed(*make_inputs(1))
        expected = model.embeddings.temporal_token + model.embeddings.temporal_position_embeddings
        assert torch.equal(state.groups()["special"], expected.expand(2, -1, -1))

    def test_next_frame(self, model):
        """The last frame's token after the final norm is added to the learnt one."""
        inputs = make_inputs(2)
        with torch.no_grad():
            states = [model.embed(*inputs)]
            for layer in model.layers:
                states.append(layer(states[-1]))
            memory = model.decode(states[-1]).memory
            after = model.layernorm(states[-1].hidden_states)[:, :1]
            special = model.embed(*inputs, memory=memory).groups()["special"]
        assert isinstance(memory, ODTrackMemory) and torch.equal(memory.temporal_token, after)
        assert_equal(special - after, states[0].groups()["special"], atol=1e-6)

    def test_memory_holds_one_token_only(self, model):
        token = model(*make_inputs(2)).memory.temporal_token
        assert not token.requires_grad
        assert token.untyped_storage().nbytes() == token.numel() * token.element_size()

    @pytest.mark.parametrize(
        ("memory", "got"),
        [
            (ODTrackMemory(torch.zeros(2, 1, 8)), r"shape \(2, 1, 8\)"),
            (ODTrackMemory(torch.zeros(1, 1, 16)), r"shape \(1, 1, 16\)"),
            (ODTrackMemory(torch.zeros(2, 16)), r"shape \(2, 16\)"),
            (ODTrackMemory(), "an? ODTrackMemory without one"),
            (torch.zeros(2, 1, 16), "an? Tensor without one"),
        ],
    )
    def test_other_memories_are_refused(self, model, memory, got):
        with pytest.raises(ValueError, match=rf"`memory` must hold a temporal token of shape \(2, 1, 16\), got {got}"):
            model(*make_inputs(1), memory=memory)

    def test_search_tokens_are_weighed(self, model):
        """The head sees each search token times its product with the temporal token; eliminated ones stay zeros."""
        seen = []
        model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            state = model.embed(*make_inputs(2))
            model.decode(state)
            normed = model.layernorm(state.hidden_states)
        temporal, search = normed[:, :1], normed[:, -64:]
        assert_equal(seen[0], search * (search * temporal).sum(dim=2, keepdim=True), atol=1e-5)


class TestElimination:
    def test_ranked_by_the_centres_of_all_templates(self, eliminating):
        """By eager attention of the first layer, over all tokens, the temporal one included."""
        state = eliminating.embed(*make_inputs(3))
        layer, attention = eliminating.layers[0], eliminating.layers[0].attention
        with torch.no_grad():
            normed = layer.layernorm_before(state.hidden_states)
            query, key = (p(normed).view(2, -1, 2, 8).transpose(1, 2) for p in (attention.q_proj, attention.k_proj))
            weights = (query @ key.transpose(2, 3) / 8**0.5).softmax(dim=-1).mean(dim=1)
            kept = layer(state).search_index
        centers = [1 + 16 * template + 5 for template in range(3)]
        best = weights[:, centers, 1 + 48 :].mean(dim=1).topk(45, dim=1).indices
        assert torch.equal(best.sort(dim=1).values, kept.sort(dim=1).values)

    def test_only_search_tokens_go(self, eliminating):
        with torch.no_grad():
            state = eliminating.embed(*make_inputs(2))
            for layer, number in zip(eliminating.layers, (45, 32, 32), strict=True):
                state = layer(state)
                assert state.hidden_states.shape[1] == 1 + 32 + number
        search = state.groups()["search"]
        assert (search != 0).any(dim=2).sum(dim=1).tolist() == [32, 32]

    def test_attention_is_never_whole(self, eliminating, monkeypatch):
        """Beside the fused kernel only the ranking rows are multiplied out: one a template."""
        rows, matmul = [], torch.matmul

        def spy(first, second):
            if first.ndim == 4:
                rows.append(first.shape[2])
            return matmul(first, second)

        monkeypatch.setattr(torch, "matmul", spy)
        with torch.no_grad():
            eliminating(*make_inputs(3))
        assert rows == [3, 3]


def original_selection(frame, segments):
    """The original's rule at test time, over an unbounded list of frames."""
    if frame <= segments:
        return list(range(frame))
    if segments == 1:
        return [0]
    duration = frame // segments
    return sorted(set([0] + [i * duration + duration // 2 for i in range(segments)]))


class TestTemplateBank:
    def crop(self, number):
        """A crop that shows its frame's number."""
        levels = torch.tensor([number % 251, number // 251, 0], dtype=torch.uint8).view(1, 3, 1, 1)
        pixels = levels.expand(1, 3, 4, 4).float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return TemplateCrop((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1), torch.full((1, 4), float(number)))

    def bank(self, frames, segments=3, first=0):
        bank = ODTrackTemplateBank(tiny(num_templates=segments), self.crop(0))
        for frame in range(1, frames):
            bank.update(frame, 0.5, lambda frame=frame: self.crop(frame))
        return bank

    def numbers(self, crops):
        levels = [crop.pixel_values[0, :, 0, 0] * torch.tensor([0.229, 0.224, 0.225]) for crop in crops]
        levels = [(255 * (level + torch.tensor([0.485, 0.456, 0.406]))).round().int().tolist() for level in levels]
        return [low + 251 * high for low, high, _ in levels]

    @pytest.mark.parametrize("segments", [1, 2, 3, 4])
    def test_first_thousand_frames_are_the_original_s(self, segments):
        bank = self.bank(1, segments)
        for frame in range(1, 1001):
            assert bank.frames(frame) == original_selection(frame, segments), frame
            if frame in (1, 4, 77, 999, 1000):
                crops = bank.select(frame)
                assert self.numbers(crops) == original_selection(frame, segments)
                assert [crop.box[0, 0].item() for crop in crops] == original_selection(frame, segments)
            bank.update(frame, 0.0, lambda frame=frame: self.crop(frame))

    def test_recorded_choices_of_the_original(self):
        choices = {1: [0], 2: [0, 1], 3: [0, 1, 2], 5: [0, 1, 2], 6: [0, 1, 3, 5], 100: [0, 16, 49, 82]}
        bank = self.bank(1)
        assert {frame: bank.frames(frame) for frame in choices} == choices

    def test_long_videos_are_bounded(self):
        """Never more than 1,000 crops; the one seen is at most one 500th of the video older than the original's."""
        bank, most = self.bank(1), 0
        for frame in range(1, 9000):
            if frame % 97 == 0 or frame in (1001, 2001, 4001, 8001):
                ours, theirs = bank.frames(frame), original_selection(frame, 3)
                assert len(ours) == len(theirs) and all(number in bank.kept for number in ours)
                assert all(0 <= b - a <= frame / 500 for a, b in zip(ours, theirs, strict=True)), frame
            bank.update(frame, 0.5, lambda frame=frame: self.crop(frame))
            most = max(most, len(bank.kept))
            assert len(bank.kept) >= min(frame + 1, 500)
        assert most == 1000
        assert set(np.diff(sorted(bank.kept))) == {bank.spacing} == {16}
        assert self.numbers(bank.select(9000)) == bank.frames(9000)

    def test_frames_that_will_not_stay_are_not_cut(self):
        bank, cuts = self.bank(1001), []
        assert bank.spacing == 2
        for frame in range(1001, 1011):
            bank.update(frame, 0.5, lambda frame=frame: cuts.append(frame) or self.crop(frame))
        assert cuts == [1002, 1004, 1006, 1008, 1010]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_crops_come_back_bit_for_bit(self, dtype):
        """Every grey level of every channel, in each type that a model may have."""
        levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
        for mean, std in (
            ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ([0.0] * 3, [1 / 255] * 3),
            ([1.0] * 3, [9] * 3),
        ):
            config = tiny(image_mean=mean, image_std=[float(value) for value in std])
            mean, std = torch.tensor(mean).view(3, 1, 1), torch.tensor(config.image_std).view(3, 1, 1)
            pixels = ((levels.float() / 255 - mean) / std).to(dtype)
            bank = ODTrackTemplateBank(config, TemplateCrop(pixels, torch.zeros(1, 4)))
            assert bank.kept[0].pixel_values.dtype == torch.uint8
            assert torch.equal(bank.select(1)[0].pixel_values, pixels)


class TestSession:
    BOX = [40.0, 30.0, 24.0, 18.0]

    @pytest.fixture
    def frames(self):
        return np.random.default_rng(0).integers(0, 256, (8, 90, 120, 3), dtype=np.uint8)

    def test_by_hand(self, model, frames):
        """Templates around the boxes found, the temporal token of the frame before, from none at the start."""
        session, memory = model.start(frames[0], self.BOX), None
        assert session.memory is None
        boxes = [np.array(self.BOX)]
        for number, frame in enumerate(frames[1:], start=1):
            wanted = original_selection(number, 2)
            templates = [
                session.processor(frames[index], boxes=[boxes[index]], target="template")["template_pixel_values"][
                    :, :1
                ]
                for index in wanted
            ]
            inputs = session.inputs(frame)
            assert torch.equal(inputs["template_pixel_values"], torch.cat(templates, dim=1))
            assert inputs["template_boxes"].shape == (1, len(wanted), 4)
            assert inputs["memory"] is memory
            with torch.inference_mode():
                output = model(**inputs)
                boxes.append(session.advance(output).box)
            memory = output.memory
            assert session.memory is memory
        assert len(wanted) == 3

    def test_a_new_start_forgets(self, model, frames):
        """The original's model keeps its token from one sequence to the next; here nothing is left behind."""
        first = [model.start(frames[0], self.BOX).update(frames[1]) for _ in range(2)]
        session = model.start(frames[3], self.BOX)
        for frame in frames[4:]:
            session.update(frame)
        again = model.start(frames[0], self.BOX).update(frames[1])
        for track in (first[1], again):
            assert np.array_equal(track.box, first[0].box) and track.score == first[0].score

    def test_bf16(self, model, frames):
        session = copy.deepcopy(model).to(torch.bfloat16).start(frames[0], self.BOX)
        for frame in frames[1:]:
            track = session.update(frame)
        assert np.isfinite(track.box).all() and session.memory.temporal_token.dtype == torch.bfloat16


class TestConfiguration:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"num_templates": 0}, "`num_templates` must be positive, got 0"),
            ({"search_size": 60}, "`search_size` .60. must be a multiple of `patch_size` .8."),
            ({"elimination_layers": [3]}, "names layer 3, but layers are 0 to 2"),
        ],
    )
    def test_refusals(self, fields, message):
        with pytest.raises(Exception, match=message):
            tiny(**fields)

    def test_student(self):
        """Of the family, with as many templates, without elimination unless asked for."""
        student = tiny(num_templates=4, elimination_layers=[1]).for_student(2)
        assert type(student) is ODTrackConfig
        assert (student.num_templates, student.elimination_layers, student.search_factor) == (4, [], 5.0)
        with pytest.raises(ValueError, match="`token_len` is not a field of ODTrackConfig"):
            tiny().for_student(2, token_len=2)


def test_chained_frames_cannot_be_located_at_once(model):
    output = model(torch.zeros(1, 2, 3, 32, 32), torch.zeros(1, 3, 3, 64, 64))
    assert output.pred_boxes.shape == (1, 3, 4)
    with pytest.raises(ValueError, match="`output` is of 3 chained frames, expected one"):
        model.locate(output)
