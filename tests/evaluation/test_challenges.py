"""Each rule of the GOT-10k toolkit and of the TrackingNet devkit on a case small enough to count by hand."""

import logging
import math

import numpy as np
import pytest

from ct_hf.evaluation import score_sequences


NAN = [np.nan] * 4


def squares(count, side=10.0):
    return np.tile(np.array([[0.0, 0.0, side, side]]), (count, 1))


def got10k(predictions, truths, cover=None, size=(100, 80)):
    return score_sequences(predictions, truths, protocol="got10k", cover=cover, image_sizes=[size] * len(truths))


def trackingnet(predictions, truths):
    return score_sequences(predictions, truths, protocol="trackingnet")


class TestGot10k:
    def test_first_frame_is_dropped(self):
        # IoU 1/3 and 1; the first frame, perfect or not, does not count.
        for first in ([0, 0, 10, 10], [500, 0, 10, 10]):
            result = got10k([[first, [5, 0, 10, 10], [0, 0, 10, 10]]], [squares(3)])
            assert result["ao"] == pytest.approx(100 * (1 / 3 + 1) / 2)
            assert result["sr50"] == result["sr75"] == 50

    def test_rates_are_strict(self):
        result = got10k([[[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 7.5], [0, 0, 10, 8]]], [squares(4)])
        assert result["sr50"] == pytest.approx(200 / 3)
        assert result["sr75"] == pytest.approx(100 / 3)

    def test_boxes_are_clipped_to_the_image(self):
        # Both reach over the right edge of 100 by unlike amounts: inside they are equal.
        truth = np.tile(np.array([[90.0, 0.0, 20.0, 10.0]]), (2, 1))
        assert got10k([[truth[0], [90, 0, 50, 10]]], [truth])["ao"] == 100
        # And over the bottom, at 80.
        truth = np.tile(np.array([[0.0, 70.0, 10.0, 20.0]]), (2, 1))
        assert got10k([[truth[0], [0, 70, 10, 50]]], [truth])["ao"] == 100
        # Wholly outside: no area is left, no overlap.
        truth = np.tile(np.array([[200.0, 0.0, 10.0, 10.0]]), (2, 1))
        assert got10k([truth], [truth])["ao"] == 0

    def test_left_edge_moves_without_shrinking_the_width(self):
        # -5 moves to 0, 10 wide still: equal to the truth.
        assert got10k([[[0, 0, 10, 10], [-5, -5, 10, 10]]], [squares(2)])["ao"] == 100

    def test_arguments_are_not_clipped(self):
        truth = np.tile(np.array([[-5.0, 0.0, 200.0, 10.0]]), (2, 1))
        predictions = truth.copy()
        got10k([predictions], [truth])
        assert predictions.tolist() == truth.tolist() == [[-5, 0, 200, 10]] * 2

    def test_covered_frames_do_not_count(self):
        predictions = [[[0, 0, 10, 10], [5, 0, 10, 10], [50, 0, 10, 10]]]
        assert got10k(predictions, [squares(3)], cover=[[8, 1, 0]])["ao"] == pytest.approx(100 / 3)
        assert got10k(predictions, [squares(3)], cover=[[0, 8, 8]])["ao"] == pytest.approx(100 / 6)
        assert got10k(predictions, [squares(3)], cover=[None])["ao"] == pytest.approx(100 / 6)

    def test_each_frame_has_weight_one(self):
        # One frame of overlap 1 and four of 0.
        result = got10k([squares(2), squares(5) + [50, 0, 0, 0]], [squares(2), squares(5)])
        assert result["ao"] == result["sr50"] == result["sr75"] == 20
        assert [figures["ao"] for figures in result["per_sequence"]] == [100, 0]

    def test_nothing_that_counts_is_nan(self):
        result = got10k([squares(1), squares(3)], [squares(1), squares(3)])
        assert all(math.isnan(value) for value in result["per_sequence"][0].values())
        assert result["ao"] == 100
        assert math.isnan(got10k([squares(2)], [squares(2)], cover=[[8, 0]])["sr50"])

    def test_prediction_without_area_is_a_miss(self):
        assert got10k([[[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0]]], [squares(3)])["ao"] == 50

    def test_nan_in_the_ground_truth_spoils_the_mean(self):
        result = got10k([squares(3)], [[[0, 0, 10, 10], NAN, [0, 0, 10, 10]]])
        assert math.isnan(result["ao"])
        assert result["sr50"] == result["sr75"] == 50

    def test_nan_prediction_spoils_the_mean_and_is_warned_about(self, caplog):
        with caplog.at_level(logging.WARNING):
            result = got10k([squares(3), [[0, 0, 10, 10], NAN, [0, 0, 10, 10]]], [squares(3)] * 2)
        assert math.isnan(result["ao"])
        assert result["sr50"] == 75
        assert "`predictions[1]` is NaN or has a negative size in 1 of 3 frames, first in frame 1" in caplog.text

    @pytest.mark.parametrize("count", [2, 4])
    def test_another_length_is_refused(self, count):
        with pytest.raises(ValueError, match=rf"`predictions\[1\]` has {count} frames but `ground_truths\[1\]` has 3"):
            got10k([squares(3), squares(count)], [squares(3)] * 2)

    def test_sizes_are_needed(self):
        with pytest.raises(ValueError, match="`image_sizes` is None, but protocol `got10k` clips"):
            score_sequences([squares(2)], [squares(2)], protocol="got10k")
        for size in (None, (100,), (0, 80), (100, np.nan), "wide"):
            with pytest.raises(ValueError, match=r"`image_sizes\[0\]` must be"):
                got10k([squares(2)], [squares(2)], size=size)


