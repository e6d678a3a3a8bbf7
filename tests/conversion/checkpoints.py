"""Checkpoints as the originals' training code writes them: weights beside pickled objects of classes that we lack."""

import sys
import types
from collections import OrderedDict
from pathlib import Path

import torch


def save_original(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Write a `.pth.tar` whose `stats` and `settings` are of classes from modules that are gone afterwards."""
    names = ["lib", "lib.train", "lib.train.admin", "lib.train.admin.stats", "lib.train.admin.settings"]
    sys.modules.update({name: types.ModuleType(name) for name in names})
    try:
        meter = foreign_class("lib.train.admin.stats", "AverageMeter")()
        meter.avg, meter.history = 0.5, [1.0, 0.5]
        settings = foreign_class("lib.train.admin.settings", "Settings")()
        settings.project_path, settings.nested = "train/ostrack", {"meter": meter}
        content = {
            "epoch": 300,
            "actor_type": "OSTrackActor",
            "net_type": "OSTrack",
            "net": OrderedDict(weights),
            "net_info": None,
            "constructor": None,
            "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 4e-5, "params": [0]}]},
            "stats": OrderedDict(train=OrderedDict(loss=meter)),
            "settings": settings,
        }
        torch.save(content, path)
    finally:
        for name in names:
            del sys.modules[name]
    return path


def foreign_class(module: str, name: str, **attributes: object) -> type:
    """Make a class that pickles as `module.name`; `module` must be in `sys.modules` while it is pickled."""
    cls = type(name, (), {"__module__": module, **attributes})
    setattr(sys.modules[module], name, cls)
    return cls
