"""The command that compresses; what it makes is tested by running the example, which is the same."""

import copy

import pytest
import torch
from PIL import Image

from ct_hf.cli import main
from ct_hf.cli_compress import USUAL, build_parser, judge
from ct_hf.compression import CompressionTrainer, TrackerTrainer, tracker_trainer
from ct_hf.models import ODTrackConfig, ODTrackModel


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["compress", *arguments])
    assert stopped.value.code in (0, None)
    return capsys.readouterr().out


def test_help_shows_the_method_and_what_is_used_most(capsys):
    text = printed(capsys, "--help")
    for name in (*USUAL, "teacher", "train", "draft", "stage_sizes", "p_init", "mimicking_stages", "term_weights"):
        assert f"--{name} " in text or f"--{name}," in text, name
    assert "--fsdp" not in text and "--adam_beta1" not in text
    assert "ct-hf compress --teacher org/tracker --train videos/train" in text
    flowing = " ".join(text.split())
    assert "(default: 4e-05)" in flowing and "(default: 0.1)" in flowing, "the paper's recipe, whatever the demo takes"
    assert len(text.splitlines()) < 260


def test_all_settings_can_be_seen(capsys):
    text = printed(capsys, "--help_all")
    assert "--fsdp" in text and "--adam_beta1" in text and "--teacher" in text


def test_usual_settings_exist():
    assert {action.dest for action in build_parser()._actions} >= USUAL


def test_a_teacher_is_needed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compress", "--max_steps", "1", "--use_cpu"])
    assert stopped.value.code == 2
    assert "--teacher is missing: give the folder or the Hub repository" in capsys.readouterr().err


@pytest.mark.parametrize(("train", "count"), [([], 0), (["--train", "a", "b", "c"], 3)])
def test_ratios_are_of_data_sets(capsys, train, count):
    with pytest.raises(SystemExit):
        main(["compress", "--teacher", "org/tracker", *train, "--ratios", "1", "2", "--dry_run", "--use_cpu"])
    assert f"--ratios has 2 numbers for {count} data sets of --train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ([], "max_steps"),
        (["--teacher", "/nowhere"], "`--teacher` /nowhere cannot be loaded"),
        (["--p_init", "2"], "p_init"),
        (["--attn_implementation", "fast"], '`attn_implementation="fast"` is not supported'),
        (["--num_stages", "5"], "5"),
        (["--max_steps", "1", "--train", "/nowhere"], "/nowhere"),
        (["--max_steps", "1", "--eval", "/nowhere"], "/nowhere"),
        (["--max_steps", "1", "--load_best_model_at_end"], "has nothing to choose by: give --eval_strategy steps"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tiny_tracker, tmp_path, capsys, wrong, answer):
    tiny_tracker.save_pretrained(tmp_path / "teacher")
    arguments = ["--teacher", str(tmp_path / "teacher"), "--use_cpu", "--output_dir", str(tmp_path / "out"), *wrong]
    with pytest.raises(SystemExit) as stopped:
        main(["compress", *arguments])
    assert stopped.value.code == 2
    usage, error = capsys.readouterr().err.split("ct-hf compress: error: ")
    assert "usage: ct-hf compress --teacher TRACKER" in usage and answer in error
    assert not (tmp_path / "out" / "student").exists()


