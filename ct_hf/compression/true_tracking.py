"""True tracking while training: whole sequences, followed by the tracker as it would be deployed."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers.utils import logging

from ..data.sequences import Sequence
from ..evaluation.one_pass import check_annotated, check_names, check_sequences, evaluate_trackers
from ..models.session import PredictionError
from ..models.tracker import PreTrainedTracker


FIGURES = ("auc", "precision", "norm_precision")

logger = logging.get_logger(__name__)


def check_tracking_dataset(sequences: Iterable[Sequence]) -> list[Sequence]:
    """
    Refuse before training what could not be tracked in the middle of it.

    Args:
        sequences (iterable of [`~data.sequences.Sequence`]): `tracking_dataset` of a trainer.

    Returns:
        `list[Sequence]`: the same.

    Raises:
        TypeError: it holds something else than sequences.
        ValueError: it is empty, two sequences share a name, or one cannot be tracked or scored.
    """
    sequences = list(sequences)
    for sequence in sequences:
        if not isinstance(sequence, Sequence):
            raise TypeError(
                f"`tracking_dataset` must hold sequences, got a {type(sequence).__name__}. Read a folder by "
                "`ct_hf.data.read_sequences`; pairs belong into `eval_dataset`."
            )
    if not sequences:
        raise ValueError("`tracking_dataset` is empty, expected at least one sequence. Leave it out to track none.")
    check_names("tracking_dataset", sequences)  # here too, since a process evaluates its share alone
    check_sequences(sequences, "visible")
    check_annotated(sequences)
    return sequences


def track_sequences(
    tracker: PreTrainedTracker, sequences: list[Sequence], accelerator: Accelerator
) -> dict[str, float]:
    """
    One-pass evaluation, shared out over all processes; each has to call it, and each gets the figures of all sequences.

    The tracker runs in the type of its weights, without the autocast and the compilation of its training. Numbers that are
    not finite make every figure NaN, with a warning: a training that has diverged is to be seen, not to be ended.

    Args:
        tracker ([`PreTrainedTracker`]): tracker in evaluation mode.
        sequences (`list[Sequence]`): the same in every process, with distinct names.
        accelerator (`Accelerator`): the processes.

    Returns:
        `dict[str, float]`: `auc`, `precision` and `norm_precision` in per cent by the protocol `visible`, see
        [`~evaluation.score_sequences`]: means over sequences, each of weight one, whatever the number of processes.

    Raises:
        SequenceError: a sequence cannot be read.
        ValueError: see [`~evaluation.evaluate_trackers`].
        RuntimeError: another process met an error, which is quoted.
    """
    share = sequences[accelerator.process_index :: accelerator.num_processes]
    figures, failure = {}, None
    try:
        if share:
            with _as_deployed(tracker):
                result = evaluate_trackers({"tracker": tracker}, share, progress=False)
            figures = result.trackers[0].per_sequence
    except PredictionError as error:
        logger.warning(f"The figures of tracking are NaN: {error}")
        figures = {sequence.name: dict.fromkeys(FIGURES, float("nan")) for sequence in share}
    except Exception as error:  # the other processes have to hear of any, or they would wait for this one
        failure = error
    told = f"{type(failure).__name__}: {failure}" if failure else None
    gathered = gather_object([(figures, told)])
    if failure:
        raise failure
    for _, told in gathered:
        if told:
            raise RuntimeError(f"Another process could not track its share of `tracking_dataset`. {told}")
    by_name = {name: row for rows, _ in gathered for name, row in rows.items()}
    return {figure: float(np.mean([by_name[sequence.name][figure] for sequence in sequences])) for figure in FIGURES}


@contextmanager
def preserved_randomness(device: torch.device) -> Iterator[None]:
    """Leave the generators of Python, NumPy and torch, also those of a device, as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type in ("cpu", "mps") else [device]  # always kept; has no state by device
    try:
        with torch.random.fork_rng(devices, device_type=device.type):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _as_deployed(tracker: PreTrainedTracker) -> Iterator[None]:
    """Take off what training put around a tracker, and put it back."""
    autocast_forward = vars(tracker).pop("forward", None)  # Accelerate's, which hides the method of the class
    attention = tracker.config._attn_implementation
    try:
        if attention not in ("eager", "sdpa"):  # those of flash attention take no fp32
            tracker.set_attn_implementation("sdpa")
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if autocast_forward is not None:
            tracker.forward = autocast_forward
        if tracker.config._attn_implementation != attention:
            tracker.set_attn_implementation(attention)


__all__ = ["check_tracking_dataset", "preserved_randomness", "track_sequences"]
