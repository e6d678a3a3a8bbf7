"""What a saved student says of how it was made."""

import json
from importlib.metadata import version

import pytest
import torch
from transformers import AutoConfig, AutoModel

from ct_hf.compression import StagePlan, build_student
from ct_hf.compression.record import record_compression, training_rows
from ct_hf.data import ProceduralWorld, procedural_sequences, stream_pairs

from .tiny import make_config, make_pairs, make_tracker
from .training import make_arguments, make_trainer, small_world


def saved_record(trainer, folder):
    trainer.save_model(str(folder))
    return json.loads((folder / "config.json").read_text())["compression"]


def test_a_student_says_how_it_was_made(tmp_path):
    trainer = make_trainer(
        tmp_path / "out",
        stages="1-3",
        stage_sizes="1-3",
        train_dataset=small_world(),
        p_init=0.4,
        replacement_schedule="cosine",
        mimicking_weight=0.3,
        term_weights={"giou": 0.5},
        gradient_accumulation_steps=2,
        max_steps=2,
        seed=7,
    )
    trainer.train()
    record = saved_record(trainer, tmp_path / "student")
    assert record["method"] == "https://huggingface.co/papers/2409.17564"
    assert record["stages"] == {"teacher": [1, 3], "student": [1, 1]}
    assert record["replacement"]["schedule"] == "cosine" and record["replacement"]["p_init"] == 0.4
    assert record["losses"]["mimicking_weight"] == 0.3 and record["losses"]["term_weights"] == {"giou": 0.5}
    assert record["optimizer"]["learning_rate"] == 1e-3
    assert (record["pairs_per_step"], record["max_steps"], record["step"], record["seed"]) == (8, 2, 2, 7)
    assert record["data"] == [
        {
            "share": 1.0,
            "source": "RenderedClips",
            "size": [96, 72],
            "length": 10,
            "patches": 0.15,
            "textures": ["ProceduralTextures"],
            "seed": 0,
        }
    ]
    assert record["versions"] == {name: version(name) for name in ("ct_hf", "torch", "transformers")}
    assert AutoModel.from_pretrained(tmp_path / "student").config.compression == record


def test_no_path_of_the_machine_is_kept(tmp_path):
    """Neither the teacher's folder nor those of the data."""
    make_tracker(4).save_pretrained(tmp_path / "runs" / "teacher")
    teacher = AutoModel.from_pretrained(tmp_path / "runs" / "teacher")
    (tmp_path / "videos").mkdir()
    sources = {
        str(tmp_path / "videos"): procedural_sequences(0, 2, length=4, size=(96, 72)),
        f"lasot:{tmp_path}": ProceduralWorld(length=10, size=(96, 72)),
    }
    pairs = stream_pairs(sources, make_config(), seed=0, ratios=dict(zip(sources, (1, 3), strict=True)))
    trainer = make_trainer(tmp_path / "out", train_dataset=pairs, max_steps=1)
    trainer._teacher_description = type(trainer)(
        model=trainer.student, teacher_model=teacher, args=trainer.args
    )._teacher_description
    record = saved_record(trainer, tmp_path / "student")
    assert record["teacher"] == {"name": "teacher", "num_hidden_layers": 4}
    assert [(source["name"], source["share"]) for source in record["data"]] == [("videos", 0.25), ("lasot", 0.75)]
    assert record["data"][0]["sequences"] == 2
    assert str(tmp_path) not in (tmp_path / "student" / "config.json").read_text()


def test_a_teacher_of_the_hub_is_named_with_its_commit(tmp_path):
    """From the Hub's cache, as `AutoModel` leaves it."""
    repository, commit = tmp_path / "models--user--teacher", "0a" * 20
    make_tracker(4).save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    expected = {"repository": "user/teacher", "revision": commit, "num_hidden_layers": 4}
    for place in ("user/teacher", repository / "snapshots" / commit):
        teacher = AutoModel.from_pretrained(place, cache_dir=tmp_path, local_files_only=True)
        student, _ = build_student(teacher, StagePlan.even(4, 2))
        trainer = make_trainer(tmp_path / "out")
        trainer = type(trainer)(model=student, teacher_model=teacher, args=trainer.args)
        assert saved_record(trainer, tmp_path / "student")["teacher"] == expected


def test_pairs_in_a_list_and_a_nameless_teacher(tmp_path):
    record = saved_record(make_trainer(tmp_path / "out", train_dataset=make_pairs(8)), tmp_path / "student")
    assert record["teacher"] == {"num_hidden_layers": 4}
    assert record["data"] == [{"share": 1.0, "source": "list", "pairs": 8}]
    assert (record["max_steps"], record["step"]) == (0, 0), "nothing was trained"


