"""Finding the parts of a data set below its root, with errors that say what was found in place of them."""

import logging
from pathlib import Path

import numpy as np

from ..annotation import read_text
from ..archives import AnyPath
from ..errors import SequenceError
from ..frames import FramePaths, image_names


logger = logging.getLogger(__name__)

_FROM_ONE = np.array([1, 1, 0, 0], dtype=np.float32)


def from_one(boxes: np.ndarray) -> np.ndarray:
    """Boxes that count from 0, from boxes whose first pixel is 1."""
    return boxes - _FROM_ONE


def check_root(root: AnyPath, part: str, tree: str) -> None:
    """Refuses a root that is not that of the layout.

    Args:
        root: What the user gave.
        part: Pattern of a path below the root without which nothing can be read.
        tree: The layout in words, for the error.

    Raises:
        SequenceError: There is nothing of that pattern. If the folder above or one below has it, the text says so.
    """
    if any(root.glob(part)):
        return
    found = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    around = [root.resolve().parent, *(root / name for name in found)] if isinstance(root, Path) else []
    near = [path for path in around if any(path.glob(part))]
    hint = f"Did you mean {str(near[0])!r}?" if near else "Give the folder that holds it, with archives unpacked."
    raise SequenceError(
        f"`root`={str(root)!r} holds no {part}, expected {tree}. Found {', '.join(found[:5]) or 'nothing'}{more}. {hint}",
        "empty",
    )


def folders(root: AnyPath) -> list[AnyPath]:
    """Folders in a folder, by name, without those that viewers and archivers leave behind."""
    paths = (path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX")) and path.is_dir())
    return sorted(paths, key=lambda path: path.name)


def text_files(folder: AnyPath, pattern: str = "*.txt") -> list[AnyPath]:
    """Text files in a folder, by name."""
    return sorted((path for path in folder.glob(pattern) if not path.name.startswith(".")), key=lambda path: path.name)


def read_names(file: AnyPath) -> list[str]:
    """Names of a list, one a line.

    Raises:
        SequenceError: There is no such file, or nothing in it.
    """
    names = [name for line in read_text(file).splitlines() if (name := line.strip())]
    if not names:
        raise SequenceError(f"{file} is empty, expected a name a line. Restore the official list.", "empty")
    return names


def read_sentence(file: AnyPath) -> str | None:
    """First line of a text file, or `None` if there is no such file, nothing in it or no text, which is warned of."""
    try:
        lines = read_text(file).strip().splitlines() if file.is_file() else []
    except SequenceError as error:  # nothing but the sentence is lost
        logger.warning("%s The sequence has no sentence.", error)
        return None
    return lines[0].strip() if lines else None


def numbered_frames(folder: AnyPath, first: int, count: int | None = None, *, spare: bool = False) -> FramePaths:
    """Frames that are named by their number, padded with zeros or not.

    A frame missing in the middle is an error: all boxes behind it would belong to other frames.

    Args:
        folder: The folder; files that are not images named by a number are passed over.
        first: Number of the first frame.
        count: Number of frames; by default all from the first on. More of them are passed over, with a warning.
        spare: Whether frames beyond that belong to other sequences, so that nobody need be warned. Default: `False`.

    Raises:
        SequenceError: The folder does not exist or is empty, a number is missing or there twice.
    """
    names = sorted(image_names(folder))
    stems = [name.rpartition(".")[0] for name in names]
    numbered: dict[int, str] = {}
    for stem, name in zip(stems, names, strict=True):
        if stem.isdecimal() and numbered.setdefault(int(stem), name) != name:
            raise SequenceError(
                f"{folder} holds frame {int(stem)} twice, {numbered[int(stem)]} and {name}. Remove the wrong one.",
                "length_mismatch",
            )
    if not numbered:
        found = "holds no frames" if folder.is_dir() else "is not a folder"
        raise SequenceError(
            f"{folder} {found}, expected images named by their number. Unpack the frames there.", "empty"
        )
    last = max(numbered) if count is None else first + count - 1
    for number in range(first, last + 1):
        if number not in numbered:
            raise SequenceError(
                f"{folder} lacks frame {number} of {first} to {last}; found {len(numbered)} from "
                f"{numbered[min(numbered)]} to {numbered[max(numbered)]}. Restore the frame, or remove the sequence.",
                "missing_frame",
            )
    if max(numbered) > last and not spare:
        logger.warning(
            "%s has frames up to %d, but rows up to %d only: the others are not used.", folder, max(numbered), last
        )
    if min(numbered) < first and count is None:
        raise SequenceError(
            f"{folder} starts with frame {min(numbered)}, expected {first}. Remove what does not belong to the sequence.",
            "length_mismatch",
        )
    return FramePaths(folder, [numbered[number] for number in range(first, last + 1)])
