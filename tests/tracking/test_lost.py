import pytest

from ct_hf.tracking import LostWatch


def run(scores, **arguments):
    watch = LostWatch(**arguments)
    return [watch.update(score) for score in scores]


def test_lost_from_the_last_of_enough_low_scores_on():
    assert run([0.9, 0.1, 0.1, 0.1, 0.1], threshold=0.3, patience=3) == [False, False, False, True, True]


def test_one_sure_frame_finds_it_again_and_starts_the_count_anew():
    scores = [0.1, 0.1, 0.3, 0.1, 0.1, 0.1, 0.9, 0.1]
    lost = [False, True, False, False, True, True, False, False]
    assert run(scores, threshold=0.3, patience=2) == lost


def test_a_score_at_the_threshold_is_not_low():
    assert run([0.25, 0.2499], threshold=0.25, patience=1) == [False, True]


def test_defaults_are_those_of_the_docstring():
    watch = LostWatch()
    assert (watch.threshold, watch.patience) == (0.25, 5)
    assert "defaults to 0.25" in LostWatch.__doc__ and "defaults to 5" in LostWatch.__doc__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 25}, r"`threshold` must be in \[0, 1\].*got 25"),
        ({"threshold": float("nan")}, r"`threshold` must be in \[0, 1\].*got nan"),
        ({"patience": 0}, "`patience` must be at least 1 frame, got 0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        LostWatch(**arguments)


def test_a_score_that_is_no_number_never_passes_silently():
    with pytest.raises(ValueError, match="`score` must be a finite number, got nan"):
        LostWatch().update(float("nan"))
