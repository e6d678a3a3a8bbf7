"""Original checkpoints, made ours."""

from .checkpoint import CheckpointError, read_checkpoint
from .convert import FAMILIES, convert_checkpoint, convert_to_directory


__all__ = ["FAMILIES", "CheckpointError", "convert_checkpoint", "convert_to_directory", "read_checkpoint"]
