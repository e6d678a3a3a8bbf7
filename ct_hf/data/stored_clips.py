"""Clips that are kept as Parquet files, on a disk or on the Hub."""

from __future__ import annotations

import os
import re
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from glob import escape
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..names import public_name, repository_of
from .archives import UrlPath, reaching
from .clip_sources import Clip, FiniteClips
from .clips import STORED_FEATURES
from .errors import SequenceError
from .frames import decode_frame


_COLUMNS = ("name", "clip", "frames", "frame_index", "boxes", "visible")
_FILE = 2**32  # more than a file has rows


class StoredClips(FiniteClips):
    """Clips that [`convert_dataset`] stored, or others with the columns of [`STORED_FEATURES`].

    Rows are fetched by row groups, as they are asked for. A file is a shard.

    Args:
        place: Folder of Parquet files, or of a conversion, or a data set repository on the Hub such as `user/got10k-clips`;
            `user/got10k-clips@v1.0` is a revision of it.
        split: Split, by which names of files start; by default all files are read.

    Raises:
        SequenceError: There are no such files, or not all of those that their names count.
        ConnectionError: The Hub cannot be reached.

    Example:
        >>> pairs = stream_pairs(StoredClips("user/got10k-clips"), config, seed=0)
    """

    def __init__(self, place: str | Path, split: str | None = None):
        self.place = place
        is_folder, repository = Path(place).is_dir(), repository_of(place)
        if not is_folder and (repository is None or "/" not in repository[0]):
            raise SequenceError(
                f"`place`={str(place)!r} is not a folder, and not called as a repository of the Hub is. Give the folder of a "
                "conversion, or user/name.",
                "empty",
            )
        root = str(place) if is_folder else f"hf://datasets/{place}"
        files, path = fsspec.url_to_fs(root)
        pattern = f"{split}-*.parquet" if split else "*.parquet"
        try:
            with reaching(Path(root) if is_folder else UrlPath(root)):
                found = sorted(files.glob(f"{escape(path)}/{pattern}") + files.glob(f"{escape(path)}/data/{pattern}"))
        except ConnectionError as error:
            raise ConnectionError(
                f"`place`={str(place)!r} is not a folder here, so a repository is meant: {error}"
            ) from error
        if not found:
            raise SequenceError(
                f"`place`={str(place)!r} holds no {pattern}, expected Parquet files in it or in its folder `data`. Give the "
                "folder of a conversion or a data set repository.",
                "empty",
            )
        _check_whole(str(place), found)
        self.paths = [files.unstrip_protocol(file) for file in found]
        self.num_shards = len(self.paths)

    def __repr__(self) -> str:
        return f"StoredClips({str(self.place)!r})"

    def describe(self) -> dict[str, Any]:
        """See [`ClipSource`]: repository and revision where they are known, and the number of files."""
        repository, revision = repository_of(self.place) or (None, None)
        known = {"repository": repository, "revision": revision} if repository else {"folder": public_name(self.place)}
        return {**super().describe(), **known, "files": self.num_shards}

    def groups(self, shard: int) -> list[range]:
        """See [`FiniteClips`]."""
        edges = _opened(self.paths[shard], os.getpid()).edges + shard * _FILE
        ranges = (range(first, last) for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        return [clips for clips in ranges if clips]

    def read(self, clip: int) -> Clip:
        """See [`ClipSource`]."""
        shard, position = divmod(clip, _FILE)
        file = _opened(self.paths[shard], os.getpid())
        row = file.row(position)
        lengths = {name: len(row[name]) for name in _COLUMNS[2:]}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
            raise SequenceError(
                f"{self.paths[shard]}, row {position}: {row['name']} has {counts}. Expected as many of each.",
                "length_mismatch",
            )

        def frame(position: int, reduction: int) -> Image.Image:
            where, data = f"{row['name']}, frame {row['frame_index'][position]}", row["frames"][position]["bytes"]
            if data is None:
                raise SequenceError(f"{where} has no bytes. Store the image files in the clips.", "missing_frame")
            return decode_frame(data, where, reduction)

        boxes = np.asarray(row["boxes"], dtype=np.float32).reshape(-1, 4)
        return Clip(row["name"], row["clip"], row["frame_index"], boxes, np.asarray(row["visible"], dtype=bool), frame)


class _ParquetFile:
    """An open file of row groups."""

    def __init__(self, path: str):
        self.path = path
        self.place = Path(path) if path.startswith("file:") else UrlPath(path)
        with _reading(self.place, f"{path} is not a whole Parquet file", "missing_frame"):
            # As fsspec's files read ahead, and pyarrow knows what it needs.
            self.file = pq.ParquetFile(fsspec.open(path, "rb", cache_type="none").open())
        missing = set(_COLUMNS) - set(self.file.schema_arrow.names)
        if missing:
            raise SequenceError(
                f"{path} lacks the columns {', '.join(sorted(missing))}. Expected {', '.join(STORED_FEATURES)}.",
                "empty",
            )

    @cached_property
    def edges(self) -> np.ndarray:
        """`(num_groups + 1,)` numbers of the rows at which groups start, and of the rows."""
        metadata = self.file.metadata
        return np.cumsum([0] + [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])

    def row(self, position: int) -> dict[str, Any]:
        group = int(np.searchsorted(self.edges, position, side="right")) - 1
        return {
            name: column[position - int(self.edges[group])].as_py()
            for name, column in _read_group(self.path, os.getpid(), group).items()
        }

    def read_group(self, group: int) -> dict[str, pa.ChunkedArray]:
        with _reading(self.place, f"{self.path}, row group {group} cannot be read", "corrupt_image"):
            table = self.file.read_row_group(group, columns=list(_COLUMNS))
        return {name: table[name] for name in _COLUMNS}


@contextmanager
def _reading(place: Path | UrlPath, problem: str, cause: str) -> Iterator[None]:
    """Tells a file that is broken from one that cannot be reached, which says nothing about the clips."""
    with reaching(place):
        try:
            yield
        except (pa.ArrowInvalid, OSError) as error:
            # Some of what pyarrow finds in the bytes is an OSError too; it tells itself from those of the way by its origin.
            of_content = "pyarrow" in traceback.extract_tb(error.__traceback__)[-1].filename
            if not of_content and isinstance(place, UrlPath):
                raise
            raise SequenceError(f"{problem} ({error}). Download the file again.", cause) from error


def _check_whole(place: str, files: list[str]) -> None:
    """Refuses a part of files whose names say how many there are, as an interrupted conversion or copy leaves behind."""
    numbers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for file in files:
        if counted := re.fullmatch(r"(.*)-(\d+)-of-(\d+)\.parquet", file):
            numbers[counted[1], counted[3]].add(counted[2])
    for (start, count), found in numbers.items():
        if len(found) < int(count):
            name = f"{os.path.basename(start)}-*-of-{count}.parquet"
            raise SequenceError(
                f"`place`={place!r} holds {len(found)} of {int(count)} files {name}. Run the conversion again, which goes on "
                "where it was, or copy or download the others.",
                "missing_frame",
            )


@lru_cache(maxsize=8)
def _read_group(path: str, process: int, group: int) -> dict[str, pa.ChunkedArray]:
    """A group of any file: clips of one are asked for in a row, and of as many data sets as are mixed, in turns."""
    return _opened(path, process).read_group(group)


@lru_cache(maxsize=64)
def _opened(path: str, process: int) -> _ParquetFile:
    """An open file; each process has its own, as a file has one position only."""
    return _ParquetFile(path)


__all__ = ["StoredClips"]
