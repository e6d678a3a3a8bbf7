"""Files of boxes and flags, with errors that name the row."""

import math

import numpy as np

from ..models.image_processing_tracker import MOST_FRAMES
from .archives import AnyPath
from .errors import SequenceError


def check_length(rows: int, frames: int, file: AnyPath) -> None:
    """Refuses an annotation file whose number of rows is not that of the frames."""
    if rows != frames:
        raise SequenceError(
            f"{file.parent} has {frames} frames but {file.name} has {rows} rows. Remove the extra ones or add those that "
            "are missing, so that there is one row for each frame.",
            "length_mismatch",
        )


def read_text(file: AnyPath) -> str:
    """Text of an annotation file.

    Raises:
        SequenceError: It does not exist or is no text.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except ConnectionError:
        raise
    except FileNotFoundError as error:
        raise SequenceError(
            f"{file} does not exist. Restore it; it belongs to the annotation.", "missing_ground_truth"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SequenceError(f"{file} cannot be read as text ({error}).", "missing_ground_truth") from error


def read_rows(file: AnyPath) -> np.ndarray:
    """Boxes of a text file, as they stand there.

    Args:
        file: Text, a row of four numbers a frame, between commas, tabs or spaces; four NaN where nothing is annotated.

    Returns:
        `(num_rows, 4)` float32.

    Raises:
        SequenceError: There is no such file, or a row is something else.
    """
    text = read_text(file).rstrip()
    rows = _all_rows(text)
    return _one_by_one(text, file) if rows is None else rows


def _all_rows(text: str) -> np.ndarray | None:
    """Rows parsed by NumPy at once, or `None` where one of them needs a second look."""
    lines = text.replace(",", " ").splitlines()
    if not lines:
        return None
    try:
        rows = np.loadtxt(lines, np.float32, comments=None, ndmin=2)
    except ValueError:
        return None
    if rows.shape != (len(lines), 4):  # empty lines are passed over
        return None
    return rows if np.isin(np.isnan(rows).sum(axis=1), (0, 4)).all() else None


def _one_by_one(text: str, file: AnyPath) -> np.ndarray:
    """The same four times slower, but it can name a row, and reads all that `float` reads."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = [float(value) for value in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 4 or 0 < sum(map(math.isnan, row)) < 4:
            raise SequenceError(
                f"{file}, row {number}: got {line!r}, expected four numbers x,y,w,h, or four NaN.", "bad_box"
            )
        rows.append(row)
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def read_flags(file: AnyPath, count: int, most: int = 1) -> np.ndarray:
    """Flags of a text file, all on one line or one a line.

    Args:
        file: Text, whole numbers between commas, blanks or line ends.
        count: Number of flags to expect.
        most: Largest value of a flag, of one digit; the smallest is 0. Default: 1.

    Returns:
        `(count,)` int8.

    Raises:
        SequenceError: There is no such file, or it holds something else.
    """
    flags = read_text(file).replace(",", " ").split()
    numbers, known = "0 or 1" if most == 1 else f"number from 0 to {most}", set(map(str, range(most + 1)))
    if len(flags) != count:
        raise SequenceError(
            f"{file} has {len(flags)} entries for {count} frames. Expected one {numbers} for each frame.",
            "length_mismatch",
        )
    if not known.issuperset(flags):
        place, flag = next((place, flag) for place, flag in enumerate(flags, start=1) if flag not in known)
        raise SequenceError(f"{file}, entry {place}: got {flag!r}, expected {numbers}.", "bad_box")
    return np.frombuffer("".join(flags).encode(), dtype=np.int8) - np.int8(ord("0"))


def check_box(box: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Refuses the box of a visible target that has no area in its frame.

    Args:
        box: `(4,)` xywh in pixels.
        size: Width and height of the frame in pixels.
        where: Name of the frame, for the error.

    Raises:
        SequenceError: The box is not finite, not of positive size, wholly outside of the frame or far larger.
    """
    left, top, width, height = box.tolist()
    if not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height <= 0:
        problem = "is not a box of positive width and height"
    elif left >= size[0] or top >= size[1] or left + width <= 0 or top + height <= 0:
        problem = f"lies outside of the frame of {size[0]}x{size[1]} pixels"
    elif width > MOST_FRAMES * size[0] or height > MOST_FRAMES * size[1]:
        problem = f"is more than {MOST_FRAMES} times as large as the frame of {size[0]}x{size[1]} pixels"
    else:
        return
    raise SequenceError(
        f"{where}: the box x={left:g}, y={top:g}, width={width:g}, height={height:g} {problem}. Correct the row, or "
        "mark the frame as absent (NaN,NaN,NaN,NaN, or 1 in absent.txt).",
        "bad_box",
    )
