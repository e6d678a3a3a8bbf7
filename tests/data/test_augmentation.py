import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_hf.data import Augmentation


NOTHING = {"grayscale": 0.0, "flip": 0.0, "crop_flip": 0.0, "brightness": 0.0}


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8),
        rng.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8),
        np.array([[0.3, 0.5, 0.2, 0.4], [0.6, 0.5, 0.2, 0.4]]),
        np.array([[0.25, 0.5, 0.1, 0.2], [0.5, 0.5, 0.1, 0.2], [0.7, 0.4, 0.1, 0.2]]),
    )


def augment(pair, seed=0, **options):
    return Augmentation(**{**NOTHING, **options})(np.random.default_rng(seed), *pair)


def test_nothing_asked_for_nothing_changed(pair):
    for before, after in zip(pair, augment(pair), strict=True):
        np.testing.assert_array_equal(before, after)


def mirrored(pair, changed):
    """Whether templates and search crops, all of a kind, are mirrored; checks that boxes follow."""
    flags = []
    for before, after, box_before, box_after in zip(pair[:2], changed[:2], pair[2:], changed[2:], strict=True):
        flipped = np.array_equal(after, before[..., ::-1])
        assert flipped or np.array_equal(after, before)
        expected = box_before.copy()
        expected[..., 0] = 1 - expected[..., 0] if flipped else expected[..., 0]
        np.testing.assert_allclose(box_after, expected)
        flags.append(flipped)
    return tuple(flags)


def test_joint_flip_mirrors_everything(pair):
    assert mirrored(pair, augment(pair, flip=1.0)) == (True, True)


def test_joint_and_own_flip_cancel(pair):
    assert mirrored(pair, augment(pair, flip=1.0, crop_flip=1.0)) == (False, False)


def test_own_flips_are_independent_of_each_other(pair):
    flags = [mirrored(pair, augment(pair, seed, crop_flip=0.5)) for seed in range(200)]
    for outcome in [(False, False), (False, True), (True, False), (True, True)]:
        assert 25 < flags.count(outcome) < 80


def test_probabilities_are_those_of_the_fields(pair):
    assert 70 < sum(mirrored(pair, augment(pair, seed, flip=0.3))[0] for seed in range(300)) < 115
    gray = [np.ptp(augment(pair, seed, grayscale=0.2)[1].astype(int), axis=1).max() == 0 for seed in range(300)]
    assert 38 < sum(gray) < 85


def test_grayscale_turns_all_crops_and_keeps_the_luma(pair):
    templates, search, *_ = augment(pair, grayscale=1.0)
    for before, after in ((pair[0], templates), (pair[1], search)):
        assert after.dtype == np.uint8 and after.shape == before.shape
        luma = np.moveaxis(before, 1, -1) @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(after, np.repeat(luma[:, None], 3, axis=1), atol=0.51)


@given(seed=st.integers(0, 2**32), brightness=st.floats(0, 0.9))
@settings(max_examples=20, deadline=None)
def test_brightness_is_one_factor_for_each_crop(seed, brightness):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, None], 3, axis=0)
    pair = (np.stack([ramp] * 2), ramp[None], np.full((2, 4), 0.5), np.full((1, 4), 0.5))
    templates, searches, *_ = augment(pair, seed, brightness=brightness)
    for crop in (*templates, *searches):
        assert crop.dtype == np.uint8
        factor = crop[0, 0, 100] / 100
        assert 1 - brightness - 0.01 <= factor <= 1 + brightness + 0.01
        np.testing.assert_allclose(crop, np.clip(ramp * factor, 0, 255), atol=0.005 * 255 + 0.51)


def test_crops_get_different_factors():
    plain = np.full((3, 4, 4), 200, dtype=np.uint8)
    pair = (np.stack([plain] * 2), np.stack([plain] * 2), np.full((2, 4), 0.5), np.full((2, 4), 0.5))
    templates, searches, *_ = augment(pair, brightness=0.2)
    assert len({crop[0, 0, 0] for crop in (*templates, *searches)}) == 4


def test_arguments_are_left_alone(pair):
    copies = [value.copy() for value in pair]
    Augmentation(grayscale=1.0, flip=1.0, crop_flip=0.0)(np.random.default_rng(0), *pair)
    for value, copy in zip(pair, copies, strict=True):
        np.testing.assert_array_equal(value, copy)


def test_defaults_are_the_original_recipe():
    assert Augmentation() == Augmentation(grayscale=0.05, flip=0.5, crop_flip=0.5, brightness=0.2)


def test_brightness_goes_both_ways(pair):
    means = [augment(pair, seed, brightness=0.5)[1].mean() for seed in range(20)]
    assert min(means) < pair[1].mean() < max(means)
