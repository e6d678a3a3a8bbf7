"""Folders of checkpoints: each is complete or not there, whenever a process ends."""

import fnmatch
import json
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from ..files import place_folder, write_whole


MANIFEST = "complete.json"
"""File of a checkpoint that is written last: the size of every other one."""

ASIDE = "_unfinished"
"""Folder beside the checkpoints in which they are made. The Trainer pushes no name that begins with an underscore."""

_OLD = "old-"
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


def list_checkpoints(folder: Path) -> list[Path]:
    """
    Find the checkpoints of a run, complete or not.

    Args:
        folder (`Path`): output folder of the run.

    Returns:
        `list[Path]`: by step.
    """
    found = [
        path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _NAME.fullmatch(path.name) and path.is_dir()
    ]
    return sorted(found, key=_step)


def find_faults(checkpoint: Path, needed: Iterable[str]) -> list[str]:
    """
    Say what keeps a checkpoint from being complete.

    A checkpoint must hold what is needed to go on from it, and all files that it lists. Of one without a list, of an older
    version or of another Trainer, all files must be readable.

    Args:
        checkpoint (`Path`): folder of the checkpoint.
        needed (iterable of `str`): names, or patterns, of the files that a checkpoint must hold.

    Returns:
        `list[str]`: a phrase for each fault, such as `"optimizer.pt is missing"`; empty if the checkpoint is complete.
    """
    if not checkpoint.is_dir():
        return ["there is no such folder"]
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        missing = [f"{name} is missing" for name in needed if not any(checkpoint.glob(name))]
        unreadable = [f"{name} is cut short" for name in _names(checkpoint) if not _is_readable(checkpoint / name)]
        return missing + unreadable
    if not _is_readable(manifest):
        return [f"{MANIFEST} is cut short"]
    sizes = json.loads(manifest.read_text(encoding="utf-8"))
    faults = [f"{name} is missing" for name in needed if not fnmatch.filter(sizes, name)]
    for name, size in sizes.items():
        file = checkpoint / name
        if not file.is_file():
            faults.append(f"{name} is missing")
        elif file.stat().st_size != size:
            faults.append(f"{name} has {file.stat().st_size} bytes instead of {size}")
    return faults


def name_newest(checkpoints: Iterable[Path], needed: Iterable[str]) -> str:
    """
    Name the newest complete checkpoint in a sentence.

    Args:
        checkpoints (iterable of `Path`): checkpoints by step.
        needed (iterable of `str`): see [`find_faults`].

    Returns:
        `str`: the sentence.
    """
    complete = [path for path in checkpoints if not find_faults(path, needed)]
    return f"The newest complete one is {complete[-1]}." if complete else "There is no complete one."


def finish_checkpoint(folder: Path, name: str) -> None:
    """
    Put a checkpoint that was written aside in place, also where one of the same name stands.

    Args:
        folder (`Path`): output folder of the run.
        name (`str`): the checkpoint, in the folder [`ASIDE`] of it.
    """
    aside, path = folder / ASIDE / name, folder / name
    sizes = {file: (aside / file).stat().st_size for file in _names(aside)}
    write_whole(aside / MANIFEST, lambda file: file.write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8"))
    # From here on the new one is complete, and `clean_up` finishes what a kill interrupts.
    _put_in_place(aside, path)
    clean_up(folder)


def clean_up(folder: Path) -> None:
    """
    Remove what a killed process left unfinished; a checkpoint that lacked its name alone is given it.

    Args:
        folder (`Path`): output folder of the run.
    """
    for aside in list_checkpoints(folder / ASIDE):
        if (aside / MANIFEST).is_file() and not find_faults(aside, ()):
            _put_in_place(aside, folder / aside.name)
    if (folder / ASIDE).is_dir():
        shutil.rmtree(folder / ASIDE)


def rotate(folder: Path, limit: int | None, keep: Iterable[Path], needed: Iterable[str]) -> None:
    """
    Remove checkpoints beyond a number: first those that are not complete, then the oldest.

    Args:
        folder (`Path`): output folder of the run.
        limit (`int`, *optional*): number of checkpoints to leave; all without it.
        keep (iterable of `Path`): checkpoints that are never removed, and count.
        needed (iterable of `str`): see [`find_faults`].
    """
    if not limit or limit < 0:
        return
    by_age = [Path(path) for path in sort_checkpoints(str(folder), use_mtime=True)]
    found, keep = [path for path in by_age if _NAME.fullmatch(path.name)], set(keep)
    spare = sorted((path for path in found if path not in keep), key=lambda path: not find_faults(path, needed))
    for path in spare[: max(0, len(found) - max(limit, len(keep)))]:
        _put_away(path)
    clean_up(folder)


def _put_in_place(aside: Path, path: Path) -> None:
    if path.exists():
        _put_away(path)
    place_folder(aside, path)


def _put_away(path: Path) -> None:
    """Take a checkpoint's name from it at once; removing its files takes a while, in which it would be torn."""
    (path.parent / ASIDE).mkdir(exist_ok=True)
    path.rename(path.parent / ASIDE / f"{_OLD}{path.name}")


def _step(checkpoint: Path) -> int:
    return int(_NAME.fullmatch(checkpoint.name)[1])


def _names(checkpoint: Path) -> list[str]:
    return sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())


def _is_readable(file: Path) -> bool:
    """Whether a file ends where its format says."""
    if file.suffix == ".json":
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            return False
    elif file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            return False
    elif file.suffix in (".pt", ".pth", ".bin"):
        return zipfile.is_zipfile(file)  # whose table of contents is at the end
    return True


__all__ = [
    "ASIDE",
    "MANIFEST",
    "clean_up",
    "find_faults",
    "finish_checkpoint",
    "list_checkpoints",
    "name_newest",
    "rotate",
]
