import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ct_hf.models.modeling_odtrack import ODTrackTemplateBank
from ct_hf.tracking import load_session, save_session

from .conftest import BOX


@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_restored_session_goes_on_bit_for_bit(model, frames, tmp_path, before):
    """Box, templates, memory and frame number; with templates that were renewed, and from the very start."""
    session = model.start(frames[0], BOX)
    for frame in frames[1 : before + 1]:
        session.update(frame)
    save_session(session, tmp_path / "kept" / "session.safetensors")
    other = load_session(tmp_path / "kept" / "session.safetensors", model)
    assert other.frame_number == before and np.array_equal(other.box, session.box)
    for frame in frames[before + 1 :]:
        ours, theirs = session.update(frame), other.update(frame)
        assert np.array_equal(ours.box, theirs.box) and ours.score == theirs.score


def test_templates_and_memory_matter(models, frames, tmp_path):
    """Else the test above would not see that they are lost."""
    for name in ("sutrack", "odtrack", "mixformerv2"):
        model = models(name)
        session, bare = model.start(frames[0], BOX), model.start(frames[0], BOX)
        for frame in frames[1:5]:
            session.update(frame)
        bare.box, bare.frame_number = session.box, session.frame_number
        if name == "odtrack":
            bare.templates.kept = dict.fromkeys(range(5), bare.templates.kept[0])
        assert session.update(frames[5]).score != bare.update(frames[5]).score, name


def test_a_sentence_comes_back(models, frames, tmp_path):
    model = models("sutrack")
    session = model.start(frames[0], BOX, text_features=torch.linspace(-1, 1, 12))
    save_session(session, tmp_path / "session")
    other, bare = load_session(tmp_path / "session", model), model.start(frames[0], BOX)
    score = session.update(frames[1]).score
    assert other.update(frames[1]).score == score != bare.update(frames[1]).score


def test_a_thinned_bank_comes_back(models, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(ODTrackTemplateBank, "capacity", 3)
    session = models("odtrack").start(frames[0], BOX)
    for frame in frames[1:]:
        session.update(frame)
    save_session(session, tmp_path / "session")
    other = load_session(tmp_path / "session", models("odtrack"))
    assert other.templates.spacing == session.templates.spacing > 1
    assert list(other.templates.kept) == list(session.templates.kept)
    assert all(crop.pixel_values.dtype == torch.uint8 for crop in other.templates.kept.values())


def test_a_save_that_is_interrupted_leaves_the_last_one(models, frames, tmp_path, monkeypatch):
    session = models("ostrack").start(frames[0], BOX)
    save_session(session, tmp_path / "session")
    session.update(frames[1])

    def killed(tensors, file, metadata):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("ct_hf.tracking.saving.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_session(session, tmp_path / "session")
    assert load_session(tmp_path / "session", models("ostrack")).frame_number == 0


class TestRefuses:
    def test_another_tracker(self, models, frames, tmp_path):
        save_session(models("sutrack").start(frames[0], BOX), tmp_path / "session")
        with pytest.raises(ValueError, match="of another tracker than `model`: model_type sutrack, not odtrack"):
            load_session(tmp_path / "session", models("odtrack"))

    def test_a_file_that_is_no_session(self, models, tmp_path):
        (tmp_path / "text").write_text("no session")
        with pytest.raises(ValueError, match="`file` .*text is no saved session"):
            load_session(tmp_path / "text", models("ostrack"))
        save_file({"weight": torch.zeros(1)}, tmp_path / "weights")
        with pytest.raises(ValueError, match="is of format None, expected ct_hf session 1"):
            load_session(tmp_path / "weights", models("ostrack"))

    def test_a_missing_file(self, models, tmp_path):
        with pytest.raises(FileNotFoundError):
            load_session(tmp_path / "nowhere", models("ostrack"))


def test_the_header_is_json(models, frames, tmp_path):
    from safetensors import safe_open

    session = models("mixformerv2").start(frames[0], BOX)
    save_session(session, tmp_path / "session")
    with safe_open(tmp_path / "session", framework="pt") as opened:
        header = json.loads(opened.metadata()["session"])
    assert header["box"] == BOX and header["size"] == [100, 80] and header["frame_number"] == 0
    assert {name.split(".")[1] for name in load_file(tmp_path / "session")} == {"first", "online", "candidate"}
