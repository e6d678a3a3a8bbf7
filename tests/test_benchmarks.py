"""The benchmarks run, and their baselines do what their names say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image

from ct_hf import OSTrackConfig, OSTrackModel
from ct_hf.conversion.convert import FAMILIES
from ct_hf.data import procedural_sequences
from ct_hf.evaluation.page import write_report

from .compression.tiny import make_pairs
from .scripts import run_here


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def baselines(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import baselines

    return baselines


def frame_with_patch(pixels, corner):
    frame = Image.new("RGB", (160, 120), (120, 120, 120))
    frame.paste(Image.fromarray(pixels), corner)
    return frame


def test_cross_correlation_follows_a_patch_and_the_static_box_does_not(baselines):
    rng = np.random.default_rng(0)
    pixels = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), 4, axis=0), 4, axis=1)
    first = frame_with_patch(pixels, (50, 40))
    moving = baselines.CrossCorrelation().start(first, (50, 40, 32, 32))
    still = baselines.StaticBox().start(first, (50, 40, 32, 32))
    for step in range(1, 6):
        frame = frame_with_patch(pixels, (50 + 8 * step, 40 + 4 * step))
        box = moving.update(frame).box
        np.testing.assert_allclose(box[:2], (50 + 8 * step, 40 + 4 * step), atol=3)
        np.testing.assert_array_equal(still.update(frame).box, (50, 40, 32, 32))


def test_the_wrong_template_is_another_sequences(baselines):
    sizes = {"template_size": 32, "search_size": 64, "hidden_size": 32, "intermediate_size": 64, "head_channels": 16}
    model = OSTrackModel(OSTrackConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)).eval()
    sequences = procedural_sequences(0, 3, length=2, size=(96, 72))
    wrong = baselines.WrongTemplate(model, sequences)
    for number in (2, 0, 1):  # the longest are tracked first, whatever their order
        sequence = sequences[number]
        session = wrong.start(sequence.frame(0), sequence.boxes[0])
        other = sequences[(number + 1) % 3]
        expected = model.start(other.frame(0), other.boxes[0]).templates.first.pixel_values
        np.testing.assert_array_equal(session.inputs(sequence.frame(1))["template_pixel_values"][0], expected)
        np.testing.assert_allclose(session.box, sequence.boxes[0], atol=1e-4)


def test_baselines_command(tmp_path):
    sizes = {"template_size": 32, "search_size": 64, "hidden_size": 32, "intermediate_size": 64, "head_channels": 16}
    OSTrackModel(OSTrackConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)).save_pretrained(
        tmp_path / "model"
    )
    printed = run_here(
        BENCHMARKS / "baselines.py",
        "--tracker",
        tmp_path / "model",
        "--procedural",
        2,
        "--out",
        tmp_path / "out" / "table.json",
    )
    rows = json.loads((tmp_path / "out" / "table.json").read_text())["procedural textures"]
    assert [row["name"] for row in rows][:4] == [
        "tracker",
        "static box",
        "cross-correlation",
        "tracker, wrong template",
    ]
    assert "static box" in printed and "static box" in (tmp_path / "out" / "table.md").read_text()


def test_baselines_and_others_beside_them_can_be_reported(tmp_path, tiny_tracker):
    for name in ("model", "student"):
        tiny_tracker.save_pretrained(tmp_path / name)
    arguments = ["--tracker", tmp_path / "model", "--beside", tmp_path / "student", "--procedural", 2]
    run_here(BENCHMARKS / "baselines.py", *arguments, "--results", tmp_path / "results")
    page = write_report([tmp_path / "results" / "procedural_textures"], tmp_path / "page.html").read_text()
    for name in ("tracker", "student", "static box", "cross-correlation", "tracker, wrong template"):
        assert f">{name}<" in page


def test_pairs_command(tmp_path):
    printed = run_here(BENCHMARKS / "pairs.py", "--pairs", 12, "--turns", 1, "--out", tmp_path / "pairs.json")
    assert "rendered, textures" in printed
    assert json.loads((tmp_path / "pairs.json").read_text())["median"]["rendered, textures"] > 0


def test_data_command(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # the pauses between turns are for the figures, which are unread
    sizes = [
        "--sequences",
        3,
        "--frames",
        6,
        "--batch",
        2,
        "--batches",
        2,
        "--turns",
        1,
        "--opened",
        3,
        "--size",
        960,
        720,
    ]
    printed = run_here(BENCHMARKS / "data.py", *sizes, "--out", tmp_path / "data.json")
    assert "Opening 3 x 2,500 annotations" in printed and "decoding" in printed
    figures = json.loads((tmp_path / "data.json").read_text())
    rates = {row["name"]: row["pairs_per_second"] for row in figures["rows"]}
    assert len(rates) == 8 and min(rates.values()) > 0
    assert (
        0 < figures["conditions"]["drafts"]["pairs"] <= 1 and 0 < figures["conditions"]["drafts"]["grey_levels"] < 50
    )
    for shares in figures["conditions"]["shares"].values():
        assert sum(shares.values()) == pytest.approx(1) and 0 < shares["decoding"] < 1
        assert shares["crops"] > 0 and shares["augmentation"] > 0 and shares["everything else"] > 0


def test_tracking_measures_every_part(monkeypatch, tiny_tracker):
    """On a tiny tracker; nothing is said of how long anything takes."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import tracking

    row = {
        "model": "tiny",
        "loop": tracking.measure_loop(tiny_tracker, 1),
        "templates": tracking.measure_templates(tiny_tracker, 1),
        "lock_step": tracking.measure_lock_step(tiny_tracker, 1, 2),
        "bf16": tracking.measure_bf16(tiny_tracker, 1),
    }
    for part in ("loop", "templates", "lock_step", "bf16"):
        assert all(value > 0 for value in row[part].values()), part
    assert row["loop"]["outside_percent"] < 100
    row["accuracy"] = {"float32_auc": 40.0, "bfloat16_auc": 39.5}
    table = tracking.table_of([row])
    assert "40.00 -> 39.50" in table and "-0.50" in table and table.count("tiny") == 1


