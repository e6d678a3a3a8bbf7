"""A server, and the real client that speaks to it in this process. Its address is read when it is imported: given here by hand."""

import time
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants, file_download
from huggingface_hub.utils import _http

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
