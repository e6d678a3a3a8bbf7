"""Scripts of the project, run as their users run them."""

import io
import runpy
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
