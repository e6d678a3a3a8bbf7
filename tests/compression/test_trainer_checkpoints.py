"""What the trainer writes, and how it goes on from there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel

from ct_hf.data import PairSampler, ProceduralWorld, RenderedClips, procedural_sequences, stream_pairs

from .tiny import NARROW, WIDTHS, make_batch, make_config, make_pairs
from .training import Watch, make_trainer, small_world, train_logs


TERMS = {"focal", "giou", "l1", "guidance_map", "guidance_giou", "guidance_l1", "mimicking"}


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


@pytest.mark.parametrize("widths", WIDTHS)
def test_save_model_writes_the_student_alone(tmp_path, widths):
    trainer = make_trainer(tmp_path, student_changes=WIDTHS[widths], max_steps=3)
    trainer.train()
    trainer.save_model(tmp_path / "model")
    assert load_file(tmp_path / "model" / "model.safetensors").keys() == trainer.student.state_dict().keys()
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json"}, "and nothing pickled"
    loaded, report = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert type(loaded) is type(trainer.student)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = make_batch()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).pred_boxes, trainer.student.eval()(**batch).pred_boxes)
    assert AutoImageProcessor.from_pretrained(tmp_path / "model").to_dict() == trainer.processing_class.to_dict()


@pytest.mark.parametrize("widths", WIDTHS)
def test_checkpoint_loads_as_a_model(tmp_path, widths):
    """A checkpoint is the student's folder too; what belongs to training is in files of its own."""
    make_trainer(tmp_path, student_changes=WIDTHS[widths], save_strategy="steps", save_steps=2, max_steps=2).train()
    checkpoint = tmp_path / "checkpoint-2"
    assert (checkpoint / "projections.safetensors").exists() is (widths == "unlike")
    assert AutoModel.from_pretrained(checkpoint).config.num_hidden_layers == 2


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("widths", WIDTHS)
def test_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path, widths, granularity):
    """Bit for bit: weights, projections, optimizer and losses; with streamed pairs, drop path and accumulation."""

    def trainer_in(folder):
        return make_trainer(
            tmp_path / folder,
            student_changes={**WIDTHS[widths], "drop_path_rate": 0.1},
            train_dataset=small_world(),
            path_granularity=granularity,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            save_strategy="steps",
            save_steps=3,
        )

    whole = trainer_in("whole")
    whole.train()
    torch.manual_seed(99)
    np.random.seed(99)
    resumed = trainer_in("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert_same_state(resumed.model.state_dict(), whole.model.state_dict())
    assert any("to_student" in name for name in whole.model.state_dict()) is (widths == "unlike")
    theirs, ours = whole.optimizer.state_dict()["state"], resumed.optimizer.state_dict()["state"]
    assert theirs.keys() == ours.keys()
    for index, values in theirs.items():
        assert_same_state(ours[index], values)
    timeless = [
        [{k: v for k, v in entry.items() if "runtime" not in k} for entry in train_logs(t)] for t in (whole, resumed)
    ]
    assert len(timeless[0]) == 6 and timeless[0] == timeless[1]


def test_a_longer_run_goes_on_by_its_own_schedule(tmp_path):
    """The learning rate drops where the run that goes on says, as the paths do."""
    options = {"save_strategy": "steps", "save_steps": 5, "learning_rate_drop": 0.8, "learning_rate": 1e-4}
    make_trainer(tmp_path, max_steps=10, **options).train()
    watch = Watch()
    longer = make_trainer(tmp_path / "longer", max_steps=20, callbacks=[watch], **options)
    longer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert watch.rates == pytest.approx([1e-4] * 11 + [1e-5] * 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_seen_is_not_read_again(tmp_path, workers, monkeypatch):
    """Every clip that is read, by whichever process, leaves a line in a file."""
    log = tmp_path / "read.txt"
    read = RenderedClips.read

    def logged(self, clip):
        with log.open("a") as file:
            file.write(f"{clip}\n")
        return read(self, clip)

    monkeypatch.setattr(RenderedClips, "read", logged)
    options = {"save_strategy": "steps", "save_steps": 5, "max_steps": 6, "dataloader_num_workers": workers}
    world = ProceduralWorld(length=10, size=(96, 72))

    def trainer_in(folder):
        pairs = stream_pairs(world, make_config(), seed=0, clip_length=3, pairs_per_clip=1)
        return make_trainer(tmp_path / folder, train_dataset=pairs, **options)

    whole = trainer_in("whole")
    whole.train()
    all_read = set(log.read_text().split())
    log.unlink()
    resumed = trainer_in("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
    assert_same_state(resumed.model.state_dict(), whole.model.state_dict())
    assert len(all_read & set(log.read_text().split())) <= len(all_read) - 5 * 4, "five batches of four pairs"


def test_a_stream_that_fails_costs_no_step(tmp_path, monkeypatch):
    draw, drawn = PairSampler.draw, []

    def failing(self, clip, rng):
        drawn.append(clip)
        if len(drawn) > 10:
            raise RuntimeError("no connection")
        return draw(self, clip, rng)

    monkeypatch.setattr(PairSampler, "draw", failing)
    trainer = make_trainer(tmp_path, train_dataset=small_world())
    with pytest.raises(RuntimeError, match="no connection"):
        trainer.train()
    assert (tmp_path / "checkpoint-1" / "model.safetensors").is_file()


def test_more_workers_than_shards_are_refused(tmp_path):
    sequences = procedural_sequences(0, 2, length=4, size=(96, 72))
    pairs = stream_pairs(sequences, make_config(), seed=0)
    with pytest.raises(ValueError, match="has 2 shards for 3 readers"):
        make_trainer(tmp_path, train_dataset=pairs, dataloader_num_workers=3).train()


def test_shuffled_list_of_pairs_resumes_exactly(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3, "train_dataset": make_pairs(10)}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert_same_state(resumed.model.state_dict(), whole.model.state_dict())


def test_checkpoint_of_another_student_is_refused(tmp_path):
    make_trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=2).train()
    checkpoint = str(tmp_path / "checkpoint-2")
    with pytest.raises(
        ValueError, match=r"is of a compression in stages .*\[2, 2\].*, this one is in .*\[1, 1, 2\].*same plan"
    ):
        make_trainer(tmp_path, stages=3).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(ValueError, match="projections.safetensors is missing"):
        make_trainer(tmp_path, student_changes=NARROW).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(RuntimeError, match="size mismatch"):
        make_trainer(tmp_path, student_changes={"intermediate_size": 48}).train(resume_from_checkpoint=checkpoint)
    (tmp_path / "checkpoint-2" / "model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"`resume_from_checkpoint` .*checkpoint-2 is not .* model.safetensors is missing"
    ):
        make_trainer(tmp_path).train(resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize("widths", WIDTHS)
def test_best_student_is_loaded_at_the_end(tmp_path, widths):
    """Here the worst is asked for, which is not the last."""
    trainer = make_trainer(
        tmp_path,
        student_changes=WIDTHS[widths],
        eval_dataset=make_pairs(8),
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        max_steps=8,
        per_device_train_batch_size=8,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    best = tmp_path / f"checkpoint-{2 * (1 + int(np.argmax(losses)))}"
    assert best.name != "checkpoint-8" and Path(trainer.state.best_model_checkpoint) == best
    assert_same_state(trainer.student.state_dict(), load_file(best / "model.safetensors"))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses), rel=1e-6)
    trainer.save_model(tmp_path / "model")
    assert_same_state(load_file(tmp_path / "model" / "model.safetensors"), load_file(best / "model.safetensors"))
