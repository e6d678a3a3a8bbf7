"""The code that travels with a tracker, so that it loads where ct_hf is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import MODEL_MAPPING
from transformers.dynamic_module_utils import get_relative_import_files

from ..models.configuration_tracker import TrackerConfig
from ..models.image_processing_tracker import TrackerImageProcessor


_OURS = TrackerConfig.__module__.rpartition(".")[0]


def is_ours(name: str) -> bool:
    """Whether a file of this name beside a tracker is code that travelled with one, and not its owner's own."""
    return (Path(sys.modules[TrackerConfig.__module__].__file__).parent / name).is_file() and name != "__init__.py"


def travelling_code(config: TrackerConfig) -> tuple[dict[str, str], list[Path]]:
    """
    Find the code of a tracker. No class is marked for it, as `register_for_auto_class` would for all that is saved after.

    Args:
        config ([`~models.TrackerConfig`]): configuration of a registered family.

    Returns:
        `tuple`: the `auto_map` by which `trust_remote_code=True` finds the classes, and the files, which go beside the
        configuration. Both are empty for a tracker that is defined outside ct_hf, whose code may need anything.
    """
    classes = {
        "AutoConfig": type(config),
        "AutoModel": MODEL_MAPPING[type(config)],
        "AutoImageProcessor": TrackerImageProcessor,
    }
    modules = {auto: cls.__module__.rpartition(".") for auto, cls in classes.items()}
    if any(package != _OURS for package, _, _ in modules.values()):
        return {}, []
    auto_map = {auto: f"{modules[auto][2]}.{cls.__name__}" for auto, cls in classes.items()}
    files = set()
    for cls in classes.values():
        file = sys.modules[cls.__module__].__file__
        files |= {Path(file), *map(Path, get_relative_import_files(file))}
    return auto_map, sorted(files)


__all__ = ["is_ours", "travelling_code"]
