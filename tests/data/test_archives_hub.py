"""Archives in a Hub repository: the Hub's own client against a loopback server that speaks as much of the protocol as it needs."""

import json
import os
import re
import subprocess
import sys
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlparse

import numpy as np
import pytest

from ct_hf.data import convert_dataset, procedural_sequences


ROOT = Path(__file__).parents[2]
REPOSITORY = "authors/LaSOT"


@pytest.fixture
def published(tmp_path):
    """Two drawn sequences as published: a list, and the archive of their category, most of which nobody asks for."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "training_set.txt").write_text("cat-1\ncat-2\n")
    with zipfile.ZipFile(folder / "cat.zip", "w") as archive:
        archive.writestr("cat-0/img/00000001.jpg", np.random.default_rng(0).bytes(8_000_000))
        for number, sequence in enumerate(procedural_sequences(0, 2, length=4, size=(96, 72)), start=1):
            for index in range(4):
                archive.writestr(f"cat-{number}/img/{index + 1:08d}.jpg", sequence.frame_bytes(index))
            for flag in ("full_occlusion", "out_of_view"):
                archive.writestr(f"cat-{number}/{flag}.txt", "0,0,0,0")
            archive.writestr(f"cat-{number}/groundtruth.txt", "11,12,20,16\n" * 4)
    return folder


@pytest.fixture
def hub(published):
    """Serves that folder; `sent` counts the bytes of its files."""

    class Handler(BaseHTTPRequestHandler):
        sent = 0

        def log_message(self, *_):
            pass

        def answer(self, data, status=200, headers=()):
            self.send_response(status)
            for name, value in {"Content-Length": len(data), "X-Repo-Commit": "a" * 40, **dict(headers)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_GET(self):
            path = urlparse(self.path).path
            if re.fullmatch(rf"/api/datasets/{REPOSITORY}(/revision/\w+)?", path):
                self.answer(json.dumps({"id": REPOSITORY, "sha": "a" * 40, "siblings": [], "tags": []}).encode())
            elif re.fullmatch(rf"/api/datasets/{REPOSITORY}/tree/\w+", path):
                files = [
                    {"type": "file", "oid": "0" * 40, "size": f.stat().st_size, "path": f.name}
                    for f in published.iterdir()
                ]
                self.answer(json.dumps(files).encode())
            elif (name := path.rpartition("/")[2]) in os.listdir(published) and "/resolve/" in path:
                data, asked = (published / name).read_bytes(), self.headers.get("Range")
                first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", asked).groups()) if asked else (0, len(data))
                part = data[first : last + 1]
                Handler.sent += len(part)
                about = {"ETag": '"x"', "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}
                self.answer(part, 206 if asked else 200, about)
            else:
                self.answer(b"{}", 404, {"X-Error-Code": "EntryNotFound"})

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    server.counts = Handler
    yield server
    server.shutdown()


@pytest.fixture
def convert(hub, tmp_path):
    """Runs `ct-hf data convert` on the repository, in a process of its own: the client reads its address when imported."""
    switches = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    environment = {**os.environ, **switches, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}"}
    root = f"hf://datasets/{REPOSITORY}"
    command = [sys.executable, "-m", "ct_hf.cli", "data", "convert", "lasot", root, str(tmp_path / "out")]
    return lambda: subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_a_repository_of_archives_is_converted_in_place(published, hub, convert, tmp_path):
    run = convert()
    assert run.returncode == 0, run.stderr[-4000:]
    convert_dataset("lasot", published, tmp_path / "local")
    local = {path.name: path.read_bytes() for path in tmp_path.glob("local/data/*")}
    assert local and local == {path.name: path.read_bytes() for path in tmp_path.glob("out/data/*")}
    assert 0 < hub.counts.sent < (published / "cat.zip").stat().st_size / 3, "what nobody asks for stays there"


def test_a_hub_that_does_not_answer_is_an_error_and_leaves_nothing_out(hub, convert, tmp_path):
    hub.shutdown()
    hub.server_close()
    run = convert()
    assert run.returncode == 1
    assert f"hf://datasets/{REPOSITORY} cannot be reached" in run.stderr and "Traceback" not in run.stderr
    assert not list(tmp_path.glob("out/*.json"))
