"""The whole tree passes the linter and the formatter, and its rooms open one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_passes(command):
    run = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_modules_stay_short():
    """No module over 450 lines: a room that long wants a wall."""
    lengths = {path: len(path.read_text().splitlines()) for path in ROOT.glob("ct_hf/**/*.py")}
    assert {str(path.relative_to(ROOT)): count for path, count in lengths.items() if count > 450} == {}


USES = {
    "files": set(),
    "names": set(),
    "models": set(),
    "data": {"models", "files", "names"},
    "tracking": {"models", "data"},
    "evaluation": {"models", "data", "tracking", "files"},
    "conversion": {"models"},
    "hub": {"models", "data", "evaluation"},
    "compression": {"models", "data", "evaluation", "hub", "files", "names"},
}
"""What each room of ct_hf may import of the others; commands may import any, and no room a command."""


@pytest.mark.parametrize("room", USES)
def test_arrows_point_one_way(room):
    """Also those that are drawn late, within functions."""
    package = ROOT / "ct_hf"
    for path in [*package.glob(f"{room}/**/*.py"), *package.glob(f"{room}.py")]:
        home = path.relative_to(ROOT).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            place = [*home[: len(home) - node.level + 1]] if node.level else []
            place += node.module.split(".") if node.module else [node.names[0].name]
            if place[0] == "ct_hf" and place[1] != room:
                assert place[1] in USES[room], f"{path.name} imports {'.'.join(place)}"
