"""Tracking data sets in their own layouts, each a small file; `docs/datasets.md` says how to add one."""

import logging
from pathlib import Path

import numpy as np

from ..archives import any_path
from ..errors import SequenceError
from ..sequences import FileSequence, FolderSequence, read_sequences
from .coco import COCO
from .got10k import GOT10K
from .imagenet_vid import IMAGENET_VID
from .lasot import LASOT, LASOT_EXT
from .layout import Annotation, Layout, LayoutSequence, withheld
from .nfs import NFS
from .otb100 import OTB100
from .tnl2k import TNL2K
from .trackingnet import TRACKINGNET
from .uav123 import UAV123
from .vot import VOT


logger = logging.getLogger(__name__)


def _read_folder(root: Path, split: None) -> list[FolderSequence]:
    return read_sequences(root, check=False)


FOLDER = Layout("folder", _read_folder, protocol="visible")

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        LASOT,
        LASOT_EXT,
        GOT10K,
        TRACKINGNET,
        TNL2K,
        COCO,
        IMAGENET_VID,
        UAV123,
        OTB100,
        NFS,
        VOT,
        FOLDER,
    )
}
"""Layouts by the names that users type."""


def read_dataset(layout: str, root: str | Path, split: str | None = None, *, check: bool = True) -> list[FileSequence]:
    """Lists the sequences of a data set in its own layout.

    Args:
        layout: One of [`LAYOUTS`].
        root: Folder of the data set, or, for layouts with `archives`, a URL that fsspec reads, such as
            `hf://datasets/l-lt/LaSOT`.
        split: One of the layout's splits; by default the first of them.
        check: Whether to read every annotation and list all frames now, so that what is broken is reported at once
            (evaluation). Without, a stream of clips leaves broken sequences out and counts them. Published ground
            truth holds a few boxes without area in their visible frames, which toolkits count in their own ways:
            behind the first frame they are kept and logged in all layouts but `folder`. Default: `True`.

    Returns:
        The sequences, in the order of the official list or of their names.

    Raises:
        ValueError: `layout` or `split` is not one of those there are, or `root` is a URL and the layout wants a folder.
        SequenceError: `root` is not a folder of that layout, or holds no sequence of the split, or, with `check`, an
            annotation is broken or a frame is missing.

    Example:
        >>> sequences = read_dataset("lasot", "data/LaSOT", "test")
        >>> LAYOUTS["lasot"].protocol, LAYOUTS["lasot"].origin
        ('lasot', 1)
    """
    split = which_split(layout, split)
    chosen, root = LAYOUTS[layout], any_path(root)
    if not (chosen.archives or isinstance(root, Path)):
        able = ", ".join(name for name, known in LAYOUTS.items() if known.archives)
        raise ValueError(f"`root`={str(root)!r} is a URL, which only {able} can be read from. Give a folder.")
    if not root.is_dir():
        raise SequenceError(f"`root`={str(root)!r} is not a folder. Give the folder of the data set.", "empty")
    sequences = chosen.read(root, split)
    if not sequences:
        raise SequenceError(f"`root`={str(root)!r} holds no sequence of {layout}, split {split}.", "empty")
    if check:
        _check(sequences)
    return sequences


def which_split(layout: str, split: str | None) -> str | None:
    """Split that is meant: the one given, or the layout's first.

    Raises:
        ValueError: There is no such layout, or it has no such split.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}, got {layout!r}.")
    splits = LAYOUTS[layout].splits
    if split is None:
        return splits[0] if splits else None
    if split not in splits:
        known = f"one of {', '.join(splits)}" if splits else "None, as the layout has no splits"
        raise ValueError(f"`split` of {layout} must be {known}, got {split!r}.")
    return split


def _check(sequences: list[FileSequence]) -> None:
    kept = []
    for sequence in sequences:
        for row in sequence.check():
            if isinstance(sequence, FolderSequence) or row == 0 or not np.isfinite(sequence.boxes[row]).all():
                raise sequence.bad_box(row)
            kept.append(sequence.where(row))
    if kept:
        logger.warning(
            "%d boxes of visible targets have no area in their frame and are kept as published, the first in %s.",
            len(kept),
            kept[0],
        )


__all__ = ["LAYOUTS", "Annotation", "Layout", "LayoutSequence", "read_dataset", "which_split", "withheld"]
