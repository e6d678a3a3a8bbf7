import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_hf.evaluation import (
    SequenceScore,
    iou,
    mean_score,
    norm_precision_curve,
    precision_curve,
    score_sequence,
    success_curve,
)


PERFECT_AUC = 100 * 20 / 21
# A table of scores by OSTrack's own analysis code, kept outside of the repository.
CASES = Path(__file__).parents[2].parent / "shared" / "data" / "metric_cases.json"

sides = st.floats(1, 500)
coordinates = st.floats(-500, 500)
boxes = st.lists(st.tuples(coordinates, coordinates, sides, sides), min_size=1, max_size=12).map(np.array)


def two_boxes(count=2):
    return np.tile(np.array([[0.0, 0.0, 10.0, 10.0]]), (count, 1))


def test_iou_by_hand():
    a = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0]])
    b = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 10, 10], [2, 2, 5, 5], [0, 0, 0, 0]])
    # equal; 50 shared of 150; touching; 25 inside of 100; two without area
    assert iou(a, b).tolist() == pytest.approx([1, 1 / 3, 0, 0.25, 0])


def test_iou_of_whole_pixels_in_integers():
    assert iou(np.array([[0, 0, 4, 4]]), np.array([[0, 0, 4, 2]])).tolist() == [0.5]


@given(boxes, boxes)
def test_iou_is_symmetric_and_bounded(a, b):
    length = min(len(a), len(b))
    forth, back = iou(a[:length], b[:length]), iou(b[:length], a[:length])
    assert np.allclose(forth, back)
    assert ((forth >= 0) & (forth <= 1)).all()


@given(boxes)
def test_iou_of_equal_boxes_is_not_above_one(a):
    # Regression: rounding made it 1 + 2e-16 for fractional sizes, a hit at the strict threshold 1.
    assert (iou(a, a) <= 1).all()


def test_success_is_strict():
    # IoU 1/2: above 0, 0.05, ..., 0.45, which are 10 thresholds, and not above 0.5.
    curve = success_curve(np.array([[0, 0, 10, 5]]), np.array([[0, 0, 10, 10]]))
    assert curve.tolist() == [1.0] * 10 + [0.0] * 11


def test_precision_is_not_strict():
    # Centres 12 right and 16 down, thus 20 pixels off; the other is 20.5 off.
    curve = precision_curve(np.array([[12, 16, 10, 10], [20.5, 0, 10, 10]]), two_boxes())
    assert curve[19] == 0
    assert curve[20] == 0.5
    assert curve[21] == 1


def test_centres_not_corners_are_compared():
    # The corner is 5 off in both directions, the centre is not.
    curve = precision_curve(np.array([[-5, -5, 20, 20]]), np.array([[0, 0, 10, 10]]))
    assert curve[0] == 1


def test_norm_precision_is_in_units_of_the_target():
    # Width 100 and height 10: 20 to the right is 0.2, 3 down is 0.3.
    ground_truth = np.tile(np.array([[0.0, 0.0, 100.0, 10.0]]), (2, 1))
    curve = norm_precision_curve(np.array([[20, 0, 100, 10], [0, 3, 100, 10]]), ground_truth)
    assert curve[19] == 0
    assert curve[20] == 0.5
    assert curve[30] == 1


def test_score_by_hand():
    # Frame 0 counts as a hit although it is missed: IoU 1, above 20 of the 21 thresholds.
    # Frame 1: 50 of 150 shared, IoU 1/3, above 0, 0.05, ..., 0.30, which are 7. Centre 5 px off, 0.5 of the width.
    # Frame 2: no overlap: above none. Centre 30 px off, 3 widths.
    # AUC (20 + 7 + 0) / (3 * 21); precision 2 of 3; normalised precision 1 of 3.
    predictions = np.array([[400, 400, 10, 10], [5, 0, 10, 10], [30, 0, 10, 10]])
    score = score_sequence(predictions, two_boxes(3))
    assert score.auc == pytest.approx(100 * 27 / 63)
    assert score.precision == pytest.approx(200 / 3)
    assert score.norm_precision == pytest.approx(100 / 3)


def test_thresholds_that_are_reported():
    # Target 100 wide: centres 20, 20.5 and 19.5 px off, and so 0.20, 0.205 and 0.195. Two of them and frame 0 are hits.
    ground_truth = np.tile(np.array([[0.0, 0.0, 100.0, 100.0]]), (4, 1))
    predictions = ground_truth.copy()
    predictions[1:, 0] = [20, 20.5, 19.5]
    score = score_sequence(predictions, ground_truth)
    assert score.precision == score.norm_precision == 75


@pytest.mark.parametrize("absent", ["flag", "nan", "half nan", "no area"])
def test_absent_frames_are_left_out(absent):
    predictions = np.array([[0, 0, 10, 10], [500, 500, 10, 10], [5, 0, 10, 10]])
    ground_truth, visible = two_boxes(3), np.array([True, True, True])
    if absent == "flag":
        visible[1] = False
    elif absent == "half nan":
        ground_truth[1, :2] = np.nan
    else:
        ground_truth[1] = np.nan if absent == "nan" else 0
    # What stays: the first frame (20 thresholds) and one of IoU 1/3 (7 thresholds).
    score = score_sequence(predictions, ground_truth, visible)
    assert score == SequenceScore(auc=pytest.approx(100 * 27 / 42), precision=100, norm_precision=50)


