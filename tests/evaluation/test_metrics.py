import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_hf.evaluation import iou
from ct_hf.evaluation.metrics import (
    NORM_PRECISION_THRESHOLDS,
    PRECISION_THRESHOLDS,
    SUCCESS_THRESHOLDS,
    centers,
    share_above,
    share_within,
)


sides = st.floats(1, 500)
coordinates = st.floats(-500, 500)
boxes = st.lists(st.tuples(coordinates, coordinates, sides, sides), min_size=1, max_size=12).map(np.array)


def test_iou_by_hand():
    a = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0]])
    b = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 10, 10], [2, 2, 5, 5], [0, 0, 0, 0]])
    # equal; 50 shared of 150; touching; 25 inside of 100; two without area
    assert iou(a, b).tolist() == pytest.approx([1, 1 / 3, 0, 0.25, 0])


def test_iou_of_whole_pixels_in_integers():
    assert iou(np.array([[0, 0, 4, 4]]), np.array([[0, 0, 4, 2]])).tolist() == [0.5]


def test_iou_of_nan_is_nan():
    assert np.isnan(iou(np.full((1, 4), np.nan), np.array([[0, 0, 4, 2]]))).all()


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


def test_centres_are_half_a_pixel_before_the_middle():
    assert centers(np.array([[0, 0, 1, 1], [10, 20, 4, 7]])).tolist() == [[0, 0], [11.5, 23]]


def test_share_above_is_strict_and_share_within_is_not():
    values = np.array([0.5, 0.2, np.nan, 1.0])
    assert share_above(values, np.array([0.2, 0.5])).tolist() == [0.5, 0.25]
    assert share_within(values, np.array([0.2, 0.5])).tolist() == [0.25, 0.5]


def test_thresholds():
    assert len(SUCCESS_THRESHOLDS) == 21 and SUCCESS_THRESHOLDS[10] == 0.5 and SUCCESS_THRESHOLDS[-1] == 1
    assert PRECISION_THRESHOLDS.tolist() == list(range(51))
    assert len(NORM_PRECISION_THRESHOLDS) == 51 and NORM_PRECISION_THRESHOLDS[20] == 0.2
