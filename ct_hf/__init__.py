"""
CompressTracker for every transformer tracker, inside Hugging Face. Importing it registers the trackers with AutoModel and
the task "visual-object-tracking" with `transformers.pipeline`.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoModel

from .models import (
    MixFormerV2Config,
    MixFormerV2Model,
    ODTrackConfig,
    ODTrackModel,
    OSTrackConfig,
    OSTrackModel,
    PreTrainedTracker,
    SUTrackConfig,
    SUTrackModel,
    TrackerImageProcessor,
)
from .tracking import register_pipeline


__version__ = version("ct_hf")

_FAMILIES = {
    MixFormerV2Config: MixFormerV2Model,
    ODTrackConfig: ODTrackModel,
    OSTrackConfig: OSTrackModel,
    SUTrackConfig: SUTrackModel,
}

for _config, _model in _FAMILIES.items():
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoImageProcessor.register(_config, image_processor_classes={"pil": TrackerImageProcessor}, exist_ok=True)
register_pipeline()


def _push_to_hub(self: PreTrainedTracker, repo_id: str, **options: Any) -> Any:
    """Push the tracker with card, image processor and code, private by default, see [`~hub.push_model`]."""
    from .hub import push_model

    return push_model(self, repo_id, **options)


def _save_pretrained(
    self: PreTrainedTracker,
    save_directory: str | Path,
    is_main_process: bool = True,
    state_dict: dict[str, Any] | None = None,
    push_to_hub: bool = False,
    max_shard_size: int | str = "50GB",
    variant: str | None = None,
    **options: Any,
) -> None:
    """Save the tracker, see [`~transformers.PreTrainedModel.save_pretrained`]; `push_to_hub` pushes it as its method does."""
    names = ("repo_id", "private", "commit_message", "commit_description", "create_pr", "revision")
    pushed = {name: options.pop(name) for name in names if name in options}
    options |= {"max_shard_size": max_shard_size, "variant": variant}
    # Saving empties the mapping that it is given.
    _save(self, save_directory, is_main_process, state_dict and dict(state_dict), **options)
    if push_to_hub and is_main_process:
        repo_id = pushed.pop("repo_id", Path(save_directory).name)
        pushed |= {name: options.get(name) for name in ("max_shard_size", "variant", "token")}
        self.push_to_hub(repo_id, state_dict=state_dict, **pushed)


# Set from here, as models know nothing of the Hub: where only their code has travelled, transformers' own method serves.
PreTrainedTracker.push_to_hub = _push_to_hub
_save, PreTrainedTracker.save_pretrained = PreTrainedTracker.save_pretrained, _save_pretrained

__all__ = [
    "MixFormerV2Config",
    "MixFormerV2Model",
    "ODTrackConfig",
    "ODTrackModel",
    "OSTrackConfig",
    "OSTrackModel",
    "SUTrackConfig",
    "SUTrackModel",
    "TrackerImageProcessor",
    "__version__",
]
