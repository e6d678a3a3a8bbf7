import datasets
import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoImageProcessor, AutoModel, TrainerCallback, TrainingArguments

from ct_hf.compression import TrackerTrainer, TrackerTrainingArguments
from ct_hf.data import CAUSES, FolderSequence, ProceduralWorld, stream_pairs

from .tiny import make_pairs, make_tracker
from .training import Watch, make_arguments, normalised, small_world, train_logs


@pytest.fixture
def trainer_of(tmp_path):
    def trainer_of(train_dataset=None, callbacks=None, eval_dataset=None, folder=tmp_path, **arguments):
        return TrackerTrainer(
            model=make_tracker(2).train(),
            args=make_arguments(folder, TrackerTrainingArguments, **arguments),
            train_dataset=make_pairs(8) if train_dataset is None else train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )

    return trainer_of


def test_a_tracker_learns_from_ground_truth(trainer_of):
    pairs = make_pairs(8)
    trainer = trainer_of(pairs, max_steps=60, per_device_train_batch_size=8, learning_rate=3e-3, eval_dataset=pairs)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5 * before


def test_logs_every_term_and_the_overlap(trainer_of):
    trainer = trainer_of()
    trainer.train()
    logs = train_logs(trainer)
    assert len(logs) == 6
    for entry in logs:
        assert entry["loss"] == pytest.approx(entry["focal"] + entry["giou"] + entry["l1"], rel=1e-5)
        assert 0 <= entry["iou"] <= 1
    assert not any("replacement_rate" in entry for entry in logs)


def test_log_is_the_mean_since_the_last(trainer_of, tmp_path):
    each = trainer_of()
    each.train()
    rare = trainer_of(logging_steps=3)
    rare.train()
    for name in ("loss", "focal", "iou"):
        values = [entry[name] for entry in train_logs(each)]
        expected = [np.mean(values[:3]), np.mean(values[3:])]
        assert [entry[name] for entry in train_logs(rare)] == pytest.approx(expected, rel=1e-5), name


def test_what_is_kept_for_a_log_does_not_grow_with_the_steps(trainer_of, tmp_path):
    """A training that logs nothing before its end keeps sums, not every value."""
    trainer_of(logging_strategy="no", save_strategy="steps", save_steps=30, max_steps=60).train()
    sizes = [(tmp_path / f"checkpoint-{step}" / "log_state.pt").stat().st_size for step in (30, 60)]
    assert sizes[0] == sizes[1]


def test_eight_bit_crops_are_normalised_by_the_image_processor(trainer_of):
    """And crops that are normalised already are left alone."""
    pairs = make_pairs(4)
    trainer = trainer_of()
    batch = normalised(pairs, trainer.model)
    prepared = trainer._prepare_inputs(trainer.data_collator(pairs))
    assert prepared.keys() == batch.keys()
    for again in (prepared, trainer._prepare_inputs(dict(prepared))):
        assert all(torch.equal(again[name], value) for name, value in batch.items())
    assert prepared["search_pixel_values"].dtype == torch.float32


