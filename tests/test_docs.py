"""The pages' code runs as it stands."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ct_hf.compression import CompressionArguments, StagePlan, TrackerTrainingArguments, build_student

from .compression.tiny import make_tracker


ROOT = Path(__file__).parents[1]


def code_of(page: Path) -> str:
    return "\n\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))


def run_code(code: str, folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    (folder / "page.py").write_text(code)
    command = [sys.executable, "page.py"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stdout


def test_a_tracker_of_ones_own_saves_loads_tracks_and_compresses(tmp_path):
    code = code_of(ROOT / "docs" / "add_a_tracker.md")
    code += (
        "\nfrom ct_hf.cli import main\n"
        'main(["compress", "--teacher", "outputs/plain/student", "--dry_run", "--use_cpu"])\n'
        "import numpy as np\n"
        'model = AutoModel.from_pretrained("outputs/plain/student")\n'
        "frame = np.zeros((60, 80, 3), dtype=np.uint8)\n"
        "track = model.start(frame, (10, 10, 20, 20)).update(frame)\n"
        "print(type(model).__name__, len(model.layers), track.box.shape)\n"
    )
    assert run_code(code, tmp_path).splitlines()[-1] == "PlainTracker 2 (4,)"


def test_the_page_on_tracking_runs(tmp_path):
    teacher = ROOT / "examples" / "assets" / "teacher"
    if not (teacher / "model.safetensors").is_file():
        pytest.skip("no teacher is shipped")
    drawing = (
        "import numpy as np\n"
        "from ct_hf.tracking import VideoWriter\n"
        'with VideoWriter("video.mp4") as writer:\n'
        "    for index in range(4):\n"
        "        writer.write(np.full((240, 320, 3), 40 * index, dtype=np.uint8))\n"
    )
    code = code_of(ROOT / "docs" / "track.md").replace("examples/assets/teacher", str(teacher))
    printed = run_code(drawing + code + "\nprint(track.box.shape, lost, session.frame_number)\n", tmp_path)
    assert printed.splitlines()[-1] == "(4,) False 2"


def test_the_page_on_compression_builds_a_hybrid(tmp_path):
    teacher = make_tracker(layers=12)
    student, _ = build_student(teacher, StagePlan.even(12, 4))
    student.config.compression = {"stages": {"teacher": [3] * 4, "student": [1] * 4}}
    code = code_of(ROOT / "docs" / "compress.md")
    for name, tracker in (("teacher", teacher), ("student", student)):
        tracker.save_pretrained(tmp_path / name)
        code = code.replace(f"org/{name}", name)
    printed = run_code(code + "\nprint(len(hybrid.layers))\n", tmp_path)
    assert printed.splitlines()[-1] == "6"
    assert (tmp_path / "outputs" / "hybrid" / "model.safetensors").is_file()


def test_the_page_on_evaluation_runs(tmp_path):
    """From drawn videos to plots."""
    drawing = (
        "from pathlib import Path\n"
        "import torch\n"
        "from ct_hf import OSTrackConfig, OSTrackModel\n"
        "from ct_hf.data import procedural_sequences\n"
        "sizes = dict(template_size=32, search_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)\n"
        "teacher, student = (OSTrackModel(OSTrackConfig(**sizes, head_channels=16)).eval() for _ in range(2))\n"
        "for sequence in procedural_sequences(0, 2, length=3, size=(96, 72)):\n"
        '    folder = Path("videos/val") / sequence.name\n'
        "    folder.mkdir(parents=True)\n"
        '    rows = [",".join(map(str, box)) for box in sequence.boxes.tolist()]\n'
        '    (folder / "groundtruth.txt").write_text("\\n".join(rows))\n'
        "    for number in range(3):\n"
        '        sequence.frame(number).save(folder / f"{number}.jpg")\n'
    )
    code = code_of(ROOT / "docs" / "evaluate.md").replace("results/lasot", "results/mine")
    run_code(drawing + code, tmp_path)
    for name in ("success.svg", "sequences.png", "speed-0.svg"):
        assert (tmp_path / name).stat().st_size > 1000


def test_the_page_on_data_sets_runs(tmp_path):
    """On a drawn data set of each of its two layouts."""
    drawing = (
        "from pathlib import Path\n"
        "from PIL import Image\n"
        'for folder, form, first in (("data/OTB100/Walk/img", "{:04d}.jpg", 1), ("boats/test/ferry/frames", "{}.png", 0)):\n'
        "    Path(folder).mkdir(parents=True)\n"
        "    for number in range(first, first + 3):\n"
        '        Image.new("RGB", (64, 48)).save(Path(folder) / form.format(number))\n'
        'Path("data/OTB100/Walk/groundtruth_rect.txt").write_text("5\\t6\\t7\\t8\\n" * 3)\n'
        'Path("boats/test/ferry/boxes.txt").write_text("5,6,7,8\\n" * 3)\n'
        'Path("boats/test/ferry/hidden.txt").write_text("0,1,0")\n'
    )
    ending = '\n(ferry,) = read_dataset("boats", "boats")\nprint(ferry.name, ferry.boxes[2].tolist(), ferry.visible.tolist())\n'
    printed = run_code(drawing + code_of(ROOT / "docs" / "datasets.md") + ending, tmp_path).splitlines()
    assert printed[1:] == ["otb flat 1 [5. 6. 7. 8.]", "ferry [4.0, 5.0, 7.0, 8.0] [True, False, True]"]


def test_every_layout_has_its_row():
    from ct_hf.data import LAYOUTS

    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (\d) \|.*\| ([^|]*) \|$", (ROOT / "docs" / "datasets.md").read_text(), re.MULTILINE
    )
    assert {name for name, _, _ in rows} == set(LAYOUTS)
    for name, origin, rules in rows:
        assert int(origin) == LAYOUTS[name].origin
        assert name == "coco" or rules == f"`{LAYOUTS[name].protocol}`, {LAYOUTS[name].results}"


def test_the_lines_of_the_readme_run(tmp_path):
    """With the shipped teacher, two steps and drawn videos instead of the user's."""
    teacher = ROOT / "examples" / "assets" / "teacher"
    if not (teacher / "model.safetensors").is_file():
        pytest.skip("no teacher is shipped")
    code = code_of(ROOT / "README.md")
    assert "max_steps=1000" in code
    code = code.replace("max_steps=1000", "max_steps=2, per_device_train_batch_size=4")
    code = code.replace("examples/assets/teacher", str(teacher))
    drawing = (
        "from pathlib import Path\n"
        "from ct_hf.data import procedural_sequences\n"
        'folder = Path("videos/train/drawn")\n'
        "folder.mkdir(parents=True)\n"
        "drawn = procedural_sequences(0, 1, length=4)[0]\n"
        "for index in range(4):\n"
        '    drawn.frame(index).save(folder / f"{index:08d}.jpg")\n'
        'rows = [",".join(str(v) for v in box) for box in drawn.boxes.tolist()]\n'
        '(folder / "groundtruth.txt").write_text("\\n".join(rows))\n'
        "first_frame, next_frame = drawn.frame(0), drawn.frame(1)\n"
        "x, y, width, height = drawn.boxes[0].tolist()\n"
    )
    assert run_code(drawing + code + "\nprint(track.box.shape)\n", tmp_path).splitlines()[-1] == "(4,)"


def test_every_setting_of_the_method_is_on_its_page():
    text = (ROOT / "docs" / "compress.md").read_text()
    inherited = {field.name for field in dataclasses.fields(TrackerTrainingArguments)}
    own = {field.name for field in dataclasses.fields(CompressionArguments)} - inherited
    missing = {name for name in own if f"`--{name}" not in text and f"`--no_{name}" not in text}
    assert not missing
