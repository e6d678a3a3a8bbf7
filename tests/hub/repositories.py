"""Repositories of the test server, in memory: commits that are whole or not there, branches, tags and large files."""

import base64
import fnmatch
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


LARGE = ("*.safetensors", "*.bin", "*.pt", "*.pkl", "*.parquet", "*.gif", "*.png", "*.zip")
"""Names of files that are kept beside git, by their sha256; the Hub says so in a repository's `.gitattributes`."""


class Refused(Exception):
    """What a client is told: a status, and the code from which it makes its exception."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Entry:
    """A file in a commit."""

    data: bytes
    large: bool = False

    @property
    def oid(self) -> str:
        """Name of the blob in git."""
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid


@dataclass(frozen=True)
class Commit:
    """All files of a repository at a time."""

    oid: str
    files: dict[str, Entry]
    title: str
    message: str = ""
    parent: str | None = None
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))


class Repository:
    """A model, data set or Space."""

    def __init__(self, kind: str, name: str, private: bool):
        self.kind, self.name, self.private = kind, name, private
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commits: dict[str, Commit] = {}
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE).encode()
        self._add("main", {".gitattributes": Entry(attributes)}, "initial commit")

    @property
    def head(self) -> Commit:
        """Newest commit of the main branch."""
        return self.commits[self.branches["main"]]

    def resolve(self, revision: str) -> Commit:
        """Find the commit of a branch, a tag or a commit's own name."""
        oid = self.branches.get(revision.removeprefix("refs/heads/")) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def history(self, revision: str) -> list[Commit]:
        """List commits, the newest first."""
        commits = [self.resolve(revision)]
        while commits[-1].parent:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def _add(self, branch: str, files: dict[str, Entry], title: str, message: str = "") -> Commit:
        parent = self.branches.get(branch)
        names = sorted((name, entry.oid) for name, entry in files.items())
        oid = hashlib.sha1(json.dumps([parent, title, names, len(self.commits)]).encode()).hexdigest()
        self.commits[oid] = Commit(oid, files, title, message, parent)
        self.branches[branch] = oid
        return self.commits[oid]

    def commit(self, branch: str, lines: list[dict[str, Any]], storage: dict[str, bytes]) -> Commit:
        """Make a commit of what a client sends, once all of it is found to be right."""
        if branch not in self.branches:
            raise Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        files, header = dict(self.resolve(branch).files), {}
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "header":
                header = value
                if value.get("parentCommit") not in (None, self.branches[branch]):
                    raise Refused(412, "The branch has moved since the parent commit.")
            elif key == "file":
                content = value["content"]
                files[value["path"]] = Entry(base64.b64decode(content))
            elif key == "lfsFile":
                data = storage.get(value["oid"])
                if data is None or len(data) != value.get("size", len(data)):
                    raise Refused(400, f"{value['path']} points to a large file that was not uploaded.")
                files[value["path"]] = Entry(data, large=True)
            elif key in ("deletedFile", "deletedFolder"):
                path = value["path"].rstrip("/")
                gone = [name for name in files if name == path or name.startswith(path + "/")]
                if not gone:
                    raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
                for name in gone:
                    del files[name]
            else:
                raise Refused(400, f"{key} is not known here.")
        return self._add(branch, files, header.get("summary", ""), header.get("description", ""))

    def info(self, revision: str) -> dict[str, Any]:
        """Describe the repository as `model_info` and `dataset_info` read it."""
        commit = self.resolve(revision)
        return {
            "_id": hashlib.sha1(self.name.encode()).hexdigest()[:24],
            "id": self.name,
            "author": self.name.partition("/")[0],
            "sha": commit.oid,
            "lastModified": commit.date,
            "private": self.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": name} for name in sorted(commit.files)],
            "createdAt": commit.date,
        }

    def tree(self, revision: str, folder: str = "", recursive: bool = False) -> list[dict[str, Any]]:
        """List the files and folders below a folder."""
        commit, found = self.resolve(revision), {}
        start = f"{folder.strip('/')}/" if folder.strip("/") else ""
        for path, entry in sorted(commit.files.items()):
            if path.startswith(start):
                parts = path[len(start) :].split("/")
                for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                    name = start + "/".join(parts[:depth])
                    found[name] = {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "path": name}
                    found[name]["size"] = 0
                if recursive or len(parts) == 1:
                    found[path] = describe(path, entry)
        if start and not found:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        return list(found.values())

    def refs(self) -> dict[str, Any]:
        """List branches and tags."""

        def rows(names: dict[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in names.items()]

        return {"branches": rows(self.branches, "heads"), "tags": rows(self.tags, "tags"), "converts": []}


def describe(path: str, entry: Entry) -> dict[str, Any]:
    """A row of a listing."""
    row = {"type": "file", "oid": entry.oid, "size": len(entry.data), "path": path}
    if entry.large:
        row["lfs"] = {"oid": entry.sha256, "size": len(entry.data), "pointerSize": 130}
    return row


def is_large(path: str, size: int) -> bool:
    """Whether a file is kept beside git."""
    name = path.rpartition("/")[2]
    return size > 5_000_000 or any(fnmatch.fnmatch(name, pattern) for pattern in LARGE)
