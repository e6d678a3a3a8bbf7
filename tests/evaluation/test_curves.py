import numpy as np
import pytest

from ct_hf.evaluation import PROTOCOLS, score_sequences
from ct_hf.evaluation.curves import score_curves


RNG = np.random.default_rng(0)
TRUTHS = [np.tile([20.0, 20.0, 30.0, 24.0], (count, 1)) for count in (12, 30)]
BOXES = [truth + RNG.normal(0, 6, truth.shape) for truth in TRUTHS]
SIZES = [(100, 80)] * 2


def judged(protocol):
    arguments = {"protocol": protocol, "image_sizes": SIZES}
    return score_curves(BOXES, TRUTHS, **arguments), score_sequences(BOXES, TRUTHS, **arguments)


@pytest.mark.parametrize("protocol", ["otb", "lasot", "uav", "visible"])
def test_figures_of_one_pass_evaluation_are_on_its_curves(protocol):
    curves, figures = judged(protocol)
    assert list(curves) == ["success", "precision", "norm_precision"]
    assert np.mean(curves["success"].values) == pytest.approx(figures["auc"])
    for curve, threshold, figure in (
        ("success", 0.5, "op50"),
        ("success", 0.75, "op75"),
        ("precision", 20, "precision"),
        ("norm_precision", 0.2, "norm_precision"),
    ):
        place = np.argmin(np.abs(np.array(curves[curve].thresholds) - threshold))
        assert curves[curve].thresholds[place] == pytest.approx(threshold)
        assert curves[curve].values[place] == pytest.approx(figures[figure])


def test_figures_of_trackingnet_are_areas_under_its_curves():
    curves, figures = judged("trackingnet")
    for name, curve in curves.items():
        area = np.trapezoid(curve.values, curve.thresholds) / curve.thresholds[-1]
        assert area == pytest.approx(figures[name])
    assert curves["precision"].thresholds[-1] == 50
    assert curves["norm_precision"].thresholds[-1] == 0.5


def test_curve_of_got10k_weighs_each_frame_alike():
    curves, figures = judged("got10k")
    success = curves["success"]
    assert list(curves) == ["success"] and len(success.thresholds) == 101
    assert success.values[50] == pytest.approx(figures["sr50"])
    assert success.values[75] == pytest.approx(figures["sr75"])
    # A frame of overlap v is above the v * 100 first thresholds, so the sum of the curve is the overlap but for its steps.
    assert np.mean(success.values) == pytest.approx(figures["ao"], abs=1)


def test_got10k_without_a_frame_that_counts_has_no_curve():
    covers = [np.zeros(len(truth)) for truth in TRUTHS]
    assert score_curves(BOXES, TRUTHS, protocol="got10k", cover=covers, image_sizes=SIZES) == {}


def test_every_protocol_has_curves_and_wrong_arguments_are_refused_as_for_figures():
    for protocol in PROTOCOLS:
        assert "success" in judged(protocol)[0]
    with pytest.raises(ValueError, match="`protocol` must be one of"):
        score_curves(BOXES, TRUTHS, protocol="vot")
    with pytest.raises(ValueError, match="`predictions` has 1 sequences"):
        score_curves(BOXES[:1], TRUTHS, protocol="otb")
