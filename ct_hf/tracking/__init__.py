"""Tracking any video: frames in, boxes and drawn video out, many targets at once."""

from .batch import track_targets, track_videos, update_together
from .drawing import draw_tracks
from .lost import LostWatch
from .pipeline import VisualObjectTrackingPipeline, register_pipeline
from .record import Recording, record_tracks
from .saving import load_session, save_session
from .video import Video, VideoError, open_video
from .writer import VideoWriter


__all__ = [
    "LostWatch",
    "Recording",
    "Video",
    "VideoError",
    "VideoWriter",
    "VisualObjectTrackingPipeline",
    "draw_tracks",
    "load_session",
    "open_video",
    "record_tracks",
    "register_pipeline",
    "save_session",
    "track_targets",
    "track_videos",
    "update_together",
]