class TestTrackingNet:
    def test_perfect_tracking_gives_a_hundred(self):
        result = trackingnet([squares(3)], [squares(3)])
        assert result == {
            "success": 100,
            "precision": 100,
            "norm_precision": 100,
            "per_sequence": [{"success": 100, "precision": 100, "norm_precision": 100}],
        }

    def test_areas_by_hand(self):
        # Frame 0 is a hit although it is missed. Frame 1: IoU 1/2, at least 0, ..., 0.50 (11 thresholds): by trapezoids
        # 10 steps and a half of 20. Centre 2.5 px off, a hit from the second of 21 thresholds on: 19.5 of 20. That is
        # 0.25 of the height, the eleventh threshold of 0.025: 10.5 of 20.
        result = trackingnet([[[300, 0, 10, 10], [0, 0, 10, 5]]], [squares(2)])
        assert result["success"] == pytest.approx(100 * (1 + 10.5 / 20) / 2)
        assert result["precision"] == pytest.approx(100 * (1 + 19.5 / 20) / 2)
        assert result["norm_precision"] == pytest.approx(100 * (1 + 10.5 / 20) / 2)

    def test_miss_is_a_hit_at_overlap_zero(self):
        # One threshold of 21: half a step of 20.
        result = trackingnet([[[0, 0, 10, 10], [300, 0, 10, 10]]], [squares(2)])
        assert result["success"] == pytest.approx(100 * (1 + 0.5 / 20) / 2)
        assert result["precision"] == result["norm_precision"] == 50

    def test_coordinates_are_rounded(self):
        assert trackingnet([[[0, 0, 10, 10], [0.4, -0.4, 10.4, 9.6]]], [squares(2)])["success"] == 100
        # Half to even: 0.5 to 0, 1.5 to 2.
        assert trackingnet([[[0, 0, 10, 10], [0.5, 0, 10, 10]]], [squares(2)])["success"] == 100
        truth = squares(2) + [2, 0, 0, 0]
        assert trackingnet([[truth[0], [1.5, 0, 10, 10]]], [truth])["success"] == 100
        # The ground truth too.
        assert trackingnet([squares(2)], [squares(2) + 0.4])["success"] == 100

    def test_normalised_precision_is_in_units_of_width_and_height(self):
        # Width 100 and height 10: 20 to the right is 0.2, the ninth threshold (12.5 of 20); 3 down is 0.3 (8.5 of 20).
        truth = np.tile(np.array([[0.0, 0.0, 100.0, 10.0]]), (3, 1))
        result = trackingnet([truth + [[0, 0, 0, 0], [20, 0, 0, 0], [0, 3, 0, 0]]], [truth])
        assert result["norm_precision"] == pytest.approx(100 * (1 + 12.5 / 20 + 8.5 / 20) / 3)

    def test_nan_is_a_miss_even_at_zero_and_is_warned_about(self, caplog):
        with caplog.at_level(logging.WARNING):
            result = trackingnet([[[0, 0, 10, 10], NAN]], [squares(2)])
        assert result["success"] == result["precision"] == result["norm_precision"] == 50
        assert "`predictions[0]` is NaN or has a negative size in 1 of 2 frames, first in frame 1" in caplog.text

    def test_half_a_prediction_overlaps_by_the_half_that_is_there(self):
        # The devkit's maxima pass over NaN; the centre is a miss.
        result = trackingnet([[[0, 0, 10, 10], [np.nan, 0, 10, 10]]], [squares(2)])
        assert result["success"] == 100
        assert result["precision"] == result["norm_precision"] == 50

    def test_nan_in_the_ground_truth_is_a_miss(self):
        assert trackingnet([squares(2)], [[[0, 0, 10, 10], NAN]])["success"] == 50

    def test_ground_truth_without_area_is_no_hit_in_normalised_precision(self):
        result = trackingnet([squares(2)], [[[0, 0, 10, 10], [4, 4, 0, 0]]])
        assert result["norm_precision"] == 50
        assert result["precision"] > 90

    def test_two_boxes_without_area_are_a_miss(self):
        assert trackingnet([[[0, 0, 10, 10], [0, 0, 0, 0]]], [[[0, 0, 10, 10], [0, 0, 0, 0]]])["success"] == 50

    def test_short_prediction_misses_and_a_long_one_is_cut(self):
        assert trackingnet([squares(1)], [squares(2)])["success"] == 50
        assert trackingnet([np.concatenate([squares(2), [[300, 0, 10, 10]]])], [squares(2)])["success"] == 100

    def test_missing_submission_counts_as_zeros_and_is_warned_about(self, caplog):
        with caplog.at_level(logging.WARNING):
            result = trackingnet([None, squares(2)], [squares(2)] * 2)
        assert result["per_sequence"][0]["success"] == pytest.approx(100 * (1 + 0.5 / 20) / 2)
        assert "`predictions` lacks sequence 0" in caplog.text

    def test_each_sequence_has_weight_one(self):
        result = trackingnet([squares(2), squares(50) + [300, 0, 0, 0]], [squares(2), squares(50)])
        assert result["precision"] == pytest.approx((100 + 2) / 2)
