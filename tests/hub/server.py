"""
A Hub on loopback, which speaks what the real client uses, and can be told to fail. For tests; nothing is kept.

    python -m tests.hub.server

prints the settings with which `huggingface_hub`, `transformers` and `datasets` use it, and serves until it is interrupted.
"""

import argparse
import hashlib
import hmac
import json
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .repositories import Refused, Repository, is_large


TOKEN = "hf_ofTheTestServerAndOfNothingElse"
"""Token of the user `org`, which every server of the tests accepts."""

_NAME = r"(?P<kind>models|datasets|spaces)/(?P<name>[\w.-]+/[\w.-]+)"


@dataclass
class Fault:
    """
    What goes wrong, where and how often.

    Args:
        kind (`str`): `"status"` (answer with a status instead of acting), `"drop"` (close the connection instead of acting),
            `"forget"` (act, then close the connection without an answer), `"cut"` (half a body), `"corrupt"` (a body with
            other bytes), `"slow"` (wait before acting).
        path (`str`): regular expression that is searched in the method and the path, such as `"PUT /storage"`.
        times (`int`): number of requests that it meets.
        after (`int`): number of requests that it lets pass first.
        status (`int`): answer of `"status"`.
        retry_after (`int`, *optional*): seconds that the client is told to wait.
        seconds (`float`): time that `"slow"` takes.
    """

    kind: str
    path: str
    times: int = 1
    after: int = 0
    status: int = 500
    retry_after: int | None = None
    seconds: float = 0.5

    def meets(self, request: str) -> bool:
        """Whether it meets this request; it counts those that it met and let pass."""
        if not self.times or not re.search(self.path, request):
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


