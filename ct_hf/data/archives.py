"""Data sets that stay where they are published: paths in zip archives and behind URLs, which layouts read like folders.

Nothing is unpacked to disk. A zip archive lists its members at its end, so that of an archive behind a URL only that list and
the members asked for are fetched, by range requests.
"""

import io
import os
import posixpath
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np

from .errors import SequenceError


BLOCK_BYTES = 2**20
"""Bytes that a request to a URL reads at once: a frame and its neighbours, not the archive."""

_SMALLEST = 22  # bytes of an archive of nothing


@dataclass(frozen=True)
class _PurePath:
    """What paths in archives and behind URLs have in common with [`~pathlib.PurePosixPath`]."""

    place: str

    def _at(self, place: str) -> Any:
        raise NotImplementedError

    def __truediv__(self, name: str) -> Any:
        return self._at(f"{self.place}/{name}" if self.place else name)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return posixpath.basename(self.place)

    @property
    def stem(self) -> str:
        """Last part of the path without its suffix."""
        return posixpath.splitext(self.name)[0]

    @property
    def parent(self) -> Any:
        """Folder that holds it."""
        return self._at(posixpath.dirname(self.place))

    def with_name(self, name: str) -> Any:
        """Path beside this one."""
        return self.parent / name

    def read_bytes(self) -> bytes:
        """All of a file."""
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of a text file."""
        return self.read_bytes().decode(encoding)

    def iterdir(self) -> Iterator[Any]:
        """Paths in a folder."""
        return (self / name for name in self.listdir())

    def is_file(self) -> bool:
        """Whether it is there and no folder."""
        raise NotImplementedError

    def is_dir(self) -> bool:
        """Whether it is there and a folder."""
        raise NotImplementedError

    def listdir(self) -> list[str]:
        """Names in a folder."""
        raise NotImplementedError

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open a file to read its bytes."""
        raise NotImplementedError


@dataclass(frozen=True)
class UrlPath(_PurePath):
    """File or folder behind a URL that fsspec can read, such as `hf://datasets/l-lt/LaSOT`.

    Args:
        place: The URL.

    Raises:
        ConnectionError: On use, when it cannot be reached; a file that is not there is a `FileNotFoundError`.
    """

    def __post_init__(self):
        object.__setattr__(self, "place", self.place.rstrip("/"))

    def __str__(self) -> str:
        return self.place

    def _at(self, place: str) -> "UrlPath":
        return UrlPath(place)

    def _ask(self, question: str, *arguments: Any, **options: Any) -> Any:
        import fsspec  # imported late: `import ct_hf` does without

        files, place = fsspec.url_to_fs(self.place)
        with reaching(self):
            return getattr(files, question)(place, *arguments, **options)

    def is_file(self) -> bool:
        """See [`~pathlib.Path.is_file`]."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """See [`~pathlib.Path.is_dir`]."""
        return self._kind() == "directory"

    def _kind(self) -> str | None:
        # fsspec's own `isdir` says no when nobody answers.
        try:
            return self._ask("info")["type"]
        except FileNotFoundError:
            return None

    def listdir(self) -> list[str]:
        """Names in a folder, in order."""
        return sorted(posixpath.basename(place.rstrip("/")) for place in self._ask("ls", detail=False))

    def glob(self, pattern: str) -> list["UrlPath"]:
        """Paths below a folder that match a pattern, in order."""
        own = self._ask("_strip_protocol").rstrip("/")
        found = UrlPath(f"{self.place}/{pattern}")._ask("glob")
        return [self / posixpath.relpath(place, own) for place in sorted(found)]

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open a file to read its bytes, of which only those asked for are fetched."""
        return self._ask("open", mode, block_size=BLOCK_BYTES)


