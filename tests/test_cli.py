import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, ViTConfig, ViTModel

from ct_hf import OSTrackConfig, OSTrackModel
from ct_hf.cli import main

from .parity import fill_weights, load_case


TINY = {
    "template_size": 32,
    "search_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "head_channels": 16,
}


@pytest.fixture(scope="module")
def trackers(tmp_path_factory):
    """Two tiny random trackers on disk."""
    folder = tmp_path_factory.mktemp("trackers")
    for name in ("first", "second"):
        OSTrackModel(OSTrackConfig(**TINY)).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Two drawn sequences: a bright square that moves over noise."""
    root = tmp_path_factory.mktemp("sequences")
    for number in range(2):
        folder = root / f"square{number}"
        folder.mkdir()
        noise = np.random.default_rng(number).integers(0, 80, (60, 80, 3), dtype=np.uint8)
        lines = []
        for index in range(4):
            frame = noise.copy()
            frame[20:36, 10 + 5 * index : 26 + 5 * index] = 250
            Image.fromarray(frame).save(folder / f"{index + 1:08d}.jpg")
            lines.append(f"{10 + 5 * index},20,16,16")
        (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return root


def test_evaluate_writes_the_figures_of_every_tracker(trackers, sequences, tmp_path, capsys):
    out = tmp_path / "results" / "figures.json"
    names = [str(trackers / "first"), str(trackers / "second")]
    assert main(["evaluate", "--tracker", *names, "--sequences", str(sequences), "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["sequences"] == 2
    assert content["protocol"] == "visible"
    assert [tracker["name"] for tracker in content["trackers"]] == ["first", "second"]
    for tracker in content["trackers"]:
        figures = {"auc", "precision", "norm_precision", "op50", "op75"}
        assert set(tracker) == {"name", *figures, "fps", "parameters", "per_sequence"}
        assert 0 <= tracker["auc"] <= 100
        assert tracker["fps"] > 0
        assert set(tracker["per_sequence"]) == {"square0", "square1"}
    printed = capsys.readouterr().out
    assert "first" in printed
    assert "second" in printed


def test_evaluate_names_a_folder_without_sequences(trackers, tmp_path, capsys):
    arguments = ["evaluate", "--tracker", str(trackers / "first"), "--sequences", str(tmp_path / "nowhere")]
    assert main(arguments) == 1
    assert "nowhere" in capsys.readouterr().err


def test_convert_refuses_a_file_that_is_no_checkpoint(tmp_path, capsys):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"no checkpoint")
    arguments = ["convert", "--family", "ostrack", "--variant", "vitb_256_mae_32x4_ep300"]
    assert main([*arguments, "--checkpoint", str(file), "--out", str(tmp_path / "out")]) == 1
    assert "weights.pth" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_convert_takes_configuration_fields_from_the_command_line(tmp_path, capsys):
    """Numbers, lists and words; the result is what AutoModel loads. A name that is no field is refused."""
    spec, _ = load_case("ostrack_tiny_ce_center")
    torch.save({"net": fill_weights(spec)}, tmp_path / "tiny.pth")
    arguments = ["convert", "--family", "ostrack", "--variant", "vitb_256_mae_ce_32x4_ep300"]
    arguments += ["--checkpoint", str(tmp_path / "tiny.pth"), "--out", str(tmp_path / "out")]
    for name, value in spec["config"].items():
        arguments += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    assert main([*arguments, "--set", "num_layers=2"]) == 1
    assert "num_layers" in capsys.readouterr().err
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "keys converted" in printed
    assert "backbone.cls_token" in printed
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert {name: getattr(model.config, name) for name in spec["config"]} == spec["config"]


def test_evaluate_tells_folders_of_one_name_apart(trackers, sequences, tmp_path, capsys, monkeypatch):
    shutil.copytree(trackers / "first", tmp_path / "first")
    monkeypatch.chdir(trackers)
    arguments = ["evaluate", "--sequences", str(sequences), "--tracker"]
    assert main([*arguments, "first", str(tmp_path / "first")]) == 0
    assert str(tmp_path / "first") in capsys.readouterr().out
    monkeypatch.chdir(trackers / "second")
    assert main([*arguments, "."]) == 0
    assert "second" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tracker", "first", "first"], "names a tracker twice"),
        (["--tracker", "first", "--device", "nowhere"], "`--device` nowhere is not available"),
        (["--tracker", "other"], "which is no tracker"),
    ],
)
def test_evaluate_refuses(trackers, sequences, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(trackers)
    if not (trackers / "other").is_dir():
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(trackers / "other")
    assert main(["evaluate", "--sequences", str(sequences), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_commands_explain_themselves():
    help_text = subprocess.run([sys.executable, "-m", "ct_hf.cli", "--help"], capture_output=True, text=True).stdout
    for command in ("convert", "evaluate"):
        assert command in help_text
