"""The results of an evaluation as a folder that says what was measured, and how."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import category

from ..files import write_whole
from .protocols import PROTOCOLS, Protocol


RESULTS_FILE = "results.json"
STRIPS_FOLDER = "strips"

FIGURES: dict[str, str] = {
    "auc": "AUC",
    "precision": "Precision",
    "norm_precision": "Norm. precision",
    "op50": "OP50",
    "op75": "OP75",
    "ao": "AO",
    "sr50": "SR50",
    "sr75": "SR75",
    "success": "Success",
}
"""Titles of the figures that the protocols have."""

CURVES = ("success", "precision", "norm_precision")


@dataclass(frozen=True)
class SequenceLength:
    """
    A sequence of the data set.

    Args:
        name (`str`): distinct within the data set.
        frames (`int`): number of frames.
    """

    name: str
    frames: int


@dataclass(frozen=True)
class Curve:
    """
    Share of frames by threshold, the mean over all sequences.

    Args:
        thresholds (`list[float]`): overlaps, pixels, or parts of the target's size.
        values (`list[float]`): per cent, one a threshold.
    """

    thresholds: list[float]
    values: list[float]


@dataclass(frozen=True)
class Speed:
    """
    How fast a tracker was, and under which conditions.

    Args:
        fps (`float`): frames per second.
        device (`str`): which, and what it is, such as `"cpu (AMD EPYC 7B13, 2 cores, AVX2)"`.
        dtype (`str`): such as `"float32"`.
        batch_size (`int`): sequences at once.
        threads (`int`): of the processor.
        warm_up (`int`): frames before the clock counted.
        clock (`str`): what was timed, and how.
        run (`str`, *optional*): when the run began in which this tracker took turns with others; what ran at another time may
            have had the machine to itself, or not.
    """

    fps: float
    device: str
    dtype: str
    batch_size: int
    threads: int
    warm_up: int
    clock: str
    run: str | None = None

    @property
    def conditions(self) -> str:
        """All but the speed, as a phrase; speeds are comparable where it is the same."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"{self.device}, {self.dtype}, batch size {self.batch_size}, {threads}, {self.warm_up} frames of warm-up, "
            f"clock: {self.clock}{f', run begun {self.run}' if self.run else ''}"
        )


@dataclass(frozen=True)
class TrackerScores:
    """
    What one tracker reached.

    Args:
        name (`str`): distinct within the evaluation.
        layers (`int`, *optional*): layers of its trunk.
        parameters (`int`, *optional*): number of parameters.
        score (`dict[str, float]`): figures over all sequences in per cent, see [`score_sequences`]; NaN where there is none.
        per_sequence (`dict[str, dict[str, float]]`): the same by sequence; some may lack.
        curves (`dict[str, Curve]`): by name, such of [`CURVES`] as the protocol has.
        speed ([`Speed`], *optional*): `None` if it was not measured.
        weights (`str`, *optional*): digest of weights and configuration, by which trackers of one name are told apart.
    """

    name: str
    layers: int | None
    parameters: int | None
    score: dict[str, float]
    per_sequence: dict[str, dict[str, float]]
    curves: dict[str, Curve] = field(default_factory=dict)
    speed: Speed | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Results:
    """
    Trackers on the sequences of one data set; `dataclasses.asdict` of it is what `results.json` holds.

    Args:
        dataset (`str`): name of the data set.
        protocol (`str`): whose rules made the figures, one of [`PROTOCOLS`].
        sequences (`list[SequenceLength]`): all sequences.
        trackers (`list[TrackerScores]`): the first is what the others are compared with.
    """

    dataset: str
    protocol: Protocol
    sequences: list[SequenceLength]
    trackers: list[TrackerScores]

    @property
    def main_figure(self) -> str:
        """Figure by which the protocol ranks trackers."""
        return {"got10k": "ao", "trackingnet": "success"}.get(self.protocol, "auc")


def write_results(results: Results, folder: str | Path, **provenance: Any) -> Path:
    """
    Write the results of an evaluation, in place of what was there.

    Args:
        results ([`Results`]): what was measured; NaN becomes `null`.
        folder (`str` or `Path`): where [`read_results`] will look.
        provenance: further keys of the file, such as versions; nothing reads them back.

    Returns:
        `Path`: the file.
    """
    path = Path(folder) / RESULTS_FILE
    content = json.dumps(without_nan({**asdict(results), **provenance}), indent=2) + "\n"
    write_whole(path, lambda aside: aside.write_text(content, encoding="utf-8"))
    return path


def without_nan(value: Any) -> Any:
    """Numbers for JSON, which has no NaN: null where there is no figure."""
    if isinstance(value, dict):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_results(folder: str | Path) -> Results:
    """
    Read the results of an evaluation.

    Keys that are not known are ignored. A figure that is `null` is NaN.

    Args:
        folder (`str` or `Path`): what `ct-hf evaluate` wrote, with a `results.json`.

    Returns:
        [`Results`].

    Raises:
        FileNotFoundError: there is no `results.json`.
        ValueError: it is no JSON, or of another form; the text names file and key.
    """
    path = Path(folder) / RESULTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. Give a folder that `ct-hf evaluate` has written results to.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}. Evaluate again, or mend the file.") from error
    return _Node(path, "", content).results()


