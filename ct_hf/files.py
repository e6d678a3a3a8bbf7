"""Files and folders that are whole or not there, whenever a process ends."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file aside and puts it in place at once: what was there stays until then.

    Args:
        path: The file; its folder is made.
        write: Writes it to the path that it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    try:
        write(aside)
        _to_disk(aside)  # the content before the name
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _to_disk(path.parent)


def place_folder(aside: Path, path: Path) -> None:
    """Gives a folder that was written aside its name, once all that is in it is on the disk.

    Args:
        aside: The folder, on the same disk.
        path: Its name, which nothing has.
    """
    for place in [*aside.rglob("*"), aside]:
        _to_disk(place)
    aside.rename(path)
    _to_disk(path.parent)


def _to_disk(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = ["place_folder", "write_whole"]
