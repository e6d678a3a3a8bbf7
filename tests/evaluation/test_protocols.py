import doctest
import json
import math
from pathlib import Path

import numpy as np
import pytest

from ct_hf.evaluation import PROTOCOLS, protocols, score_sequences


# A table of scores by the toolkits' own code, kept outside of the repository.
CASES = Path(__file__).parents[2].parent / "shared" / "data" / "metric_cases.json"


def squares(count):
    return np.tile(np.array([[0.0, 0.0, 10.0, 10.0]]), (count, 1))


def expected_figures(case, protocol):
    """Figures in per cent by name, `None` where the toolkit raised."""
    toolkits = case["expected"]
    if protocol == "trackingnet":
        figures, scale, names = toolkits["trackingnet_devkit"], 1, ("success", "precision", "norm_precision")
    elif protocol == "got10k":
        figures, scale, names = toolkits["got10k_toolkit"]["got10k"], 100, ("ao", "sr50", "sr75")
    else:
        figures, scale = toolkits["ostrack"][protocol], 1
        names = ("auc", "precision", "norm_precision", "op50", "op75")
    if "error" in figures:
        return None
    return {name: math.nan if figures[name] is None else scale * figures[name] for name in names}


def score_case(case, protocol):
    def column(name):
        return [sequence[name] for sequence in case["sequences"]]

    return score_sequences(
        column("pred"),
        column("gt"),
        protocol=protocol,
        visible=column("visible"),
        cover=column("cover"),
        image_sizes=column("image_size"),
    )


@pytest.mark.skipif(not CASES.is_file(), reason="the table of the toolkits' own scores is not beside the checkout")
@pytest.mark.parametrize("protocol", ["otb", "lasot", "uav", "got10k", "trackingnet"])
def test_figures_are_those_of_the_official_toolkits(protocol):
    cases = json.loads(CASES.read_text())["cases"]
    for case in cases:
        expected = expected_figures(case, protocol)
        if expected is None:
            with pytest.raises(ValueError, match=r"`(predictions|ground_truths)\[\d+\]`"):
                score_case(case, protocol)
            continue
        result = score_case(case, protocol)
        per_sequence = result.pop("per_sequence")
        assert result == pytest.approx(expected, abs=2e-3, nan_ok=True), case["name"]
        assert len(per_sequence) == len(case["sequences"])
        if protocol == "got10k":
            for figures, reference in zip(
                per_sequence, case["expected"]["got10k_toolkit"]["got10k"]["seq_wise"].values(), strict=True
            ):
                for name, value in reference.items():
                    value = math.nan if value is None else 100 * value
                    assert figures[name] == pytest.approx(value, abs=2e-3, nan_ok=True), case["name"]
    assert len(cases) >= 20


@pytest.mark.skipif(not CASES.is_file(), reason="the table of the toolkits' own scores is not beside the checkout")
def test_visible_is_ostrack_without_the_invalid_frames():
    """OSTrack can leave them out too, but then still takes one of a visible box without area for a normalised hit."""
    checked = 0
    for case in json.loads(CASES.read_text())["cases"]:
        expected = case["expected"]["ostrack_exclude_invalid"]["lasot"]
        if "error" in expected or any(len(s["pred"]) != len(s["gt"]) for s in case["sequences"]):
            continue
        result = score_case(case, "visible")
        for name in ("auc", "precision", "op50", "op75"):
            assert result[name] == pytest.approx(expected[name], abs=2e-3), case["name"]
        checked += 1
    assert checked >= 15


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_result_has_only_figures_and_the_same_of_each_sequence(protocol):
    result = score_sequences([squares(3)] * 2, [squares(3)] * 2, protocol=protocol, image_sizes=[(20, 20)] * 2)
    per_sequence = result.pop("per_sequence")
    assert per_sequence == [pytest.approx(result)] * 2
    assert all(type(value) is float for value in result.values())
    assert json.loads(json.dumps(result)) == result


