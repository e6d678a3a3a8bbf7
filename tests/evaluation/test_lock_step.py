"""Several sequences at a time give what they give one by one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ct_hf.data import procedural_sequences
from ct_hf.evaluation import evaluate_trackers, lock_step
from ct_hf.evaluation.lock_step import run_trackers
from ct_hf.models import OSTrackModel


@pytest.fixture(scope="module")
def sequences():
    """Of several lengths."""
    return [
        procedural_sequences(seed, 1, length=length, size=(96, 72))[0] for seed, length in enumerate((3, 6, 2, 5, 4))
    ]


def test_a_batch_gives_what_singles_give(tiny_tracker, sequences):
    one, several = (
        {
            run.sequence: run
            for run in run_trackers({"t": tiny_tracker}, {"t": sequences}, batch_size=size, progress=False)
        }
        for size in (1, 3)
    )
    assert set(one) == set(several) == {sequence.name for sequence in sequences}
    for sequence in sequences:
        boxes = several[sequence.name].boxes
        assert boxes.shape == (len(sequence), 4)
        np.testing.assert_allclose(boxes[0], sequence.boxes[0])
        np.testing.assert_allclose(boxes, one[sequence.name].boxes, atol=1e-2)


def test_sequences_of_like_length_share_a_batch(sequences, make_tracker, monkeypatch):
    """One forward pass for all of a batch, and none for what has ended."""
    sizes = []
    monkeypatch.setattr(
        lock_step,
        "_update",
        lambda tracker, lanes, frames: sizes.append(len(lanes)) or [lane.session.update(None) for lane in lanes],
    )
    list(run_trackers({"t": make_tracker()}, {"t": sequences}, batch_size=3, progress=False))
    # 6, 5 and 4 frames together, then 3 and 2; the first frame of each is the start.
    assert sizes == [3, 3, 3, 2, 1, 2, 1]


def test_trackers_may_have_different_sequences_to_track(make_tracker, sequences):
    trackers = {"a": make_tracker(), "b": make_tracker()}
    runs = run_trackers(trackers, {"a": sequences[:3], "b": sequences[2:3]}, progress=False)
    order = [(run.tracker, run.sequence) for run in runs]
    names = [sequence.name for sequence in sequences]
    assert order == [("a", names[0]), ("b", names[2]), ("a", names[1]), ("a", names[2])]
    assert list(run_trackers(trackers, {"a": [], "b": []}, progress=False)) == []


def test_a_step_of_several_is_shared_out(sequences, make_tracker, monkeypatch):
    now = 0.0

    def tick():
        nonlocal now
        now += 0.5
        return now

    monkeypatch.setattr(lock_step, "time", SimpleNamespace(perf_counter=tick))
    # Sequences of 6, 5, 4, 3 and 2 frames together: one less takes part in each step.
    for size, parts in ((1, [1, 1, 1, 1, 1]), (5, [5, 4, 3, 2, 1])):
        runs = run_trackers({"t": make_tracker()}, {"t": sequences}, batch_size=size, progress=False)
        for run in runs:
            steps = len(run.boxes) - 1
            np.testing.assert_allclose(run.seconds, [0.5, *(0.5 / part for part in parts[:steps])])


def test_nan_within_a_batch_names_its_sequence(tiny_config, make_sequence):
    """The pixels of one sequence alone make the tracker fail."""

    class Fragile(OSTrackModel):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            dark = inputs["search_pixel_values"].amax(dim=(1, 2, 3)) < -1
            output.pred_boxes[dark] = float("nan")
            output.score[dark] = float("nan")
            return output

        def locate(self, output):
            return output.pred_boxes, output.score

    torch.manual_seed(0)
    tracker = Fragile(tiny_config).eval()
    dark = make_sequence("dark")
    dark.frame = lambda index: type(make_sequence()).frame(dark, index).point(lambda value: 0)
    with pytest.raises(
        ValueError, match=r"Tracker fragile, sequence dark: the tracker predicted \[nan, .* in frame 1"
    ):
        evaluate_trackers({"fragile": tracker}, [make_sequence("a"), dark, make_sequence("b")], batch_size=3)


def test_batch_size_is_at_least_one(tiny_tracker, sequences):
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        evaluate_trackers({"t": tiny_tracker}, sequences, batch_size=0, progress=False)
