import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from ct_hf.tracking import VideoError, track_targets, track_videos, update_together

from .conftest import BOX


OTHER_BOX = [10.0, 12.0, 30.0, 24.0]


def alone(model, frames, box):
    session = model.start(frames[0], box)
    return [session.update(frame) for frame in frames[1:]]


def assert_same(tracks, expected):
    assert len(tracks) == len(expected)
    for number, (ours, theirs) in enumerate(zip(tracks, expected, strict=True)):
        np.testing.assert_allclose(ours.box, theirs.box, atol=2e-3, err_msg=str(number))
        assert ours.score == pytest.approx(theirs.score, abs=1e-5), number


def count_batches(model, monkeypatch):
    """Sizes of the batches that the model is run on."""
    sizes = []
    forward = type(model).forward

    def counted(self, **inputs):
        sizes.append(inputs["search_pixel_values"].shape[0])
        return forward(self, **inputs)

    monkeypatch.setattr(type(model), "forward", counted)
    return sizes


class TestUpdateTogether:
    def test_equals_single_sessions(self, model, frames, monkeypatch):
        """Three targets of two videos, memory and renewed templates included, in one forward pass a step."""
        videos = [(frames, BOX), (frames, OTHER_BOX), (frames[::-1], BOX)]
        expected = [alone(model, *video) for video in videos]
        assert len({tracks[0].score for tracks in expected}) == 3
        sessions = [model.start(video[0], box) for video, box in videos]
        sizes = count_batches(model, monkeypatch)
        steps = [update_together(sessions, [video[step] for video, _ in videos]) for step in range(1, len(frames))]
        assert sizes == [3] * (len(frames) - 1)
        for target in range(3):
            assert_same([step[target] for step in steps], expected[target])

    def test_sessions_at_different_frames(self, model, frames, monkeypatch):
        """Where they look at different numbers of templates they are grouped; each gets its own track and memory."""
        expected = [alone(model, frames, BOX), alone(model, frames[:5], OTHER_BOX)]
        first, second = model.start(frames[0], BOX), model.start(frames[0], OTHER_BOX)
        tracks = [[first.update(frame) for frame in frames[1:4]], []]
        sizes = count_batches(model, monkeypatch)
        for step in range(4):
            both = update_together([second, first], [frames[step + 1], frames[step + 4]])
            tracks[1].append(both[0])
            tracks[0].append(both[1])
        for ours, theirs in zip(tracks, expected, strict=True):
            assert_same(ours, theirs)
        # ODTrack with 1, 2, 2 and 3 templates, beside 3 each time.
        assert sizes == ([1, 1, 1, 1, 1, 1, 2] if model.config.model_type == "odtrack" else [2] * 4)

    def test_of_odtrack_of_equal_age_are_one_batch_again(self, models, frames, monkeypatch):
        model = models("odtrack")
        sessions = [model.start(frames[0], BOX), model.start(frames[0], OTHER_BOX), model.start(frames[0], BOX)]
        sessions[2].update(frames[1])
        sizes = count_batches(model, monkeypatch)
        update_together(sessions, [frames[1], frames[1], frames[2]])
        assert sizes == [2, 1]

    def test_sessions_with_and_without_a_sentence(self, models, frames, monkeypatch):
        model = models("sutrack")
        texts = [torch.linspace(-1, 1, 12), None, torch.linspace(1, 0, 12)]
        expected = [model.start(frames[0], BOX, text).update(frames[1]) for text in texts]
        assert len({track.score for track in expected}) == 3
        sessions = [model.start(frames[0], BOX, text) for text in texts]
        sizes = count_batches(model, monkeypatch)
        assert_same(update_together(sessions, [frames[1]] * 3), expected)
        assert sizes == [2, 1]

    def test_after_an_error_all_frames_can_be_given_again(self, models, frames):
        model = models("odtrack")
        expected = [alone(model, frames, box) for box in (BOX, OTHER_BOX)]
        sessions = [model.start(frames[0], box) for box in (BOX, OTHER_BOX)]
        for number, frame in enumerate(frames[1:]):
            with pytest.raises(ValueError, match="pixels but the video started with"):
                update_together(sessions, [frame, frame[:-2]])
            tracks = update_together(sessions, [frame, frame])
            assert_same(tracks, [alone_tracks[number] for alone_tracks in expected])

    def test_no_session_moves_on_where_one_answer_is_no_place(self, models, frames, monkeypatch):
        model = models("ostrack")
        sessions = [model.start(frames[0], box) for box in (BOX, OTHER_BOX)]
        locate = type(model).locate

        def broken(self, output):
            boxes, scores = locate(self, output)
            return torch.cat([boxes[:1], torch.full_like(boxes[1:], torch.nan)]), scores

        monkeypatch.setattr(type(model), "locate", broken)
        with pytest.raises(ValueError, match="in frame 1, with score"):
            update_together(sessions, frames[1:3])
        assert [session.frame_number for session in sessions] == [0, 0]

    def test_without_sessions_nothing_happens(self):
        assert update_together([], []) == []

    def test_refuses(self, models, frames):
        model, other = models("ostrack"), models("sutrack")
        session = model.start(frames[0], BOX)
        with pytest.raises(ValueError, match="`sessions` holds 1 but `frames` 2"):
            update_together([session], frames[1:3])
        with pytest.raises(ValueError, match="distinct sessions of one model"):
            update_together([session, session], frames[1:3])
        with pytest.raises(ValueError, match="distinct sessions of one model"):
            update_together([session, other.start(frames[0], BOX)], frames[1:3])