def test_evaluation_is_the_trackers_own_loss(trainer_of):
    """Also where the last batch is smaller; each sample weighs the same."""
    pairs = make_pairs(6, seed=2)
    trainer = trainer_of(eval_dataset=pairs, per_device_eval_batch_size=4)
    metrics = trainer.evaluate()
    with torch.no_grad():
        output = trainer.model.eval()(**normalised(pairs, trainer.model))
    assert metrics["eval_loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    logged = trainer.state.log_history[-1]
    assert {"eval_focal", "eval_giou", "eval_l1", "eval_iou"} <= logged.keys()
    for name, value in output.loss_dict.items():
        assert logged[f"eval_{name}"] == pytest.approx(value.item(), rel=1e-5), name


def test_evaluation_may_be_called_as_training_is(trainer_of):
    """By the prefix that transformers users give to figures of their training pairs."""
    pairs = make_pairs(6, seed=2)
    trainer = trainer_of(eval_dataset=pairs)
    before = trainer.evaluate(metric_key_prefix="train")
    assert before["train_loss"] == pytest.approx(trainer.evaluate()["eval_loss"])
    trainer.train()
    metrics, usual = trainer.evaluate(pairs, metric_key_prefix="train"), trainer.evaluate(pairs)
    for name in ("loss", "focal", "iou"):
        assert metrics[f"train_{name}"] == pytest.approx(usual[f"eval_{name}"]), name


def test_evaluation_while_training_keeps_the_logs_apart(trainer_of, tmp_path):
    alone = trainer_of()
    alone.train()
    both = trainer_of(eval_dataset=make_pairs(6, seed=2), eval_strategy="steps", eval_steps=1)
    both.train()
    for first, second in zip(train_logs(alone), train_logs(both), strict=True):
        assert all(first[name] == second[name] for name in ("loss", "focal", "giou", "l1", "iou"))
    assert len([entry for entry in both.state.log_history if "eval_iou" in entry]) == 6


# Optimizer


def test_no_weight_decay_on_norms_biases_and_position_tables(trainer_of):
    trainer = trainer_of(weight_decay=0.01)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    modules = dict(trainer.model.named_modules())
    for name, parameter in trainer.model.named_parameters():
        owner = modules[name.rpartition(".")[0]]
        spared = (
            isinstance(owner, nn.LayerNorm | nn.BatchNorm2d) or name.endswith("bias") or "position_embeddings" in name
        )
        assert (name in decayed) is not spared, name
        assert spared or parameter.ndim >= 2
    trainer.create_optimizer()
    groups = {group["weight_decay"]: group["params"] for group in trainer.optimizer.param_groups}
    assert sorted(groups) == [0.0, 0.01]
    assert sum(map(len, groups.values())) == len(list(trainer.model.parameters()))
    parameters = dict(trainer.model.named_parameters())
    assert {id(parameter) for parameter in groups[0.01]} == {id(parameters[name]) for name in decayed}


@pytest.mark.parametrize(
    ("drop", "steps", "constant"), [(0.8, 10, 8), (0.5, 10, 5), (1.0, 10, 10), (0.8, 6, 5)], ids=str
)
def test_learning_rate_drops_once(trainer_of, drop, steps, constant):
    """By 0.1, at 80 % of the steps: section 4.1 of the paper."""
    watch = Watch()
    trainer_of(callbacks=[watch], learning_rate_drop=drop, max_steps=steps, learning_rate=1e-4).train()
    assert watch.rates == pytest.approx([1e-4] * constant + [1e-5] * (steps - constant))


def test_other_schedules_are_as_in_transformers(trainer_of):
    watch = Watch()
    trainer_of(callbacks=[watch], lr_scheduler_type="linear", max_steps=4, learning_rate=1e-4).train()
    assert watch.rates == pytest.approx([1e-4, 0.75e-4, 0.5e-4, 0.25e-4])


# Files


def test_saved_model_and_processor_load(trainer_of, tmp_path):
    trainer = trainer_of()
    trainer.train()
    trainer.save_model(tmp_path / "model")
    loaded = AutoModel.from_pretrained(tmp_path / "model")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in trainer.model.state_dict().items())
    assert AutoImageProcessor.from_pretrained(tmp_path / "model").to_dict() == trainer.processing_class.to_dict()


def test_resumes_exactly(trainer_of, tmp_path):
    whole = trainer_of(small_world(), save_strategy="steps", save_steps=3)
    whole.train()
    rest = trainer_of(small_world(), save_strategy="steps", save_steps=3, folder=tmp_path / "rest")
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert all(torch.equal(value, rest.model.state_dict()[name]) for name, value in whole.model.state_dict().items())
    assert [entry["loss"] for entry in train_logs(rest)] == [entry["loss"] for entry in train_logs(whole)]


