"""From a data set in its own layout to shards of clips that `datasets` streams."""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..files import write_whole
from .clips import (
    GROUP_ROWS,
    STORED_FEATURES,
    LeftOut,
    Span,
    check_usable,
    clip_length,
    cut_spans,
    deal,
    read_rows,
    row_order,
)
from .errors import SequenceError
from .layouts import LAYOUTS, read_dataset, which_split
from .sequences import FileSequence
from .stored import MANIFEST, Conversion, ConversionError, Manifest, read_notes, shard_notes


logger = logging.getLogger(__name__)

SHARD_BYTES = 5 * 10**8
"""Size that shards are planned for; one is held in memory while it is made."""

SHARDS_AT_ONCE = 8
"""The number of shards is a multiple of it, so that 2, 4 or 8 processes or workers share them evenly."""

_SAMPLES = 64  # frames that the size of the whole is estimated from


def convert_dataset(
    layout: str,
    root: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    stride: int = 8,
    license: str = "unknown",
    progress: bool = False,
) -> Conversion:
    """Writes a data set as Parquet shards of clips, [`STORED_FEATURES`], which `datasets.load_dataset` streams.

    The image files are stored as they are. `ct_hf.data.clips` says how sequences are cut. Each shard holds spans of many
    sequences, its rows are in random order, and both are the same in each run. A conversion that ended early, however it
    did, goes on when it is called again: finished shards are kept, and the others become what they would have been.

    Args:
        layout: One of [`LAYOUTS`].
        root: Folder of the data set, or a URL where the layout takes one, see [`read_dataset`].
        out: Folder to write to: new, empty or of the same conversion.
        split: One of the layout's splits; by default `train` where there is one, else the first of them.
        stride: Most frames between two neighbouring ones of a row, see [`cut_spans`]. Default: 8.
        license: Identifier of the data set's licence, as the Hub spells it; kept in every row. Default: `"unknown"`.
        progress: Whether to show progress bars. Default: `False`.

    Returns:
        What was written and what was left out. Call its `check` to refuse a data set that is broken in too many places.

    Raises:
        ValueError: An argument is out of range, or names of sequences are not UTF-8 or not all different.
        SequenceError: `root` cannot be read as that layout, or no sequence of it can be used.
        ConversionError: `out` holds something else, another conversion, or one that another process is busy with, or the
            data set has changed since it was begun.

    Example:
        >>> convert_dataset("got10k", "data/GOT-10k", "clips/got10k", license="cc-by-nc-sa-4.0").check()
        >>> pairs = stream_pairs(StoredClips("clips/got10k"), config, seed=0)
    """
    clip_length(stride)
    which_split(layout, split)
    split, out = split or LAYOUTS[layout].training_split, Path(out)
    arguments = {"layout": layout, "split": split, "stride": stride, "license": license}
    found = read_dataset(layout, root, split, check=False)
    sequences = {sequence.name: sequence for sequence in found}
    if len(sequences) < len(found):
        (name, times), *_ = Counter(sequence.name for sequence in found).most_common(1)
        raise ValueError(
            f"{len(found) - len(sequences)} sequences are called as others are, such as {name!r}, which {times} are. Give each a "
            "name of its own."
        )
    if odd := [name for name in sequences if name != name.encode(errors="replace").decode()]:
        raise ValueError(f"The names of {len(odd)} sequences are not UTF-8, such as {odd[0]!r}. Rename their folders.")
    _prepare(out)
    try:
        with FileLock(out / ".lock", timeout=0):
            manifest = _manifest(out, arguments, sequences, progress)
            _write_shards(out, manifest, sequences, progress)
    except Timeout as error:
        raise ConversionError(f"Another process converts into {out}. Wait for it, or use another folder.") from error
    return _conversion(out, manifest)