def test_tracking_measures_the_accuracy_of_both_types(monkeypatch, tiny_tracker):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import tracking

    accuracy = tracking.measure_accuracy(tiny_tracker, 1)
    assert set(accuracy) == {"float32_auc", "bfloat16_auc"}
    assert all(0 <= value <= 100 for value in accuracy.values())


def test_forward_command_parses_what_to_compare(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import forward

    parsed = forward.Comparison.parse("odtrack/baseline,elimination_layers=[]:4,intermediate_size=768")
    assert (parsed.family, parsed.variant, parsed.stages) == ("odtrack", "baseline", 4)
    assert (parsed.fields, parsed.student_fields) == ({"elimination_layers": []}, {"intermediate_size": 768})
    for text in forward.COMPARISONS:
        assert forward.Comparison.parse(text).variant in FAMILIES[text.split("/")[0]].variants
    for wrong in ("ostrack", "ostrack/a", "ostrack/a:four", "ostrack:4", "ostrack/a:4,depth"):
        with pytest.raises(ValueError, match="`compare` must look like"):
            forward.Comparison.parse(wrong)


def test_forward_measures_student_beside_teacher(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import forward

    sizes = {"template_size": 32, "search_size": 64, "hidden_size": 32, "intermediate_size": 64, "head_channels": 16}
    models = {
        name: OSTrackModel(OSTrackConfig(num_hidden_layers=layers, num_attention_heads=2, **sizes)).eval()
        for name, layers in (("teacher", 12), ("student", 1))
    }
    milliseconds = forward.measure(models, passes=3)
    assert set(milliseconds) == {"teacher", "student"} and min(milliseconds.values()) > 0


def test_initialization_scales_and_averages_a_stage(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import initialization

    sizes = {"template_size": 32, "search_size": 64, "hidden_size": 32, "intermediate_size": 64, "head_channels": 16}
    teacher = OSTrackModel(OSTrackConfig(num_hidden_layers=4, num_attention_heads=2, **sizes)).eval()
    plan = initialization.StagePlan.even(4, 2)
    students = {start: initialization.start_student(teacher, plan, start) for start in initialization.STARTS}
    first, last = (teacher.layers[index].mlp.fc2.weight for index in (0, 1))
    weights = {start: student.layers[0].mlp.fc2.weight for start, student in students.items()}
    assert weights["last"].equal(last) and weights["last, scaled"].equal(2 * last)
    assert weights["mean"].allclose((first + last) / 2) and weights["mean, scaled"].allclose(first + last)
    query = [student.layers[0].attention.q_proj.weight for student in students.values()]
    assert query[0].equal(query[1]) and query[2].equal(query[3]), "what attends is never scaled"


def write_state(folder, step, rows):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": rows}))


def logged(step, iou, focal, rate):
    return {"step": step, "iou": iou, "focal": focal, "learning_rate": rate, "loss": 1.0}


def test_training_curves_are_what_the_phases_logged(monkeypatch, tmp_path):
    """The last checkpoint of each phase, steps counted on, evaluations left out, and the mean over the window."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import training_curves

    first, second = tmp_path / "first", tmp_path / "second"
    write_state(first, 9, [logged(9, 0.9, 9.0, 9.0)])  # behind 25 in the alphabet
    write_state(first, 25, [logged(10, 0.2, 3.0, 0.5), {"step": 10, "eval_iou": 0.7}, logged(20, 0.4, 2.0, 0.25)])
    write_state(second, 15, [logged(10, 0.6, 1.0, 0.125), {"step": 15, "train_runtime": 3.0}])
    out = tmp_path / "new" / "curves.svg"
    command = ["training_curves.py", "--states", str(first), str(second), "--window", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    pyplot.switch_backend("agg")
    training_curves.main()
    panels = pyplot.gcf().axes
    pyplot.close()

    assert json.loads(out.with_suffix(".json").read_text()) == [
        {"step": 10, "iou": 0.2, "focal": 3.0, "learning_rate": 0.5},
        {"step": 20, "iou": 0.4, "focal": 2.0, "learning_rate": 0.25},
        {"step": 35, "iou": 0.6, "focal": 1.0, "learning_rate": 0.125},
    ]
    for panel, name, values, means in zip(
        panels, ("iou", "focal"), ([0.2, 0.4, 0.6], [3, 2, 1]), ([0.3, 0.5], [2.5, 1.5]), strict=True
    ):
        assert panel.get_title() == f"{name} of training pairs" and panel.get_title() in out.read_text()
        line, mean = panel.get_lines()
        np.testing.assert_allclose(line.get_xydata(), np.transpose([[10, 20, 35], values]))
        np.testing.assert_allclose(mean.get_xydata(), np.transpose([[20, 35], means]))
    again = training_curves.read_history([str(out.with_suffix(".json")), str(second)], ["iou", "focal"])
    assert [row["step"] for row in again] == [10, 20, 35, 45] and again[-1]["iou"] == 0.6


@pytest.fixture
def train_step(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import train_step

    yield train_step
    train_step.mixed.mimicking_loss = train_step.losses.mimicking_loss


TINY = {"template_size": 32, "search_size": 64, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
TINY = {**TINY, "head_channels": 16}


@pytest.fixture
def tiny_steps(train_step):
    """Each recipe on tiny trackers, the students moved away from their teachers, and a batch of two."""
    tracker = train_step.build_tracker(*train_step.MODEL.split("/"), **TINY)
    clock = train_step.Clock()
    steps = {recipe: train_step.build_step(recipe, tracker, clock, 2) for recipe in train_step.RECIPES}
    for step in steps.values():
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in step.student.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return steps, clock, train_step.build_batch(tracker, 2)


def test_train_step_compares_steps_of_equal_loss_and_gradient(train_step, tiny_steps):
    steps, _, batch = tiny_steps
    for path in train_step.PATHS:
        losses, gradients = {}, {}
        for recipe in train_step.RECIPES[:2]:
            losses[recipe] = steps[recipe].backward(batch, [train_step.parse_path(path)] * 2)
            student = steps[recipe].student
            gradients[recipe] = {name: each.grad for name, each in student.named_parameters() if each.grad is not None}
            student.zero_grad()
        plain, ours = losses.values()
        assert ours == pytest.approx(plain, abs=1e-4), path
        plain, ours = gradients.values()
        assert plain.keys() == ours.keys(), path
        for name, gradient in plain.items():
            torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4, msg=f"{path} {name}")


def test_train_step_refuses_to_compare_unlike_losses(train_step, tiny_steps):
    steps, _, batch = tiny_steps
    losses = train_step.check_losses(steps, batch)
    assert losses["plain, fp32"] == pytest.approx(losses["ct_hf, fp32"], abs=1e-4)
    with torch.no_grad():
        steps["plain, fp32"].student.layers[0].mlp.fc2.bias.add_(0.1)
    with pytest.raises(RuntimeError, match="the steps are not the same"):
        train_step.check_losses(steps, batch)


def test_train_step_is_the_step_that_train_makes(train_step, tmp_path):
    """Two steps of `train` on the same pairs leave the same weights."""
    tracker = train_step.build_tracker(*train_step.MODEL.split("/"), **TINY)
    path = [train_step.parse_path("STTS")] * 2
    step = train_step.build_step("ct_hf, fp32", tracker, train_step.Clock(), 2)
    other = train_step.build_step("ct_hf, fp32", tracker, train_step.Clock(), 2)
    pairs = make_pairs(2)
    args = train_step.CompressionArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, save_strategy="no", use_cpu=True
    )
    trainer = train_step.ListedPaths(
        model=other.student, teacher_model=other.teacher, args=args, train_dataset=pairs, plan=step.trainer.plan
    )
    trainer.paths = path
    trainer.train()
    start = {name: value.clone() for name, value in step.student.state_dict().items()}
    for _ in range(2):
        step.backward(train_step.TrackingCollator()(pairs), path)
        step.update()
    trained = trainer.student.state_dict()
    assert any(not value.equal(trained[name]) for name, value in start.items())
    for name, value in step.student.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=0, atol=1e-7, msg=name)


def test_train_step_measures_every_part(train_step, tiny_steps):
    """On tiny trackers; nothing is said of how long anything takes."""
    steps, clock, batch = tiny_steps
    gmacs = {
        recipe: {path: train_step.count_step_gmacs(step, batch, path) for path in train_step.PATHS}
        for recipe, step in steps.items()
    }
    plain, ours = gmacs["plain, fp32"], gmacs["ct_hf, fp32"]
    assert ours["SSSS"] == pytest.approx(plain["SSSS"]) and ours["TTST"] < plain["TTST"]
    seconds, parts = train_step.measure_time(steps, clock, batch, turns=1, size=32)
    memory = {
        recipe: {"static": {"weights": 3e6}, "activations": dict.fromkeys(train_step.PATHS, megabytes * 1e6)}
        for recipe, megabytes in zip(train_step.RECIPES, (200, 100, 50), strict=True)
    }
    rows = train_step.rows_of(seconds, parts, gmacs, memory, 2)
    assert [(row["rate"], row["recipe"]) for row in rows] == [
        (rate, recipe) for rate in (0.5, 1.0) for recipe in train_step.RECIPES
    ]
    for row in rows:
        assert sum(row["parts"].values()) == pytest.approx(1) and min(row["parts"].values()) > 0
        assert row["milliseconds"] > 0 and row["limit_milliseconds"] > 0
    assert rows[0]["speedup"] == 1 and list(rows[1]["path_milliseconds"]) == train_step.PATHS
    table = train_step.table_of(rows, {"ct_hf, fp32": 1.03})
    of_plain = [line.split("|")[-2].strip() for line in table.split("\n\n")[0].splitlines()[2:]]
    assert of_plain == ["1.00x", "0.50x", "0.25x"] * 2
    assert "1.030x" in table and "guidance (%)" in table


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from /proc")
def test_train_step_measures_memory_in_a_process_of_its_own(train_step):
    memory = train_step.measure_memory_apart("ct_hf, fp32", 2, 1, {**TINY, "search_size": 256, "template_size": 128})
    assert list(memory["activations"]) == train_step.PATHS and min(memory["activations"].values()) > 1e6
    weights, gradients, optimizer = memory["static"].values()
    assert gradients < weights and 2 * gradients <= optimizer < 2.1 * gradients
