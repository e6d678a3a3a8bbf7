import itertools

import numpy as np
import pytest

from ct_hf.compression import ReplacementSchedule, draw_path


def test_schedule_of_the_paper():
    """Eq. 1 with p_init 0.5 and both shares 0.1, over 500 epochs of one step."""
    schedule = ReplacementSchedule()
    expected = {
        0: 0.5,
        49: 0.5,
        50: 0.5,
        150: 0.625,
        250: 0.75,
        350: 0.875,
        449: 0.99875,
        450: 1.0,
        499: 1.0,
        500: 1.0,
    }
    assert {step: schedule.rate(step, 500) for step in expected} == pytest.approx(expected)
    assert schedule.finetune_start(500) == 450


@pytest.mark.parametrize(
    ("initial", "warmup", "finetune"), [(0.5, 0.1, 0.1), (0.2, 0.1, 0.3), (0.9, 0.0, 0.5), (0.3, 0.4, 0.0)]
)
def test_rate_follows_the_corrected_formula(initial, warmup, finetune):
    """The slope is (1 - p_init) / (1 - a1 - a2): the rate is p_init after the warm-up and reaches 1 without a jump."""
    schedule, total = ReplacementSchedule(initial, warmup, finetune), 1000
    slope = (1 - initial) / (1 - warmup - finetune)
    for step in range(total):
        share = step / total
        if share < warmup:
            expected = initial
        elif share >= 1 - finetune:
            expected = 1.0
        else:
            expected = initial + slope * (share - warmup)
        assert schedule.rate(step, total) == pytest.approx(expected, abs=1e-9), step
    rates = [schedule.rate(step, total) for step in range(total + 1)]
    assert rates == sorted(rates) and rates[0] == initial and rates[-1] == 1.0
    assert max(b - a for a, b in itertools.pairwise(rates)) < 1.001 * slope / total


def test_mean_rate_is_the_papers():
    """Eq. 2: each student layer is trained in 375 of 500 epochs."""
    assert sum(ReplacementSchedule().rate(step, 50_000) for step in range(50_000)) / 50_000 == pytest.approx(
        0.75, abs=1e-4
    )


@pytest.mark.parametrize(("finetune", "total", "start"), [(0.1, 10, 9), (0.5, 10, 5), (0.2, 7, 6), (0.0, 10, 10)])
def test_finetune_starts_where_the_rate_is_one(finetune, total, start):
    schedule = ReplacementSchedule(0.5, 0.1, finetune)
    assert schedule.finetune_start(total) == start
    assert schedule.rate(start, total) == 1.0 and schedule.rate(start - 1, total) < 1.0


def test_rate_of_one_never_replaces():
    schedule = ReplacementSchedule(initial=1.0)
    assert {schedule.rate(step, 10) for step in range(11)} == {1.0} and schedule.finetune_start(10) == 0


@pytest.mark.parametrize("initial", [0.0, -0.1, 1.01, float("nan")])
def test_first_rate_out_of_range(initial):
    with pytest.raises(ValueError, match=r"`p_init` must be in \(0, 1\]"):
        ReplacementSchedule(initial)


@pytest.mark.parametrize(("warmup", "finetune"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (1.0, 0.0), (0.7, 0.4)])
def test_shares_out_of_range(warmup, finetune):
    with pytest.raises(ValueError, match="`warmup_share` and `finetune_share`"):
        ReplacementSchedule(0.5, warmup, finetune)


# Draws


def test_draw_is_a_pure_function_of_its_key():
    keys = [*itertools.product(range(3), range(20)), *itertools.product(range(3), range(20), range(4))]
    paths = {key: draw_path(0.5, 8, *key) for key in keys}
    np.random.seed(1)
    assert {key: draw_path(0.5, 8, *key) for key in reversed(keys)} == {key: paths[key] for key in reversed(keys)}
    assert all(len(path) == 8 and all(isinstance(value, bool) for value in path) for path in paths.values())


@pytest.mark.parametrize("vary", ["seed", "step", "index"])
def test_every_part_of_the_key_matters(vary):
    keys = [tuple(value if name == vary else 7 for name in ("seed", "step", "index")) for value in range(200)]
    assert len({draw_path(0.5, 12, *key) for key in keys}) > 180


def test_large_and_negative_seeds_draw():
    assert len({draw_path(0.5, 30, seed, 0) for seed in (-1, 2**40, 2**63 - 5, 3)}) == 4


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8])
def test_frequency_of_the_student(rate):
    """Each stage is drawn alone; what is left without a student (rare with 12 stages) becomes one student stage."""
    paths = np.array([draw_path(rate, 12, 0, step) for step in range(4000)])
    none = (1 - rate) ** 12
    np.testing.assert_allclose(paths.mean(axis=0), rate + none / 12, atol=4 * np.sqrt(rate * (1 - rate) / 4000))
    correlation = np.corrcoef(paths.T)[~np.eye(12, dtype=bool)]
    assert np.abs(correlation).max() < 0.08
    assert paths.any(axis=1).all()


def test_draw_without_student_becomes_one_uniform_stage():
    """At p = 0.5 and 4 stages 1/16 of the draws are changed: the share of the student is 0.5 + 1/64 = 0.516."""
    paths = np.array([draw_path(0.5, 4, 3, step) for step in range(20_000)])
    assert paths.any(axis=1).all()
    assert paths.mean() == pytest.approx(0.515625, abs=0.004)
    np.testing.assert_allclose(paths.mean(axis=0), 0.515625, atol=0.012)
    rare = np.array([draw_path(1e-9, 4, 3, step) for step in range(4000)])
    assert (rare.sum(axis=1) == 1).all()
    np.testing.assert_allclose(rare.mean(axis=0), 0.25, atol=0.03)


def test_rate_of_one_draws_the_student():
    assert {draw_path(1.0, 6, 0, step) for step in range(500)} == {(True,) * 6}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("progressive", {0: 0.5, 20: 0.5, 35: 0.625, 50: 0.75, 65: 0.875, 80: 1.0, 99: 1.0}),
        ("cosine", {0: 0.5, 20: 0.5, 40: 0.625, 50: 0.75, 60: 0.875, 80: 1.0, 99: 1.0}),
        ("constant", {0: 0.5, 50: 0.5, 79: 0.5, 80: 1.0, 99: 1.0}),
        ("linear", {0: 0.5, 20: 0.6, 50: 0.75, 80: 0.9, 99: 0.995, 100: 1.0}),
    ],
)
def test_shapes_of_the_rise(shape, expected):
    schedule = ReplacementSchedule(0.5, 0.2, 0.2, shape)
    assert {step: schedule.rate(step, 100) for step in expected} == pytest.approx(expected)
    start = schedule.finetune_start(100)
    assert start == (100 if shape == "linear" else 80)
    assert schedule.rate(start, 100) == 1.0 and schedule.rate(start - 1, 100) < 1.0
