import os
import pickle
import random
import shutil
import subprocess
import sys
import types
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ct_hf.conversion import CheckpointError, read_checkpoint

from .checkpoints import foreign_class, save_original


class Reduced:
    """Pickles as a call of `function` with `arguments` when loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def weights():
    return {"backbone.weight": torch.arange(12.0).view(3, 4), "backbone.bias": torch.zeros(3)}


@pytest.fixture
def foreign(monkeypatch):
    """A module that can be pickled from, and is gone once the checkpoint is to be read."""
    monkeypatch.setitem(sys.modules, "alien", types.ModuleType("alien"))
    return sys.modules["alien"]


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


class TestWhatIsRead:
    def test_original_with_foreign_objects(self, tmp_path, weights):
        path = save_original(tmp_path / "OSTrack_ep0300.pth.tar", weights)
        assert "lib.train.admin.settings" not in sys.modules
        assert_equal(read_checkpoint(path), weights)
        assert_equal(read_checkpoint(str(path)), weights)

    @pytest.mark.parametrize(
        "wrap", [dict, OrderedDict, lambda w: {"model": w, "epoch": 3}, lambda w: {"state_dict": w}]
    )
    def test_bare_or_under_a_known_key(self, tmp_path, weights, wrap):
        torch.save(wrap(weights), tmp_path / "weights.pth")
        assert_equal(read_checkpoint(tmp_path / "weights.pth"), weights)

    def test_safetensors(self, tmp_path, weights):
        save_file(weights, tmp_path / "model.safetensors")
        assert_equal(read_checkpoint(tmp_path / "model.safetensors"), weights)

    def test_before_zip_files(self, tmp_path, weights):
        torch.save({"net": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        assert_equal(read_checkpoint(tmp_path / "old.pth"), weights)

    def test_plain_containers_and_arrays_beside_the_weights(self, tmp_path, weights):
        beside = {
            "args": Namespace(lr=1e-4),
            "path": Path("a/b"),
            "seen": {1, 2},
            "curve": np.arange(3.0),
            "f": np.float64(1),
        }
        torch.save({"net": weights, **beside}, tmp_path / "weights.pth")
        assert_equal(read_checkpoint(tmp_path / "weights.pth"), weights)

    def test_weights_on_another_device_or_type(self, tmp_path):
        weights = {"a": torch.zeros(2, dtype=torch.bfloat16), "b": torch.tensor(3)}
        torch.save({"net": weights}, tmp_path / "weights.pth")
        assert_equal(read_checkpoint(tmp_path / "weights.pth"), weights)


class TestNothingRuns:
    def test_methods_of_foreign_objects(self, tmp_path, weights, foreign, monkeypatch):
        """Neither construction, nor state, nor items or attributes: a marker file would show it."""
        marker = tmp_path / "marker"

        def mark(self, *args):
            marker.write_text("ran")

        cls = foreign_class("alien", "Settings", __setstate__=mark, __getstate__=lambda self: {"a": 1})
        torch.save({"net": weights, "settings": cls()}, tmp_path / "weights.pth")
        torch.load(tmp_path / "weights.pth", weights_only=False)
        assert marker.exists()  # the file is as bad as the test believes
        marker.unlink()
        for still_there in (True, False):
            if not still_there:
                monkeypatch.delitem(sys.modules, "alien")
            assert_equal(read_checkpoint(tmp_path / "weights.pth"), weights)
            assert not marker.exists()

    def test_functions_of_foreign_modules(self, tmp_path, weights, foreign):
        marker = tmp_path / "marker"

        def write_marker(text):
            marker.write_text(text)

        write_marker.__module__, write_marker.__qualname__ = "alien", "write_marker"
        foreign.write_marker = write_marker
        torch.save({"net": weights, "stats": Reduced(write_marker, "ran")}, tmp_path / "weights.pth")
        torch.load(tmp_path / "weights.pth", weights_only=False)
        assert marker.exists()
        marker.unlink()
        assert_equal(read_checkpoint(tmp_path / "weights.pth"), weights)
        assert not marker.exists()

    @pytest.mark.parametrize("base", [list, dict, set])
    def test_containers_of_foreign_classes(self, tmp_path, weights, foreign, base):
        """Settings in an EasyDict or the like stand beside the weights of many trackers; they are never filled."""
        filled = []
        methods = dict.fromkeys(
            ("append", "extend", "add", "__setitem__", "__setstate__"), lambda *_: filled.append(1)
        )
        foreign.Box = type("Box", (base,), {"__module__": "alien", **methods})
        value = foreign.Box({"a": 1, "b": 2})
        torch.save({"net": weights, "settings": value}, tmp_path / "weights.pth")
        torch.save({"net": weights, "settings": value}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        filled.clear()
        assert_equal(read_checkpoint(tmp_path / "weights.pth"), weights)
        assert_equal(read_checkpoint(tmp_path / "old.pth"), weights)
        assert not filled

    def test_torchscript_is_refused(self, tmp_path):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
        with pytest.raises(CheckpointError, match="`checkpoint` script.pt is a TorchScript program"):
            read_checkpoint(tmp_path / "script.pt")

    @pytest.mark.parametrize(
        ("function", "argument", "name"),
        [
            (os.system, "touch {marker}", "posix.system|nt.system"),
            (eval, "open({marker!r}, 'w')", r"\beval`"),
            (exec, "open({marker!r}, 'w')", r"\bexec`"),
            (__import__, "antigravity", r"\b__import__`"),
            (subprocess.check_output, "touch {marker}", "Popen|check_output"),
            (shutil.rmtree, "{marker}", "shutil.rmtree"),
            (pickle.loads, b"\x80\x04N.", "pickle.*loads"),
        ],
    )
    @pytest.mark.parametrize("zipped", [True, False])
    def test_calls_into_the_standard_library_are_refused(self, tmp_path, weights, function, argument, name, zipped):
        """The message names the call."""
        marker = tmp_path / "marker"
        argument = argument.format(marker=str(marker)) if isinstance(argument, str) else argument
        content = {"net": weights, "stats": Reduced(function, argument)}
        torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=rf"`checkpoint` evil.pth .*({name})") as caught:
            read_checkpoint(tmp_path / "evil.pth")
        assert "weights_only" not in str(caught.value)  # torch advises to load such a file without protection
        assert not marker.exists()

    def test_weights_that_are_foreign_objects_are_refused(self, tmp_path, foreign):
        """They would need their code: a pickled model, or tensors of a class of their own."""
        torch.save({"net": foreign_class("alien", "Model")(), "epoch": 1}, tmp_path / "weights.pth")
        torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
        torch.save({"net": {"weight": foreign_class("alien", "Tensor")()}}, tmp_path / "tensor.pth")
        for name in ("weights.pth", "module.pth", "tensor.pth"):
            with pytest.raises(CheckpointError, match=f"`checkpoint` {name} holds no weights"):
                read_checkpoint(tmp_path / name)

    def test_weights_under_another_key_are_not_guessed_but_told(self, tmp_path):
        torch.save({"ema": {"weight": torch.ones(1)}, "epoch": 3}, tmp_path / "weights.pth")
        with pytest.raises(CheckpointError, match="found the keys 'ema', 'epoch'. Take the weights out of it"):
            read_checkpoint(tmp_path / "weights.pth")


class TestDamage:
    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="`checkpoint` .*nowhere.pth is not a file"):
            read_checkpoint(tmp_path / "nowhere.pth")
        with pytest.raises(FileNotFoundError, match="is not a file"):
            read_checkpoint(tmp_path)

    @pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".safetensors"])
    def test_empty_file(self, tmp_path, suffix):
        path = tmp_path / f"empty{suffix}"
        path.touch()
        with pytest.raises(CheckpointError, match=f"`checkpoint` empty{suffix} cannot be read as weights alone"):
            read_checkpoint(path)

    @pytest.mark.parametrize("form", ["original", "old", "safetensors"])
    @pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.9, 0.99])
    def test_truncated_file(self, tmp_path, weights, form, share):
        path = self.save(tmp_path, weights, form)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match="truncated"):
            read_checkpoint(path)

    @pytest.mark.parametrize("form", ["original", "old", "safetensors"])
    @pytest.mark.filterwarnings("ignore")
    def test_damaged_file(self, tmp_path, weights, form):
        """Whatever byte is wrong, it is read or refused, and nothing else happens."""
        path = self.save(tmp_path, weights, form)
        content, rng = path.read_bytes(), random.Random(0)
        for _ in range(150):
            damaged = bytearray(content)
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            path.write_bytes(damaged)
            try:
                read_checkpoint(path)
            except CheckpointError as error:
                assert path.name in str(error)

    def test_other_files(self, tmp_path):
        (tmp_path / "page.pth").write_text("<html>404</html>")
        with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
            archive.writestr("readme.txt", "no weights")
        torch.save({"epoch": 3}, tmp_path / "poor.pth")
        torch.save({}, tmp_path / "none.pth")
        torch.save([torch.zeros(1)], tmp_path / "list.pth")
        for path in sorted(tmp_path.iterdir()):
            with pytest.raises(CheckpointError, match=path.name):
                read_checkpoint(path)

    @staticmethod
    def save(folder, weights, form):
        if form == "safetensors":
            save_file(weights, folder / "model.safetensors")
            return folder / "model.safetensors"
        if form == "old":
            torch.save({"net": weights}, folder / "old.pth", _use_new_zipfile_serialization=False)
            return folder / "old.pth"
        return save_original(folder / "OSTrack_ep0300.pth.tar", weights)
