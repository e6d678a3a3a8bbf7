"""The test server answers the real client as the Hub does; all other tests of this folder rest on that."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .server import TOKEN, Fault


REPOSITORY = "org/thing"
LARGE = bytes(range(256)) * 400


@pytest.fixture
def filled(hub, api):
    api.create_repo(REPOSITORY, private=True)
    files = {"config.json": b"{}", "model.safetensors": LARGE, "folder/a.txt": b"a", "folder/deep/b.txt": b"b"}
    operations = [CommitOperationAdd(name, data) for name, data in files.items()]
    return api.create_commit(REPOSITORY, operations, commit_message="one")


def test_files_come_back_as_they_were_pushed(hub, api, filled, tmp_path):
    for name, data in (("config.json", b"{}"), ("model.safetensors", LARGE), ("folder/deep/b.txt", b"b")):
        assert Path(api.hf_hub_download(REPOSITORY, name, cache_dir=tmp_path)).read_bytes() == data
    entry = hub.repositories["models", REPOSITORY].head.files["model.safetensors"]
    assert entry.large and hub.storage[entry.sha256] == LARGE
    assert hub.count("PUT /storage") == 1 and hub.count("resolve/.*/model.safetensors 302") > 0, "as on the Hub"
    snapshot = Path(api.snapshot_download(REPOSITORY, cache_dir=tmp_path))
    assert {path.name for path in snapshot.rglob("*.*")} >= {"config.json", "model.safetensors", "a.txt", "b.txt"}
    assert not api.verify_repo_checksums(REPOSITORY, cache_dir=tmp_path).mismatches


def test_what_is_there_is_not_sent_again(hub, api, filled):
    again = api.create_commit(REPOSITORY, [CommitOperationAdd("model.safetensors", LARGE)], commit_message="two")
    assert again.oid == filled.oid, "no commit without a change"
    moved = [CommitOperationAdd("copy.safetensors", LARGE), CommitOperationDelete("folder/")]
    api.create_commit(REPOSITORY, moved, commit_message="three")
    assert hub.count("PUT /storage") == 1
    assert api.list_repo_files(REPOSITORY) == [
        ".gitattributes",
        "config.json",
        "copy.safetensors",
        "model.safetensors",
    ]


def test_branches_tags_and_history(api, filled, tmp_path):
    api.create_tag(REPOSITORY, tag="v1.0")
    api.create_branch(REPOSITORY, branch="next")
    api.create_commit(
        REPOSITORY, [CommitOperationAdd("config.json", b"[]")], commit_message="two", commit_description="why"
    )
    refs = api.list_repo_refs(REPOSITORY)
    assert {ref.name for ref in refs.branches} == {"main", "next"} and refs.tags[0].target_commit == filled.oid
    for revision, content in (("v1.0", b"{}"), ("next", b"{}"), (filled.oid, b"{}"), ("main", b"[]")):
        path = api.hf_hub_download(REPOSITORY, "config.json", revision=revision, cache_dir=tmp_path)
        assert Path(path).read_bytes() == content, revision
    assert [commit.title for commit in api.list_repo_commits(REPOSITORY)] == ["two", "one", "initial commit"]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(REPOSITORY, tag="v1.0")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(REPOSITORY, [CommitOperationAdd("x", b"x")], commit_message="late", parent_commit=filled.oid)


def test_what_is_missing(api, filled, tmp_path):
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPOSITORY, "nothing.json", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(REPOSITORY, "config.json", revision="v9", cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/nothing")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPOSITORY)
    assert api.create_repo(REPOSITORY, exist_ok=True).repo_id == REPOSITORY


def test_tokens(hub, api, filled, tmp_path):
    """A private repository is not there for others; a public one is read by all and written by its owner."""
    hub.tokens["hf_other"] = "other"
    nobody, other, wrong = (HfApi(hub.endpoint, token=token) for token in (False, "hf_other", "hf_wrong"))
    for client in (nobody, other):
        with pytest.raises(RepositoryNotFoundError):
            client.model_info(REPOSITORY)
        with pytest.raises(RepositoryNotFoundError):
            client.hf_hub_download(REPOSITORY, "config.json", cache_dir=tmp_path)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        wrong.model_info(REPOSITORY)
    api.update_repo_settings(REPOSITORY, visibility="public")
    assert nobody.model_info(REPOSITORY).private is False
    with pytest.raises(HfHubHTTPError, match="403"):
        other.create_commit(REPOSITORY, [CommitOperationAdd("x", b"x")], commit_message="no")
    with pytest.raises(HfHubHTTPError, match="403"):
        other.create_repo("org/mine")
    assert api.whoami()["name"] == "org"


def test_ranges_and_listing_by_the_file_system(hub, api, filled):
    files = HfFileSystem(endpoint=hub.endpoint, token=TOKEN, skip_instance_cache=True)
    with files.open(f"{REPOSITORY}/model.safetensors", block_size=1000, cache_type="none") as file:
        file.seek(70_000)
        assert file.read(300) == LARGE[70_000:70_300]
    assert hub.count("/storage/.* 206") > 0
    assert sorted(path.rpartition("/")[2] for path in files.ls(f"{REPOSITORY}/folder", detail=False)) == [
        "a.txt",
        "deep",
    ]
    assert files.info(f"{REPOSITORY}/model.safetensors")["size"] == len(LARGE)


@pytest.mark.parametrize("fault", [Fault("status", "PUT", status=503), Fault("drop", "PUT"), Fault("slow", "PUT")])
def test_a_fault_that_passes_is_outlived_by_the_client(hub, api, fault):
    api.create_repo(REPOSITORY)
    hub.faults.append(fault)
    api.create_commit(REPOSITORY, [CommitOperationAdd("model.safetensors", LARGE)], commit_message="one")
    assert fault.times == 0 and list(hub.storage.values()) == [LARGE]


def test_a_client_is_told_how_long_to_wait(hub, api, filled, tmp_path):
    hub.faults.append(Fault("status", "GET /org.*resolve", status=429, retry_after=7))
    assert Path(api.hf_hub_download(REPOSITORY, "config.json", cache_dir=tmp_path)).read_bytes() == b"{}"
    assert api.waits == [8.0], "and a second, as the client adds"


def test_it_runs_by_itself():
    """As the page says; the settings that it prints are those of the client."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.server"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    try:
        settings = dict(re.findall(r"(\w+)=(\S+)", process.stdout.readline()))
        client = HfApi(settings["HF_ENDPOINT"], token=settings["HF_TOKEN"])
        assert client.create_repo("org/alone").repo_id == "org/alone" and settings["HF_HUB_DISABLE_XET"] == "1"
        with pytest.raises(EntryNotFoundError):
            hf_hub_download("org/alone", "nothing.json", endpoint=settings["HF_ENDPOINT"])
    finally:
        process.terminate()
        process.wait(10)
