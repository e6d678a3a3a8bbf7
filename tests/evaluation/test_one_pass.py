import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ct_hf.evaluation import evaluate_trackers, lock_step


def test_perfect_and_static_trackers(make_sequence, make_tracker):
    sequences = [make_sequence("a", num_frames=6), make_sequence("b", num_frames=3)]
    trackers = {"perfect": make_tracker(sequences[0].boxes), "static": make_tracker()}
    result = evaluate_trackers(trackers, sequences, progress=False)
    perfect, static = result.trackers
    assert (perfect.name, static.name) == ("perfect", "static")
    assert perfect.score["auc"] == pytest.approx(100 * 20 / 21)
    assert perfect.score["precision"] == perfect.score["norm_precision"] == 100
    # The target is 16 wide and moves 3 a frame: at most 15 pixels off, and more than 0.2 of its width from frame 2 on.
    assert static.score["precision"] == 100
    assert static.per_sequence["a"]["norm_precision"] == pytest.approx(100 * 2 / 6)
    assert static.per_sequence["b"]["norm_precision"] == pytest.approx(100 * 2 / 3)
    # Each sequence has weight 1.
    assert static.score["norm_precision"] == pytest.approx(50)
    assert perfect.score["auc"] > static.score["auc"]


def test_trackers_start_on_the_first_box_and_predictions_are_kept(make_sequence, make_tracker):
    sequence, tracker = make_sequence(), make_tracker()
    result = evaluate_trackers({"static": tracker}, [sequence], progress=False)
    assert tracker.starts == [sequence.boxes[0].tolist()]
    predictions = result.trackers[0].predictions["square"]
    assert predictions.shape == (len(sequence), 4)
    assert np.array_equal(predictions, np.tile(sequence.boxes[:1], (len(sequence), 1)))


def test_dictionary_has_exactly_these_keys(make_sequence, make_tracker):
    result = evaluate_trackers({"static": make_tracker()}, [make_sequence("a"), make_sequence("b")], progress=False)
    record = json.loads(json.dumps(result.to_dict()))
    assert record.keys() == {"sequences", "protocol", "trackers"}
    assert record["sequences"] == 2
    assert record["protocol"] == "visible"
    (tracker,) = record["trackers"]
    figures = {"auc", "precision", "norm_precision", "op50", "op75"}
    assert set(tracker) == {"name", *figures, "fps", "conditions", "parameters", "per_sequence"}
    assert tracker["name"] == "static"
    assert tracker["parameters"] == 5
    assert tracker["fps"] > 0
    assert set(tracker["per_sequence"]) == {"a", "b"}
    assert set(tracker["per_sequence"]["a"]) == figures


def test_absent_frames_do_not_count(make_sequence, make_tracker):
    sequence = make_sequence(num_frames=4, visible=[True, True, False, False])
    result = evaluate_trackers({"static": make_tracker()}, [sequence], progress=False)
    assert result.trackers[0].score["norm_precision"] == 100


def test_another_protocol(make_sequence, make_tracker):
    """The same predictions, judged by other rules: absent frames are misses for LaSOT, and not counted by GOT-10k."""
    sequences = [
        make_sequence("a", num_frames=4, visible=[True, True, False, False]),
        make_sequence("b", num_frames=3),
    ]

    def judge(protocol):
        trackers = {"static": make_tracker()}
        return evaluate_trackers(trackers, sequences, protocol=protocol, progress=False).trackers[0]

    assert judge("lasot").per_sequence["a"]["norm_precision"] == 50
    # 3 pixels a frame: 13 of 19 in frame 1 of both, 10 of 22 in frame 2 of b.
    result = judge("got10k")
    assert result.score == pytest.approx({"ao": 100 * (13 / 19 + 13 / 19 + 10 / 22) / 3, "sr50": 200 / 3, "sr75": 0})
    assert list(result.per_sequence) == ["a", "b"]
    assert judge("trackingnet").score.keys() == {"success", "precision", "norm_precision"}


def test_cover_of_the_data_set_goes_before_visibility(make_sequence, make_tracker):
    sequence = make_sequence(num_frames=3)
    sequence.cover = np.array([8, 0, 8])
    result = evaluate_trackers({"static": make_tracker()}, [sequence], protocol="got10k", progress=False)
    assert result.trackers[0].score["ao"] == pytest.approx(100 * 10 / 22), "frame 2 only"


def test_withheld_ground_truth_is_not_scored(make_sequence, make_tracker):
    """One box is a hit in frame 0, and with `visible` that would be all there is: a score of 95."""
    sequence, tracker = make_sequence("test_000001", visible=[True] + 5 * [False]), make_tracker()
    sequence.annotated = False
    with pytest.raises(ValueError, match="test_000001 has ground truth in frame 0 only"):
        evaluate_trackers({"static": tracker}, [sequence], progress=False)
    assert tracker.starts == []


def test_unknown_protocol_is_found_before_anything_is_tracked(make_sequence, make_tracker):
    tracker = make_tracker()
    with pytest.raises(ValueError, match="`protocol` must be one of .*, got 'vot'"):
        evaluate_trackers({"static": tracker}, [make_sequence()], protocol="vot", progress=False)
    assert tracker.starts == []


