"""Conversion of an original checkpoint into a model that AutoModel loads."""

from pathlib import Path
from typing import Any

from ..models.image_processing_tracker import TrackerImageProcessor
from ..models.tracker import PreTrainedTracker
from . import compresstracker, mixformerv2, odtrack, ostrack, sutrack
from .checkpoint import read_checkpoint
from .key_table import ConversionReport, KeyTable, apply_key_table


FAMILIES: dict[str, KeyTable] = {
    "compresstracker": compresstracker.TABLE,
    "mixformerv2": mixformerv2.TABLE,
    "odtrack": odtrack.TABLE,
    "ostrack": ostrack.TABLE,
    "sutrack": sutrack.TABLE,
}


def convert_checkpoint(
    family: str, variant: str, checkpoint: str | Path, **overrides: Any
) -> tuple[PreTrainedTracker, ConversionReport]:
    """
    Build a tracker from an original checkpoint.

    Args:
        family (`str`): a key of [`FAMILIES`], such as `"ostrack"`.
        variant (`str`): the original's configuration name, such as `"vitb_256_mae_ce_32x4_ep300"`.
        checkpoint (`str` or `Path`): original file, see [`~checkpoint.read_checkpoint`].
        **overrides: fields of the configuration that differ from the variant's.

    Returns:
        `tuple` of [`PreTrainedTracker`] in evaluation mode and [`ConversionReport`].

    Raises:
        ValueError: family, variant or field are unknown.
        CheckpointError: the file cannot be read safely, or does not fit the configuration.
    """
    if family not in FAMILIES:
        raise ValueError(f"`family` must be one of {', '.join(sorted(FAMILIES))}, got {family!r}.")
    table = FAMILIES[family]
    if variant not in table.variants:
        raise ValueError(f"`variant` of {family} must be one of {', '.join(table.variants)}, got {variant!r}.")
    weights = read_checkpoint(checkpoint)
    config = table.model_class.config_class.from_fields(**{**table.variants[variant], **overrides})
    model = table.model_class(config)
    report = apply_key_table(table, weights, model)
    return model.eval(), report


def convert_to_directory(
    family: str, variant: str, checkpoint: str | Path, out: str | Path, **overrides: Any
) -> ConversionReport:
    """Convert as [`convert_checkpoint`] does and save model and image processor into a directory."""
    if Path(out).is_file():
        raise ValueError(f"`out` {Path(out).name} is a file, expected a folder to save to.")
    model, report = convert_checkpoint(family, variant, checkpoint, **overrides)
    model.save_pretrained(out)
    TrackerImageProcessor.from_config(model.config).save_pretrained(out)
    return report


__all__ = ["FAMILIES", "convert_checkpoint", "convert_to_directory"]
