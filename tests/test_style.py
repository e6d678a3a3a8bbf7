"""The whole tree passes the linter and the formatter."""

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
