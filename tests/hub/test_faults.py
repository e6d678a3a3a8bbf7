"""Whatever goes wrong on the way: the client gets over it, or there is a clear error and the other side is whole."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from ct_hf.hub import push_folder

from .server import TOKEN, Fault


PLACE = "org/ct-tiny"
ALWAYS = 1000


@pytest.fixture
def saved(tiny_tracker, tmp_path):
    tiny_tracker.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_text("---\nlicense: mit\n---\n# org/ct-tiny\n")
    return tmp_path / "saved"


def change(folder):
    """Make another tracker of it, all of whose files differ from what was pushed before."""
    weights = {name: value + 1 for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# org/ct-tiny\n\nNew.\n")


def content(hub):
    return {name: entry.data for name, entry in hub.repositories["models", PLACE].head.files.items()}


WAYS = {
    "asking": r"GET /api/models/org/ct-tiny$",
    "announcing": r"POST .*/preupload/",
    "preparing": r"POST .*/objects/batch",
    "sending": r"PUT /storage",
    "verifying": r"POST .*/objects/verify",
    "committing": r"POST .*/commit/",
}
KINDS = {
    "500": Fault("status", "", status=500),
    "429": Fault("status", "", status=429, retry_after=2),
    "drop": Fault("drop", ""),
    "forget": Fault("forget", ""),
    "slow": Fault("slow", "", seconds=0.05),
}


@pytest.mark.parametrize(("kind", "times"), [*((kind, 1) for kind in KINDS), ("500", ALWAYS), ("drop", ALWAYS)])
@pytest.mark.parametrize("way", WAYS)
def test_a_push_is_whole_or_has_not_happened(hub, api, saved, way, kind, times):
    push_folder(saved, PLACE, api=api)
    old = content(hub)
    change(saved)
    new = {**old, **{name: (saved / name).read_bytes() for name in ("model.safetensors", "README.md")}}
    hub.faults.append(replace(KINDS[kind], path=WAYS[way], times=times))
    try:
        push_folder(saved, PLACE, api=api)
        failed = False
    except ConnectionError as error:
        failed = True
        assert PLACE in str(error) and "Push again" in str(error)
        assert TOKEN not in str(error)
    if kind == "slow" or (times == 1 and way in ("preparing", "sending", "verifying")):
        assert not failed, "the client gets over it"
    if times == ALWAYS:
        assert failed
    assert content(hub) in ([old, new] if kind == "forget" and way == "committing" else [old] if failed else [new])

    sent = hub.count("PUT /storage/.* 200")
    arrived = len(hub.storage) == 2
    hub.faults.clear()
    push_folder(saved, PLACE, api=api)
    assert content(hub) == new, "a repeated push succeeds"
    assert len(hub.repositories["models", PLACE].history("main")) == 3, "in one commit"
    assert hub.count("PUT /storage/.* 200") == sent + (not arrived), "and sends nothing twice"


def test_a_push_whose_bytes_are_changed_on_the_way_is_refused(hub, api, saved, monkeypatch):
    """The other side knows the hash of what it should get."""
    push_folder(saved, PLACE, api=api)
    old = content(hub)
    change(saved)
    read = hub.RequestHandlerClass._read
    monkeypatch.setattr(
        hub.RequestHandlerClass, "_read", lambda self: read(self)[:-1] + b"!" if self.command == "PUT" else read(self)
    )
    with pytest.raises(ConnectionError, match="sha256 is not that of the address"):
        push_folder(saved, PLACE, api=api)
    assert content(hub) == old
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    push_folder(saved, PLACE, api=api)
    assert content(hub)["model.safetensors"] == (saved / "model.safetensors").read_bytes()


def test_a_server_that_is_gone(api, hub, saved):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ConnectionError, match="org/ct-tiny was not pushed to.*Push again"):
        push_folder(saved, PLACE, api=api)


PULLS = {
    "revision": r"GET /api/models/",
    "about a file": r"HEAD .*resolve.*/config.json",
    "about weights": r"HEAD .*resolve.*/model.safetensors",
    "file": r"GET .*resolve.*/config.json",
    "weights": r"GET /storage",
}


@pytest.mark.parametrize(
    ("kind", "times"), [*((kind, 1) for kind in [*KINDS, "cut"]), ("500", ALWAYS), ("cut", ALWAYS)]
)
@pytest.mark.parametrize("way", PULLS)
def test_a_pull_is_right_or_an_error(hub, api, saved, tmp_path, way, kind, times):
    push_folder(saved, PLACE, api=api)
    fault = KINDS.get(kind, Fault("cut", ""))
    hub.faults.append(replace(fault, path=PULLS[way], times=times))
    failed = False
    try:
        folder = Path(api.snapshot_download(PLACE, cache_dir=tmp_path / "cache"))
    except (OSError, httpx.HTTPError) as error:
        failed = True
        assert str(error) and TOKEN not in str(error)
    if kind == "slow" or (times == 1 and way == "weights" and kind in ("429", "drop", "cut")):
        assert not failed, "the client gets over it"
    hub.faults.clear()
    if failed:
        folder = Path(api.snapshot_download(PLACE, cache_dir=tmp_path / "cache"))
    pulled = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert pulled == content(hub)
    assert not api.verify_repo_checksums(PLACE, cache_dir=tmp_path / "cache").mismatches


def test_bytes_that_were_changed_on_the_way_are_found(hub, api, saved, tmp_path, tiny_tracker):
    """The client looks at sizes alone; weights that do not even begin as such are refused, and all is found by a check."""
    push_folder(saved, PLACE, api=api)
    cache = tmp_path / "cache"
    hub.faults.append(Fault("corrupt", PULLS["weights"]))
    folder = api.snapshot_download(PLACE, cache_dir=cache)
    with pytest.raises(OSError, match=r"model.safetensors of .* is broken .*force_download=True"):
        AutoModel.from_pretrained(folder)
    assert [found["path"] for found in api.verify_repo_checksums(PLACE, cache_dir=cache).mismatches] == [
        "model.safetensors"
    ]
    folder = api.snapshot_download(PLACE, cache_dir=cache, force_download=True)
    weights = AutoModel.from_pretrained(folder).state_dict()
    assert all((weights[name] == value).all() for name, value in tiny_tracker.state_dict().items())


def test_a_private_repository_is_closed_to_others(hub, api, saved, tmp_path):
    push_folder(saved, PLACE, api=api)
    hub.tokens["hf_other"] = "other"
    for token in (False, "hf_other", "hf_wrong"):
        with pytest.raises(HfHubHTTPError) as caught:
            api.snapshot_download(PLACE, cache_dir=tmp_path / "cache", token=token)
        assert caught.value.response.status_code in (401, 404)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_push_that_is_killed_is_made_again(hub, api, saved, tmp_path):
    """The process ends in the middle of a large file."""
    push_folder(saved, PLACE, api=api)
    old = hub.repositories["models", PLACE].head
    change(saved)
    fault = Fault("slow", WAYS["sending"], seconds=60)
    hub.faults.append(fault)
    environment = {**hub.environment(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "ct_hf.cli", "push", str(saved), PLACE]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while fault.times and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    assert process.wait(10) == -9
    assert hub.repositories["models", PLACE].head == old
    push_folder(saved, PLACE, api=api)
    assert content(hub)["model.safetensors"] == (saved / "model.safetensors").read_bytes()
    assert hub.repositories["models", PLACE].head.parent == old.oid
