"""Reading the weights of an original checkpoint without running anything that is pickled beside them."""

import pickle
import sys
import types
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


WEIGHT_KEYS = ("net", "model", "state_dict")
# Of the standard library only plain containers may stand beside the weights; anything else there is a sign of an attack.
HARMLESS_MODULES = {"_codecs", "argparse", "collections", "copyreg", "datetime", "pathlib"}
HARMLESS_BUILTINS = {"bytearray", "complex", "dict", "frozenset", "list", "object", "range", "set", "slice", "tuple"}
# All that a pickle may call: what tensors are made of. Anything else it names becomes a stand-in.
REBUILDERS: dict[str, Callable] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch._utils._rebuild_tensor": torch._utils._rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch.Size": torch.Size,
}


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

    def add(self, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """
    Unpickler that can build tensors and nothing else.

    `torch.load(weights_only=True)` would refuse the subclasses of dict and list, such as EasyDict, that original trackers
    keep their settings in. Here every foreign name becomes a [`_Foreign`], so nothing of the file runs either.
    """

    def find_class(self, module: str, name: str) -> Any:
        module = IMPORT_MAPPING.get(module, module)  # `torch.save` writes Python 2's names, such as `commands.Popen`
        full_name = f"{module}.{name}"
        if full_name in REBUILDERS:
            return REBUILDERS[full_name]
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        top = module.partition(".")[0]
        harmless = name in HARMLESS_BUILTINS if module == "builtins" else top in HARMLESS_MODULES
        if top in sys.stdlib_module_names and not harmless:
            raise CheckpointError(
                f"names `{full_name}`, which would run code when loaded. It is refused: get the weights from "
                "a source you trust, as safetensors or saved by `torch.save(model.state_dict(), ...)`."
            )
        return type(name, (_Foreign,), {})


def _load(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


def _read_pickle(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise CheckpointError("is a TorchScript program, which holds code. Save its `state_dict()` instead.")
    reader = types.SimpleNamespace(__name__="weights", Unpickler=_Unpickler, load=_load)
    # Not `weights_only`: torch hands all reading to our own unpickler, which is as strict about what may be called.
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)


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
        CheckpointError: the file is truncated, holds values that are not finite, would run code when loaded, or holds no weights that can be read so.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` {path} is not a file.")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except CheckpointError as error:
        raise CheckpointError(f"`checkpoint` {path.name} {error}") from None
    except Exception as error:  # a damaged pickle fails in any way
        # Without the original message: torch's advises to load the file without protection.
        raise CheckpointError(
            f"`checkpoint` {path.name} cannot be read as weights alone ({type(error).__name__}). It is truncated, no checkpoint, or needs "
            "code to load; download it again, or save it anew by `torch.save(model.state_dict(), ...)`."
        ) from error
    if isinstance(content, dict):
        for weights in (content, *(content.get(key) for key in WEIGHT_KEYS)):
            if isinstance(weights, dict) and weights and all(isinstance(v, torch.Tensor) for v in weights.values()):
                broken = next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None)
                if broken is not None:
                    raise CheckpointError(f"`checkpoint` {path.name}: `{broken}` holds values that are not finite.")
                return dict(weights)
    found = f"the keys {', '.join(map(repr, list(content)[:5]))}" if isinstance(content, dict) else "no dictionary"
    raise CheckpointError(
        f"`checkpoint` {path.name} holds no weights where they are looked for: expected a dictionary of tensors alone, or one "
        f"under {', '.join(repr(key) for key in WEIGHT_KEYS)}, found {found}. Take the weights out of it, and save them by "
        "`torch.save`."
    )


__all__ = ["CheckpointError", "read_checkpoint"]
