"""The reproduction runs what its queue says, goes on where it stopped, and compares honestly."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.utils import parameters_to_vector
from transformers import AutoModel

from ct_hf import OSTrackConfig, OSTrackModel
from ct_hf.compression import CompressionArguments, MixedTracker

from .compression.tiny import make_batch, make_student, make_tracker
from .scripts import run_here


REPRODUCE = Path(__file__).parents[1] / "examples" / "reproduce"
RUN, FRONT = REPRODUCE / "run.py", REPRODUCE / "front.py"

ROWS = {
    "from scratch": {"student": "scratch"},
    "ground truth": {"p_init": 1.0, "guidance_weight": 0.0, "mimicking_weight": 0.0},
    "all three": {},
    "teacher in train mode": {"teacher_mode": "train"},
    "prefix from the student": {"prefix": "student"},
}
QUEUED = {name: ROWS[name] for name in ("from scratch", "ground truth", "all three")}
RECIPE = {"num_stages": 2, "max_steps": 2, "per_device_train_batch_size": 2, "lr_scheduler_type": "cosine"}


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(REPRODUCE)


def write_queue(path, teacher="nobody", rows=ROWS, seeds=(0,), **table):
    table = {
        "title": "Rows",
        "reference": "all three",
        "picture": "bars",
        "rows": list(rows),
        "seeds": list(seeds),
        "judged_on": ["rendered", "real"],
        **table,
    }
    sequences = {"rendered": {"seed": 99, "count": 2}}
    content = {"teacher": str(teacher), "recipe": RECIPE, "sequences": sequences, "rows": rows}
    path.write_text(json.dumps({**content, "tables": {"supervision": table}}))
    return path


def run_queue(*arguments):
    """In a process of its own: it starts others, which import the script that they were started from."""
    command = [sys.executable, str(RUN), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny queue, run to its end."""
    folder = tmp_path_factory.mktemp("reproduce")
    sizes = {"template_size": 32, "search_size": 64, "hidden_size": 32, "intermediate_size": 64, "head_channels": 16}
    OSTrackModel(OSTrackConfig(num_hidden_layers=4, num_attention_heads=2, **sizes)).save_pretrained(
        folder / "teacher"
    )
    queue = write_queue(folder / "queue.json", folder / "teacher", QUEUED)
    printed = run_queue("--queue", queue, "--out", folder / "results", "--logs", folder / "logs")
    return folder, queue, printed


def test_every_run_is_a_line_with_its_log(finished):
    folder, _, printed = finished
    assert printed.startswith("0 of 4 runs are done.")
    lines = [json.loads(line) for line in (folder / "results" / "runs.jsonl").read_text().splitlines()]
    assert sorted(line["row"] for line in lines) == sorted(["teacher", *QUEUED])
    for line in lines:
        assert line["auc"].keys() == {"rendered"}, "real sequences were not given"
        assert len(line["per_sequence"]["rendered"]) == 2
        assert np.mean(list(line["per_sequence"]["rendered"].values())) == pytest.approx(
            line["auc"]["rendered"], abs=0.01
        )
        assert (line["cpu_seconds"] > 0) == (line["row"] != "teacher")
    logs = list((folder / "logs").glob("*.log"))
    assert len(logs) == len(QUEUED)
    assert all("train_loss" in log.read_text() for log in logs)


def test_every_switch_changes_the_training(finished, tmp_path):
    from experiments import Run
    from training import train

    students = {}
    for row, settings in ROWS.items():
        teacher = AutoModel.from_pretrained(finished[0] / "teacher")
        students[row], _ = train(Run(row, {**RECIPE, **settings}, 0, ()), teacher, tmp_path)
    weights = {row: parameters_to_vector(student.parameters()) for row, student in students.items()}
    for row, other in itertools.combinations(ROWS, 2):
        assert not torch.equal(weights[row], weights[other]), f"{row} trains as {other} does"


def test_what_is_done_is_not_run_again(finished):
    folder, queue, _ = finished
    before = (folder / "results" / "runs.jsonl").read_text()
    printed = run_here(RUN, "--queue", queue, "--out", folder / "results", "--logs", folder / "logs")
    assert "4 of 4 runs are done." in printed
    assert (folder / "results" / "runs.jsonl").read_text() == before


def test_no_run_begins_when_the_time_is_over(finished, tmp_path):
    _, queue, _ = finished
    printed = run_here(RUN, "--queue", queue, "--out", tmp_path, "--logs", tmp_path, "--minutes", 0)
    assert "4 runs are left" in printed
    assert not (tmp_path / "runs.jsonl").exists()