@dataclass(frozen=True)
class MemberPath(_PurePath):
    """Member of a zip archive, or a folder in it.

    Args:
        place: Path in the archive; empty for all of it.
        archive: The archive.

    Raises:
        SequenceError: On use, when the archive is empty, cut off, not a zip archive, or holds absolute paths or ones that
            lead out of it.
    """

    archive: Path | UrlPath

    def __str__(self) -> str:
        return f"{self.archive}/{self.place}" if self.place else str(self.archive)

    def _at(self, place: str) -> "MemberPath":
        return MemberPath(place, self.archive)

    def is_file(self) -> bool:
        """See [`~pathlib.Path.is_file`]."""
        return self._in_archive("is_file")

    def is_dir(self) -> bool:
        """See [`~pathlib.Path.is_dir`]."""
        return self._in_archive("is_dir")

    def _in_archive(self, question: str) -> bool:
        try:
            return getattr(_opened(self.archive, os.getpid()), question)(self.place)
        except FileNotFoundError:
            return False

    def listdir(self) -> list[str]:
        """Names in a folder, in order."""
        return _opened(self.archive, os.getpid()).listdir(self.place)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The member's bytes, checked against the archive's checksum."""
        members = _opened(self.archive, os.getpid())
        try:
            with reaching(self.archive):
                return io.BytesIO(members.read(self.place))
        except KeyError as error:
            raise FileNotFoundError(f"{self} does not exist") from error
        # A RuntimeError: it is encrypted, or compressed by an unknown method.
        except (BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError, OSError) as error:
            # Of a disk or a network; bzip2 alone raises one without a number, of bytes that are damaged.
            if isinstance(error, OSError) and (error.errno is not None or isinstance(error, ConnectionError)):
                raise
            raise SequenceError(
                f"{self} cannot be taken out of its archive ({error}). Download the archive again.", "corrupt_image"
            ) from error


class _Members:
    """Members of an open archive, in some dozen bytes each where `zipfile` takes hundreds: a data set has millions of them.

    Args:
        archive: The archive, whose own list of them is emptied.
    """

    _ENTRY = np.dtype(
        [
            ("header_offset", np.int64),
            ("compress_size", np.int64),
            ("file_size", np.int64),
            ("CRC", np.uint32),
            ("flag_bits", np.uint16),
            ("compress_type", np.uint16),
        ]
    )

    def __init__(self, archive: ZipFile):
        entries = sorted((_encoded(name), info) for name, info in archive.NameToInfo.items())
        self._names = np.array([name for name, _ in entries], dtype=np.bytes_)
        rows = [tuple(getattr(info, field) for field in self._ENTRY.names) for _, info in entries]
        self._entries = np.array(rows, dtype=self._ENTRY)
        archive.filelist.clear()
        archive.NameToInfo.clear()
        self._archive = archive

    def __len__(self) -> int:
        return len(self._names)

    def _from(self, name: bytes) -> int:
        return bisect_left(self._names, name)

    def is_file(self, place: str) -> bool:
        name = _encoded(place)
        row = self._from(name)
        return row < len(self) and self._names[row] == name

    def is_dir(self, place: str) -> bool:
        prefix = _encoded(f"{place}/" if place else "")
        row = self._from(prefix)
        return row < len(self) and self._names[row].startswith(prefix)

    def listdir(self, place: str) -> list[str]:
        """Names in a folder, in order."""
        prefix = _encoded(f"{place}/" if place else "")
        below = self._names[self._from(prefix) : self._from(prefix + b"\xff")].tolist()  # no letter's byte is as large
        names = {name[len(prefix) :].partition(b"/")[0] for name in below}
        return sorted(name.decode(errors="surrogateescape") for name in names if name)

    def read(self, place: str) -> bytes:
        """A member's bytes.

        Raises:
            KeyError: There is none of that name.
        """
        if not self.is_file(place):
            raise KeyError(place)
        info = ZipInfo(place)
        for field, value in zip(self._ENTRY.names, self._entries[self._from(_encoded(place))].item(), strict=True):
            setattr(info, field, value)
        return self._archive.read(info)


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


@lru_cache(maxsize=128)
def _opened(archive: Path | UrlPath, process: int) -> _Members:
    """An open archive; each process has its own, as a file has one position only."""
    with reaching(archive):
        file = archive.open("rb")  # not closed: it stays open for the members that follow
        size = file.seek(0, os.SEEK_END)
        try:
            if not size:
                raise SequenceError(f"{archive} is an empty file. Download it again.", "empty")
            if size < _SMALLEST:
                raise BadZipFile(f"{size} bytes")
            members = ZipFile(file)
        except (BadZipFile, EOFError) as error:
            if isinstance(error.__context__, OSError):  # zipfile takes what cannot be read for no archive
                raise error.__context__ from error
            raise SequenceError(
                f"{archive} is not a whole zip archive ({error}). Download it again.", "missing_frame"
            ) from error
    for member in members.namelist():
        if re.match(r"[/\\]|[A-Za-z]:", member) or ".." in re.split(r"[/\\]", member):
            raise SequenceError(
                f"{archive} holds {member!r}, a path that leads out of the archive. Do not use it; take the archive from "
                "its authors.",
                "missing_frame",
            )
    if not members.namelist():
        raise SequenceError(f"{archive} is an archive of nothing. Download it again.", "empty")
    return _Members(members)


@contextmanager
def reaching(place: Path | UrlPath) -> Iterator[None]:
    """Tells what is broken on the way to a URL from what is broken in the data.

    Args:
        place: What is read.

    Raises:
        ConnectionError: It is a URL that cannot be reached; what is not there stays a `FileNotFoundError`.
    """
    if isinstance(place, Path):
        yield
        return
    from huggingface_hub.utils import httpx

    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, httpx.HTTPError) as error:
        raise ConnectionError(f"{place} cannot be reached ({error}). Try again later.") from error


AnyPath = Path | UrlPath | MemberPath
"""A file or folder as layouts read it."""


def any_path(root: str | Path) -> Path | UrlPath:
    """Path of a folder, or of a URL if that is what it is."""
    return UrlPath(root) if isinstance(root, str) and "://" in root else Path(root)


__all__ = ["AnyPath", "MemberPath", "UrlPath", "any_path", "reaching"]
