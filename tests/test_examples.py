"""The examples run as a user starts them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image
from transformers import AutoModel

from ct_hf import OSTrackConfig, OSTrackModel
from ct_hf.compression.products import is_bf16_faster

from .scripts import run_here


ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
VIDEOS = ROOT.parent / "shared" / "data" / "sequences"


def launch_example(name, *arguments):
    """As accelerate starts it, in processes of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", str(EXAMPLES / name)]
    run = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=600
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Tiny random teacher of 6 layers on disk."""
    folder = tmp_path_factory.mktemp("teacher")
    sizes = {"template_size": 32, "search_size": 64, "hidden_size": 32, "intermediate_size": 64, "head_channels": 16}
    OSTrackModel(OSTrackConfig(num_hidden_layers=6, num_attention_heads=2, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def compressed(teacher, tmp_path_factory):
    """What the main example leaves behind, and what it prints."""
    out = tmp_path_factory.mktemp("compress")
    arguments = ("--teacher", teacher, "--max-steps", 4, "--eval-sequences", 2, "--from_scratch")
    arguments = (*arguments, "--logging_steps", 2, "--output_dir", out)
    return out, launch_example("compress.py", *arguments)


def test_compress_writes_summary_card_picture_and_a_student_that_automodel_loads(compressed, tmp_path, fresh_python):
    out, printed = compressed
    summary = json.loads((out / "summary.json").read_text())
    for name, layers in (("teacher", 6), ("student", 2), ("from_scratch", 2)):
        assert set(summary[name]) == {"layers", "parameters", "gmacs", "auc", "fps"}
        assert summary[name]["layers"] == layers
    assert summary["student"]["parameters"] < summary["teacher"]["parameters"]
    assert summary["student"]["gmacs"] < summary["teacher"]["gmacs"]
    assert summary["from_scratch"]["gmacs"] == summary["student"]["gmacs"]
    assert summary["retention"] == pytest.approx(100 * summary["student"]["auc"] / summary["teacher"]["auc"])
    assert summary["speedup"] == pytest.approx(summary["student"]["fps"] / summary["teacher"]["fps"])
    assert 0 < summary["training_seconds"] < summary["seconds"]
    assert (out / "tracks.png").stat().st_size > 1000
    with Image.open(out / "tracks.gif") as animation:
        assert animation.n_frames > 10
    card = (out / "student" / "README.md").read_text()
    assert "AUC" in card and "](training.png)" in card
    recipe = "--learning_rate=0.004 --lr_scheduler_type=cosine --max_grad_norm=1.0 --save_strategy=best"
    recipe += " --use_cpu=True --bf16=True --attn_implementation=eager" if is_bf16_faster() else ""
    assert f"ct-hf compress {recipe} --teacher teacher0 --max-steps 4" in card, "what the example adds is told too"
    assert (out / "student" / "training.png").read_bytes() == (out / "training.png").read_bytes()
    record = json.loads((out / "student" / "config.json").read_text())["compression"]
    assert record["teacher"] == {"name": "teacher0", "num_hidden_layers": 6} and record["step"] == 4
    assert json.loads((out / "from_scratch" / "config.json").read_text())["compression"] is None
    assert "Retention" in printed or "AUC kept" in printed

    code = (
        "import sys, ct_hf; from transformers import AutoModel, AutoImageProcessor;"
        "model = AutoModel.from_pretrained(sys.argv[1]); AutoImageProcessor.from_pretrained(sys.argv[1]);"
        "print(type(model).__name__, len(model.layers))"
    )
    assert fresh_python(code, tmp_path, out / "student").split()[-2:] == ["OSTrackModel", "2"]


def test_a_student_from_scratch_knows_nothing_of_the_teacher(teacher, compressed):
    """After four steps the compressed student still resembles the teacher's layers, the other one does not."""
    out, _ = compressed
    teacher, student, scratch = (
        AutoModel.from_pretrained(path) for path in (teacher, out / "student", out / "from_scratch")
    )
    theirs = teacher.layers[5].attention.q_proj.weight
    distances = [(theirs - model.layers[1].attention.q_proj.weight).norm() for model in (student, scratch)]
    assert distances[0] < 0.7 * distances[1]