class TestTrackTargets:
    def test_gives_every_frame_and_a_track_a_target(self, models, frames):
        model = models("ostrack")
        steps = list(track_targets(model, iter(frames), [BOX, OTHER_BOX]))
        assert len(steps) == len(frames)
        for (frame, _), expected in zip(steps, frames, strict=True):
            assert np.array_equal(frame, expected)
        assert [track.box.tolist() for track in steps[0][1]] == [BOX, OTHER_BOX]
        assert [track.score for track in steps[0][1]] == [1.0, 1.0]
        assert_same([tracks[1] for _, tracks in steps[1:]], alone(model, frames, OTHER_BOX))

    def test_reads_no_further_than_it_is_asked(self, models, frames):
        read = []
        steps = track_targets(models("ostrack"), (read.append(1) or frame for frame in frames), [BOX])
        next(steps), next(steps)
        assert len(read) == 2

    def test_a_frame_of_another_size_ends_it_with_its_number(self, models, frames):
        steps = track_targets(models("ostrack"), [*frames[:3], frames[3][:, :90]], [BOX])
        assert [len(next(steps)[1]) for _ in range(3)] == [1, 1, 1]
        with pytest.raises(VideoError, match="`frames`, frame 3: 90x80 pixels, but the video started with 100x80"):
            next(steps)

    @pytest.mark.parametrize(
        ("frames_of", "boxes", "message"),
        [
            (slice(0), [BOX], "`frames` holds no frame"),
            (slice(3), [], "`boxes` is empty"),
            (slice(3), [BOX, [200, 30, 20, 16]], r"`box` \[200.* lies outside the frame of 100x80"),
            (slice(3), [[40, float("nan"), 20, 16]], "`box` must be four finite numbers"),
            (slice(3), [[40, 30, 20]], "`box` must be four finite numbers"),
        ],
    )
    def test_refuses(self, models, frames, frames_of, boxes, message):
        with pytest.raises(ValueError, match=message):
            next(track_targets(models("ostrack"), frames[frames_of], boxes))


