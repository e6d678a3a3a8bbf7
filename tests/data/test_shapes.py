import numpy as np

from ct_hf.data.shapes import SIDE, limb, mirrored, random_outline, split_field


def test_outlines_are_diverse_and_lie_in_the_disk():
    axis = np.arange(SIDE) + 0.5 - SIDE / 2
    outside = np.hypot(axis, axis[:, None]) > SIDE / 2
    masks = [np.asarray(random_outline(np.random.default_rng(seed))) >= 128 for seed in range(200)]
    assert all(not mask[outside].any() for mask in masks)
    shares = np.array([mask.mean() for mask in masks])
    assert shares.min() > 0.02 and np.std(shares) > 0.08
    symmetric = [np.array_equal(mask, mask[:, ::-1]) for mask in masks]
    assert 0.2 < np.mean(symmetric) < 0.8
    assert np.mean([_has_hole(mask) for mask in masks]) > 0.03


def _has_hole(mask):
    """Whether a pixel that is not of the mask has the mask on all four sides."""
    left, right = np.maximum.accumulate(mask, axis=1), np.maximum.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    above, below = np.maximum.accumulate(mask, axis=0), np.maximum.accumulate(mask[::-1], axis=0)[::-1]
    return (~mask & left & right & above & below).sum() > 30


def test_mirrored_images_are_symmetric():
    outline = np.asarray(mirrored(random_outline(np.random.default_rng(1))))
    np.testing.assert_array_equal(outline, outline[:, ::-1])


def test_a_split_leaves_something_of_both():
    for seed in range(20):
        field = np.asarray(split_field(np.random.default_rng(seed)))
        assert 0.05 < (field >= 128).mean() < 0.95


def test_limbs_point_where_they_should():
    field, (left, top) = limb(angle=np.pi / 2, reach=0.5, radius=0.3, squeeze=0.3)
    rows, columns = np.nonzero(np.asarray(field) >= 128)
    assert abs(columns.mean() + left - SIDE / 2) < 2 and abs(rows.mean() + top - SIDE * 0.75) < 2
    assert np.ptp(rows) > 2 * np.ptp(columns), "it is long in the direction it points to"
