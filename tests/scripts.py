"""Scripts of the project, run as their users run them."""

import io
import json
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch


def run_here(script: Path, *arguments: object) -> str:
    """Run a script in this process, where torch is imported already, without the Hub; return what it prints.

    Not for scripts that start processes: those would import the test instead of the script.
    """
    printed = io.StringIO()
    argv = [str(script), *map(str, arguments)]
    with (
        patch.object(sys, "argv", argv),
        patch.object(sys, "path", [str(script.parent), *sys.path]),
        patch("huggingface_hub.constants.HF_HUB_OFFLINE", True),
        redirect_stdout(printed),
    ):
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue()


SERVE = """
import json, os, sys, traceback
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(job["folder"])
        file = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.argv = ["-c", *job["arguments"]]
        try:
            exec(job["code"], {"__name__": "__main__"})
            status = 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class FreshPython:
    """Interpreters that know torch and transformers and nothing of ours, each a fork of one: importing takes seconds."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        offline = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            cwd=home,
            env={**os.environ, **offline},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, code: str, folder: Path, *arguments: object) -> str:
        """Run code in a folder, offline; return what it prints, errors too."""
        job = {"code": code, "folder": str(folder), "arguments": [str(argument) for argument in arguments]}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        status = self.server.stdout.readline().strip()
        printed = (folder / "printed.txt").read_text()
        assert status == "0", f"exit code {status or 'unknown'}: {printed[-3000:]}"
        return printed

    def close(self) -> None:
        self.server.communicate(timeout=60)
