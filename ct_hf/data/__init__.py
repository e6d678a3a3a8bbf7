"""Sequences, streams of clips, training pairs and batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .augmentation import Augmentation
from .collator import TrackingCollator
from .errors import CAUSES, SequenceError
from .layouts import LAYOUTS, Layout, read_dataset
from .photographs import Photographs, TextureMix, rendered_textures
from .procedural import ProceduralSequence, ProceduralWorld, procedural_sequences
from .sequences import FolderSequence, Sequence, read_sequences
from .textures import ProceduralTextures, TextureSource


if TYPE_CHECKING:
    from .clips import STORED_FEATURES, repeat_clips
    from .contact_sheet import draw_pairs
    from .conversion import convert_dataset
    from .pairs import stream_pairs
    from .sampling import PairSampler
    from .stored import Conversion, ConversionError
    from .streaming import CLIP_FEATURES, stream_clips

__all__ = [
    "CAUSES",
    "CLIP_FEATURES",
    "LAYOUTS",
    "STORED_FEATURES",
    "Augmentation",
    "Conversion",
    "ConversionError",
    "FolderSequence",
    "Layout",
    "PairSampler",
    "Photographs",
    "ProceduralSequence",
    "ProceduralTextures",
    "ProceduralWorld",
    "Sequence",
    "SequenceError",
    "TextureMix",
    "TextureSource",
    "TrackingCollator",
    "convert_dataset",
    "draw_pairs",
    "procedural_sequences",
    "read_dataset",
    "read_sequences",
    "rendered_textures",
    "repeat_clips",
    "stream_clips",
    "stream_pairs",
]

_LATE = {
    "CLIP_FEATURES": "streaming",
    "Conversion": "stored",
    "ConversionError": "stored",
    "PairSampler": "sampling",
    "STORED_FEATURES": "clips",
    "convert_dataset": "conversion",
    "draw_pairs": "contact_sheet",
    "repeat_clips": "clips",
    "stream_clips": "streaming",
    "stream_pairs": "pairs",
}


def __getattr__(name: str) -> Any:
    """Load what needs the `datasets` library when it is asked for: reading and judging sequences does not."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATE[name]}", __name__), name)
