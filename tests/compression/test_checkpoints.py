"""Checkpoints that are not complete, and what keeps others from becoming so."""

import json
import logging
import os
import resource
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import Trainer

from ct_hf.compression import checkpoints, resumable_trainer
from ct_hf.compression.checkpoints import MANIFEST, clean_up, find_faults, finish_checkpoint, rotate
from ct_hf.compression.publishing import PublishingTrainer

from .tiny import NARROW, make_pairs
from .training import make_trainer


NEEDED = ["trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth"]
FILES = [
    "model.safetensors",
    "optimizer.pt",
    "projections.safetensors",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
]

BEST = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "loss",
    "learning_rate": 0.0,  # so that the first stays the best
}


def trainer_in(folder, **arguments):
    arguments = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, **arguments}
    return make_trainer(folder, student_changes=NARROW, **arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    trainer_in(folder).train()
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """Checkpoints of steps 1 to 3, free to be torn."""
    return shutil.copytree(trained, tmp_path / "run")


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def age(checkpoint: Path) -> None:
    """Make it as an older version left it, or another Trainer."""
    (checkpoint / "complete.json").unlink()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


# What is not complete


@pytest.mark.parametrize("older", [False, True], ids=["listed", "older"])
@pytest.mark.parametrize("tear", [halve, Path.unlink], ids=["cut", "missing"])
@pytest.mark.parametrize("file", FILES)
def test_every_fault_is_found_and_named(folder, file, tear, older):
    checkpoint = folder / "checkpoint-2"
    needed = [*NEEDED, "projections.safetensors"]
    if older:
        age(checkpoint)
    assert find_faults(checkpoint, needed) == []
    tear(checkpoint / file)
    faults = find_faults(checkpoint, needed)
    assert len(faults) == 1
    assert faults[0].startswith("rng_state" if file == "rng_state.pth" else file)


def test_a_list_that_is_cut_short_lists_nothing(folder):
    halve(folder / "checkpoint-2" / "complete.json")
    assert find_faults(folder / "checkpoint-2", ()) == ["complete.json is cut short"]


@pytest.mark.parametrize("older", [False, True], ids=["listed", "older"])
def test_the_newest_complete_checkpoint_is_taken_and_both_are_named(folder, older, caplog):
    """Also where what is missing is what only a student of another width needs."""
    if older:
        age(folder / "checkpoint-3")
    (folder / "checkpoint-3" / "projections.safetensors").unlink()
    trainer = trainer_in(folder)
    with caplog.at_level(logging.WARNING):
        trainer.train(resume_from_checkpoint=True)
    (message,) = (record.getMessage() for record in caplog.records if "passed over" in record.getMessage())
    assert f"{folder / 'checkpoint-3'} (projections.safetensors is missing)" in message
    assert f"goes on from {folder / 'checkpoint-2'}." in message
    assert trainer.state.global_step == 3 and trainer._initial_global_step == 2
    assert find_faults(folder / "checkpoint-3", ()) == [], "made anew"


def test_a_torn_checkpoint_that_is_asked_for_is_refused(folder):
    checkpoint = folder / "checkpoint-3"
    (checkpoint / "rng_state.pth").unlink()
    halve(checkpoint / "optimizer.pt")
    with pytest.raises(ValueError, match="optimizer.pt has .* bytes instead of .*; rng_state.pth is missing") as error:
        trainer_in(folder).train(resume_from_checkpoint=str(checkpoint))
    assert f"The newest complete one is {folder / 'checkpoint-2'}." in str(error.value)


def test_where_nothing_is_complete_a_run_does_not_begin_anew_unasked(folder, tmp_path):
    for checkpoint in folder.glob("checkpoint-*"):
        (checkpoint / "optimizer.pt").unlink()
    with pytest.raises(
        ValueError, match="no complete checkpoint; not complete: .*checkpoint-1 .optimizer.pt is missing"
    ):
        trainer_in(folder).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="checkpoint-1 is not a complete checkpoint: .* There is no complete one"):
        trainer_in(folder).train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    with pytest.raises(ValueError, match="holds no complete checkpoint. Leave it out to begin anew"):
        trainer_in(tmp_path / "empty").train(resume_from_checkpoint=True)