def test_what_goes_wrong_in_training_keeps_its_traceback(tiny_tracker, tmp_path, monkeypatch):
    def train(self, **_):
        raise ValueError("in the middle of it")

    monkeypatch.setattr(CompressionTrainer, "train", train)
    tiny_tracker.save_pretrained(tmp_path / "teacher")
    arguments = ["--teacher", str(tmp_path / "teacher"), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    with pytest.raises(ValueError, match="in the middle of it"):
        main(["compress", *arguments, "--max_steps", "1", "--eval_sequences", "1"])


def test_a_dry_run_says_what_would_happen(tiny_tracker, tmp_path, capsys):
    tiny_tracker.save_pretrained(tmp_path / "teacher")
    teacher = str(tmp_path / "teacher")
    assert (
        main(["compress", "--teacher", teacher, "--dry_run", "--use_cpu", "--output_dir", str(tmp_path / "out")]) == 0
    )
    assert "teacher:" in capsys.readouterr().out and not (tmp_path / "out" / "student").exists()


def test_all_that_is_trained_attends_as_was_asked(tiny_tracker, tmp_path, monkeypatch):
    trained = []
    train = TrackerTrainer.train

    def watch(self, **settings):
        trained.extend([self.model.student, self.model.teacher] if hasattr(self.model, "teacher") else [self.model])
        return train(self, **settings)

    judged = {}

    def watch_judging(trackers, sequences):
        judged.update(
            {name: (tracker.config._attn_implementation, tracker.dtype) for name, tracker in trackers.items()}
        )
        return judge(trackers, sequences)

    monkeypatch.setattr(TrackerTrainer, "train", watch)
    monkeypatch.setattr("ct_hf.cli_compress.judge", watch_judging)
    copy.deepcopy(tiny_tracker).to(torch.bfloat16).save_pretrained(tmp_path / "teacher")
    arguments = ["--teacher", str(tmp_path / "teacher"), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    arguments += ["--max_steps", "1", "--per_device_train_batch_size", "2", "--eval_sequences", "1"]
    arguments += ["--dataloader_num_workers", "0", "--attn_implementation", "eager", "--from_scratch"]
    assert main(["compress", *arguments]) == 0
    assert [tracker.config._attn_implementation for tracker in trained] == ["eager"] * 3
    alike = dict.fromkeys(["teacher", "student", "from scratch"], ("sdpa", torch.float32))
    assert judged == alike, "all are judged alike, or speeds could not be compared"


@pytest.mark.parametrize("search_frames", [1, 2])
def test_a_memory_that_would_not_be_trained_is_told_of(tmp_path, capsys, search_frames):
    sizes = {"template_size": 32, "search_size": 64, "hidden_size": 32, "intermediate_size": 64, "head_channels": 16}
    ODTrackModel(ODTrackConfig(num_hidden_layers=3, num_attention_heads=2, **sizes)).save_pretrained(tmp_path)
    assert main(["compress", "--teacher", str(tmp_path), "--dry_run", "--search_frames", str(search_frames)]) == 0
    assert ("does not train: --search_frames 2" in capsys.readouterr().out) == (search_frames == 1)


def test_trackers_that_are_spread_over_processes_are_compressed_too(tiny_tracker, tmp_path, monkeypatch, capsys):
    """Such a one cannot be tracked with while it trains, and without `--eval_strategy` it need not be."""
    monkeypatch.setattr(tracker_trainer, "is_deepspeed_zero3_enabled", lambda: True)
    tiny_tracker.save_pretrained(tmp_path / "teacher")
    arguments = ["--teacher", str(tmp_path / "teacher"), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    arguments += ["--max_steps", "1", "--per_device_train_batch_size", "2", "--eval_sequences", "1"]
    assert main(["compress", *arguments, "--dataloader_num_workers", "0"]) == 0
    assert (tmp_path / "out" / "student" / "model.safetensors").exists()
    with pytest.raises(SystemExit):
        main(["compress", *arguments, "--eval_strategy", "steps", "--output_dir", str(tmp_path / "other")])
    assert "`tracking_dataset` was given, but FSDP" in capsys.readouterr().err


def test_the_command_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "compress" in capsys.readouterr().out


def test_what_is_said_of_pairs_reaches_them(tiny_tracker, tmp_path, monkeypatch):
    told = {}

    def stream(*_, **options):
        told.update(options)
        raise ValueError("enough is known")

    monkeypatch.setattr("ct_hf.cli_compress.stream_pairs", stream)
    tiny_tracker.save_pretrained(tmp_path / "teacher")
    said = ["--center_jitter", "3.5", "--scale_jitter", "0.5", "--max_bad", "0.2", "--max_steps", "1", "--use_cpu"]
    with pytest.raises(SystemExit):
        main(["compress", "--teacher", str(tmp_path / "teacher"), "--output_dir", str(tmp_path / "out"), *said])
    assert (told["center_jitter"], told["scale_jitter"], told["max_bad"]) == (3.5, 0.5, 0.2)


def test_what_is_judged_at_the_end_is_looked_at_before_training(tiny_tracker, tmp_path, capsys):
    """Or hours of training would end in an error, without table and card."""
    for name, count in (("long", 3), ("short", 1)):
        (folder := tmp_path / "videos" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (64, 48)).save(folder / f"{number}.png")
        (folder / "groundtruth.txt").write_text("10,10,12,12\n" * count)
    tiny_tracker.save_pretrained(tmp_path / "teacher")
    given = [
        "--teacher",
        str(tmp_path / "teacher"),
        "--eval",
        str(tmp_path / "videos"),
        "--max_steps",
        "1",
        "--use_cpu",
    ]
    with pytest.raises(SystemExit):
        main(["compress", *given, "--output_dir", str(tmp_path / "out")])
    assert "Sequence short has 1 frame(s), but tracking needs at least 2" in capsys.readouterr().err
    assert not (tmp_path / "out" / "student").exists()


def test_checkpoints_are_saved_whatever_is_evaluated(tiny_tracker, tmp_path, monkeypatch):
    told = {}

    def train(self, **_):
        told[self.args.eval_strategy.value] = self.args.save_strategy.value, self.args.save_total_limit
        raise RuntimeError("enough is known")

    monkeypatch.setattr(CompressionTrainer, "train", train)
    tiny_tracker.save_pretrained(tmp_path / "teacher")
    given = ["--teacher", str(tmp_path / "teacher"), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    for more in ([], ["--eval_strategy", "steps", "--eval_steps", "1"]):
        with pytest.raises(RuntimeError, match="enough"):
            main(["compress", *given, "--max_steps", "1", "--eval_sequences", "1", *more])
    assert told == {"no": ("steps", 2), "steps": ("steps", 2)}
    for name in ("--save-strategy", "--save_strat"):
        told.clear()
        with pytest.raises(RuntimeError, match="enough"):
            main(["compress", *given, "--max_steps", "1", "--eval_sequences", "1", name, "no"])
        assert told["no"] == ("no", 2), name


def test_another_runs_checkpoints_are_not_removed(tiny_tracker, tmp_path, monkeypatch, capsys):
    begun = []
    train = TrackerTrainer.train

    def watch(self, **settings):
        result = train(self, **settings)
        begun.append((type(self).__name__, bool(settings["resume_from_checkpoint"]), self.state.global_step))
        return result

    monkeypatch.setattr(TrackerTrainer, "train", watch)
    tiny_tracker.save_pretrained(tmp_path / "teacher")
    given = ["--teacher", str(tmp_path / "teacher"), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    given += ["--eval_sequences", "1", "--per_device_train_batch_size", "2", "--dataloader_num_workers", "0"]
    given += ["--from_scratch"]
    assert main(["compress", *given, "--max_steps", "1"]) == 0
    assert (tmp_path / "out" / "checkpoint-1").is_dir()
    with pytest.raises(SystemExit):
        main(["compress", *given, "--max_steps", "1", "--seed", "2"])
    error = capsys.readouterr().err
    assert "holds checkpoint-1 of another run, which this one would remove" in error
    with pytest.raises(SystemExit):
        main(
            [
                "compress",
                *given,
                "--max_steps",
                "2",
                "--resume_from_checkpoint",
                str(tmp_path / "out" / "checkpoint-7"),
            ]
        )
    assert (
        "checkpoint-7 is not a complete checkpoint: there is no such folder. The newest complete one is"
        in capsys.readouterr().err
    )
    assert main(["compress", *given, "--max_steps", "2", "--resume_from_checkpoint", "True"]) == 0
    assert (tmp_path / "out" / "checkpoint-2").is_dir()
    assert begun == [
        (name, more, 1 + more) for more in (False, True) for name in ("CompressionTrainer", "TrackerTrainer")
    ]
