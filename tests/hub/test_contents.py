"""Nothing pickled, no token and no path of the machine is published."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from ct_hf.hub import push_folder
from ct_hf.hub.contents import check_contents


PLACE = "org/ct-tiny"
SECRET = "hf_" + "aB3" * 11


@pytest.fixture
def saved(tiny_tracker, tmp_path):
    tiny_tracker.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "x.pkl", "deep/er/x.npz"]
)
def test_pickles_are_refused_by_name(hub, api, saved, name):
    (saved / name).parent.mkdir(parents=True, exist_ok=True)
    (saved / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"^{name} is a pickle or may hold one"):
        push_folder(saved, PLACE, api=api)
    assert not hub.requests, "nothing was asked of the Hub"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5, "torch"])
def test_pickles_are_refused_by_what_they_are(hub, api, saved, protocol):
    file = saved / "notes.txt"
    torch.save({"a": 1}, file) if protocol == "torch" else file.write_bytes(pickle.dumps({"a": 1}, protocol))
    with pytest.raises(ValueError, match="notes.txt is a pickle"):
        push_folder(saved, PLACE, api=api)
    assert not hub.requests


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", '{"teacher": "/srv/runs/teacher"}'),
        ("notes.md", "From ~/data."),
        ("notes.csv", r"name,C:\data\x"),
        ("log.txt", "file:///srv/x"),
    ],
)
def test_paths_of_the_machine_are_refused(hub, api, saved, name, text):
    (saved / name).write_text(text)
    with pytest.raises(ValueError, match=rf"^{name} holds the path '.*' of this machine"):
        push_folder(saved, PLACE, api=api)
    assert not hub.requests


def test_a_configuration_that_names_a_folder_is_refused(api, saved):
    config = (
        (saved / "config.json")
        .read_text()
        .replace('"compression": null', '"compression": {"teacher": "/srv/teacher/x"}')
    )
    (saved / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"^config.json holds the path '/srv/teacher/x'"):
        push_folder(saved, PLACE, api=api)


@pytest.mark.parametrize("name", ["notes.md", "config.json"])
def test_tokens_are_refused_and_not_repeated(hub, api, saved, name, monkeypatch):
    """Those that look like one, and the one that is in use whatever it looks like."""
    before = (saved / name).read_text() if (saved / name).is_file() else "{"
    for text, known in ((SECRET, None), ("swordfish-99", "swordfish-99")):
        monkeypatch.setattr("ct_hf.hub.contents.get_token", lambda known=known: known)
        (saved / name).write_text(before.replace("{", '{"note": "' + text + '",', 1))
        with pytest.raises(ValueError, match=f"^{name} holds an access token") as caught:
            push_folder(saved, PLACE, api=api)
        assert text not in str(caught.value)
    assert not hub.requests


def test_weights_that_are_torn_or_say_too_much_are_refused(api, saved):
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="model.safetensors is not a whole safetensors file"):
        push_folder(saved, PLACE, api=api)
    save_file({"a": torch.zeros(1)}, weights, {"format": "pt", "from": "/srv/runs/x"})
    with pytest.raises(ValueError, match="model.safetensors holds the path '/srv/runs/x'"):
        push_folder(saved, PLACE, api=api)


def test_what_only_looks_like_a_path_or_a_token_passes():
    page = (
        b'<img src="data:image/png;base64,AA+/srv/data/x==">, https://huggingface.co/papers/2409.17564, and/or, hf_hub'
    )
    check_contents({"page.html": page, "picture.png": b"\x89PNG\xff/srv/data/x", "a.zip": b""})