class HubServer(ThreadingHTTPServer):
    """
    The server; a context manager that serves in a thread.

    Attributes:
        repositories (`dict[tuple[str, str], Repository]`): by kind (`"models"`, `"datasets"`, `"spaces"`) and name.
        storage (`dict[str, bytes]`): large files by their sha256.
        tokens (`dict[str, str]`): name of the user who has a token.
        faults (`list[Fault]`): what is to go wrong.
        requests (`list[str]`): method, path and status of each request, in order.
    """

    daemon_threads = True

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.tokens = {TOKEN: "org"}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.RLock()
        self.secret = os.urandom(16)

    @property
    def endpoint(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage_address(self) -> str:
        """Where large files are: another host, to which clients send no token."""
        return f"http://localhost:{self.server_port}"

    def environment(self, home: Any, token: str | None = TOKEN, **changes: str) -> dict[str, str]:
        """Environment of a process that uses this server, with its cache below `home`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(home),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        return {**kept, **own, **({"HF_TOKEN": token} if token else {}), **changes}

    def count(self, pattern: str) -> int:
        """Number of requests whose method, path and status match."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def sign(self, path: str) -> str:
        """Signature that stands for a token where large files are kept."""
        return hmac.new(self.secret, path.encode(), "sha256").hexdigest()

    def handle_error(self, *_: Any) -> None:
        """Clients that go away are none of ours."""

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement
    server: HubServer

    def log_message(self, *_: Any) -> None:
        pass

    # What comes in

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = unquote(url.path), parse_qs(url.query)
        self.body, self.spoilt, self.forget = self._read(), None, False
        request = f"{self.command} {self.route}"
        with self.server.lock:
            fault = next((fault for fault in self.server.faults if fault.meets(request)), None)
        if fault is not None:
            self.spoilt = fault.kind
            if fault.kind == "slow":
                time.sleep(fault.seconds)
            elif fault.kind == "drop":
                self._hang_up()
                return
            elif fault.kind == "status":
                waiting = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                self._answer({"error": "as the test asked for"}, fault.status, waiting)
                return
        try:
            self._act()
        except Refused as refusal:
            about = {"X-Error-Message": str(refusal), **({"X-Error-Code": refusal.code} if refusal.code else {})}
            self._answer({"error": str(refusal)}, refusal.status, about)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _read(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    # What goes out

    def _hang_up(self) -> None:
        self.server.requests.append(f"{self.command} {self.route} -")
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if self.spoilt == "forget":
            self._hang_up()
            return
        self.server.requests.append(f"{self.command} {self.route} {status}")
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "X-Request-Id": "test", **(headers or {})}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or status in (204, 304):
            return
        if self.spoilt == "corrupt":
            data = bytes(byte ^ 0x55 for byte in data)
        if self.spoilt == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self._hang_up()
            return
        self.wfile.write(data)

    # Who asks

    @property
    def user(self) -> str | None:
        """Name of the user whose token came along."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.server.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.server.tokens.get(token)

    def _repository(self, kind: str, name: str, write: bool = False) -> Repository:
        repository, user = self.server.repositories.get((kind, name)), self.user
        owns = user == name.partition("/")[0]
        if repository is None or (repository.private and not owns):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not owns:
            raise Refused(403 if user else 401, f"You have no right to write to {name}.")
        return repository

    # What is done

    def _act(self) -> None:
        for method, pattern, action in _ROUTES:
            if (match := re.fullmatch(pattern, self.route)) and self.command in method:
                with self.server.lock:
                    answer = action(self, **match.groupdict())
                self._answer(*answer) if isinstance(answer, tuple) else self._answer(answer)
                return
        raise Refused(404, f"Nothing is served at {self.route}.")

    def _whoami(self) -> Any:
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        return {"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}}

    def _create(self) -> Any:
        asked, user = self._json(), self.user
        if user is None:
            raise Refused(401, "Invalid username or password.")
        kind = f"{asked.get('type') or 'model'}s"
        owner = asked.get("organization") or user
        if owner != user:
            raise Refused(403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{owner}"')
        name = f"{owner}/{asked['name']}"
        url = f"{self.server.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.server.repositories:
            return {"url": url, "name": name, "error": "You already created this repo"}, 409
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.repositories[kind, name] = Repository(kind, name, private)
        return {"url": url, "name": name, "id": name}

    def _info(self, kind: str, name: str, revision: str | None = None) -> Any:
        return self._repository(kind, name).info(revision or "main")

    def _settings(self, kind: str, name: str) -> Any:
        asked = self._json()
        self._repository(kind, name, write=True).private = asked.get("visibility") == "private"
        return {}

    def _tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> Any:
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        return self._repository(kind, name).tree(revision, folder or "", recursive)

    def _paths(self, kind: str, name: str, revision: str) -> Any:
        repository = self._repository(kind, name)
        asked = parse_qs(self.body.decode()).get("paths", [])
        if "json" in self.headers.get("Content-Type", ""):
            asked = self._json()["paths"]
        rows = {row["path"]: row for row in repository.tree(revision, recursive=True)}
        return [rows[path] for path in asked if path in rows]

    def _refs(self, kind: str, name: str) -> Any:
        return self._repository(kind, name).refs()

    def _commits(self, kind: str, name: str, revision: str) -> Any:
        return [
            {"id": c.oid, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": "org"}]}
            for c in self._repository(kind, name).history(revision)
        ]

    def _branch(self, kind: str, name: str, branch: str) -> Any:
        repository = self._repository(kind, name, write=True)
        if self.command == "DELETE":
            repository.branches.pop(branch)
        elif branch in repository.branches:
            raise Refused(409, "Reference already exists")
        else:
            repository.branches[branch] = repository.resolve(self._json().get("startingPoint") or "main").oid
        return {}

    def _tag(self, kind: str, name: str, revision: str) -> Any:
        repository, asked = self._repository(kind, name, write=True), self._json()
        if self.command == "DELETE":
            repository.tags.pop(revision)
        elif asked["tag"] in repository.tags:
            raise Refused(409, "Tag reference exists already")
        else:
            repository.tags[asked["tag"]] = repository.resolve(revision).oid
        return {}

    def _preupload(self, kind: str, name: str, revision: str) -> Any:
        files, rows = self._repository(kind, name, write=True).resolve(revision).files, []
        for asked in self._json()["files"]:
            path = asked["path"]
            row = {"path": path, "shouldIgnore": False}
            row["uploadMode"] = "lfs" if is_large(path, asked["size"]) else "regular"
            if path in files and files[path].large == (row["uploadMode"] == "lfs"):
                row["oid"] = files[path].etag
            rows.append(row)
        return {"files": rows}

    def _batch(self, name: str, kind: str | None = None) -> Any:
        kind = (kind or "models/").rstrip("/")
        self._repository(kind, name, write=True)
        objects = []
        for asked in self._json()["objects"]:
            row, path = {"oid": asked["oid"], "size": asked["size"]}, f"/storage/{asked['oid']}"
            if asked["oid"] not in self.server.storage:
                prefix = "" if kind == "models" else f"{kind}/"
                row["actions"] = {
                    "upload": {
                        "href": f"{self.server.storage_address}{path}?signature={self.server.sign(path)}",
                        "header": {},
                    },
                    "verify": {"href": f"{self.server.endpoint}/{prefix}{name}.git/info/lfs/objects/verify"},
                }
            objects.append(row)
        return {"transfer": "basic", "objects": objects}

    def _verify(self, name: str, kind: str | None = None) -> Any:
        asked = self._json()
        if len(self.server.storage.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "The large file was not uploaded.")
        return {}

    def _store(self, oid: str) -> Any:
        if self.query.get("signature") != [self.server.sign(self.route)]:
            raise Refused(403, "The address has no valid signature.")
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise Refused(400, "The content's sha256 is not that of the address.")
            self.server.storage[oid] = self.body
            return b"", 200, {"ETag": f'"{oid}"'}
        return self._content(self.server.storage[oid], {"ETag": f'"{oid}"'})

    def _commit(self, kind: str, name: str, revision: str) -> Any:
        repository = self._repository(kind, name, write=True)
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        commit = repository.commit(revision, lines, self.server.storage)
        url = f"{self.server.endpoint}/{'' if kind == 'models' else kind + '/'}{name}/commit/{commit.oid}"
        return {"success": True, "commitUrl": url, "commitOid": commit.oid, "hookOutput": ""}

    def _resolve(self, name: str, revision: str, path: str, kind: str | None = None) -> Any:
        commit = self._repository((kind or "models/").rstrip("/"), name).resolve(revision)
        about = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            missing = {**about, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return {"error": "Entry not found"}, 404, missing
        entry = commit.files[path]
        if not entry.large:
            return self._content(entry.data, {**about, "ETag": f'"{entry.oid}"'})
        place = f"/storage/{entry.sha256}"
        linked = {
            "X-Linked-ETag": f'"{entry.sha256}"',
            "X-Linked-Size": str(len(entry.data)),
            "ETag": f'"{entry.oid}"',
        }
        where = {"Location": f"{self.server.storage_address}{place}?signature={self.server.sign(place)}"}
        return b"", 302, {**about, **linked, **where}

    def _content(self, data: bytes, about: dict[str, str]) -> tuple[bytes, int, dict[str, str]]:
        about = {**about, "Content-Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return data, 200, about
        first, last = asked.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(len(data), int(last) + 1) if first and last else len(data)
        if start >= len(data):
            return b"", 416, {**about, "Content-Range": f"bytes */{len(data)}"}
        return data[start:stop], 206, {**about, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}


_REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
_ROUTES: list[tuple[tuple[str, ...], str, Callable[..., Any]]] = [
    (("GET",), "/api/whoami-v2", _Handler._whoami),
    (("POST",), "/api/repos/create", _Handler._create),
    (("POST",), "/api/validate-yaml", lambda handler: {"errors": [], "warnings": []}),
    (("GET",), rf"/api/{_NAME}", _Handler._info),
    (("GET",), rf"/api/{_NAME}/revision/{_REVISION}", _Handler._info),
    (("PUT",), rf"/api/{_NAME}/settings", _Handler._settings),
    (("GET",), rf"/api/{_NAME}/tree/{_REVISION}(/(?P<folder>.*))?", _Handler._tree),
    (("POST",), rf"/api/{_NAME}/paths-info/{_REVISION}", _Handler._paths),
    (("GET",), rf"/api/{_NAME}/refs", _Handler._refs),
    (("GET",), rf"/api/{_NAME}/commits/{_REVISION}", _Handler._commits),
    (("POST", "DELETE"), rf"/api/{_NAME}/branch/(?P<branch>.+)", _Handler._branch),
    (("POST", "DELETE"), rf"/api/{_NAME}/tag/{_REVISION}", _Handler._tag),
    (("POST",), rf"/api/{_NAME}/preupload/{_REVISION}", _Handler._preupload),
    (("POST",), rf"/api/{_NAME}/commit/{_REVISION}", _Handler._commit),
    (("GET", "HEAD", "PUT"), r"/storage/(?P<oid>\w+)", _Handler._store),
]
_PREFIXED = r"/(?P<kind>datasets/|spaces/)?(?P<name>[\w.-]+/[\w.-]+?)"
_ROUTES += [
    (("POST",), rf"{_PREFIXED}\.git/info/lfs/objects/batch", _Handler._batch),
    (("POST",), rf"{_PREFIXED}\.git/info/lfs/objects/verify", _Handler._verify),
    (("GET", "HEAD"), rf"{_PREFIXED}/resolve/{_REVISION}/(?P<path>.+)", _Handler._resolve),
]


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port; a free one by default")
    server = HubServer(parser.parse_args().port)
    print(f"export HF_ENDPOINT={server.endpoint} HF_TOKEN={TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
