import numpy as np
import pytest

from ct_hf.evaluation.difference import draw_difference, most_different


def right_and_wrong(sequence, wrong_frames):
    """The ground truth, and the same but for some frames far off."""
    right = np.asarray(sequence.boxes, dtype=np.float64)
    wrong = right.copy()
    wrong[wrong_frames] += [50, 0, 0, 0]
    return right, wrong


def frames_drawn(sequence, predictions, **kwargs):
    asked = []
    frame = sequence.frame
    sequence.frame = lambda index: asked.append(index) or frame(index)
    draw_difference(sequence, predictions, **kwargs)
    return asked


def test_the_first_frame_and_of_each_span_the_one_where_one_is_right_and_the_other_wrong(make_sequence):
    sequence = make_sequence(num_frames=13)
    right, wrong = right_and_wrong(sequence, [3, 7, 8, 12])
    # Behind the first frame lie spans 1-3, 4-6, 7-9, 10-12; nothing differs in the second, of which the first frame stands.
    assert frames_drawn(sequence, {"right": right, "wrong": wrong}) == [0, 3, 4, 7, 12]
    assert frames_drawn(sequence, {"wrong": wrong, "right": right}, num_frames=2) == [0, 3]


def test_frames_that_do_not_show_the_target_tell_nothing(make_sequence):
    visible = np.ones(7, dtype=bool)
    visible[3] = False
    sequence = make_sequence(num_frames=7, visible=visible)
    sequence.boxes[4] = np.nan
    right = np.nan_to_num(sequence.boxes, nan=10).astype(np.float64)
    wrong = right + [50, 0, 0, 0]
    wrong[[1, 2, 6]] = right[[1, 2, 6]]
    assert frames_drawn(sequence, {"right": right, "wrong": wrong}, num_frames=2) == [0, 5]


def test_where_both_are_wrong_the_frame_counts_in_which_they_are_apart(make_sequence):
    sequence = make_sequence(num_frames=5)
    first = sequence.boxes + np.array([60.0, 0, 0, 0])
    second = first.copy()
    second[3] += [30, 0, 0, 0]
    assert frames_drawn(sequence, {"first": first, "second": second}, num_frames=2) == [0, 3]


def test_a_short_sequence_is_drawn_whole(make_sequence):
    sequence = make_sequence(num_frames=3)
    right, wrong = right_and_wrong(sequence, [1])
    assert frames_drawn(sequence, {"right": right, "wrong": wrong}, num_frames=5) == [0, 1, 2]


def test_all_trackers_are_drawn(make_sequence):
    sequence = make_sequence()
    right, wrong = right_and_wrong(sequence, [2])
    two = draw_difference(sequence, {"right": right, "wrong": wrong})
    three = draw_difference(sequence, {"right": right, "wrong": wrong, "third": right + [0, 20, 0, 0]})
    assert two.tobytes() != three.tobytes()


def test_sequences_in_which_the_first_two_differ_most_come_first(make_sequence):
    sequences = [make_sequence(name) for name in ("same", "little", "much", "some")]
    wrong_frames = {"same": [], "little": [5], "much": [1, 2, 3, 4, 5], "some": [1, 2]}
    first, second = {}, {}
    for sequence in sequences:
        first[sequence.name], second[sequence.name] = right_and_wrong(sequence, wrong_frames[sequence.name])
    third = {name: boxes + [60, 0, 0, 0] for name, boxes in first.items()}
    predictions = {"first": first, "second": second, "third": third}
    assert [s.name for s in most_different(sequences, predictions)] == ["much", "some", "little"]
    assert [s.name for s in most_different(sequences, predictions, num_sequences=1)] == ["much"]
    del second["much"]
    assert [s.name for s in most_different(sequences, predictions)] == ["some", "little"]


def test_the_mean_is_over_frames_that_show_the_target(make_sequence):
    """Else a target that is seldom seen could never be the one in which trackers differ most."""
    seldom = make_sequence("seldom", visible=[True, True, False, False, False, False])
    often = make_sequence("often")
    gone = np.array([[80, 50, 4, 4]] * 6, dtype=np.float32)
    half = often.boxes * [1, 1, 0.5, 1]
    predictions = {
        "right": {"seldom": seldom.boxes, "often": often.boxes},
        "wrong": {"seldom": gone, "often": half},
    }
    assert [sequence.name for sequence in most_different([often, seldom], predictions)] == ["seldom", "often"]


def test_what_cannot_be_compared_is_refused(make_sequence):
    sequence = make_sequence()
    with pytest.raises(ValueError, match="at least two trackers to tell apart, got 1"):
        draw_difference(sequence, {"only": sequence.boxes})
    with pytest.raises(ValueError, match="at least two trackers to tell apart, got 1"):
        most_different([sequence], {"only": {}})
    with pytest.raises(ValueError, match=r"of square must have shape \(6, 4\).*got \(5, 4\)"):
        draw_difference(sequence, {"a": sequence.boxes, "b": sequence.boxes[:5]})
    with pytest.raises(ValueError, match="`num_frames` must be at least 2"):
        draw_difference(sequence, {"a": sequence.boxes, "b": sequence.boxes}, num_frames=1)
