"""Predicted boxes as text files, so that official toolkits and servers read ours and we read other trackers'."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..files import write_whole


@dataclass(frozen=True)
class ResultFiles:
    """
    The result files of one tracker on one data set: one row `x,y,w,h` a frame, commas, four decimals.

    | `layout` | boxes | seconds | read by |
    | :-- | :-- | :-- | :-- |
    | `flat` | `<sequence>.txt` | `<sequence>_time.txt` | OSTrack, pytracking, the LaSOT and TrackingNet toolkits |
    | `got10k` | `<sequence>/<sequence>_001.txt` | `<sequence>/<sequence>_time.txt` | the got10k toolkit |

    A file is written under another name and then renamed, the boxes last: where there is a file of boxes, the sequence is
    finished and all of it is there. The coordinates are those of the data set's ground truth; nothing is added to them.
    OSTrack and pytracking cut boxes down to whole pixels when they save. Ours keep four decimals: score what
    [`ResultFiles.read`] returns, and a resumed run has the figures of an uninterrupted one.

    Args:
        folder (`Path`): `<results>/<tracker>`.
        layout (`str`, *optional*, defaults to `"flat"`): `"flat"` or `"got10k"`.

    Example:
    ```python
    >>> files = ResultFiles(Path("results/student"), "got10k")
    >>> if not files.has(sequence.name):
    ...     files.write(sequence.name, boxes, seconds)
    >>> files.pack([sequence.name for sequence in sequences], Path("results/student.zip"))
    ```
    """

    folder: Path
    layout: Literal["flat", "got10k"] = "flat"

    def __post_init__(self):
        if self.layout not in ("flat", "got10k"):
            raise ValueError(f"`layout` must be flat or got10k, got {self.layout!r}.")

    def boxes_path(self, name: str) -> Path:
        """File of a sequence's boxes; there once the sequence is finished."""
        _check_name(name)
        return self.folder / (f"{name}.txt" if self.layout == "flat" else f"{name}/{name}_001.txt")

    def seconds_path(self, name: str) -> Path:
        """File of a sequence's seconds."""
        _check_name(name)
        return self.folder / (f"{name}_time.txt" if self.layout == "flat" else f"{name}/{name}_time.txt")

    def has(self, name: str) -> bool:
        """Whether a sequence is finished."""
        return self.boxes_path(name).is_file()

    def write(self, name: str, boxes: np.ndarray, seconds: Sequence[float] | None = None) -> Path:
        """
        Write one sequence, in place of what was there.

        Args:
            name (`str`): the sequence, as its data set calls it.
            boxes (`np.ndarray` of shape `(num_frames, 4)`): `x, y, w, h` in pixels, the first row that of the first frame.
            seconds (sequence of `float` of length `num_frames`, *optional*): time each frame took, the first that of the
                start. Needed by the layout `got10k`, whose toolkit fails without.

        Returns:
            `Path`: the file of boxes.

        Raises:
            ValueError: a box is not finite or has a negative size; a time is not finite or negative; another shape or
                length; no seconds for `got10k`; a name that is no file name.
        """
        path = self.boxes_path(name)
        boxes = np.asarray(boxes, dtype=np.float64)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
            raise ValueError(f"`boxes` of {name} must have shape (num_frames, 4), got {boxes.shape}.")
        broken = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
        if broken.any():
            frame = int(np.argmax(broken))
            raise ValueError(
                f"`boxes` of {name} frame {frame}: got {boxes[frame].tolist()}, expected four finite numbers with no negative "
                "size. No toolkit takes that; find out why the tracker broke there."
            )
        if seconds is None and self.layout == "got10k":
            raise ValueError(f"`seconds` of {name} is None, but layout got10k needs the time of each frame.")
        if seconds is not None:
            times = np.asarray(seconds, dtype=np.float64)
            if times.shape != (len(boxes),) or not (np.isfinite(times) & (times >= 0)).all():
                raise ValueError(
                    f"`seconds` of {name} must be {len(boxes)} numbers of at least 0, one a frame, got shape {times.shape}"
                    f"{'' if times.shape != (len(boxes),) else ' with others'}."
                )
            rows = "".join(f"{value:.8f}\n" for value in times)
            write_whole(self.seconds_path(name), lambda aside: aside.write_text(rows))
        text = "".join(",".join(f"{value:.4f}" for value in box) + "\n" for box in boxes)
        write_whole(path, lambda aside: aside.write_text(text))
        return path

    def read(self, name: str, num_frames: int | None = None) -> np.ndarray:
        """
        Read one sequence, ours or another tracker's.

        Args:
            name (`str`): the sequence, as its data set calls it.
            num_frames (`int`, *optional*): frames that it has; by default any number is taken.

        Returns:
            `np.ndarray` of shape `(num_frames, 4)`: float64 `x, y, w, h` in pixels.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a row is not four finite numbers between commas, tabs or blanks; another number of rows.
        """
        path = self.boxes_path(name)
        boxes = read_boxes(path)
        if num_frames is not None and len(boxes) != num_frames:
            raise ValueError(
                f"{path} has {len(boxes)} rows, but {name} has {num_frames} frames. Delete the file to track it again, or "
                "check that both are of the same version of the data set."
            )
        return boxes

    def read_seconds(self, name: str) -> np.ndarray:
        """
        Read the seconds that [`ResultFiles.write`] kept of one sequence.

        Args:
            name (`str`): the sequence, as its data set calls it.

        Returns:
            `np.ndarray` of shape `(num_frames,)`: float64, the first that of the start.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a row is not one finite number.
        """
        return _read_rows(self.seconds_path(name), 1)[:, 0]

    def pack(self, names: Sequence[str], path: Path) -> Path:
        """
        Pack sequences for a server: `flat` as TrackingNet's takes them, `got10k` as GOT-10k's does.

        Args:
            names (sequence of `str`): all sequences of the data set.
            path (`Path`): file to write, in place of what was there.

        Returns:
            `Path`: `path`.

        Raises:
            FileNotFoundError: a sequence, or for `got10k` its seconds, is not there.
            ValueError: there are no names, or a file is not what [`read`] takes.
        """
        if not names:
            raise ValueError("`names` is empty, expected the sequences of the data set.")
        files = [self.boxes_path(name) for name in names]
        if self.layout == "got10k":
            files += [self.seconds_path(name) for name in names]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(files)} result files are not there, the first is {missing[0]}. Track these "
                "sequences first."
            )
        for name in names:
            self.read(name)

        def write(aside: Path) -> None:
            with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    archive.write(file, file.relative_to(self.folder).as_posix())

        write_whole(path, write)
        return path


def read_boxes(path: Path) -> np.ndarray:
    """
    Read a file of boxes.

    Args:
        path (`Path`): text, a row `x y w h` a frame, between commas, tabs or blanks.

    Returns:
        `np.ndarray` of shape `(num_frames, 4)`: float64.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row is not four finite numbers, or there is none.
    """
    return _read_rows(path, 4)


def _read_rows(path: Path, columns: int) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: this sequence was not tracked, or its results lie elsewhere.")
    lines = path.read_text().rstrip().splitlines()
    expected = "four finite numbers x,y,w,h" if columns == 4 else "one finite number of seconds"
    if not lines:
        raise ValueError(
            f"{path} is empty, expected a row of {expected} for each frame. Delete it to track the sequence again."
        )
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = line.replace(",", " ").split()
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            row = []
        if len(row) != columns or not np.isfinite(row).all():
            raise ValueError(f"{path} line {number}: got {line[:80]!r}, expected {expected}.")
        rows.append(row)
    return np.array(rows)


def _check_name(name: str) -> None:
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"`name` must be a sequence's name without slashes, got {name!r}.")


__all__ = ["ResultFiles", "read_boxes"]
