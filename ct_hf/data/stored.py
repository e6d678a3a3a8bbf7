"""Stored data sets: what belongs to which shard, and files that are whole or not there."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq

from ..files import write_whole
from .clips import LeftOut, Span
from .errors import describe_causes


MANIFEST = "conversion.json"
_NOTES = b"ct_hf"  # key of the metadata in which a shard says what was left out of it


class ConversionError(ValueError):
    """Raised when a conversion cannot go on, or when too much of a data set was left out."""


@dataclass
class Manifest:
    """What a conversion was begun with; whoever goes on with it does the same.

    Args:
        arguments: What decides about the content of the shards.
        sequences: Number of frames of each sequence, in the order of the data set.
        annotations: Checksum of the boxes and flags of each.
        shards: Spans of each shard, by its file below the folder of the conversion.
        left_out: Sequences whose annotation could not be read.
    """

    arguments: dict[str, Any]
    sequences: dict[str, int]
    annotations: dict[str, int]
    shards: dict[str, list[Span]]
    left_out: list[LeftOut] = field(default_factory=list)

    def save(self, out: Path) -> None:
        """Writes it to the folder of the conversion."""
        content = json.dumps(asdict(self), separators=(",", ":"))
        write_whole(out / MANIFEST, lambda file: file.write_text(content + "\n", encoding="utf-8"))

    @classmethod
    def load(cls, out: Path) -> Self:
        """Reads it from the folder of a conversion.

        Raises:
            ConversionError: It is not there, or is something else.
        """
        try:
            content = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
            return cls(
                arguments=content["arguments"],
                sequences=content["sequences"],
                annotations=content["annotations"],
                shards={name: [Span(*span) for span in spans] for name, spans in content["shards"].items()},
                left_out=[LeftOut(*entry) for entry in content["left_out"]],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConversionError(
                f"{out / MANIFEST} is not the manifest of a conversion ({type(error).__name__}: {error}). Convert into an "
                "empty folder."
            ) from error

    def check(self, arguments: dict[str, Any], out: Path) -> None:
        """Refuses to go on with other arguments.

        Raises:
            ConversionError: One differs; it is named.
        """
        for name, value in arguments.items():
            begun = self.arguments.get(name)
            if value != begun:
                raise ConversionError(
                    f"{out} holds a conversion that was begun with `{name}`={begun!r}, got {value!r}. Use the same to go on "
                    "with it, or another folder."
                )


@dataclass(frozen=True)
class Conversion:
    """What a finished conversion holds and what it left out.

    Args:
        out: Its folder.
        arguments: What it was made with: `layout`, `split`, `stride` and `license`.
        sequences: Sequences in the shards.
        clips: Rows in the shards.
        frames: Frames in these.
        size: Bytes of the shards.
        without_pair: Rows left out since they show the target in fewer than two frames.
        all_frames: Frames of all sequences that could be read.
        left_out: Sequences and frames that could not be used.
    """

    out: Path
    arguments: dict[str, Any]
    sequences: int
    clips: int
    frames: int
    size: int
    without_pair: int
    all_frames: int
    left_out: list[LeftOut]

    @property
    def split(self) -> str:
        """Name of the split as `datasets` calls it; `train`, its default, of data sets without splits."""
        return self.arguments["split"] or "train"

    def count(self, what: str) -> Counter[str]:
        """Number of `"sequences"` or `"frames"` left out, by cause."""
        return Counter(entry.cause for entry in self.left_out if (entry.frame < 0) == (what == "sequences"))

    def check(self, max_bad: float = 0.01) -> None:
        """Refuses a conversion that left out too much. The shards stay as they are.

        Args:
            max_bad: Largest share of sequences, or of frames in the other ones, that may be left out. Default: 0.01.

        Raises:
            ConversionError: More than that was left out.
        """
        for what, used in (("sequences", self.sequences), ("frames", self.all_frames)):
            causes = self.count(what)
            first = next((entry for entry in self.left_out if (entry.frame < 0) == (what == "sequences")), None)
            bad = causes.total()
            whole = bad + used if what == "sequences" else used
            if bad > max_bad * whole:
                raise ConversionError(
                    f"{bad} of {whole} {what} were left out ({describe_causes(causes)}), {100 * bad / whole:.2f} %, where {100 * max_bad:g} % "
                    f"are allowed; the first is {first}. Mend the data and convert into another folder, or allow more. The "
                    f"shards in {self.out} are kept."
                )


def shard_notes(notes: dict[str, Any]) -> dict[bytes, bytes]:
    """Metadata of a shard's schema that keeps what [`read_notes`] returns."""
    return {_NOTES: json.dumps(notes, separators=(",", ":")).encode()}


def read_notes(shard: Path) -> dict[str, Any]:
    """What a shard says about itself: `frames`, `all_frames`, `without_pair`, `left_out`, and its number of rows, `clips`.

    Raises:
        ConversionError: It is not a whole shard of a conversion.
    """
    try:
        metadata = pq.read_metadata(shard)
        return {**json.loads(metadata.metadata[_NOTES]), "clips": metadata.num_rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{shard} is not a shard of this conversion ({error}). Remove it and go on.") from error


__all__ = ["MANIFEST", "Conversion", "ConversionError", "Manifest", "read_notes", "shard_notes"]