def test_the_step_is_that_of_the_weights(tmp_path):
    """Of each checkpoint; and of the best one, once it is loaded at the end."""
    trainer = make_trainer(
        tmp_path / "out",
        eval_dataset=make_pairs(4, seed=3),
        max_steps=3,
        learning_rate=10.0,  # the first step is the best
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    trainer.train()
    for step in (1, 2, 3):
        config = AutoConfig.from_pretrained(tmp_path / "out" / f"checkpoint-{step}")
        assert config.compression["step"] == step and config.compression["max_steps"] == 3
    assert trainer.state.best_global_step < 3
    record = saved_record(trainer, tmp_path / "student")
    assert record["step"] == trainer.state.best_global_step and "loss" in record["best_by"]


def test_a_student_of_a_student_has_a_record_of_its_own(tmp_path):
    first = make_trainer(tmp_path / "out", stages=2)
    saved_record(first, tmp_path / "first")
    teacher = AutoModel.from_pretrained(tmp_path / "first")
    student, _ = build_student(teacher, StagePlan.even(2, 1))
    assert student.config.compression is None and teacher.config.compression is not None


def test_the_record_is_kept_without_ct_hf(tmp_path, fresh_python):
    """By the configuration's code that travels with the model: loaded, and saved again."""
    trainer = make_trainer(tmp_path / "out")
    config, model = type(trainer.student.config), type(trainer.student)
    config.register_for_auto_class()
    model.register_for_auto_class("AutoModel")
    try:
        record = saved_record(trainer, tmp_path / "student")
    finally:
        config._auto_class = model._auto_class = None
    code = (
        "import sys; from transformers import AutoModel;"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True);"
        "model.save_pretrained(sys.argv[2]); print('ct_hf' in sys.modules)"
    )
    assert fresh_python(code, tmp_path, tmp_path / "student", tmp_path / "again").split()[-1] == "False"
    assert json.loads((tmp_path / "again" / "config.json").read_text())["compression"] == record


def test_the_record_changes_no_draw(tmp_path):
    """A run that saves its record on the way trains as one that does not."""
    trainers = [
        make_trainer(tmp_path / name, max_steps=3, save_strategy=name, save_steps=1) for name in ("no", "steps")
    ]
    for trainer in trainers:
        trainer.train()
    ours, theirs = (trainer.student.state_dict() for trainer in trainers)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("step", "steps", "ending"),
    [(3, "3 of 1000", "ended before the student ran alone"), (1000, "1000", "the student alone in the last 10 %")],
)
def test_a_run_that_ended_early_claims_no_more(tmp_path, step, steps, ending):
    plan = StagePlan.even(4, 2)
    args = make_arguments(tmp_path, max_steps=1000)
    record = record_compression(
        args, plan, teacher={}, data=[], pairs_per_step=4, precision="fp32", max_steps=1000, step=step
    )
    rows = training_rows(record)
    assert str(rows["Steps"]) == steps and rows["Replacement"].endswith(f"; {ending}")


def test_however_a_student_is_saved_it_keeps_its_record(tmp_path):
    """Also where the Trainer saves nothing, and the user what he holds."""
    trainer = make_trainer(tmp_path / "out", max_steps=3, save_strategy="no")
    trainer.train()
    trainer.student.save_pretrained(tmp_path / "student")
    assert AutoConfig.from_pretrained(tmp_path / "student").compression["step"] == 3


@pytest.mark.parametrize(("setting", "precision"), [("bf16", "bf16"), ("no", "fp32")])
def test_the_precision_is_the_one_that_runs(tmp_path, monkeypatch, setting, precision):
    """As a configuration of Accelerate sets it."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", setting)
    trainer = make_trainer(tmp_path / "out", max_steps=1)
    assert saved_record(trainer, tmp_path / "student")["precision"] == precision
    trainer.student.to(torch.bfloat16)
    if setting == "no":
        assert saved_record(trainer, tmp_path / "student")["precision"] == "weights of bfloat16"


def test_an_optimizer_of_ones_own_is_recorded(tmp_path):
    trainer = make_trainer(tmp_path / "out", max_steps=1)
    trainer.optimizer = torch.optim.SGD(trainer.student.parameters(), lr=0.3)
    trainer._makes_optimizer = False
    optimizer = saved_record(trainer, tmp_path / "student")["optimizer"]
    assert (optimizer["optim"], optimizer["learning_rate"], optimizer["weight_decay"]) == ("SGD", 0.3, 0)


@pytest.mark.parametrize(
    ("arguments", "row", "text"),
    [
        ({}, "Learning rate", "0.001, constant, a tenth after 80 %"),
        ({"learning_rate_drop": 1.0}, "Learning rate", "0.001, constant"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}},
            "Learning rate",
            "0.001, cosine_with_min_lr, min_lr 1e-05",
        ),
        ({"p_init": 1.0}, "Replacement", "none: the student alone, beside its teacher"),
        ({"finetune_share": 0.0}, "Replacement", "progressive, 0.5 to 1, a path for each batch"),
    ],
)
def test_rows_say_what_was_done(tmp_path, arguments, row, text):
    trainer = make_trainer(tmp_path, **arguments)
    assert training_rows(trainer._record())[row] == text