def test_a_run_that_fails_does_not_cost_the_others(finished, tmp_path):
    folder, _, _ = finished
    rows = {"broken": {"p_init": 2.0}, "all three": {}}
    queue = write_queue(tmp_path / "queue.json", folder / "teacher", rows)
    arguments = ("--queue", queue, "--out", tmp_path, "--logs", tmp_path, "--jobs", 1)
    with pytest.raises(
        AssertionError, match="1 runs failed; they are tried again next time. The first: broken, seed 0"
    ):
        run_queue(*arguments)
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == ["teacher", "all three"]


def test_tables_and_pictures_of_it(finished):
    folder, queue, _ = finished
    front = folder / "results" / "front.json"
    for row in ("all three", "ground truth"):
        student = folder / "front" / row
        run_here(FRONT, "--queue", queue, "--row", row, "--timed", 1, "--out", front, "--student", student)
    again = run_here(FRONT, "--queue", queue, "--row", "all three", "--timed", 1, "--out", front)
    assert "all three is done." in again
    fronts = json.loads(front.read_text())
    assert list(fronts) == ["all three", "ground truth"]
    rows = fronts["all three"]["paths"]
    assert [row["path"] for row in rows] == ["TT", "TS", "ST", "SS"]
    assert [row["layers"] for row in rows] == [4, 3, 3, 2]
    text = run_here(REPRODUCE / "tables.py", "--queue", queue, "--results", folder / "results")
    assert (folder / "results" / "README.md").read_text().strip() == text.strip()
    (line,) = [line for line in text.splitlines() if line.startswith("| ground truth")]
    results = {
        json.loads(line)["row"]: json.loads(line)
        for line in (folder / "results" / "runs.jsonl").read_text().splitlines()
    }
    gap = results["ground truth"]["auc"]["rendered"] - results["all three"]["auc"]["rendered"]
    assert f"{gap:+.1f} (" in line
    for name in ("supervision_rendered.png", "front_rendered.png"):
        with Image.open(folder / "results" / name) as picture:
            assert picture.width > 1000


def test_the_committed_queue_can_be_read():
    from experiments import Queue, read_results
    from training import SWITCHES

    queue = Queue.read(REPRODUCE / "queue.json")
    allowed = {*SWITCHES, *CompressionArguments.__dataclass_fields__}
    for run in queue.runs():
        assert run.settings.keys() <= allowed
        assert set(run.judged_on) <= {*queue.sequences, "real"}
    seeds = [sequences["seed"] for sequences in queue.sequences.values()]
    assert not set(seeds) & {run.seed for run in queue.runs()}, "nothing is judged on what it was trained on"
    results = read_results(REPRODUCE.parents[1] / "docs" / "results" / "reproduce" / "runs.jsonl")
    assert all(result["cpu_seconds"] > 0 or result["settings"]["max_steps"] == 0 for result in results)


def test_a_run_judged_on_more_sets_is_done_and_on_fewer_is_not(tmp_path):
    from experiments import Run, best_result, find_result, read_results
    from tables import on_set

    result = {"settings": {"max_steps": 2}, "seed": 0, "auc": {"rendered": 1.0, "real": 2.0}}
    (tmp_path / "runs.jsonl").write_text(json.dumps(result) + "\n")
    results = read_results(tmp_path / "runs.jsonl")
    assert find_result(Run("row", {"max_steps": 2}, 0, ("rendered",)), results) == result
    more = Run("row", {"max_steps": 2}, 0, ("rendered", "tuning"))
    assert find_result(more, results) is None and best_result(more, results) == result, (
        "to run again, but to show till then"
    )
    assert on_set(results, "real") == results and on_set(results, "tuning") == []
    assert best_result(Run("row", {"max_steps": 2}, 0, ("tuning",)), results) is None
    assert find_result(Run("row", {"max_steps": 2}, 1, ("rendered",)), results) is None
    with open(tmp_path / "runs.jsonl", "a") as file:
        file.write('{"settings": {"max_st')
    with pytest.raises(ValueError, match=r"line 2 of .*runs\.jsonl is no result"):
        read_results(tmp_path / "runs.jsonl")


def test_a_table_of_unknown_rows_is_refused(tmp_path):
    from experiments import Queue

    queue = write_queue(tmp_path / "queue.json", rows={"all three": {}}, reference="nothing")
    with pytest.raises(ValueError, match="unknown rows: nothing"):
        Queue.read(queue)


def test_a_run_shared_by_two_tables_is_run_once(tmp_path):
    from experiments import Queue

    path = write_queue(tmp_path / "queue.json", seeds=(0, 1))
    content = json.loads(path.read_text())
    content["tables"]["again"] = {**content["tables"]["supervision"], "rows": ["all three", "from scratch"]}
    path.write_text(json.dumps(content))
    queue = Queue.read(path)
    assert len(queue.runs()) == 1 + 2 * len(ROWS)
    assert [run.row for run in queue.runs(["again"])] == ["teacher", *["all three", "from scratch"] * 2]
    with pytest.raises(ValueError, match="no table is called other"):
        queue.runs(["other"])