class TestTrackVideos:
    def test_videos_of_any_length_in_their_order(self, models, frames, monkeypatch):
        """When one ends the next takes its place."""
        model = models("odtrack")
        videos = [(frames[:6], BOX), (frames[:2], OTHER_BOX), (frames[:1], BOX), (frames[3:], OTHER_BOX)]
        expected = [alone(model, *video) for video in videos]
        sizes = count_batches(model, monkeypatch)
        results = list(track_videos(model, ((iter(video), box) for video, box in videos), batch_size=2))
        assert len(results) == 4
        for tracks, theirs, (_, box) in zip(results, expected, videos, strict=True):
            assert tracks[0].box.tolist() == box and tracks[0].score == 1.0
            assert_same(tracks[1:], theirs)
        assert sum(sizes) == 5 + 1 + 0 + 4 and max(sizes) <= 2

    def test_at_most_batch_size_are_open(self, models, frames):
        opened = []

        def videos():
            for number in range(5):
                opened.append(number)
                yield frames[:3], BOX

        results = track_videos(models("ostrack"), videos(), batch_size=2)
        next(results)
        assert opened == [0, 1]
        assert len(list(results)) == 4

    @pytest.mark.parametrize("broken", [None, np.zeros((80, 100, 3)), np.zeros((80, 100, 4), dtype=np.uint8)])
    def test_a_frame_that_is_none_ends_its_video_alone(self, models, frames, caplog, broken):
        videos = [(frames, BOX), ([*frames[:3], broken, *frames[3:]], BOX), (frames, OTHER_BOX)]
        lengths = [len(tracks) for tracks in track_videos(models("ostrack"), videos)]
        assert lengths == [len(frames), 3, len(frames)]
        assert "video 1, frame 3: `frame` must" in caplog.text and "Its 3 frames up to there are kept" in caplog.text

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_an_opened_file_that_is_cut_off_ends_its_video_alone(self, models, frames, caplog, kind):
        """Its pixels are read when they are used; a PNG with transparency is, when it is turned into RGB."""
        file = io.BytesIO()
        image = Image.fromarray(np.asarray(frames[0]))
        (image if kind == "JPEG" else image.convert("RGBA")).save(file, kind)
        broken = Image.open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]))
        videos = [(frames, BOX), ([*frames[:3], broken, *frames[3:]], BOX)]
        assert [len(tracks) for tracks in track_videos(models("ostrack"), videos)] == [len(frames), 3]
        assert "video 1, frame 3: image file is truncated" in caplog.text

    def test_an_answer_that_is_no_place_ends_its_video_alone(self, models, frames, caplog, monkeypatch):
        model = models("ostrack")
        expected = [alone(model, frames, box) for box in (BOX, OTHER_BOX)]
        original, steps = type(model).locate, []

        def locate(self, output):
            boxes, scores = original(self, output)
            steps.append(len(boxes))
            if len(boxes) == 3 and steps.count(3) > 1:
                boxes[1] = float("nan")
            return boxes, scores

        monkeypatch.setattr(type(model), "locate", locate)
        first, second, third = track_videos(model, [(frames, BOX), (frames, BOX), (frames, OTHER_BOX)])
        assert len(second) == 2 and "video 1: the tracker predicted [nan" in caplog.text
        assert_same(first[1:], expected[0])
        assert_same(third[1:], expected[1])

    def test_a_compiled_tracker_is_used_as_such(self, models, frames):
        calls = []

        def backend(graph, _):
            calls.append(graph)
            return graph.forward

        compiled = torch.compile(models("ostrack"), backend=backend)
        tracks = list(track_targets(compiled, frames[:3], [BOX]))
        assert calls and len(tracks) == 3

    def test_a_video_that_breaks_off_keeps_what_it_has(self, models, frames, caplog):
        model = models("ostrack")
        broken = [*frames[:3], frames[3][:50]]
        with caplog.at_level(logging.WARNING):
            logging.getLogger("transformers").propagate = True
            logging.getLogger("ct_hf").propagate = True
            short, whole = track_videos(model, [(broken, BOX), (frames, OTHER_BOX)])
        assert_same(short[1:], alone(model, frames[:3], BOX))
        assert_same(whole[1:], alone(model, frames, OTHER_BOX))
        assert "video 0, frame 3: 100x50 pixels" in caplog.text
        assert "3 frames up to there are kept" in caplog.text

    def test_refuses(self, models, frames):
        model = models("ostrack")
        with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
            next(track_videos(model, [(frames, BOX)], batch_size=0))
        with pytest.raises(ValueError, match="`box` .* lies outside the frame"):
            next(track_videos(model, [(frames, [200, 30, 20, 16])]))

    def test_a_video_without_a_frame_has_no_track_and_costs_no_other(self, models, frames, caplog):
        videos = [([], BOX), (frames[:3], BOX), ([], BOX), (frames[:2], BOX), ([], BOX)]
        tracks = list(track_videos(models("ostrack"), videos, batch_size=2))
        assert [len(each) for each in tracks] == [0, 3, 0, 2, 0]
        assert "video 2 holds no frame. It has no track." in caplog.text
