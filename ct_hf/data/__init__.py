"""Sequences, streams of clips, training pairs and batches."""

from .augmentation import Augmentation
from .collator import TrackingCollator
from .pairs import stream_pairs
from .photographs import Photographs, TextureMix, rendered_textures
from .procedural import ProceduralSequence, ProceduralWorld, procedural_sequences
from .sampling import PairSampler
from .sequences import CAUSES, FolderSequence, Sequence, SequenceError, read_sequences
from .streaming import CLIP_FEATURES, stream_clips
from .textures import ProceduralTextures, TextureSource


__all__ = [
    "CAUSES",
    "CLIP_FEATURES",
    "Augmentation",
    "FolderSequence",
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
    "procedural_sequences",
    "read_sequences",
    "rendered_textures",
    "stream_clips",
    "stream_pairs",
]
