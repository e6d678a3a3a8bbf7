import copy

import numpy as np
import pytest
import torch
from PIL import Image

from ct_hf.models import PreTrainedTracker, Track, TrackerOutput, TrackingSession
from ct_hf.models.templates import TemplateBank


BOX = [40.0, 30.0, 20.0, 16.0]


@pytest.fixture
def session(tiny_tracker, noise_frames):
    return tiny_tracker.start(noise_frames[0], BOX)


def answer(grid, row, column, size=(0.3, 0.3), score=5.0):
    """Output of a center head with one peak and boxes of one size everywhere."""
    logits = torch.full((1, 1, grid, grid), -5.0)
    logits[0, 0, row, column] = score
    size_map = torch.tensor(size).view(1, 2, 1, 1).expand(1, 2, grid, grid)
    offset_map = torch.full((1, 2, grid, grid), 0.5)
    return TrackerOutput(score_logits=logits, score_map=logits.sigmoid(), size_map=size_map, offset_map=offset_map)


class TestForms:
    def forms(self, frame):
        tensor = torch.from_numpy(frame.copy())
        return [Image.fromarray(frame), frame, tensor, tensor.permute(2, 0, 1), np.asfortranarray(frame)]

    def test_every_form_of_a_frame_gives_the_same_track(self, tiny_tracker, noise_frames):
        tracks = []
        for form in range(5):
            frames = [self.forms(frame)[form] for frame in noise_frames]
            session = tiny_tracker.start(frames[0], BOX)
            tracks.append([session.update(frame) for frame in frames[1:]])
        for other in tracks[1:]:
            for ours, theirs in zip(tracks[0], other, strict=True):
                assert np.array_equal(ours.box, theirs.box) and ours.score == theirs.score

    def test_grey_frames(self, tiny_tracker, noise_frames):
        grey = noise_frames[:, :, :, 0]
        expected = tiny_tracker.start(np.stack([grey[0]] * 3, axis=2), BOX).update(np.stack([grey[1]] * 3, axis=2))
        for form in (np.asarray, Image.fromarray, torch.from_numpy):
            track = tiny_tracker.start(form(grey[0]), BOX).update(form(grey[1]))
            assert np.array_equal(track.box, expected.box)

    @pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor])
    def test_every_form_of_a_box(self, tiny_tracker, noise_frames, form):
        assert tiny_tracker.start(noise_frames[0], form(BOX)).box.tolist() == BOX


class TestStart:
    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ([200, 30, 20, 16], "lies outside the frame of 100x80 pixels"),
            ([float("nan"), 30, 20, 16], "must be four finite numbers"),
            ([40, 30, 0, 16], "must have positive width and height"),
            ([40, 30, 20, -1], "must have positive width and height"),
            ([40, 30, 20], "must be four finite numbers"),
            ([20, 20, 1e-170, 1e-170], "must have positive width and height"),
            ([0, 0, 200000, 200000], "is more than 3 times as large as the frame of 100x80 pixels"),
        ],
    )
    def test_impossible_boxes_are_refused(self, tiny_tracker, noise_frames, box, message):
        with pytest.raises(ValueError, match=f"`box` .*{message}"):
            tiny_tracker.start(noise_frames[0], box)

    def test_training_mode_is_refused(self, tiny_tracker, noise_frames):
        with pytest.raises(ValueError, match=r"`model` is in training mode.*model.eval\(\)"):
            copy.deepcopy(tiny_tracker).train().start(noise_frames[0], BOX)

    def test_training_mode_in_the_middle_is_refused(self, tiny_tracker, noise_frames):
        """Batch norms would learn from the video, and answer otherwise."""
        tracker = copy.deepcopy(tiny_tracker)
        session = tracker.start(noise_frames[0], BOX)
        tracker.train()
        with pytest.raises(ValueError, match="`model` is in training mode"):
            session.update(noise_frames[1])

    def test_float_frames_are_refused(self, tiny_tracker, session, noise_frames):
        for call in (lambda frame: tiny_tracker.start(frame, BOX), session.update):
            with pytest.raises(TypeError, match="`frame` must hold uint8 values in 0..255, got float64"):
                call(noise_frames[0] / 255)

    def test_templates(self, tiny_tracker, session, noise_frames):
        expected = session.processor(noise_frames[0], boxes=[BOX], target="template")["template_pixel_values"]
        assert torch.equal(session.inputs(noise_frames[1])["template_pixel_values"], expected)
        window = session.processor.window(BOX, "template")
        assert session.templates.first.box.tolist() == [pytest.approx([0.5, 0.5, 20 / window.size, 16 / window.size])]

    def test_box_is_copied(self, tiny_tracker, noise_frames):
        box = np.array(BOX)
        session = tiny_tracker.start(noise_frames[0], box)
        session.update(noise_frames[1])
        assert box.tolist() == BOX


