import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, ViTConfig, ViTModel

from ct_hf import OSTrackConfig, OSTrackModel
from ct_hf.cli import main
from ct_hf.evaluation.hardware import describe_device
from ct_hf.tracking import VideoWriter, open_video

from .parity import fill_weights, load_case


HERE = describe_device(torch.device("cpu"))
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
        assert set(tracker) == {"name", *figures, "fps", "conditions", "parameters", "per_sequence"}
        assert 0 <= tracker["auc"] <= 100
        assert tracker["fps"] > 0
        assert set(tracker["per_sequence"]) == {"square0", "square1"}
    printed = capsys.readouterr().out
    assert "first" in printed
    assert "second" in printed


def test_evaluate_keeps_boxes_and_goes_on_from_them(trackers, sequences, tmp_path, capsys):
    arguments = ["evaluate", "--tracker", str(trackers / "first"), "--sequences", str(sequences)]
    arguments += ["--out", str(tmp_path / "results"), "--protocol", "otb", "--batch-size", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"FPS: {HERE}, float32, batch size 2, " in printed and "crop, forward pass and box" in printed
    content = json.loads((tmp_path / "results" / "results.json").read_text())
    assert content["protocol"] == "otb" and content["trackers"][0]["speed"]["batch_size"] == 2
    boxes = tmp_path / "results" / "first" / "square1.txt"
    others = "10,20,16,16\n" + "0,0,1,1\n" * 3
    boxes.write_text(others)  # only what is not there is tracked
    assert main(arguments) == 0
    content = json.loads((tmp_path / "results" / "results.json").read_text())
    assert content["trackers"][0]["per_sequence"]["square1"]["precision"] < 100
    assert boxes.read_text() == others


def test_evaluate_shows_a_dash_for_a_speed_that_is_not_known(trackers, sequences, tmp_path, capsys):
    """The first tracker's boxes come of two kinds of run."""
    arguments = ["evaluate", "--tracker", str(trackers / "first"), str(trackers / "second")]
    arguments += ["--sequences", str(sequences), "--out", str(tmp_path)]
    assert main([*arguments, "--batch-size", "2"]) == 0
    assert "Speed-up" in capsys.readouterr().out
    (tmp_path / "first" / "square1.txt").unlink()
    assert main([*arguments, "--batch-size", "1", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    first, second = (line.strip("| ") for line in printed.splitlines()[2:4])
    assert first.startswith("first ") and first.endswith(" -") and second.startswith("second ")
    assert "Speed-up" not in printed and printed.count(f"FPS: {HERE}, float32, batch size 2, ") == 1
    figures = json.loads((tmp_path / "figures.json").read_text())["trackers"]
    assert figures[0]["fps"] is None and second.endswith(f" {figures[1]['fps']:.1f}")
    (tmp_path / "second" / "square1.txt").unlink()
    assert main([*arguments, "--batch-size", "1"]) == 0
    printed = capsys.readouterr().out
    assert "FPS" not in printed.splitlines()[0] and "FPS: not of one kind of run" in printed


def test_evaluate_reads_data_sets_and_reports(trackers, sequences, tmp_path, capsys):
    """GOT-10k's layout, from its files to a page."""
    root = tmp_path / "GOT-10k" / "val"
    shutil.copytree(sequences, root)
    (root / "list.txt").write_text("square0\nsquare1\n")
    for name in ("square0", "square1"):
        for flags, value in (("absence", 0), ("cover", 8), ("cut_by_image", 0)):
            (root / name / f"{flags}.label").write_text(f"{value}\n" * 4)
    arguments = ["evaluate", "--tracker", str(trackers / "first"), str(trackers / "second"), "--split", "val"]
    arguments += ["--dataset", "got10k", str(root.parent), "--out", str(tmp_path / "results")]
    assert main(arguments) == 0
    content = json.loads((tmp_path / "results" / "results.json").read_text())
    assert (content["dataset"], content["protocol"]) == ("got10k val", "got10k")
    assert set(content["trackers"][0]["score"]) == {"ao", "sr50", "sr75"}
    assert (tmp_path / "results" / "first" / "square0" / "square0_001.txt").is_file()
    assert main(["report", str(tmp_path / "results"), "--out", str(tmp_path / "report.html")]) == 0
    assert "got10k val" in (tmp_path / "report.html").read_text()


def test_evaluate_of_several_processes_needs_a_folder(trackers, sequences, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["evaluate", "--tracker", str(trackers / "first"), "--sequences", str(sequences)]) == 1
    assert "`--out` is needed with several processes" in capsys.readouterr().err


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


def test_evaluate_refuses_a_configuration_that_no_machine_could_hold(trackers, sequences, tmp_path, capsys):
    shutil.copytree(trackers / "first", tmp_path / "vast")
    config = tmp_path / "vast" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 10**9}))
    assert main(["evaluate", "--sequences", str(sequences), "--tracker", str(tmp_path / "vast")]) == 1
    assert "`num_hidden_layers` is 1000000000, expected at most 1024" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "vast"), "org/vast"]) == 1
    assert "`num_hidden_layers` is 1000000000, expected at most 1024" in capsys.readouterr().err


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A bright square that moves over noise, 40 frames."""
    path = tmp_path_factory.mktemp("video") / "square.mp4"
    noise = np.random.default_rng(0).integers(0, 80, (60, 80, 3), dtype=np.uint8)
    with VideoWriter(path, 25) as writer:
        for index in range(40):
            frame = noise.copy()
            frame[20:36, 10 + index : 26 + index] = 250
            writer.write(frame)
    return path


def test_track_writes_several_targets_and_files(trackers, video, tmp_path, capsys):
    out = tmp_path / "new"
    arguments = ["track", str(video), "--box", "10,20,16,16", "--box=-4,2,30,30", "--tracker", str(trackers / "first")]
    names = [str(out / name) for name in ("drawn.mp4", "boxes.txt", "table.csv")]
    assert main([*arguments, *(part for name in names for part in ("--out", name))]) == 0
    assert np.loadtxt(out / "boxes.txt", delimiter=",").shape == (40, 8)
    assert len(list(open_video(out / "drawn.mp4"))) == 40
    assert len((out / "table.csv").read_text().splitlines()) == 1 + 2 * 40
    captured = capsys.readouterr()
    assert "tracked 40 frames, saved to " in captured.err and captured.out == ""


def test_track_prints_the_table_of_a_folder(trackers, sequences, capsys):
    arguments = ["track", str(sequences / "square0"), "--box", "10,20,16,16", "--tracker", str(trackers / "first")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "frame,target,x,y,w,h,score,lost"
    assert lines[1] == "0,1,10.00,20.00,16.00,16.00,1.0000,0" and len(lines) == 1 + 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_track_that_is_interrupted_leaves_what_it_has(trackers, video, tmp_path, number):
    """A playable file and a box for each of its frames, and the status of an interrupted command."""
    slow = (
        "import sys, time\n"
        "from ct_hf import cli, tracking\n"
        "update = tracking.batch.update_together\n"
        "tracking.batch.update_together = lambda *each: time.sleep(0.1) or update(*each)\n"
        "sys.exit(cli.main())\n"
    )
    drawn, boxes = tmp_path / "drawn.mp4", tmp_path / "boxes.txt"
    arguments = [
        "track",
        video,
        "--box",
        "10,20,16,16",
        "--tracker",
        trackers / "first",
        "--out",
        drawn,
        "--out",
        boxes,
    ]
    process = subprocess.Popen([sys.executable, "-c", slow, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if boxes.exists() and boxes.read_text().count("\n") >= 5:
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    tracked = len(boxes.read_text().splitlines())
    assert 5 <= tracked < 40 and f"stopped after {tracked} frames, saved to" in printed
    assert "Traceback" not in printed
    assert len(list(open_video(drawn))) == tracked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.mp4"], "`source` nowhere.mp4 does not exist"),
        ([".", "--box", "1,1,9,9"], "holds no frames"),
        (["{video}", "--box", "100,20,16,16"], "lies outside the frame of 80x60 pixels"),
        (["{video}", "--box", "10,20,0,16"], "must have positive width and height"),
        (["{video}", "--out", "boxes.json"], "must end in .mp4, .txt, .csv"),
        (["{video}", "--out", "{video}"], "is the video itself"),
        (["{video}", "--tracker", "nowhere/at_all"], "nowhere/at_all"),
        (["{video}", "--device", "nowhere"], "`--device` nowhere is not available"),
    ],
)
def test_track_refuses(trackers, video, tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read when it is imported
    arguments = [part.format(video=video) for part in arguments]
    defaults = {"--box": "10,20,16,16", "--tracker": str(trackers / "first")}
    for name, value in defaults.items():
        arguments += [] if name in arguments else [name, value]
    assert main(["track", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,4,5", "1,2,3,nan", "a,b,c,d", ""])
def test_track_refuses_a_box_that_is_none(video, box, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["track", str(video), f"--box={box}", "--tracker", "first"])
    assert stopped.value.code == 2
    assert "expected four numbers x,y,w,h" in capsys.readouterr().err


def test_track_of_a_damaged_video_keeps_what_it_has(trackers, video, tmp_path, capsys):
    import av

    damaged = tmp_path / "damaged.mp4"
    data = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = places[25]
    data[position : position + size] = b"\xff" * size
    damaged.write_bytes(data)
    boxes = tmp_path / "boxes.txt"
    arguments = [
        "track",
        str(damaged),
        "--box",
        "10,20,16,16",
        "--tracker",
        str(trackers / "first"),
        "--out",
        str(boxes),
    ]
    assert main(arguments) == 1
    tracked = len(boxes.read_text().splitlines())
    assert 15 < tracked <= 25
    assert f"damaged.mp4, frame {tracked}: cannot be decoded" in capsys.readouterr().err


def test_commands_explain_themselves():
    help_text = subprocess.run([sys.executable, "-m", "ct_hf.cli", "--help"], capture_output=True, text=True).stdout
    for command in ("convert", "track", "evaluate", "report", "push"):
        assert command in help_text


def test_places_that_hold_something_else_than_a_tracker(tmp_path, capsys):
    (tmp_path / "OSTrack_ep0300.pth.tar").write_bytes(b"\x80")
    student = OSTrackModel(OSTrackConfig(**TINY))
    student.save_pretrained(tmp_path / "run" / "student")
    config = json.loads((tmp_path / "run" / "student" / "config.json").read_text())
    shutil.copytree(tmp_path / "run" / "student", tmp_path / "cut")
    (tmp_path / "cut" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    shutil.copytree(tmp_path / "run" / "student", tmp_path / "wide")
    (tmp_path / "wide" / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    for name, answer in (
        ("OSTrack_ep0300.pth.tar", "is a file, expected a folder or a Hub repository. An original checkpoint"),
        ("run", f"Its tracker is {tmp_path / 'run' / 'student'}"),
        ("cut", "lacks 16 tensors that its configuration asks for, such as layers.2."),
        ("wide", "has weights that do not fit its config.json"),
    ):
        given = ["track", str(tmp_path / "cut"), "--box", "1,1,5,5", "--tracker", str(tmp_path / name)]
        Image.new("RGB", (40, 30)).save(tmp_path / "cut" / "1.png")
        assert main(given) == 1
        assert answer in capsys.readouterr().err


def test_a_command_that_is_interrupted_says_so_in_a_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ct_hf.cli.evaluate", interrupted)
    monkeypatch.setattr("ct_hf.cli_compress.main", interrupted)
    for given in (["evaluate", "--tracker", "t", "--sequences", "s"], ["compress"]):
        assert main(given) == 130
        assert capsys.readouterr().err == "ct-hf: stopped\n"


def test_evaluate_writes_nothing_where_it_would_be_in_the_way(trackers, sequences, tmp_path, capsys):
    arguments = ["evaluate", "--tracker", str(trackers / "first"), "--sequences", str(sequences)]
    assert main([*arguments, "--out", str(sequences)]) == 1
    assert "is the folder of the sequences" in capsys.readouterr().err
    assert main([*arguments, "--json", str(tmp_path)]) == 1
    assert "cannot be written. Give the name of a file" in capsys.readouterr().err
    assert main([*arguments[:-1], str(tmp_path / "nowhere"), "--json", str(tmp_path / "figures.json")]) == 1
    assert not (tmp_path / "figures.json").exists()