def test_prediction_without_area_is_replaced_by_the_one_before():
    # Frames 2 and 3 repeat frame 1, which is IoU 1/3: 20 + 3 * 7 thresholds of 4 * 21.
    predictions = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 0, 10], [0, 0, 0, 0]])
    assert score_sequence(predictions, two_boxes(4)).auc == pytest.approx(100 * 41 / 84)


@given(boxes)
def test_perfect_tracking(ground_truth):
    score = score_sequence(ground_truth, ground_truth)
    assert score.auc == pytest.approx(PERFECT_AUC)
    assert score.precision == score.norm_precision == 100


@given(boxes)
def test_losing_the_target_leaves_the_first_frame(ground_truth):
    predictions = ground_truth + np.array([1e4, 0, 0, 0])
    score = score_sequence(predictions, ground_truth)
    assert score.auc == pytest.approx(PERFECT_AUC / len(ground_truth))
    assert score.precision == score.norm_precision == pytest.approx(100 / len(ground_truth))


@given(boxes, st.floats(-100, 100), st.floats(-100, 100))
def test_score_does_not_depend_on_where_the_origin_is(ground_truth, x, y):
    # Boxes on a grid of 1/8 pixel keep every sum exact.
    ground_truth = np.round(ground_truth * 8) / 8
    shift = np.round(np.array([x, y, 0, 0]) * 8) / 8
    predictions = ground_truth + np.array([2, -1, 1, 3])
    assert score_sequence(predictions + shift, ground_truth + shift) == score_sequence(predictions, ground_truth)


def test_arguments_are_not_changed():
    predictions, ground_truth = np.array([[3.0, 0, 10, 10], [0, 0, 0, 0]]), two_boxes()
    score_sequence(predictions, ground_truth)
    assert predictions.tolist() == [[3, 0, 10, 10], [0, 0, 0, 0]]
    assert ground_truth.tolist() == two_boxes().tolist()


@pytest.mark.parametrize("row", [[np.nan] * 4, [0, 0, -1, 10], [0, 0, 10, -1], [np.inf, 0, 10, 10]])
def test_bad_prediction_is_refused_by_frame(row):
    predictions = two_boxes(4)
    predictions[2] = row
    with pytest.raises(ValueError, match="`predictions` must be finite .* in frame 2"):
        score_sequence(predictions, two_boxes(4))


def test_other_length_is_refused():
    with pytest.raises(ValueError, match="`predictions` has 3 rows but `ground_truth` has 4"):
        score_sequence(two_boxes(3), two_boxes(4))
    with pytest.raises(ValueError, match="`visible` has 3 rows but `ground_truth` has 4"):
        score_sequence(two_boxes(4), two_boxes(4), np.ones(3, dtype=bool))


def test_other_shape_is_refused():
    with pytest.raises(ValueError, match=r"`predictions` must have shape \(num_frames, 4\)"):
        score_sequence(np.zeros(4), two_boxes(1))


def test_sequence_without_a_visible_frame_is_refused():
    with pytest.raises(ValueError, match="in no frame"):
        score_sequence(two_boxes(), two_boxes(), np.zeros(2, dtype=bool))


def test_each_sequence_has_weight_one():
    # A long sequence and a short one: the mean is in the middle, not nearer to the long one.
    lost = score_sequence(two_boxes(50) + np.array([1e3, 0, 0, 0]), two_boxes(50))
    mean = mean_score([score_sequence(two_boxes(), two_boxes()), lost])
    assert mean.auc == pytest.approx((PERFECT_AUC + PERFECT_AUC / 50) / 2)
    assert mean.precision == mean.norm_precision == pytest.approx((100 + 2) / 2)


def test_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`scores` is empty"):
        mean_score([])


@pytest.mark.skipif(not CASES.is_file(), reason="the table of OSTrack's own scores is not beside the checkout")
def test_scores_equal_those_of_the_original_code():
    checked = []
    for case in json.loads(CASES.read_text())["cases"]:
        pairs = [(np.array(s["pred"], dtype=float), np.array(s["gt"], dtype=float)) for s in case["sequences"]]
        comparable = all(
            len(prediction) == len(truth) and np.isfinite(prediction).all() and (truth[:, 2:] > 0).all()
            for prediction, truth in pairs
        )
        if not comparable:
            continue
        mean = mean_score([score_sequence(prediction, truth) for prediction, truth in pairs])
        expected = case["expected"]["ostrack"]["otb"]
        for name in ("auc", "precision", "norm_precision"):
            assert getattr(mean, name) == pytest.approx(expected[name], abs=1e-3), (case["name"], name)
        checked.append(case["name"])
    assert len(checked) >= 13, checked
