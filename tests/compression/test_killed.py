"""Runs that are killed, and go on as if they had not been: weights, optimizer, schedule, paths, data and logs, bit for bit."""

import re

import pytest
import torch

from ct_hf.compression.checkpoints import find_faults

from .killed import run


def checkpoints_in(folder):
    """Names of the checkpoints, all of which have to be complete."""
    found = list(folder.glob("checkpoint-*"))
    assert {path.name: find_faults(path, ()) for path in found} == {path.name: [] for path in found}
    assert all((path / "complete.json").is_file() for path in found)
    return sorted(path.name for path in found)


def end_of(folder, rank=0):
    return torch.load(folder / f"end-{rank}.pt", weights_only=False)


def assert_equal(actual, expected, where=""):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected), where
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_equal(actual[key], value, f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), where
        for index, value in enumerate(expected):
            assert_equal(actual[index], value, f"{where}/{index}")
    elif hasattr(expected, "__dict__"):
        assert_equal(vars(actual), vars(expected), where)
    else:
        assert actual == expected, where


def assert_went_on(end, whole, step):
    """From the step on, on the same pairs by the same paths, to the same end."""
    assert_equal(end["steps"], [entry for entry in whole["steps"] if entry[0] >= step], "steps")
    assert_equal({**end, "steps": []}, {**whole, "steps": []})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Ends of runs that were never stopped, each made once."""
    made = {}

    def whole(scenario, processes=1):
        if scenario not in made:
            folder = tmp_path_factory.mktemp(scenario)
            run(folder, scenario, processes=processes)
            made[scenario] = [end_of(folder, rank) for rank in range(processes)]
        return made[scenario]

    return whole


KILLS = {
    "stream, in a step and between two files": (
        "stream",
        [(("in a step", 4), ["checkpoint-3"], 3), (("between two files", 6), ["checkpoint-3"], 3)],
    ),
    "stream, in a file and before its name": (
        "stream",
        [(("in a file", 3), [], 0), (("before its name", 6), ["checkpoint-3"], 6)],
    ),
    "list, in a step, while one is removed and at its end": (
        "list",
        [
            (("in a step", 5), ["checkpoint-2", "checkpoint-4"], 4),  # the best and the last
            (("while one is removed", 6), ["checkpoint-2", "checkpoint-6"], 6),
            (("at its end", 7), ["checkpoint-2", "checkpoint-7"], 7),
        ],
    ),
}


@pytest.mark.parametrize("kills", KILLS)
def test_killed_time_and_again_a_run_ends_as_one_that_never_was(tmp_path, whole, kills):
    scenario, kills = KILLS[kills]
    resume = None
    for stop, left, step in kills:
        run(tmp_path, scenario, resume, stop)
        assert checkpoints_in(tmp_path) == left
        resume = step > 0
    run(tmp_path, scenario, resume=True)
    assert_went_on(end_of(tmp_path), whole(scenario)[0], step)
    assert not list(tmp_path.glob("_*")), "nothing is left of what was not finished"


def test_a_run_that_was_killed_after_its_last_step_ends_in_the_same_way(tmp_path, whole):
    run(tmp_path, "stream")
    run(tmp_path, "stream", resume=True)
    assert_went_on(end_of(tmp_path), whole("stream")[0], 7)


def test_a_checkpoint_has_its_name_once_every_process_has_written(tmp_path, whole):
    run(tmp_path, "processes", stop=("between two files", 6), processes=2, stopped=1)
    assert checkpoints_in(tmp_path) == ["checkpoint-3"]
    run(tmp_path, "processes", resume=True, processes=2)
    for rank, expected in enumerate(whole("processes", processes=2)):
        assert_went_on(end_of(tmp_path, rank), expected, 3)
    names = {path.name for path in (tmp_path / "checkpoint-7").iterdir()}
    assert {name for name in names if re.fullmatch(r"(rng|log)_state_[01]\.pth?", name)} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
        "log_state_0.pt",
        "log_state_1.pt",
    }
