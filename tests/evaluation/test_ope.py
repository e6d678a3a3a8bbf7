"""Each rule of OSTrack's analysis on a case small enough to count by hand."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_hf.evaluation import score_sequences


NAMES = ("auc", "precision", "norm_precision", "op50", "op75")
OSTRACK = ("otb", "lasot", "uav")
ALL = (*OSTRACK, "visible")
PERFECT_AUC = 100 * 20 / 21
NAN = [np.nan] * 4

sides = st.floats(1, 500).map(lambda side: round(side * 8) / 8)
coordinates = st.floats(-500, 500).map(lambda place: round(place * 8) / 8)  # a grid that keeps every sum exact
boxes = st.lists(st.tuples(coordinates, coordinates, sides, sides), min_size=1, max_size=12).map(np.array)


def squares(count, side=10.0):
    return np.tile(np.array([[0.0, 0.0, side, side]]), (count, 1))


def score(predictions, ground_truth, protocol="otb", visible=None):
    flags = None if visible is None else [visible]
    result = score_sequences([predictions], [ground_truth], protocol=protocol, visible=flags)
    assert result["per_sequence"] == [{name: result[name] for name in NAMES}]
    return {name: result[name] for name in NAMES}


@pytest.mark.parametrize("protocol", ALL)
def test_score_by_hand(protocol):
    # Frame 0 counts as a hit although it is missed: IoU 1, above 20 of the 21 thresholds.
    # Frame 1: 50 of 150 shared, IoU 1/3, above 0, 0.05, ..., 0.30, which are 7. Centre 5 px off, 0.5 of the width.
    # Frame 2: no overlap: above none. Centre 30 px off, 3 widths.
    predictions = np.array([[400, 400, 10, 10], [5, 0, 10, 10], [30, 0, 10, 10]])
    figures = score(predictions, squares(3), protocol)
    assert figures["auc"] == pytest.approx(100 * 27 / 63)
    assert figures["precision"] == pytest.approx(200 / 3)
    for name in ("norm_precision", "op50", "op75"):
        assert figures[name] == pytest.approx(100 / 3)


def test_success_is_strict():
    # IoU 0.5, 0.52, 0.75 and 0.78: above 10, 11, 15 and 16 thresholds; 0.5 and 0.75 are not above themselves.
    figures = score([[0, 0, 10, 10], *([0, 0, 10, height] for height in (5, 5.2, 7.5, 7.8))], squares(5))
    assert figures["auc"] == pytest.approx(100 * (20 + 10 + 11 + 15 + 16) / 105)
    assert figures["op50"] == pytest.approx(80)
    assert figures["op75"] == pytest.approx(40)


def test_precision_is_not_strict():
    # Target 100 wide: centres 20, 20.5 and 19.5 px off, and so 0.20, 0.205 and 0.195. Two of them and frame 0 are hits.
    predictions = squares(4, 100)
    predictions[1:, 0] = [20, 20.5, 19.5]
    figures = score(predictions, squares(4, 100))
    assert figures["precision"] == figures["norm_precision"] == 75


def test_precision_is_euclidean_between_centres():
    # 12 right and 16 down are 20; then a box whose corner is 25 off in both directions, but not its centre.
    figures = score([[0, 0, 10, 10], [12, 16, 10, 10], [-25, -25, 60, 60]], squares(3))
    assert figures["precision"] == 100


def test_norm_precision_is_in_units_of_the_target():
    # Width 100 and height 10: 20 to the right is 0.2, 3 down is 0.3.
    truth = np.tile(np.array([[0.0, 0.0, 100.0, 10.0]]), (3, 1))
    figures = score(truth + [[0, 0, 0, 0], [20, 0, 0, 0], [0, 3, 0, 0]], truth)
    assert figures["norm_precision"] == pytest.approx(200 / 3)


def test_nothing_is_clipped_to_the_image():
    truth = np.tile(np.array([[-20.0, 0.0, 30.0, 10.0]]), (2, 1))
    # Beyond the left edge they differ: 100 shared of 300.
    assert score([truth[0], [0, 0, 10, 10]], truth)["auc"] == pytest.approx(100 * (20 + 7) / 42)


def test_rounding_of_a_fractional_first_frame_is_the_originals():
    # By its corners this box is 1.0000000000000007 times itself: above the last threshold too.
    truth = np.array([[1.1, 1.1, 0.3, 0.3]])
    assert score(truth, truth)["auc"] == 100


@pytest.mark.parametrize("protocol", ALL)
def test_prediction_without_area_is_replaced_by_the_one_before(protocol):
    # Frames 2 and 3 repeat frame 1, which is IoU 1/3: 20 + 3 * 7 thresholds of 4 * 21.
    predictions = [[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 0, 10], [0, 0, 10, 0]]
    assert score(predictions, squares(4), protocol)["auc"] == pytest.approx(100 * 41 / 84)


def test_frame_one_repeats_what_was_predicted_in_frame_zero():
    # Not the ground truth that stands in frame 0 later: IoU 1/3.
    assert score([[5, 0, 10, 10], [0, 0, 0, 0]], squares(2))["auc"] == pytest.approx(100 * 27 / 42)


def test_prediction_without_area_stays_where_the_ground_truth_is_nan():
    # Frame 2 repeats frame 1, which has no area itself, so it is a miss: frame 0 alone is a hit.
    predictions = [[0, 0, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]]
    truth = [[0, 0, 10, 10], NAN, [0, 0, 10, 10]]
    assert score(predictions, truth, "uav")["auc"] == pytest.approx(100 * 20 / 63)


def test_prediction_without_area_behind_the_last_frame_is_refused():
    with pytest.raises(ValueError, match=r"`predictions\[0\]` frame 2 has no area"):
        score([[0, 0, 10, 10]] * 2 + [[0, 0, 0, 0]], squares(2))


@pytest.mark.parametrize("protocol", ["otb", "uav"])
def test_short_prediction_is_padded_with_zeros(protocol):
    # Frames 1 and 2 are a box of zeros: no overlap, its centre -0.5 is 5 * sqrt(2) px and 0.71 of the target off.
    figures = score(squares(1), squares(3), protocol)
    assert figures["auc"] == pytest.approx(100 * 20 / 63)
    assert figures["precision"] == 100
    assert figures["norm_precision"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("protocol", ["lasot", "visible"])
def test_short_prediction_is_refused(protocol):
    with pytest.raises(ValueError, match=r"`predictions\[0\]` has 1 frames but `ground_truths\[0\]` has 3"):
        score(squares(1), squares(3), protocol)


@pytest.mark.parametrize("protocol", OSTRACK)
def test_long_prediction_is_cut(protocol):
    assert score(squares(5), squares(3), protocol) == score(squares(3), squares(3), protocol)


def test_long_prediction_is_refused_by_our_own_protocol():
    with pytest.raises(ValueError, match=r"`predictions\[0\]` has 5 frames but `ground_truths\[0\]` has 3"):
        score(squares(5), squares(3), "visible")


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("frame", [0, 2])
@pytest.mark.parametrize("row", [NAN, [0, 0, -1, 10], [0, 0, 10, -1], [0, np.nan, 10, 10]])
def test_broken_prediction_is_refused_by_frame(protocol, frame, row):
    predictions = squares(4)
    predictions[frame] = row
    with pytest.raises(ValueError, match=rf"`predictions\[0\]` frame {frame}: got .* no negative size"):
        score(predictions, squares(4), protocol)


def test_broken_prediction_behind_the_last_frame_is_refused_too():
    with pytest.raises(ValueError, match=r"`predictions\[0\]` frame 2"):
        score(np.concatenate([squares(2), [NAN]]), squares(2))


# A target that is absent in frame 1 of 3; frame 2 has IoU 1/3, its centre 0.5 widths off. The tracker is far off in frame 1.
LOST = np.array([[0.0, 0, 10, 10], [500, 500, 10, 10], [5, 0, 10, 10]])


@pytest.mark.parametrize(
    ("protocol", "hits", "norm_hits"),
    [("otb", 2, 2), ("lasot", 2, 2), ("uav", 3, 2)],
)
def test_ground_truth_without_area(protocol, hits, norm_hits):
    """A miss that stays in the denominator; but a hit in normalised precision, and for UAV in precision."""
    truth = squares(3)
    truth[1] = 0
    figures = score(LOST, truth, protocol)
    assert figures["auc"] == pytest.approx(100 * 27 / 63)
    assert figures["precision"] == pytest.approx(100 * hits / 3)
    assert figures["norm_precision"] == pytest.approx(100 * norm_hits / 3)


def test_lasot_counts_a_hidden_frame_as_a_miss_everywhere():
    truth = squares(3)
    hidden = score(truth, truth, "lasot", visible=[1, 0, 1])
    assert hidden["auc"] == pytest.approx(100 * 40 / 63)
    assert hidden["precision"] == hidden["norm_precision"] == hidden["op75"] == pytest.approx(200 / 3)
    truth[1] = 0
    assert score(squares(3), truth, "lasot", visible=[1, 0, 1]) == hidden


@pytest.mark.parametrize("protocol", ["otb", "uav"])
def test_otb_and_uav_have_no_flags(protocol):
    assert score(LOST, squares(3), protocol, visible=[1, 0, 1]) == score(LOST, squares(3), protocol)


def test_nan_in_the_ground_truth_is_a_miss_or_a_hit_for_uav():
    # Miss in overlap, hit in both distances.
    figures = score(LOST, [[0, 0, 10, 10], NAN, [0, 0, 10, 10]], "uav")
    assert figures["auc"] == pytest.approx(100 * 27 / 63)
    assert figures["precision"] == 100
    assert figures["norm_precision"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("protocol", ["otb", "lasot"])
def test_nan_in_the_ground_truth_is_refused_elsewhere(protocol):
    with pytest.raises(ValueError, match=r"`ground_truths\[0\]` frame 1: got \[nan, .*protocol `" + protocol):
        score(LOST, [[0, 0, 10, 10], NAN, [0, 0, 10, 10]], protocol, visible=[1, 0, 1])


def test_half_a_box_is_refused_by_uav():
    with pytest.raises(ValueError, match=r"`ground_truths\[0\]` frame 1: got \[nan, 0.0, 10.0, 10.0\]"):
        score(LOST, [[0, 0, 10, 10], [np.nan, 0, 10, 10], [0, 0, 10, 10]], "uav")


@pytest.mark.parametrize("absent", ["flag", "nan", "half nan", "no area"])
def test_visible_leaves_absent_frames_out(absent):
    truth, visible = squares(3), np.array([True, True, True])
    if absent == "flag":
        visible[1] = False
    elif absent == "half nan":
        truth[1, :2] = np.nan
    else:
        truth[1] = np.nan if absent == "nan" else 0
    # What stays: the first frame (20 thresholds) and one of IoU 1/3 (7 thresholds).
    figures = score(LOST, truth, "visible", visible)
    assert figures["auc"] == pytest.approx(100 * 27 / 42)
    assert figures["precision"] == 100
    assert figures["norm_precision"] == figures["op50"] == 50


def test_no_visible_frame_is_refused_or_warned_about(caplog):
    with pytest.raises(ValueError, match=r"`ground_truths\[0\]` shows the target in no frame"):
        score(squares(2), squares(2), "visible", np.zeros(2))
    with caplog.at_level(logging.WARNING):
        figures = score(squares(2), squares(2), "lasot", np.zeros(2))
    assert set(figures.values()) == {0}
    assert "`ground_truths[0]` shows the target in no frame" in caplog.text


@given(boxes, st.sampled_from(ALL))
def test_perfect_tracking(truth, protocol):
    figures = score(truth, truth, protocol)
    assert figures["auc"] == pytest.approx(PERFECT_AUC)
    assert {figures[name] for name in NAMES[1:]} == {100}


@given(boxes, st.sampled_from(ALL))
def test_losing_the_target_leaves_the_first_frame(truth, protocol):
    figures = score(truth + np.array([1e4, 0, 0, 0]), truth, protocol)
    assert figures["auc"] == pytest.approx(PERFECT_AUC / len(truth))
    assert all(figures[name] == pytest.approx(100 / len(truth)) for name in NAMES[1:])


@given(boxes, coordinates, coordinates)
def test_score_does_not_depend_on_where_the_origin_is(truth, x, y):
    predictions, shift = truth + np.array([2, -1, 1, 3]), np.array([x, y, 0, 0])
    moved, still = score(predictions + shift, truth + shift), score(predictions, truth)
    assert moved["auc"] == still["auc"] and moved["precision"] == still["precision"]


@given(boxes, st.integers(0, 2**32 - 1))
def test_protocols_agree_where_the_target_is_always_there(truth, seed):
    predictions = truth + np.random.default_rng(seed).normal(0, 5, truth.shape)
    predictions[:, 2:] = np.abs(predictions[:, 2:])
    first, *others = (score(predictions, truth, protocol) for protocol in ALL)
    assert all(other == first for other in others)


def test_each_sequence_has_weight_one():
    # A long sequence and a short one: the mean is in the middle, not nearer to the long one.
    result = score_sequences(
        [squares(2), squares(50) + np.array([1e3, 0, 0, 0])], [squares(2), squares(50)], protocol="otb"
    )
    assert result["auc"] == pytest.approx((PERFECT_AUC + PERFECT_AUC / 50) / 2)
    assert result["precision"] == result["op75"] == pytest.approx((100 + 2) / 2)
    assert [figures["precision"] for figures in result["per_sequence"]] == [100, 2]