# What the stream leaves out


def test_skipped_clips_and_pairs_are_counted(trainer_of):
    pairs = make_pairs(8)
    for row, (cause, count) in enumerate([("corrupt_image", 2), ("bad_box", 1), ("corrupt_image", 3)]):
        pairs[2 * row]["skipped"][CAUSES.index(cause)] = count
    trainer = trainer_of(pairs, max_steps=2)
    trainer.train()
    assert trainer.skipped == {"corrupt_image": 5, "bad_box": 1}
    logged = train_logs(trainer)[-1]
    assert {name: value for name, value in logged.items() if name.startswith("skipped")} == {
        "skipped_corrupt_image": 5,
        "skipped_bad_box": 1,
    }


def test_nothing_is_said_where_nothing_was_skipped(trainer_of):
    trainer = trainer_of()
    trainer.train()
    assert not trainer.skipped and not any("skipped" in name for entry in train_logs(trainer) for name in entry)


def test_folder_with_corrupt_images_trains_and_says_so(trainer_of, tmp_path):
    """Every second frame of one sequence is cut off in the middle, another one has no readable frame."""
    world = ProceduralWorld(length=12, size=(96, 72))
    sequences = []
    for index, broken in enumerate([set(), set(range(1, 12, 2)), set(range(12))]):
        rendered, folder = world.sequence(0, index), tmp_path / f"sequence-{index}"
        folder.mkdir()
        for frame in range(12):
            data = rendered.frame_bytes(frame)
            (folder / f"{frame + 1:08d}.png").write_bytes(data[: len(data) // 2] if frame in broken else data)
        boxes = [(20 + frame, 18, 24, 20) for frame in range(12)]
        (folder / "groundtruth.txt").write_text("".join(",".join(map(str, box)) + "\n" for box in boxes))
        sequences.append(FolderSequence(folder))
    model = make_tracker(2)
    trainer = trainer_of(stream_pairs(sequences, model.config, seed=0, max_bad=1.0), max_steps=4)
    trainer.train()
    assert trainer.skipped["corrupt_image"] > 0
    assert train_logs(trainer)[-1]["skipped_corrupt_image"] == trainer.skipped["corrupt_image"]
    assert all(np.isfinite(entry["loss"]) for entry in train_logs(trainer))


@pytest.mark.parametrize("kept", [None, "numpy", "torch"])
def test_pairs_kept_in_a_data_set_are_normalised_too(trainer_of, kept):
    """`datasets` gives numbers back in a wider type."""
    pairs = make_pairs(4)
    trainer = trainer_of(pairs)
    expected = trainer.evaluate(pairs)["eval_loss"]
    data = datasets.Dataset.from_list(pairs)
    assert trainer.evaluate(data.with_format(kept) if kept else data)["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_stream_without_end_is_not_evaluated(trainer_of):
    with pytest.raises(ValueError, match="`eval_dataset` is a stream without end. End it by `take`"):
        trainer_of(eval_dataset=small_world())
    assert trainer_of(eval_dataset=small_world().take(4)).evaluate()["eval_loss"] > 0


def test_pairs_with_names_and_without_labels_are_predicted(trainer_of):
    pairs = [{**pair, "name": "walk"} for pair in make_pairs(4)]
    for pair in pairs:
        del pair["search_boxes"]
    assert len(trainer_of().predict(pairs).predictions[0]) == 4


def test_what_a_callback_logs_is_its_own(trainer_of):
    """In one process of several, too: the terms of the loss, which all of them gather, wait for the next row of training."""

    class Own(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trainer.log({"mine": 1.0})

    trainer = trainer_of(callbacks=[Own()], max_steps=2)
    trainer.train()
    own = [row for row in trainer.state.log_history if "mine" in row]
    assert [set(row) - {"epoch", "step"} for row in own] == [{"mine"}] * 2
    assert all("focal" in row for row in train_logs(trainer))


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_a_new_rate_counts_from_the_checkpoint_on(trainer_of, tmp_path, caplog, kind):
    """Else the advice to lower it, after a loss that is not finite, would lead nowhere."""
    arguments = {"lr_scheduler_type": kind, "max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    first = trainer_of(**arguments, learning_rate=1e-3)
    first.train()
    again = trainer_of(**arguments, learning_rate=1e-5, weight_decay=0.3)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    rates = [[row["learning_rate"] for row in train_logs(trainer)][3:] for trainer in (first, again)]
    assert rates[1] == pytest.approx([rate / 100 for rate in rates[0]])
    assert again.optimizer.param_groups[0]["weight_decay"] == 0.3
    assert "`learning_rate` was 0.001 up to here, and is 1e-05 from here on" in caplog.text


def test_wrong_types_are_named(tmp_path):
    with pytest.raises(TypeError, match="`args` must be TrackerTrainingArguments, got TrainingArguments"):
        TrackerTrainer(make_tracker(2), TrainingArguments(str(tmp_path)))
    for model in ("org/tracker", nn.Linear(2, 2)):
        with pytest.raises(TypeError, match="`model` must be a tracker, got a .*Load it by AutoModel"):
            TrackerTrainer(model, make_arguments(tmp_path, TrackerTrainingArguments))


@pytest.mark.parametrize("remove", [False, True])
def test_columns_that_no_tracker_takes_are_left_out(trainer_of, remove):
    """In training and in evaluation; such as `frame_index`, which a sampler's rows have."""
    pairs = [{**pair, "frame_index": np.arange(2)} for pair in make_pairs(8)]
    trainer = trainer_of(pairs, eval_dataset=pairs, eval_strategy="steps", eval_steps=1, remove_unused_columns=remove)
    trainer.train()
    assert "eval_iou" in trainer.evaluate()


def test_a_stream_is_not_read_by_one_process_for_all(trainer_of):
    trainer = trainer_of(small_world(), accelerator_config={"dispatch_batches": True})
    with pytest.raises(ValueError, match="`dispatch_batches` of `accelerator_config` is True"):
        trainer.train()


def test_a_model_alone_goes_on_at_the_rate_of_its_step(trainer_of, caplog):
    """Its checkpoint holds no schedule; the drop of the rate would come too late."""
    options = {"max_steps": 6, "learning_rate_drop": 0.5, "save_strategy": "steps", "save_steps": 2}
    trainer_of(save_only_model=True, **options).train()
    resumed = trainer_of(save_only_model=True, resume_from_checkpoint="checkpoint-2", **options)
    folder = resumed.args.output_dir
    resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-2")
    rates = [entry["learning_rate"] for entry in train_logs(resumed)]
    assert [round(rate / resumed.args.learning_rate, 3) for rate in rates[-4:]] == [1, 0.1, 0.1, 0.1]
    assert "keeps no optimizer" in caplog.text and "goes on where it was" in caplog.text


def test_several_devices_in_one_process_are_refused(tmp_path, monkeypatch):
    """Copies of DataParallel have no parameters to tell a type by."""
    monkeypatch.setattr(TrackerTrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match="2 GPUs.*accelerate launch"):
        TrackerTrainer(model=make_tracker(1), args=make_arguments(tmp_path, TrackerTrainingArguments))


def test_a_saved_tracker_can_be_published(tmp_path):
    """Nothing pickled is beside it; a checkpoint has its arguments."""
    arguments = make_arguments(tmp_path, TrackerTrainingArguments, max_steps=1, save_strategy="steps", save_steps=1)
    trainer = TrackerTrainer(model=make_tracker(1), args=arguments, train_dataset=make_pairs(4))
    trainer.train()
    trainer.save_model(tmp_path / "tracker")
    names = {path.name for path in (tmp_path / "tracker").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert (tmp_path / "checkpoint-1" / "training_args.bin").is_file()