def test_processes_go_on_from_what_is_complete_for_all_of_them(folder, monkeypatch, caplog):
    """Each node may have a disk of its own."""
    elsewhere = ["checkpoint-1", "checkpoint-3"]
    monkeypatch.setattr(resumable_trainer, "gather_object", lambda names: [*names, elsewhere])
    (folder / "checkpoint-3" / "optimizer.pt").unlink()
    trainer = trainer_in(folder)
    with caplog.at_level(logging.WARNING):
        trainer.train(resume_from_checkpoint=True)
    assert f"{folder / 'checkpoint-2'} (in another process); {folder / 'checkpoint-3'} (optimizer.pt is" in caplog.text
    assert trainer._initial_global_step == 1


def test_checkpoints_without_optimizer_are_complete_where_none_is_saved(folder):
    checkpoint = folder / "checkpoint-2"
    age(checkpoint)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).unlink()
    trainer = trainer_in(folder, save_only_model=True)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 3
    assert find_faults(folder / "checkpoint-3", ()) == [] and not (folder / "checkpoint-3" / "optimizer.pt").exists()


def test_a_checkpoint_without_optimizer_is_refused_where_one_is_needed(folder):
    """Else the schedule would begin anew, without a word."""
    checkpoint = folder / "checkpoint-2"
    for name in ("optimizer.pt", "scheduler.pt"):
        (checkpoint / name).unlink()
    listed = json.loads((checkpoint / MANIFEST).read_text())
    kept = {name: size for name, size in listed.items() if name not in ("optimizer.pt", "scheduler.pt")}
    (checkpoint / MANIFEST).write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"is not a complete checkpoint: optimizer.pt is missing; scheduler.pt is"):
        trainer_in(folder).train(resume_from_checkpoint=str(checkpoint))


# Rotation


@pytest.mark.parametrize(
    ("torn", "limit", "left"), [(True, 2, "12"), (True, 1, "2"), (False, 2, "23"), (False, 1, "2")]
)
def test_rotation_removes_torn_checkpoints_first_and_never_what_was_just_saved(folder, torn, limit, left):
    """Checkpoint 3 is of a later step and looks newer than what a resumed run saves."""
    if torn:
        (folder / "checkpoint-3" / "optimizer.pt").unlink()
    later = time.time() + 1000
    os.utime(folder / "checkpoint-3", (later, later))
    trainer_in(folder, save_total_limit=limit, max_steps=2).train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    assert names(folder) == [f"checkpoint-{step}" for step in left]
    assert find_faults(folder / "checkpoint-2", ()) == []


@pytest.mark.parametrize(("limit", "left"), [(None, "123"), (0, "123"), (3, "123"), (2, "23"), (1, "13")])
def test_rotation_leaves_as_many_as_it_is_told(folder, limit, left):
    """And what is to be kept, here the best and the last."""
    keep = [folder / "checkpoint-3"] + ([folder / "checkpoint-1"] if limit == 1 else [])
    (folder / "checkpoint-best").mkdir()  # somebody's own
    rotate(folder, limit, keep, NEEDED)
    assert names(folder) == [f"checkpoint-{step}" for step in left] + ["checkpoint-best"]


def test_no_checkpoint_is_torn_by_being_removed(tmp_path, monkeypatch):
    """It loses its name first; also the last one, at the end of a run that leaves its best alone."""
    removed, remove = [], shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: (removed.append(Path(path).name), remove(path)))
    trainer_in(tmp_path, eval_dataset=make_pairs(4, seed=3), save_total_limit=1, **BEST).train()
    assert names(tmp_path) == ["checkpoint-1"]
    assert set(removed) == {"_unfinished"}


# Saving that fails or is interrupted