def test_lists_and_none_for_nan():
    rows = [[0, 0, 10, 10], [None] * 4, [0, 0, 10, 10]]
    assert score_sequences([squares(3).tolist()], [rows], protocol="uav") == score_sequences(
        [squares(3)], [np.array(rows, dtype=float)], protocol="uav"
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arguments_are_not_changed(protocol):
    predictions, truth = np.array([[3.0, 0, 10, 10], [-5.4, 0, 0, 0]]), squares(2)
    score_sequences([predictions], [truth], protocol=protocol, image_sizes=[(5, 5)])
    assert predictions.tolist() == [[3, 0, 10, 10], [-5.4, 0, 0, 0]]
    assert truth.tolist() == squares(2).tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_infinite_numbers_are_refused(protocol):
    broken = squares(3)
    broken[1, 2] = np.inf
    with pytest.raises(ValueError, match=r"`predictions\[1\]` frame 1: got .*inf"):
        score_sequences([squares(3), broken], [squares(3)] * 2, protocol=protocol, image_sizes=[(9, 9)] * 2)
    with pytest.raises(ValueError, match=r"`ground_truths\[0\]` frame 1: got .*inf"):
        score_sequences([squares(3)], [broken], protocol=protocol, image_sizes=[(9, 9)])


def test_error_names_the_sequence():
    broken = squares(3)
    broken[2] = np.nan
    with pytest.raises(ValueError, match=r"`predictions\[1\]` frame 2"):
        score_sequences([squares(3), broken], [squares(3)] * 2, protocol="otb")


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(
        ValueError, match="`protocol` must be one of otb, lasot, uav, visible, got10k, trackingnet, got"
    ):
        score_sequences([squares(2)], [squares(2)], protocol="vot")
    with pytest.raises(ValueError, match="`ground_truths` is empty"):
        score_sequences([], [], protocol="otb")
    with pytest.raises(ValueError, match=r"`ground_truths\[0\]` has no frame"):
        score_sequences([squares(2)], [np.zeros((0, 4))], protocol="otb")
    with pytest.raises(ValueError, match="`predictions` has 2 sequences but `ground_truths` has 1"):
        score_sequences([squares(2)] * 2, [squares(2)], protocol="otb")
    with pytest.raises(ValueError, match="`visible` has 1 sequences but `ground_truths` has 2"):
        score_sequences([squares(2)] * 2, [squares(2)] * 2, protocol="otb", visible=[None])
    with pytest.raises(ValueError, match="`cover` has 2 sequences but `ground_truths` has 1"):
        score_sequences([squares(2)], [squares(2)], protocol="got10k", cover=[8, 8], image_sizes=[(9, 9)])


@pytest.mark.parametrize("rows", [np.zeros(4), np.zeros((2, 8)), [[0, 0, 10], [0, 0, 10, 10]], "boxes", None])
def test_another_shape_is_refused(rows):
    for arguments, name in (((squares(2), rows), "ground_truths"), ((rows, squares(2)), "predictions")):
        with pytest.raises(ValueError, match=rf"`{name}\[0\]` must be an array of shape \(num_frames, 4\)"):
            score_sequences([arguments[0]], [arguments[1]], protocol="otb")


@pytest.mark.parametrize("flags", [[1], [1, 1, 1], [[1], [1]], [1, None]])
def test_other_flags_are_refused(flags):
    for name, protocol in (("visible", "lasot"), ("cover", "got10k")):
        with pytest.raises(ValueError, match=rf"`{name}\[0\]` must be one number a frame, of shape \(2,\)"):
            score_sequences(
                [squares(2)], [squares(2)], protocol=protocol, image_sizes=[(9, 9)], **{name: [np.array(flags, float)]}
            )


def test_example_in_the_docstring():
    assert doctest.testmod(protocols).failed == 0
    assert doctest.testmod(protocols).attempted > 0