@dataclass(frozen=True)
class _Node:
    """A value inside the file, which knows its place for the errors."""

    path: Path
    key: str
    value: Any

    def fail(self, expected: str) -> ValueError:
        got = json.dumps(self.value)
        got = got if len(got) <= 60 else f"{got[:57]}..."
        return ValueError(f"{self.path}: `{self.key or 'the whole'}` must be {expected}, got {got}.")

    def __getitem__(self, key: str) -> _Node:
        node = self.get(key)
        if node is None:
            place = f"`{self.key}`" if self.key else "the whole"
            raise ValueError(f"{self.path}: {place} lacks the key `{key}`. Evaluate again, or mend the file.")
        return node

    def get(self, key: str) -> _Node | None:
        return self.items().get(key)

    def items(self) -> dict[str, _Node]:
        if not isinstance(self.value, dict):
            raise self.fail("an object of keys and values")
        prefix = f"{self.key}." if self.key else ""
        return {key: _Node(self.path, f"{prefix}{key}", value) for key, value in self.value.items()}

    def list(self) -> list[_Node]:
        if not isinstance(self.value, list):
            raise self.fail("a list")
        return [_Node(self.path, f"{self.key}[{index}]", value) for index, value in enumerate(self.value)]

    def text(self) -> str:
        # Not `isprintable`: names of screen recordings have blanks that do not break.
        if (
            not isinstance(self.value, str)
            or not self.value.strip()
            or any(category(letter) == "Cc" for letter in self.value)
        ):
            raise self.fail("a text without control characters")
        return self.value

    def count(self, least: int = 0) -> int:
        if type(self.value) is not int or self.value < least:
            raise self.fail(f"a whole number of at least {least}")
        return self.value

    def number(self) -> float:
        if self.value is None:
            return math.nan
        if type(self.value) not in (int, float) or math.isinf(self.value):
            raise self.fail("a number, or null where there is none")
        return float(self.value)

    def figures(self) -> dict[str, float]:
        return {key: node.number() for key, node in self.items().items()}

    def curve(self) -> Curve:
        thresholds = [node.number() for node in self["thresholds"].list()]
        values = [node.number() for node in self["values"].list()]
        if len(thresholds) != len(values) or len(values) < 2 or any(map(math.isnan, thresholds)):
            raise ValueError(
                f"{self.path}: `{self.key}` must have as many values as thresholds, at least 2, got {len(values)} values "
                f"and {len(thresholds)} thresholds{' with null' if any(map(math.isnan, thresholds)) else ''}."
            )
        return Curve(thresholds, values)

    def speed(self) -> Speed:
        fps = self["fps"]
        if fps.number() <= 0:
            raise fps.fail("above 0, or null where it is not known")
        return Speed(
            fps=fps.number(),
            device=self["device"].text(),
            dtype=self["dtype"].text(),
            batch_size=self["batch_size"].count(1),
            threads=self["threads"].count(1),
            warm_up=self["warm_up"].count(),
            clock=self["clock"].text(),
            run=run.text() if (run := self.get("run")) and run.value is not None else None,
        )

    def tracker(self, sequences: set[str]) -> TrackerScores:
        optional = {key: self.get(key) for key in ("layers", "parameters", "curves", "speed", "weights")}
        given = {key: node for key, node in optional.items() if node is not None and node.value is not None}
        per_sequence = self["per_sequence"].items()
        if unknown := sorted(set(per_sequence) - sequences):
            raise ValueError(
                f"{self.path}: `{self.key}.per_sequence` names {', '.join(unknown[:3])}, which `sequences` does not "
                f"({len(unknown)} in all). Both must be of the same evaluation."
            )
        curves = given["curves"].items() if "curves" in given else {}
        return TrackerScores(
            name=self["name"].text(),
            layers=given["layers"].count() if "layers" in given else None,
            parameters=given["parameters"].count() if "parameters" in given else None,
            score=self["score"].figures(),
            per_sequence={name: node.figures() for name, node in per_sequence.items()},
            curves={name: node.curve() for name, node in curves.items() if name in CURVES},
            speed=given["speed"].speed() if "speed" in given else None,
            weights=given["weights"].text() if "weights" in given else None,
        )

    def results(self) -> Results:
        protocol = self["protocol"]
        if protocol.value not in PROTOCOLS:
            raise protocol.fail(f"one of {', '.join(PROTOCOLS)}")
        sequences = [SequenceLength(node["name"].text(), node["frames"].count(1)) for node in self["sequences"].list()]
        self._check_names("sequences", [sequence.name for sequence in sequences])
        trackers = [node.tracker({sequence.name for sequence in sequences}) for node in self["trackers"].list()]
        self._check_names("trackers", [tracker.name for tracker in trackers])
        return Results(self["dataset"].text(), protocol.value, sequences, trackers)

    def _check_names(self, key: str, names: list[str]) -> None:
        if not names or len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            got = f"several called {', '.join(twice[:3])}" if twice else "none"
            raise ValueError(f"{self.path}: `{key}` must be at least one, of distinct names, got {got}.")


__all__ = [
    "CURVES",
    "FIGURES",
    "RESULTS_FILE",
    "STRIPS_FOLDER",
    "Curve",
    "Results",
    "SequenceLength",
    "Speed",
    "TrackerScores",
    "read_results",
    "without_nan",
    "write_results",
]
