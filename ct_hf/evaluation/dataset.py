"""Trackers on a whole data set: result files that survive an interruption, several processes, and the figures of it all."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from transformers.utils import logging

from ..data.layouts import LAYOUTS
from ..files import write_whole
from ..tracking.drawing import TRACKER_COLORS
from .curves import score_curves
from .difference import draw_difference, most_different
from .lock_step import run_trackers
from .one_pass import (
    EvaluationResult,
    TrackerResult,
    check_evaluation,
    device_of,
    judge,
    protocol_arguments,
    speed_conditions,
)
from .protocols import Protocol
from .result_files import ResultFiles
from .results import STRIPS_FOLDER, Results, SequenceLength, TrackerScores, write_results


if TYPE_CHECKING:
    from accelerate import PartialState

    from ..data.sequences import Sequence
    from ..models.tracker import PreTrainedTracker


logger = logging.get_logger(__name__)

_NUM_STRIPS = 3
_TOLD = {"_name_or_path", "_commit_hash", "architectures", "auto_map", "compression", "dtype", "transformers_version"}
"""Fields of a configuration that say where a tracker is from; no box depends on them."""


@dataclass(frozen=True)
class DatasetEvaluation:
    """
    An evaluation that keeps what it has in a folder.

    ```
    RESULTS/results.json                      figures, curves and speeds, see [`~results.Results`]
    RESULTS/<tracker>/<sequence>.txt          boxes, and <sequence>_time.txt the seconds, see [`~result_files.ResultFiles`]
    RESULTS/<tracker>/tracker.json            whose boxes these are, and under which conditions
    RESULTS/strips/<sequence>.png             frames in which the first two trackers differ most
    ```

    Sequences whose boxes are there are not tracked again. Under `torchrun` or `accelerate launch` each process tracks its
    share, and the main process judges.

    Where ground truth is withheld, nothing is scored: `RESULTS/<tracker>.zip` is for the server that holds it.

    Args:
        folder (`str` or `Path`): where results are kept.
        layout (`str`, *optional*, defaults to `"folder"`): one of [`~data.LAYOUTS`], which says whose rules count, and which
            files and coordinates toolkits and servers of the data set take.
        split (`str`, *optional*): split of the data set, for the report.
        protocol (`str`, *optional*): other rules than the layout's own, see [`score_sequences`].
        batch_size (`int`, *optional*, defaults to 8): sequences in lock-step, in each process.
    """

    folder: Path
    layout: str = "folder"
    split: str | None = None
    protocol: Protocol | None = None
    batch_size: int = 8

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}, got {self.layout!r}.")
        object.__setattr__(self, "folder", Path(self.folder))
        object.__setattr__(self, "protocol", self.protocol or LAYOUTS[self.layout].protocol)

    def run(
        self, trackers: Mapping[str, PreTrainedTracker], sequences: Iterable[Sequence], *, progress: bool = True
    ) -> EvaluationResult | None:
        """
        Track what has not been tracked, and judge all of it.

        Args:
            trackers (`Mapping[str, PreTrainedTracker]`): trackers in evaluation mode by name; the first is compared to.
            sequences (iterable of [`~data.sequences.Sequence`]): the data set.
            progress (`bool`, *optional*, defaults to `True`): whether the main process shows a progress bar.

        Returns:
            [`EvaluationResult`], from boxes as they are in the files; `None` in processes other than the main one, and where
            ground truth is withheld.

        Raises:
            ValueError: what [`evaluate_trackers`] refuses; two trackers share a folder, or another evaluation is at work in it;
                the folder of a tracker holds boxes of other weights, coordinates or annotation.
        """
        sequences = list(sequences)
        check_evaluation(trackers, sequences, self.protocol)
        names = {sequence.name for sequence in sequences}
        if clash := sorted(name for name in names if f"{name}_time" in names):
            raise ValueError(f"`sequences` holds {clash[0]} and {clash[0]}_time, whose result files are called alike.")
        files = self._result_files(trackers)
        state = _processes(trackers)
        with self._locked(state):
            conditions, begun = {}, datetime.now(UTC).isoformat(timespec="seconds")
            if state.is_main_process:
                for name, model in trackers.items():
                    conditions[name] = self._claim(files[name], model, sequences, state.num_processes, begun)
                    for sequence in sequences:
                        if files[name].has(sequence.name):
                            self._read(files[name], sequence)
            state.wait_for_everyone()
            waiting = {
                name: [sequence for sequence in sequences if not files[name].has(sequence.name)] for name in trackers
            }
            state.wait_for_everyone()  # none writes before all have looked
            share = {
                name: sorted(missing, key=len, reverse=True)[state.process_index :: state.num_processes]
                for name, missing in waiting.items()
            }
            progress = progress and state.is_main_process
            for run in run_trackers(trackers, share, batch_size=self.batch_size, progress=progress):
                files[run.tracker].write(run.sequence, LAYOUTS[self.layout].to_own(run.boxes), run.seconds)
            state.wait_for_everyone()
            if not state.is_main_process:
                return None
            if all(sequence.annotated for sequence in sequences):
                return self._judge(trackers, sequences, files, conditions)
            for kept in files.values():
                kept.pack([sequence.name for sequence in sequences], kept.folder.with_name(f"{kept.folder.name}.zip"))
            return None

    @contextmanager
    def _locked(self, state: PartialState) -> Iterator[None]:
        """Keep other evaluations out of the folder; the main process speaks for all of this one."""
        if not state.is_main_process:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(self.folder / ".lock").acquire(timeout=0)
        except Timeout as error:
            raise ValueError(
                f"Another evaluation writes into {self.folder}. Wait for it, or use another folder."
            ) from error
        with held:
            yield

    def _result_files(self, trackers: Mapping[str, PreTrainedTracker]) -> dict[str, ResultFiles]:
        """A folder for each; a name may be a path or a repository."""
        folders = {name: re.sub(r"[^\w.-]+", "--", name).strip("-.") for name in trackers}
        if len(set(folders.values())) < len(folders) or not all(folders.values()):
            raise ValueError(
                f"`trackers` {', '.join(trackers)} would share a folder. Give them names that differ more."
            )
        return {
            name: ResultFiles(self.folder / folder, LAYOUTS[self.layout].results) for name, folder in folders.items()
        }

    def _claim(
        self, files: ResultFiles, model: PreTrainedTracker, sequences: list[Sequence], num_processes: int, begun: str
    ) -> dict[str, Any] | None:
        """Write down whose boxes and which conditions these are; refuse to mix those of two trackers."""
        path = files.folder / "tracker.json"
        batch_size = min(self.batch_size, -(-len(sequences) // num_processes))
        conditions = {**speed_conditions(model, batch_size, num_processes), "run": begun}
        weights, origin = _fingerprint(model), LAYOUTS[self.layout].origin
        if path.is_file():
            kept = _read_claim(path)
            if kept.get("origin", origin) != origin:
                raise ValueError(
                    f"{files.folder} holds boxes that count from {kept['origin']}, those of {self.layout} count from {origin}. "
                    "Keep the results of each data set in a folder of its own."
                )
            if kept["weights"] != weights:
                raise ValueError(
                    f"{files.folder} holds boxes of another tracker: its weights or configuration are not those given now. "
                    "Delete that folder, or keep the results in another one."
                )
            if all(files.has(sequence.name) for sequence in sequences):
                return kept["conditions"]
            begun_under = kept["conditions"] and {**kept["conditions"], "run": begun}
            if begun_under != conditions:
                logger.warning(f"{files.folder} was begun under other conditions: it will have no speed.")
            conditions = kept["conditions"] if begun_under == conditions else None
        elif any(files.folder.glob("[!.]*")):
            raise ValueError(
                f"{path} is not there, so nobody knows whose results {files.folder} holds. Give another folder."
            )
        content = json.dumps({"weights": weights, "origin": origin, "conditions": conditions}, indent=2) + "\n"
        write_whole(path, lambda aside: aside.write_text(content))
        return conditions

    def _judge(
        self,
        trackers: Mapping[str, PreTrainedTracker],
        sequences: list[Sequence],
        files: Mapping[str, ResultFiles],
        conditions: Mapping[str, dict[str, Any] | None],
    ) -> EvaluationResult:
        boxes = {
            name: {sequence.name: self._read(files[name], sequence) for sequence in sequences} for name in trackers
        }
        seconds = {name: _read_seconds(files[name], sequences) for name in trackers}
        conditions = {name: known if seconds[name] else None for name, known in conditions.items()}
        result = judge(trackers, sequences, boxes, seconds, conditions, self.protocol)
        scores = [self._scores(tracker, trackers[tracker.name], sequences) for tracker in result.trackers]
        lengths = [SequenceLength(sequence.name, len(sequence)) for sequence in sequences]
        dataset = f"{self.layout} {self.split}" if self.split else self.layout
        write_results(Results(dataset, self.protocol, lengths, scores), self.folder, versions=_versions())
        self._draw(sequences, boxes)
        return result

    def _read(self, files: ResultFiles, sequence: Sequence) -> np.ndarray:
        """Boxes of a sequence, counting from 0; those of another annotation, or number of frames, are refused."""
        boxes = LAYOUTS[self.layout].from_own(files.read(sequence.name, len(sequence)))
        start, _ = sequence.annotation(0)
        if not np.allclose(boxes[0], start, rtol=0, atol=1e-3):
            raise ValueError(
                f"{files.boxes_path(sequence.name)} starts at {boxes[0].tolist()}, but {sequence.name} at {start.tolist()}: its "
                "annotation was another then. Delete the file to track it again."
            )
        return boxes

    def _scores(self, tracker: TrackerResult, model: PreTrainedTracker, sequences: list[Sequence]) -> TrackerScores:
        predictions = [tracker.predictions[sequence.name] for sequence in sequences]
        return TrackerScores(
            name=tracker.name,
            layers=len(model.layers) if hasattr(model, "layers") else None,
            parameters=tracker.parameters,
            score=tracker.score,
            per_sequence=tracker.per_sequence,
            curves=score_curves(predictions, **protocol_arguments(sequences, self.protocol)),
            speed=tracker.speed,
            weights=_fingerprint(model),
        )

    def _draw(self, sequences: list[Sequence], boxes: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Show the first two trackers where they differ most, and as many others as there are colours."""
        folder = self.folder / STRIPS_FOLDER
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.png"):  # of other trackers or sequences
            old.unlink()
        if len(boxes) < 2:
            return
        shown = list(boxes.items())[: len(TRACKER_COLORS)]
        for sequence in most_different(sequences, boxes, num_sequences=_NUM_STRIPS):
            predictions = {name: tracks[sequence.name] for name, tracks in shown}
            draw_difference(sequence, predictions).save(folder / f"{sequence.name}.png")