def test_clock_runs_only_during_update(make_sequence, make_tracker, monkeypatch):
    now = 0.0

    def spend(seconds):
        nonlocal now
        now += seconds

    class LazyImage(Image.Image):
        decoded = False

        def load(self):
            if not self.decoded:
                self.decoded = True
                spend(5)
            return super().load()

    class SlowSequence(type(make_sequence())):
        def frame(self, index):
            spend(3)
            image = LazyImage()._new(Image.new("RGB", self.size).im)
            lazy = LazyImage()
            lazy.im, lazy._mode, lazy._size = image.im, "RGB", self.size
            return lazy

    class SlowTracker(make_tracker):
        def start(self, frame, box):
            spend(7)
            session = super().start(frame, box)
            update = session.update

            def slow(frame):
                frame.load()
                # One slow frame in five: the median does not see it.
                spend(1.0 if session.index == 2 else 0.01)
                return update(frame)

            session.update = slow
            return session

    monkeypatch.setattr(lock_step, "time", SimpleNamespace(perf_counter=lambda: now))
    result = evaluate_trackers({"slow": SlowTracker()}, [SlowSequence(num_frames=6)], progress=False)
    assert result.trackers[0].fps == pytest.approx(100)


def test_trackers_take_turns_in_each_sequence(make_sequence, make_tracker):
    order = []

    class Recorded(make_tracker):
        def start(self, frame, box):
            order.append((self.label, frame.size))
            return super().start(frame, box)

    trackers = {"x": Recorded(), "y": Recorded()}
    for label, tracker in trackers.items():
        tracker.label = label
    sequences = [make_sequence("a", size=(96, 64)), make_sequence("b", size=(80, 60))]
    evaluate_trackers(trackers, iter(sequences), progress=False)
    assert order == [("x", (96, 64)), ("y", (96, 64)), ("x", (80, 60)), ("y", (80, 60))]


def test_frame_of_another_size_is_refused(make_sequence, make_tracker):
    class Growing(type(make_sequence())):
        def frame(self, index):
            return Image.new("RGB", (96, 64) if index < 3 else (64, 96))

    with pytest.raises(ValueError, match="Sequence square: frame 3 is 64x96 pixels, but frame 0 is 96x64"):
        evaluate_trackers({"static": make_tracker()}, [Growing()], progress=False)


@pytest.mark.parametrize("protocol", ["visible", "trackingnet"])
def test_nan_is_refused_where_it_is_predicted(make_sequence, make_tracker, protocol):
    """Also where the toolkit would take it."""
    boxes = make_sequence().boxes.copy()
    boxes[2] = np.nan
    with pytest.raises(
        ValueError, match=r"Tracker broken, sequence square: the tracker predicted \[nan, nan, nan, nan\] in frame 2"
    ):
        evaluate_trackers({"broken": make_tracker(boxes)}, [make_sequence()], protocol=protocol, progress=False)


def test_sequence_hidden_at_the_start_is_refused(make_sequence, make_tracker):
    hidden = make_sequence(num_frames=3, visible=[False, True, True])
    with pytest.raises(ValueError, match="square does not show its target in frame 0"):
        evaluate_trackers({"static": make_tracker()}, [hidden], progress=False)
    without_box = make_sequence()
    without_box.boxes[0] = np.nan
    with pytest.raises(ValueError, match="square does not show its target in frame 0"):
        evaluate_trackers({"static": make_tracker()}, [without_box], progress=False)


def test_what_cannot_be_evaluated_is_refused(make_sequence, make_tracker):
    with pytest.raises(ValueError, match="`trackers` is empty"):
        evaluate_trackers({}, [make_sequence()], progress=False)
    with pytest.raises(ValueError, match="`sequences` is empty"):
        evaluate_trackers({"static": make_tracker()}, [], progress=False)
    with pytest.raises(ValueError, match="`sequences` must have distinct names, got several called b, square[.]"):
        sequences = [make_sequence(), make_sequence("b"), make_sequence("a"), make_sequence("b"), make_sequence()]
        evaluate_trackers({"static": make_tracker()}, sequences, progress=False)
    with pytest.raises(ValueError, match="square has 1 frame"):
        evaluate_trackers({"static": make_tracker()}, [make_sequence(num_frames=1)], progress=False)


def test_progress_can_be_silenced(make_sequence, make_tracker, capsys):
    evaluate_trackers({"static": make_tracker()}, [make_sequence()], progress=False)
    assert capsys.readouterr().err == ""
    evaluate_trackers({"static": make_tracker()}, [make_sequence()])
    assert "static on square" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["otb", "lasot"])
def test_boxes_that_the_protocol_refuses_are_found_before_tracking(make_sequence, make_tracker, protocol):
    sequence = make_sequence(num_frames=4)
    sequence.boxes[2] = np.nan
    tracker = make_tracker()
    tracker.start = None  # tracking would fail
    with pytest.raises(ValueError, match=f"Sequence square has no box in frame 2, but protocol `{protocol}` takes no"):
        evaluate_trackers({"t": tracker}, [sequence], protocol=protocol)
