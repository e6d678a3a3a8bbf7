"""Reading the weights of an original checkpoint without running anything that is pickled beside them."""

import re
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


WEIGHT_KEYS = ("net", "model", "state_dict")
# Of the standard library only plain containers may stand beside the weights; anything else there is a sign of an attack.
HARMLESS_MODULES = {"_codecs", "argparse", "collections", "copyreg", "datetime", "pathlib"}
HARMLESS_BUILTINS = {"bytearray", "complex", "frozenset", "list", "object", "range", "set", "slice", "tuple"}


class CheckpointError(ValueError):
    """An original checkpoint that cannot be read safely, or does not fit the model."""


class _Foreign:
    """Stands in for any pickled object of a foreign class; takes what the pickle hands it and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any):
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


def _check_global(name: str, path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    module = IMPORT_MAPPING.get(module, module)  # `torch.save` writes Python 2's names, such as `commands.Popen`
    top = module.partition(".")[0]
    harmless = attribute in HARMLESS_BUILTINS if module == "builtins" else top in HARMLESS_MODULES
    if top in sys.stdlib_module_names and not harmless:
        raise CheckpointError(
            f"`checkpoint` {path.name} names `{name}`, which would run code when loaded. It is refused: get the weights "
            "from a source you trust, as safetensors or saved by `torch.save(model.state_dict(), ...)`."
        )


def _read_pickle(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    for name in names:
        _check_global(name, path)
    stubs = [(type(name.rpartition(".")[2], (_Foreign,), {}), name) for name in names]
    with torch.serialization.safe_globals(stubs):
        return torch.load(path, map_location="cpu", weights_only=True)


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Read the weights of an original checkpoint.

    Original files hold pickled objects of their own classes (`stats`, `settings`) beside the weights. These are replaced by
    stand-ins that do nothing; no code of the file runs.

    Args:
        path (`str` or `Path`): a `.safetensors` file, or what `torch.save` wrote (`.pth`, `.pth.tar`, `.pt`, `.bin`).

    Returns:
        `dict[str, torch.Tensor]`: the weights by their original names, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, would run code when loaded, or holds no weights that can be read so.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` {path} is not a file.")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        # Of torch's message only the name it stumbled over: the rest advises to load the file without protection.
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it names `{blocked[1]}`" if blocked else type(error).__name__
        raise CheckpointError(
            f"`checkpoint` {path.name} cannot be read as weights alone ({reason}). It is truncated, no checkpoint, or needs "
            "code to load; download it again, or save it anew by `torch.save(model.state_dict(), ...)`."
        ) from error
    if isinstance(content, dict):
        for weights in (content, *(content.get(key) for key in WEIGHT_KEYS)):
            if isinstance(weights, dict) and weights and all(isinstance(v, torch.Tensor) for v in weights.values()):
                return dict(weights)
    raise CheckpointError(
        f"`checkpoint` {path.name} holds no weights that can be read without running its code: expected a dictionary of "
        f"tensors, or one under {', '.join(repr(key) for key in WEIGHT_KEYS)}."
    )


__all__ = ["CheckpointError", "read_checkpoint"]