def _prepare(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConversionError(f"`out`={str(out)!r} is a file. Give a folder, new or empty.")
    out.mkdir(parents=True, exist_ok=True)
    found = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if found and MANIFEST not in found:
        raise ConversionError(
            f"`out`={str(out)!r} holds {found[0]!r} and no {MANIFEST}, so it is no conversion. Use an empty folder."
        )


def _manifest(out: Path, arguments: dict[str, Any], sequences: dict[str, FileSequence], progress: bool) -> Manifest:
    if (out / MANIFEST).exists():
        manifest = Manifest.load(out)
        manifest.check(arguments, out)
        if missing := manifest.sequences.keys() - sequences.keys():
            raise ConversionError(
                f"{out} was begun with sequence {min(missing)!r}, which the data set does not hold now. Restore it, or use "
                "another folder."
            )
        known = manifest.sequences.keys() | {entry.name for entry in manifest.left_out}
        if added := sequences.keys() - known:
            raise ConversionError(
                f"{out} was begun without {len(added)} sequences that the data set holds now, such as {min(added)!r}. Convert into "
                "another folder."
            )
        return manifest
    manifest = _plan(arguments, sequences, progress)
    manifest.save(out)
    return manifest


def _plan(arguments: dict[str, Any], sequences: dict[str, FileSequence], progress: bool) -> Manifest:
    """Reads every annotation, and deals the spans of all sequences to shards."""
    lengths, annotations, left_out, last = {}, {}, [], None
    for name, sequence in tqdm(sequences.items(), "annotations", unit=" sequences", disable=not progress):
        try:
            check_usable(sequence)
            lengths[name] = len(sequence.files)  # a sequence that lacks frames is left out as a whole
            annotations[name] = _checksum(sequence)
        except SequenceError as error:
            logger.warning("Left out: %s", error)
            left_out.append(LeftOut(name, -1, error.cause))
            last = error
    if not lengths:
        raise SequenceError(
            f"None of {len(sequences)} sequences can be used to train on; the last problem was: {last}", last.cause
        )
    spans = [span for name, length in lengths.items() for span in cut_spans(name, length, arguments["stride"])]
    size = _frame_bytes([sequences[name] for name in lengths]) * sum(lengths.values())
    count = min(len(spans), SHARDS_AT_ONCE * max(1, round(size / SHARD_BYTES / SHARDS_AT_ONCE)))
    split = arguments["split"] or "train"
    shards = {f"data/{split}-{shard:05d}-of-{count:05d}.parquet": own for shard, own in enumerate(deal(spans, count))}
    return Manifest(arguments, lengths, annotations, shards, left_out)


def _checksum(sequence: FileSequence) -> int:
    """Tells whether the annotation of a sequence is what it was."""
    return zlib.crc32(sequence.visible.tobytes(), zlib.crc32(sequence.boxes.tobytes()))


def _frame_bytes(sequences: list[FileSequence]) -> float:
    """Mean size of a frame's file, from frames in the middle of some sequences."""
    sizes = []
    for sequence in sequences[:: -(-len(sequences) // _SAMPLES)]:
        try:
            sizes.append(len(sequence.frame_bytes(len(sequence) // 2)))
        except SequenceError as error:  # counted when its turn comes
            logger.debug("%s", error)
    return float(np.mean(sizes)) if sizes else 0.0


def _write_shards(out: Path, manifest: Manifest, sequences: dict[str, FileSequence], progress: bool) -> None:
    (out / "data").mkdir(exist_ok=True)
    done = {name for name in manifest.shards if (out / name).exists()}
    with tqdm(
        total=sum(manifest.sequences.values()),
        initial=sum(span.stop - span.start for name in done for span in manifest.shards[name]),
        unit=" frames",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        for number, (name, spans) in enumerate(manifest.shards.items()):
            if name not in done:
                bar.set_description(f"shard {number + 1} of {len(manifest.shards)}")
                _write_shard(out / name, spans, number, manifest, sequences, bar)


def _write_shard(
    path: Path, spans: list[Span], number: int, manifest: Manifest, sequences: dict[str, FileSequence], bar: tqdm
) -> None:
    arguments = manifest.arguments
    source = "/".join(filter(None, (arguments["layout"], arguments["split"])))
    rows, left_out, planned = [], [], 0
    for span in spans:
        sequence = sequences[span.name]
        if (found := len(sequence.files)) != manifest.sequences[span.name]:
            raise ConversionError(
                f"{span.name} has {found} frames, but had {manifest.sequences[span.name]} when the conversion was "
                "begun. Restore it, or convert into another folder."
            )
        if _checksum(sequence) != manifest.annotations[span.name]:
            raise ConversionError(
                f"The annotation of {span.name} is not what it was when the conversion was begun. Restore it, or convert into "
                "another folder."
            )
        own, bad = read_rows(sequence, span, arguments["stride"])
        rows += [{**row, "source": source, "license": arguments["license"]} for row in own]
        left_out += bad
        planned += len(span.rows(arguments["stride"]))
        bar.update(span.stop - span.start)
    notes = {
        "frames": sum(len(row["frames"]) for row in rows),
        "all_frames": sum(span.stop - span.start for span in spans),
        "without_pair": planned - len(rows),
        "left_out": left_out,
    }
    write_whole(path, lambda aside: _write_rows(aside, [rows[index] for index in row_order(number, len(rows))], notes))


def _write_rows(path: Path, rows: list[dict[str, Any]], notes: dict[str, Any]) -> None:
    schema = STORED_FEATURES.arrow_schema
    schema = schema.with_metadata({**schema.metadata, **shard_notes(notes)})
    # Images do not become smaller, and their smallest and largest bytes are of no use.
    plain = {"compression": "NONE", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(path, schema, **plain) as writer:
        for first in range(0, len(rows), GROUP_ROWS):
            writer.write_table(pa.Table.from_pylist(rows[first : first + GROUP_ROWS], schema=schema))


def _conversion(out: Path, manifest: Manifest) -> Conversion:
    notes = [read_notes(out / name) for name in manifest.shards]
    totals = {key: sum(note[key] for note in notes) for key in ("clips", "frames", "all_frames", "without_pair")}
    frames = sorted((LeftOut(*entry) for note in notes for entry in note["left_out"]), key=lambda entry: entry[:2])
    return Conversion(
        out,
        manifest.arguments,
        sequences=len(manifest.sequences),
        size=sum((out / name).stat().st_size for name in manifest.shards),
        left_out=[*manifest.left_out, *frames],
        **totals,
    )


__all__ = ["convert_dataset"]