class TestUpdate:
    def test_frame_of_another_size_is_refused(self, session, noise_frames):
        with pytest.raises(ValueError, match="`frame` is 90x80 pixels but the video started with 100x80"):
            session.update(noise_frames[1][:, :90])

    def test_by_hand(self, tiny_tracker, session, noise_frames):
        """Crop around the last box, forward, window, map back, keep in the frame."""
        expected = np.array(BOX)
        for frame in noise_frames[1:]:
            batch = session.processor(frame, boxes=[expected])
            template = session.processor(noise_frames[0], boxes=[BOX], target="template")["template_pixel_values"]
            with torch.no_grad():
                output = tiny_tracker(template, batch["search_pixel_values"])
                boxes, scores = tiny_tracker.head.locate(output)
            x, y, w, h = batch.windows[0].to_frame(boxes[0].numpy())
            left, top = min(max(0, x), 90), min(max(0, y), 70)
            right, bottom = min(max(10, x + w), 100), min(max(10, y + h), 80)
            expected = np.array([left, top, max(10, right - left), max(10, bottom - top)])
            track = session.update(frame)
            assert isinstance(track, Track)
            assert track.box == pytest.approx(expected, abs=1e-4)
            assert track.score == pytest.approx(scores[0].item(), abs=1e-6)
            expected = track.box

    def test_window_holds_back_large_steps(self, session, noise_frames):
        """The box of the weaker peak near the centre is taken, not the stronger one's in the corner."""
        output = answer(8, 0, 0)
        output.score_map[0, 0, 4, 4] = 0.5
        session.inputs(noise_frames[1])
        window = session._window
        track = session.advance(output)
        assert track.box == pytest.approx(window.to_frame([4.5 / 8, 4.5 / 8, 0.3, 0.3]), abs=1e-4)
        assert track.score < 0.5

    def test_box_follows_the_peak(self, session, noise_frames):
        session.inputs(noise_frames[1])
        scale = session._window.size
        track = session.advance(answer(8, 4, 5))
        x, y, w, h = track.box
        assert (x + w / 2, y + h / 2) == pytest.approx(
            (50 + (5.5 / 8 - 0.5) * scale, 38 + (4.5 / 8 - 0.5) * scale), abs=1e-3
        )
        assert (w, h) == pytest.approx((0.3 * scale, 0.3 * scale), abs=1e-3)

    @pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 7), (7, 0), (7, 7)])
    @pytest.mark.parametrize("size", [(1e-4, 1e-4), (0.3, 0.3), (0.9999, 0.9999)])
    def test_box_stays_in_the_frame(self, session, noise_frames, row, column, size):
        """Also where the target seems to leave it, again and again; never less than 10 pixels wide."""
        for _ in range(30):
            session.inputs(noise_frames[1])
            x, y, w, h = session.advance(answer(8, row, column, size)).box
            assert x >= 0 and y >= 0 and x + w <= 100 and y + h <= 80
            assert w >= 10 and h >= 10

    def test_no_gradient_and_no_state_in_the_model(self, tiny_tracker, session, noise_frames):
        before = {name: value.clone() for name, value in tiny_tracker.state_dict().items()}
        attributes = set(vars(tiny_tracker))
        session.update(noise_frames[1])
        assert set(vars(tiny_tracker)) == attributes
        assert all(torch.equal(value, before[name]) for name, value in tiny_tracker.state_dict().items())
        assert all(parameter.grad is None for parameter in tiny_tracker.parameters())

    def test_tracks_are_the_caller_s_own(self, session, noise_frames):
        """Writing into a returned box moves neither the session nor an earlier track."""
        track = session.update(noise_frames[1])
        expected = track.box.copy()
        track.box[:] = -1
        assert np.array_equal(session.box, expected)

    def test_advance_is_the_second_half_of_update(self, tiny_tracker, session, noise_frames):
        other = TrackingSession(tiny_tracker, noise_frames[0], BOX)
        with torch.inference_mode():
            track = other.advance(tiny_tracker(**other.inputs(noise_frames[1])))
        assert np.array_equal(track.box, session.update(noise_frames[1]).box)

    def test_bf16(self, tiny_tracker, noise_frames):
        track = copy.deepcopy(tiny_tracker).to(torch.bfloat16).start(noise_frames[0], BOX).update(noise_frames[1])
        assert np.isfinite(track.box).all() and track.box.dtype == np.float64

    def test_configuration_that_wants_tuples(self, tiny_tracker, session, noise_frames):
        model = copy.deepcopy(tiny_tracker)
        model.config.return_dict = False
        track = model.start(noise_frames[0], BOX).update(noise_frames[1])
        assert np.array_equal(track.box, session.update(noise_frames[1]).box)


