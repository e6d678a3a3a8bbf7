"""A server, and the real client that speaks to it in this process. Its address is read when it is imported: given here by hand."""

import time
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants, file_download
from huggingface_hub.utils import _http

from ct_hf.data import procedural_sequences

from .server import TOKEN, HubServer


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def api(hub, monkeypatch):
    """The client, as with `HF_HUB_DISABLE_XET=1`; it waits as often as it does, but not as long."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        time.sleep(seconds / 1000)

    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic))
    client = HfApi(endpoint=hub.endpoint, token=TOKEN)
    client.waits = waits
    return client


@pytest.fixture
def boats(tmp_path):
    """A folder of three drawn sequences."""
    root = tmp_path / "boats"
    for sequence in procedural_sequences(0, 3, length=6, size=(96, 72)):
        folder = root / sequence.name
        folder.mkdir(parents=True)
        (folder / "groundtruth.txt").write_text("\n".join(",".join(map(str, box)) for box in sequence.boxes.tolist()))
        for number in range(6):
            sequence.frame(number).save(folder / f"{number}.jpg")
    return root
