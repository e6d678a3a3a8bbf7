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
    from .clip_sources import RenderedClips, SequenceClips
    from .clips import STORED_FEATURES
    from .contact_sheet import draw_pairs
    from .conversion import convert_dataset
    from .pairs import open_source, stream_pairs
    from .sampling import PairSampler
    from .stored import Conversion, ConversionError
    from .stored_clips import StoredClips
    from .streaming import PairStream

__all__ = [
    "CAUSES",
    "LAYOUTS",
    "STORED_FEATURES",
    "Augmentation",
    "Conversion",
    "ConversionError",
    "FolderSequence",
    "Layout",
    "PairSampler",
    "PairStream",
    "Photographs",
    "ProceduralSequence",
    "ProceduralTextures",
    "ProceduralWorld",
    "RenderedClips",
    "Sequence",
    "SequenceClips",
    "SequenceError",
    "StoredClips",
    "TextureMix",
    "TextureSource",
    "TrackingCollator",
    "convert_dataset",
    "draw_pairs",
    "open_source",
    "procedural_sequences",
    "read_dataset",
    "read_sequences",
    "rendered_textures",
    "stream_pairs",
]

_LATE = {
    "Conversion": "stored",
    "ConversionError": "stored",
    "PairSampler": "sampling",
    "PairStream": "streaming",
    "RenderedClips": "clip_sources",
    "SequenceClips": "clip_sources",
    "STORED_FEATURES": "clips",
    "StoredClips": "stored_clips",
    "convert_dataset": "conversion",
    "draw_pairs": "contact_sheet",
    "open_source": "pairs",
    "stream_pairs": "pairs",
}


def __getattr__(name: str) -> Any:
    """Load what needs the `datasets` library when it is asked for: reading and judging sequences does not."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATE[name]}", __name__), name)