class TestTemplates:
    """Of a session whose bank renews its template after every second frame."""

    class Bank(TemplateBank):
        def __init__(self, config, first):
            super().__init__(config, first)
            self.last = first

        def select(self, frame_number):
            return [self.last]

        def update(self, frame_number, score, cut):
            if frame_number % 2 == 0:
                self.last = cut()

    @pytest.fixture
    def model(self, tiny_tracker, monkeypatch):
        model = copy.deepcopy(tiny_tracker)
        monkeypatch.setattr(type(model), "template_bank_class", self.Bank)
        return model

    def test_are_remembered_when_they_change(self, model, noise_frames, monkeypatch):
        """Before the first frame and after each renewal, with the memory so far; what is remembered goes to the model."""
        calls = []

        def remember(template_pixel_values, template_boxes, memory):
            calls.append((session.frame_number, template_pixel_values, memory))
            return f"memory {len(calls)}"

        monkeypatch.setattr(model, "remember_templates", remember)
        session = model.start(noise_frames[0], BOX)
        for frame in (*noise_frames[1:], *noise_frames[1:]):
            inputs = session.inputs(frame)
            assert inputs["memory"] == f"memory {len(calls)}"
            assert torch.equal(inputs["template_pixel_values"][:, 0], session.templates.last.pixel_values)
            with torch.no_grad():
                output = model(**{**inputs, "memory": None})
            output.memory = inputs["memory"]
            session.advance(output)
        assert [number for number, *_ in calls] == [0, 2, 4]
        assert [memory for *_, memory in calls] == [None, "memory 1", "memory 2"]
        assert not torch.equal(calls[0][1], calls[1][1])

    def test_a_family_that_encodes_them_with_each_crop_remembers_nothing(self, model, noise_frames, monkeypatch):
        monkeypatch.setattr(type(model), "remember_templates", PreTrainedTracker.remember_templates)
        pixels, memory = torch.zeros(1, 1, 3, 32, 32), object()
        assert model.remember_templates(pixels) is None
        assert model.remember_templates(pixels, memory=memory) is memory
        session = model.start(noise_frames[0], BOX)
        assert session.inputs(noise_frames[1])["memory"] is None

    def test_are_embedded_once_until_they_change(self, model, noise_frames, monkeypatch):
        """And the tracks are those of a tracker that embeds them in each frame, bit for bit."""
        calls = []
        embed = type(model.embeddings).templates
        monkeypatch.setattr(
            type(model.embeddings), "templates", lambda self, pixels: calls.append(1) or embed(self, pixels)
        )
        frames = [*noise_frames, *noise_frames[1:]]
        session = model.start(frames[0], BOX)
        once = [session.update(frame) for frame in frames[1:]]
        assert len(calls) == 3  # before frame 1, and after the renewals of frames 2 and 4
        monkeypatch.setattr(type(model), "remember_templates", PreTrainedTracker.remember_templates)
        session = model.start(frames[0], BOX)
        each_time = [session.update(frame) for frame in frames[1:]]
        assert len(calls) == 3 + 6
        for ours, theirs in zip(once, each_time, strict=True):
            assert np.array_equal(ours.box, theirs.box) and ours.score == theirs.score


class TestState:
    def test_a_restored_session_goes_on_exactly(self, tiny_tracker, noise_frames):
        session = tiny_tracker.start(noise_frames[0], BOX)
        session.update(noise_frames[1])
        other = TrackingSession.restore(tiny_tracker, copy.deepcopy(session.state()))
        for frame in noise_frames[2:]:
            ours, theirs = session.update(frame), other.update(frame)
            assert np.array_equal(ours.box, theirs.box) and ours.score == theirs.score
        assert other.frame_number == session.frame_number == 3

    def test_a_frame_that_failed_can_be_given_again(self, tiny_tracker, noise_frames, monkeypatch):
        whole, session = (tiny_tracker.start(noise_frames[0], BOX) for _ in range(2))
        forward = type(tiny_tracker).forward

        def failing(self, **inputs):
            raise torch.OutOfMemoryError("for once")

        for frame in noise_frames[1:]:
            monkeypatch.setattr(type(tiny_tracker), "forward", failing)
            with pytest.raises(torch.OutOfMemoryError):
                session.update(frame)
            monkeypatch.setattr(type(tiny_tracker), "forward", forward)
            again, once = session.update(frame), whole.update(frame)
            assert np.array_equal(again.box, once.box) and again.score == once.score
        assert session.frame_number == whole.frame_number == 3

    @pytest.mark.parametrize("nan", ["box", "score"])
    def test_answers_that_are_no_numbers_are_refused(self, session, noise_frames, nan):
        session.inputs(noise_frames[1])
        box = np.full(4, np.nan if nan == "box" else 0.5)
        with pytest.raises(
            ValueError, match="the tracker predicted .* in frame 1, with score .*, expected finite numbers"
        ):
            session.settle(box, float("nan") if nan == "score" else 0.5, None)
        assert session.box.tolist() == BOX


def test_import_is_light(fresh_python, tmp_path):
    """Data sets, video and training load when they are used, not with `import ct_hf`."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import ct_hf\n"
        "added = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(added & {'accelerate', 'av', 'datasets', 'evaluate', 'pandas', 'pyarrow', 'matplotlib'}))\n"
        "print([name for name in set(sys.modules) - before if name in ('transformers.trainer', 'ct_hf.compression')])"
    )
    assert fresh_python(code, tmp_path) == "[]\n[]\n"
