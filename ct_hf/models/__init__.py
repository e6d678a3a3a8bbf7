"""Trackers. Flat, since code that travels with a pushed model imports only within one folder."""

from .configuration_mixformerv2 import MixFormerV2Config
from .configuration_ostrack import OSTrackConfig
from .configuration_tracker import TrackerConfig
from .image_processing_tracker import CropWindow, TrackerImageProcessor
from .modeling_mixformerv2 import MixFormerV2Model
from .modeling_ostrack import OSTrackModel
from .session import Track, TrackingSession
from .tracker import Boundary, PreTrainedTracker, TrackerOutput, TrackerState


__all__ = [
    "Boundary",
    "CropWindow",
    "MixFormerV2Config",
    "MixFormerV2Model",
    "OSTrackConfig",
    "OSTrackModel",
    "PreTrainedTracker",
    "Track",
    "TrackerConfig",
    "TrackerImageProcessor",
    "TrackerOutput",
    "TrackerState",
    "TrackingSession",
]
