"""
CompressTracker for every transformer tracker, inside Hugging Face. Importing it registers the trackers with AutoModel and
the task "visual-object-tracking" with `transformers.pipeline`.
"""

from importlib.metadata import version

from transformers import AutoConfig, AutoImageProcessor, AutoModel

from .models import (
    MixFormerV2Config,
    MixFormerV2Model,
    ODTrackConfig,
    ODTrackModel,
    OSTrackConfig,
    OSTrackModel,
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