def make_row(seeds, auc):
    """Results whose AUC is `auc(seed, sequence)`."""
    return [
        {"seed": seed, "per_sequence": {"set": {str(name): auc(seed, name) for name in range(50)}}} for seed in seeds
    ]


def test_a_difference_beyond_its_spread_is_seen_and_noise_is_not():
    from comparison import paired_bootstrap

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 5, (3, 50))
    hard = rng.uniform(0, 100, 50)  # what sequences have in common must not count
    base = make_row(range(3), lambda seed, name: hard[name])
    better = paired_bootstrap(make_row(range(3), lambda seed, name: hard[name] + noise[seed, name] + 3), base, "set")
    same = paired_bootstrap(make_row(range(3), lambda seed, name: hard[name] + noise[seed, name]), base, "set")
    assert better.mean == pytest.approx(3 + noise.mean())
    assert better.low > 1
    assert same.low < 0 < same.high
    assert 0.5 < (same.high - same.low) / (2 * 1.96 * 5 / np.sqrt(150)) < 1.5


def test_seeds_that_disagree_widen_the_interval():
    from comparison import paired_bootstrap

    base = make_row(range(3), lambda seed, name: 50.0)
    apart = paired_bootstrap(make_row(range(3), lambda seed, name: 50.0 + 4 * (seed - 1)), base, "set")
    assert apart.mean == pytest.approx(0)
    assert apart.low < -2
    assert apart.high > 2
    with pytest.raises(ValueError, match="share no seed"):
        paired_bootstrap(make_row([5], lambda seed, name: 1.0), base, "set")


def test_the_front_leaves_out_what_is_beaten():
    from pictures import best_paths

    rows = [
        {"path": path, "layers": layers, "auc": {"set": auc}}
        for path, layers, auc in [("a", 1, 50), ("b", 2, 49), ("c", 3, 60), ("d", 3, 55), ("e", 9, 61)]
    ]
    assert [row["path"] for row in best_paths(rows, "set")] == ["a", "c", "e"]


def test_a_prefix_from_the_student_trains_its_embeddings():
    from training import StudentPrefix

    teacher = make_tracker(layers=4)
    batch = make_batch()
    losses = {}
    for kind in (MixedTracker, StudentPrefix):
        student, plan = make_student(teacher, stages=2)
        mixed = kind(student, teacher, plan).train()
        losses[kind] = mixed(paths=[(False, True)] * 2, **batch).loss
        losses[kind].backward()
        trained = any(parameter.grad is not None for parameter in student.embeddings.parameters())
        assert trained == (kind is StudentPrefix)
    assert not torch.equal(losses[MixedTracker], losses[StudentPrefix])


def test_curves_show_mean_and_spread_over_seeds():
    pytest.importorskip("matplotlib")
    from pictures import plot_curves

    def done(auc: float, steps: int) -> dict:
        return {"auc": {"real": auc}, "settings": {"max_steps": steps}, "cpu_seconds": 1.0}

    points = {"88": {"all three": [done(20, 88), done(30, 88)]}, "175": {"all three": [done(40, 175)]}}
    curve, _, (bars,) = plot_curves(points, "real", 50.0).axes[0].containers[0]
    assert curve.get_ydata().tolist() == [50, 80]  # per cent of 50
    low, high = bars.get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 20 / 2**0.5)
    assert np.ptp(bars.get_segments()[1][:, 1]) == 0  # of one seed no spread is known


def test_the_demo_takes_the_teacher_and_the_recipe_of_these_comparisons(monkeypatch):
    from ct_hf.cli_compress import build_parser

    taken = {}
    monkeypatch.setattr("ct_hf.cli_compress.main", lambda description, **recipe: taken.update(recipe))
    run_here(REPRODUCE.parent / "compress.py")
    parser = build_parser()
    parser.set_defaults(**taken)
    script, args = parser.parse_args_into_dataclasses([])
    queue = json.loads((REPRODUCE / "queue.json").read_text())
    tuned = queue["recipe"]
    assert Path(script.teacher).resolve() == (REPRODUCE.parents[1] / queue["teacher"]).resolve()
    layers = json.loads((Path(script.teacher) / "config.json").read_text())["num_hidden_layers"]
    assert tuned.pop("num_stages") == layers // 3 and args.num_stages is None, "a third of the layers by default"
    assert {name: getattr(args, name) for name in tuned} == tuned
    assert (args.bf16, script.attn_implementation) in ((False, None), (True, "eager"))