def _processes(trackers: Mapping[str, PreTrainedTracker]) -> PartialState:
    """The processes that this one was launched with, if any."""
    from accelerate import PartialState

    on_cpu = all(device_of(model).type == "cpu" for model in trackers.values())
    found = torch.distributed.is_available() and torch.distributed.is_initialized()
    # Shares take unlike times, and who is done waits for the others at a barrier: no ten minutes, as NCCL's is by default.
    state = PartialState(cpu=on_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1, timeout=timedelta(days=7))
    if state.num_processes > 1 and not found:
        # Not sooner: another data set may be next, and a group that has parted does not find together again.
        atexit.register(state.destroy_process_group)
    return state


def _read_seconds(files: ResultFiles, sequences: list[Sequence]) -> dict[str, np.ndarray] | None:
    """Seconds by sequence; none where some were not kept, as of boxes that were copied without them."""
    missing = [sequence.name for sequence in sequences if not files.seconds_path(sequence.name).is_file()]
    if missing:
        logger.warning(
            f"{files.folder} holds no seconds of {len(missing)} sequences, such as {missing[0]}: it will have no speed."
        )
        return None
    return {sequence.name: files.read_seconds(sequence.name) for sequence in sequences}


def _read_claim(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text())
        if not {"weights", "conditions"} <= kept.keys():
            raise ValueError("it lacks a key")
        return kept
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} does not say whose results {path.parent} holds ({error}). Delete that folder, or use another one."
        ) from error


def _fingerprint(model: Any) -> str:
    """Digest of weights and configuration, that is of all that boxes depend on."""
    digest = hashlib.sha256(type(model).__name__.encode())
    if hasattr(model, "config"):
        fields = {key: value for key, value in model.config.to_dict().items() if key not in _TOLD}
        digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
    if isinstance(model, torch.nn.Module):
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    else:  # what is used like a tracker
        tensors = {f"{number:06d}": parameter for number, parameter in enumerate(model.parameters())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("ct_hf", "torch", "transformers")}


__all__ = ["DatasetEvaluation"]
