"""Speeds carry what they were measured on."""

import torch

from ct_hf.evaluation import hardware
from ct_hf.evaluation.hardware import describe_device


CPU = torch.device("cpu")


def test_two_processors_are_told_apart(tmp_path, monkeypatch):
    for name in ("AMD EPYC 7B13", "Cortex-A76"):
        info = tmp_path / name
        info.write_text(f"processor\t: 0\nmodel name\t: {name}\ncpu MHz\t: 2445\nprocessor\t: 1\n")
        monkeypatch.setattr(hardware, "_CPU_INFO", info)
        assert describe_device(CPU).startswith(f"cpu ({name}, ") and describe_device(CPU).endswith(")")
    assert describe_device(CPU, 2) == f"{describe_device(CPU)}, 2 processes"


def test_a_system_that_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "_CPU_INFO", tmp_path / "nothing")
    monkeypatch.setattr(hardware.platform, "processor", lambda: "")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "aarch64")
    assert describe_device(CPU).startswith("cpu (aarch64, ")


def test_graphics_processors_have_their_names(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert describe_device(torch.device("cuda", 1)) == "cuda:1 (card 1)"
