"""What may be published: nothing that runs, and nothing of the machine or its user."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from huggingface_hub import get_token
from safetensors import SafetensorError, safe_open


MACHINE_PATH = re.compile(r"""(?<![\w/.)\]])(?:/[\w.+-]+/[\w./+-]*|~/\S*|[A-Za-z]:\\\S*|file:/\S*)""")
"""Two or more folders from the root, the home folder, a drive letter or a file URL, but not the path of a web address."""

_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".tar", ".joblib", ".npy", ".npz", ".distcp", ".h5"}
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}")
_INLINE = re.compile(r"base64,[\w+/=\s]+")  # pictures within a page, whose letters may look like a path


def check_contents(files: Mapping[str, bytes | Path]) -> None:
    """
    Check files before they are published.

    Args:
        files (`Mapping[str, bytes | Path]`): content of each, or where it is, by its name in the repository.

    Raises:
        ValueError: one is a pickle, which runs what its author wrote when it is loaded, or weights that are not whole, or
            holds an access token or a path of the machine. It names the file, and never the token.
    """
    for name, content in files.items():
        if Path(name).suffix.lower() in _PICKLED or _is_pickle(content):
            raise ValueError(
                f"{name} is a pickle or may hold one, which can run anything when it is loaded, and is not pushed. Remove it "
                "from the folder: a tracker is its safetensors, its .json files and its card."
            )
        _check_text(name, _metadata(name, content) if name.endswith(".safetensors") else _text(content))


def _check_text(name: str, text: str) -> None:
    token = get_token()
    if _TOKEN.search(text) or (token and token in text):
        raise ValueError(f"{name} holds an access token, and is not pushed. Remove it there, and revoke the token.")
    if found := MACHINE_PATH.search(_INLINE.sub("", text)):
        raise ValueError(
            f"{name} holds the path {found.group()!r} of this machine, which others need not see and cannot use, and is not "
            "pushed. Name the repository, the data set or the file instead."
        )


def _is_pickle(content: bytes | Path) -> bool:
    """Whether content is a pickle, alone or within the archives that torch writes, whatever its name."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            start = file.read(4)
    else:
        start = content[:4]
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if start != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(content if isinstance(content, Path) else BytesIO(content)) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return True


def _metadata(name: str, content: bytes | Path) -> str:
    """Return what weights say of themselves, once they are found to be whole."""
    try:
        with safe_open(content, framework="pt") as weights:
            return "\n".join((weights.metadata() or {}).values())
    except SafetensorError as error:
        raise ValueError(f"{name} is not a whole safetensors file ({error}). Save the tracker again.") from error


def _text(content: bytes | Path) -> str:
    """Return content as text; an empty one where it is something else, such as a picture."""
    if isinstance(content, Path):
        content = content.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return ""


__all__ = ["MACHINE_PATH", "check_contents"]
