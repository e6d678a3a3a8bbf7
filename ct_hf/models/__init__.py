"""Trackers. Flat, since code that travels with a pushed model imports only within one folder."""

from .configuration_mixformerv2 import MixFormerV2Config
from .configuration_odtrack import ODTrackConfig
from .configuration_ostrack import OSTrackConfig
from .configuration_sutrack import SUTrackConfig
from .configuration_tracker import TrackerConfig
from .image_processing_tracker import CropWindow, TrackerImageProcessor
from .modeling_mixformerv2 import MixFormerV2Model
from .modeling_odtrack import ODTrackModel
from .modeling_ostrack import OSTrackModel
from .modeling_sutrack import SUTrackModel
from .session import Track, TrackingSession
from .tracker import Boundary, PreTrainedTracker, TrackerOutput, TrackerState


__all__ = [
    "Boundary",
    "CropWindow",
    "MixFormerV2Config",
    "MixFormerV2Model",
    "ODTrackConfig",
    "ODTrackModel",
    "OSTrackConfig",
    "OSTrackModel",
    "PreTrainedTracker",
    "SUTrackConfig",
    "SUTrackModel",
    "Track",
    "TrackerConfig",
    "TrackerImageProcessor",
    "TrackerOutput",
    "TrackerState",
    "TrackingSession",
]
