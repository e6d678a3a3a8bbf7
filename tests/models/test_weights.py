"""Trackers are read from safetensors alone; tests/hub does the same with repositories."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from ct_hf import OSTrackModel


@pytest.fixture
def pickled(tiny_tracker, tmp_path):
    tiny_tracker.config.save_pretrained(tmp_path)
    torch.save(tiny_tracker.state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path


def test_a_pickle_is_refused_with_advice_and_not_opened(pickled, monkeypatch):
    monkeypatch.setattr("torch.load", None)
    for load in (AutoModel.from_pretrained, OSTrackModel.from_pretrained):
        with pytest.raises(OSError, match=r"holds no model.safetensors\. .*pickles.*safetensors; `ct-hf convert`"):
            load(pickled)
        with pytest.raises(ValueError, match="`use_safetensors` is False"):
            load(pickled, use_safetensors=False)
        with pytest.raises(OSError):
            load(pickled, variant="other")


def test_safetensors_beside_a_pickle_are_read(pickled, tiny_tracker):
    tiny_tracker.save_pretrained(pickled)
    loaded = AutoModel.from_pretrained(pickled).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tiny_tracker.state_dict().items())


def test_shards_are_read(tiny_tracker, tmp_path):
    tiny_tracker.save_pretrained(tmp_path, max_shard_size="20kB")
    assert not (tmp_path / "model.safetensors").exists()
    loaded = AutoModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tiny_tracker.state_dict().items())


def test_torn_weights_are_said_to_be(tiny_tracker, tmp_path):
    tiny_tracker.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"model.safetensors of .* is broken .*`force_download=True`"):
        AutoModel.from_pretrained(tmp_path)


def test_weights_in_memory_are_taken_as_they_are(tiny_tracker, tmp_path):
    tiny_tracker.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    loaded = OSTrackModel.from_pretrained(None, config=tiny_tracker.config, state_dict=weights)
    assert torch.equal(loaded.state_dict()["head.score.projection.bias"], weights["head.score.projection.bias"])