@contextmanager
def files_of_at_most(size: int):
    """The system refuses to write more to a file, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL = {
    "model.safetensors": (Trainer, "_save_checkpoint"),
    "optimizer.pt": (Trainer, "_save_optimizer_and_scheduler"),
    "rng_state.pth": (Trainer, "_save_rng_state"),
    "complete.json": (checkpoints, "write_whole"),
}
"""Files, and what writes them."""


@pytest.mark.parametrize("file", FULL)
def test_a_full_disk_costs_nothing_that_was_saved(trained, tmp_path, monkeypatch, file):
    """Whichever file finds it full; the run goes on where it was once there is room."""
    owner, name = FULL[file]
    write, size = getattr(owner, name), (trained / "checkpoint-2" / file).stat().st_size

    def write_on_a_full_disk(*args, **kwargs):
        with files_of_at_most(size // 2 if (tmp_path / "checkpoint-1").exists() else 10 * size):
            return write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, write_on_a_full_disk)
        with pytest.raises(OSError, match="checkpoint-2 could not be saved") as error:
            trainer_in(tmp_path, save_total_limit=1).train()
    assert f"The newest complete one is {tmp_path / 'checkpoint-1'}." in str(error.value)
    assert "make room" in str(error.value) and "`resume_from_checkpoint=True`" in str(error.value)
    assert names(tmp_path) == ["checkpoint-1"] and find_faults(tmp_path / "checkpoint-1", ()) == []
    trainer_in(tmp_path, save_total_limit=1).train(resume_from_checkpoint=True)
    assert names(tmp_path) == ["checkpoint-3"]


def test_a_checkpoint_that_is_saved_again_is_never_away(folder, monkeypatch):
    """The new one is complete before the old one loses its name; whoever comes next ends what was interrupted."""
    aside = folder / "_unfinished" / "checkpoint-2"
    shutil.copytree(folder / "checkpoint-2", aside)
    (aside / "complete.json").unlink()
    (aside / "note.txt").write_text("new")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "place_folder", lambda aside, path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finish_checkpoint(folder, "checkpoint-2")
    assert not (folder / "checkpoint-2").exists()
    clean_up(folder)
    assert names(folder) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert (folder / "checkpoint-2" / "note.txt").read_text() == "new"
    assert find_faults(folder / "checkpoint-2", ()) == []


def test_the_next_save_removes_what_a_kill_left(tmp_path):
    left = tmp_path / "_unfinished" / "checkpoint-9"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    trainer_in(tmp_path, max_steps=1).train()
    assert names(tmp_path) == ["checkpoint-1"]


# What others see of a checkpoint


def test_it_is_complete_and_has_its_name_before_it_is_pushed(tmp_path, monkeypatch):
    """And nothing that is pushed of the output folder is half a checkpoint."""
    pushed = []
    monkeypatch.setattr(
        PublishingTrainer,
        "_push_from_checkpoint",
        lambda self, path: pushed.append((path, find_faults(Path(path), ()))),
    )
    trainer = trainer_in(tmp_path)
    trainer.args.push_to_hub = True
    trainer.train()
    assert pushed == [(str(tmp_path / f"checkpoint-{step}"), []) for step in (1, 2, 3)]
    assert checkpoints.ASIDE.startswith("_"), "the Trainer leaves out such names when it pushes"


def test_the_best_checkpoint_is_known_by_its_name(tmp_path):
    """Also to a run that goes on in a folder that has moved."""
    trainer_in(tmp_path / "run", eval_dataset=make_pairs(4, seed=3), **BEST).train()
    for path in (tmp_path / "run").glob("*/trainer_state.json"):
        assert json.loads(path.read_text())["best_model_checkpoint"] == str(tmp_path / "run" / "checkpoint-1")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    moved = trainer_in(tmp_path / "moved", eval_dataset=make_pairs(4, seed=3), **{**BEST, "max_steps": 4})
    moved.train(resume_from_checkpoint=True)
    assert moved.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-1")


def test_a_best_checkpoint_that_is_torn_is_left_out(tmp_path, caplog):
    """Or the only complete ones would be removed beside it at the end."""
    trainer_in(tmp_path, eval_dataset=make_pairs(4, seed=3), **BEST).train()
    halve(tmp_path / "checkpoint-1" / "model.safetensors")
    arguments = {**BEST, "max_steps": 4, "save_total_limit": 1}
    with caplog.at_level(logging.WARNING):
        trainer_in(tmp_path, eval_dataset=make_pairs(4, seed=3), **arguments).train(resume_from_checkpoint=True)
    assert (
        "checkpoint-1, the best checkpoint so far, is not complete and left out: model.safetensors has" in caplog.text
    )
    assert names(tmp_path) == ["checkpoint-4"]