def test_student_folder_holds_no_pickle(compressed):
    """Whoever loads a student gets weights, text and pictures, nothing that could run."""
    out, _ = compressed
    assert {file.suffix for file in (out / "student").iterdir()} == {".json", ".safetensors", ".md", ".png"}


def test_compress_keeps_the_student_that_tracks_best(teacher, tmp_path):
    """And the one from scratch that does; each beside its own checkpoints."""
    often = ("--eval_strategy", "steps", "--eval_steps", 1, "--load_best_model_at_end")
    best = ("--metric_for_best_model", "tracking_auc", "--save_total_limit", 1)
    arguments = ("--teacher", teacher, "--max-steps", 2, "--eval-sequences", 1, "--from_scratch")
    run_here(EXAMPLES / "compress.py", *arguments, *often, *best, "--output_dir", tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name, checkpoints in (("student", tmp_path), ("from_scratch", tmp_path / "from_scratch")):
        (checkpoint,) = checkpoints.glob("checkpoint-*")
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        assert state["best_metric"] == pytest.approx(summary[name]["auc"], rel=1e-9), name
        assert (checkpoint / "model.safetensors").read_bytes() == (tmp_path / name / "model.safetensors").read_bytes()
        assert checkpoint.name == f"checkpoint-{state['best_global_step']}"
    record = json.loads((tmp_path / "student" / "config.json").read_text())["compression"]
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{record['step']}"
    card = (tmp_path / "student" / "README.md").read_text()
    assert f"of step {record['step']}, best by tracking_auc" in card and "these figures flatter it" in card


def test_dry_run_trains_nothing(teacher, tmp_path):
    printed = run_here(EXAMPLES / "compress.py", "--teacher", teacher, "--dry-run", "--output_dir", tmp_path / "out")
    for word in ("stage 0", "initialised from teacher layer", "parameters", "GMACs", "memory"):
        assert word in printed
    assert not (tmp_path / "out").exists()


def test_compress_on_real_video(teacher, tmp_path):
    if not VIDEOS.is_dir():
        pytest.skip("no real sequences beside the checkout")
    # Three short sequences, so that the test stays short; the whole folder is a matter of a longer run.
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("uav123_wakeboard7", "otb_Human3", "otb_Singer1"):
        (videos / name).symlink_to(VIDEOS / name)
    out = tmp_path / "out"
    arguments = ("--train", videos, "--eval", videos, "--num-stages", 3, "--max-steps", 3, "--output_dir", out)
    run_here(EXAMPLES / "compress.py", "--teacher", teacher, *arguments)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["sequences"] == 3
    assert summary["student"]["layers"] == 3
    assert not (out / "student" / "tracks.png").exists(), "a card is made to be shared, footage is not"
    card = (out / "student" / "README.md").read_text()
    assert "`videos`, 3 sequences: 100 % of the pairs" in card and str(tmp_path) not in card


def test_train_teacher(tmp_path):
    out = tmp_path / "teacher"
    arguments = ("--max_steps", 2, "--per_device_train_batch_size", 4, "--num_hidden_layers", 2, "--hidden_size", 64)
    printed = run_here(EXAMPLES / "train_teacher.py", *arguments, "--eval_sequences", 1, "--output_dir", out)
    assert "textures: 1 sequences" in printed
    assert (out / "model.safetensors").is_file()


def test_a_new_teacher_compares_from_the_first_step(monkeypatch):
    """Search tokens look at the template tokens that show the same, which the usual initialisation does not make them do."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import train_teacher

    torch.manual_seed(0)
    sizes = {"template_size": 64, "search_size": 128, "hidden_size": 128, "num_attention_heads": 2}
    model = OSTrackModel(OSTrackConfig(num_hidden_layers=1, intermediate_size=128, head_channels=16, **sizes)).eval()
    search = torch.randn(8, 3, 128, 128)
    template = search[:, :, 16:80, 48:112]

    def matched():
        with torch.no_grad():
            state = model.embed(template[:, None], search)
            tokens = model.layers[0].layernorm_before(state.hidden_states)
            query, key = model.layers[0].attention.q_proj(tokens), model.layers[0].attention.k_proj(tokens)
            weights = (query[:, 16:].unflatten(1, (8, 8))[:, 1:5, 3:7].flatten(1, 2) @ key[:, :16].mT).softmax(-1)
        return weights.diagonal(dim1=1, dim2=2).mean().item()

    assert matched() < 0.15
    train_teacher.prepare_to_match(model)
    assert matched() > 0.5


def test_collect_photographs_keeps_the_largest_of_each_picture_and_the_copyright(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import collect_photographs

    def pretend(command, **options):
        """Two sizes of one wallpaper, a drawing, an icon and a cut-out, as a package would hold them."""
        if command[0] == "apt-get":
            (options["cwd"] / "walls_1.deb").touch()
            return
        share = Path(command[-1]) / "usr" / "share"
        for path, mode, size in (
            ("wallpapers/Lake/contents/images/1920x1080.jpg", "RGB", (400, 300)),
            ("wallpapers/Lake/contents/images/5120x2880.jpg", "RGB", (1600, 900)),
            ("symbols/letter.png", "RGB", (300, 300)),
            ("icons/icon.png", "RGB", (32, 32)),
            ("stamps/bird.png", "RGBA", (200, 200)),
        ):
            (share / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, size).save(share / path)
        (share / "doc" / "walls").mkdir(parents=True)
        (share / "doc" / "walls" / "copyright").write_text("CC0")

    monkeypatch.setattr(collect_photographs.subprocess, "run", pretend)
    assert collect_photographs.collect("walls", ("symbols",), tmp_path) == 2
    assert {file.name for file in (tmp_path / "walls").iterdir()} == {"Lake.jpg", "bird.png", "copyright"}
    with Image.open(tmp_path / "walls" / "Lake.jpg") as image:
        assert image.size == (1200, 675)
    with Image.open(tmp_path / "walls" / "bird.png") as image:
        assert image.mode == "RGBA"


CONFIGS = sorted((EXAMPLES / "accelerate_configs").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_launch_configurations_are_read_by_accelerate_and_say_how_they_are_used(file):
    config = load_config_from_file(str(file))  # refuses fields that it does not know
    text = file.read_text()
    assert f"accelerate launch --config_file examples/accelerate_configs/{file.name} " in text
    assert re.search(r"\b([Nn]ot r|R)un by us\b", text)
    assert config.use_cpu == (file.stem == "cpu") and config.num_processes in (1, 8, 16)


def test_every_kind_of_machine_has_a_configuration():
    assert {file.stem for file in CONFIGS} == {"cpu", "single_gpu", "multi_gpu", "multi_node", "fsdp", "deepspeed"}


def test_hub_roundtrip_compares_both_ways_of_loading(compressed, monkeypatch, capfd):
    monkeypatch.syspath_prepend(EXAMPLES)
    import hub_roundtrip

    assert hub_roundtrip.main([str(compressed[0])]) == 0
    printed = capfd.readouterr().out
    assert "pushed to http://127.0.0.1:" in printed
    for way in ("with ct_hf", "without ct_hf"):
        assert re.search(rf"loaded {way} in .*pred_boxes.*crop, tracks: equal bit for bit", printed)
    monkeypatch.setattr(hub_roundtrip.subprocess, "run", lambda *_, **__: None)
    monkeypatch.setattr(hub_roundtrip, "differences", lambda *_: ["score"])
    monkeypatch.setattr(hub_roundtrip, "load", lambda trackers, *_: dict.fromkeys(trackers, 0.0))
    assert hub_roundtrip.main([str(compressed[0])]) == 1
    assert "unlike in score" in capfd.readouterr().out
