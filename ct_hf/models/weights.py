"""Weights that hold nothing but numbers."""

from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file


_WHERE = ("cache_dir", "local_files_only", "proxies", "revision", "subfolder", "token")
_ADVICE = (
    "Other weights (.bin, .pt, .pth, .pkl) are pickles, which can run anything when they are loaded. Ask their author for "
    "safetensors; `ct-hf convert` converts an original checkpoint without running what is in it."
)


def require_safetensors(place: Any, use_safetensors: bool | None = None, **options: Any) -> None:
    """
    Refuse a folder or repository whose weights are not safetensors, before anything of them is read or asked for.

    Args:
        place (`str` or `Path`): folder or Hub repository.
        use_safetensors (`bool`, *optional*): argument of `from_pretrained`.
        options: further arguments of `from_pretrained`, which say where to look.

    Raises:
        ValueError: `use_safetensors` is `False`.
        OSError: there are no safetensors, or broken ones, or there is no such folder or repository.
    """
    if use_safetensors is False:
        raise ValueError(f"`use_safetensors` is False, but trackers are loaded from safetensors alone. {_ADVICE}")
    if place is None or options.get("variant") or options.get("gguf_file"):
        return
    where = {name: options[name] for name in _WHERE if options.get(name) is not None}
    for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        file = cached_file(place, name, _raise_exceptions_for_missing_entries=False, **where)
        if file is not None:
            if name == SAFE_WEIGHTS_NAME and not options.get("force_download"):
                _check_whole(place, file)
            return
    raise OSError(f"{place} holds no {SAFE_WEIGHTS_NAME}. {_ADVICE}")


def _check_whole(place: Any, file: str) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise OSError(
            f"{SAFE_WEIGHTS_NAME} of {place} is broken ({error}). If it is from the Hub, load it anew with "
            "`force_download=True`; `hf cache verify` compares all that was downloaded."
        ) from error


__all__ = ["require_safetensors"]
