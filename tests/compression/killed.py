"""Trainings in processes of their own, which are killed at a moment that the test names."""

import io
import multiprocessing
import os
import shutil
import signal
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from ct_hf.compression import CompressionTrainer, checkpoints

from .tiny import NARROW, make_pairs
from .training import make_trainer, small_world


# A server that has imported everything forks each process; it has no threads that a fork could leave behind.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["datasets", __name__])

MOMENTS = {
    "in a step": (Trainer, "_clip_grad_norm"),
    "between two files": (Trainer, "_save_scaler"),
    "in a file": (torch, "save"),
    "before its name": (checkpoints, "place_folder"),
    "while one is removed": (shutil, "rmtree"),
    "at its end": (CompressionTrainer, "_finalize_training"),
}
"""What a process is about to call when it is killed."""

COMMON = {
    "student_changes": {**NARROW, "drop_path_rate": 0.1},
    "path_granularity": "sample",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 7,
    "logging_steps": 2,
    "save_strategy": "steps",
}
SCENARIOS = {
    "stream": {**COMMON, "save_steps": 3, "dataloader_num_workers": 2},
    # Three steps an epoch; what was best is loaded at the end.
    "list": {
        **COMMON,
        "save_steps": 2,
        "save_total_limit": 1,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_on_start": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
    },
    "processes": {**COMMON, "save_steps": 3},
}


def skipping_pairs(count: int) -> list[dict[str, Any]]:
    pairs = make_pairs(count)
    for index, pair in enumerate(pairs):
        pair["skipped"][index % 2] = index
    return pairs


def train(
    folder: Path, scenario: str, resume: Any, stop: tuple[str, int] | None, here: Any, rank: int | None, port: int
):
    """What a process does: train, and leave all that a run is known by."""
    if rank is not None:
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ.update(ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    multiprocessing.set_start_method("fork", force=True)  # of workers, which then see that their parent was killed
    torch.set_num_threads(1)
    trainer = make_trainer(
        folder,
        train_dataset=small_world() if scenario == "stream" else skipping_pairs(10),
        eval_dataset=make_pairs(4, seed=3) if scenario == "list" else None,
        **SCENARIOS[scenario],
    )
    steps, draw = [], trainer._path_inputs

    def recorded(model, inputs):
        drawn = draw(model, inputs)
        if model.training:
            pixels = zlib.crc32(inputs["search_pixel_values"].numpy().tobytes())
            steps.append((trainer.state.global_step, pixels, drawn["paths"]))
        return drawn

    trainer._path_inputs = recorded
    if stop:
        stop_before(trainer, *stop, here)
    output = trainer.train(resume_from_checkpoint=resume)
    end = {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": trainer.lr_scheduler.state_dict(),
        "loss": output.training_loss,
        "best": str(trainer.state.best_model_checkpoint).removeprefix(str(folder)),
        "logs": [without_times(entry) for entry in trainer.state.log_history],
        "steps": steps,
    }
    torch.save(end, folder / f"end-{rank or 0}.pt")
    trainer.end_training()


def stop_before(trainer: Trainer, moment: str, step: int, here: Any) -> None:
    """Let a process wait to be killed; of a file that it writes or a folder that it removes then, a part is done."""
    owner, name = MOMENTS[moment]
    call = getattr(owner, name)

    def stopping(*args, **kwargs):
        if trainer.state.global_step != step:
            return call(*args, **kwargs)
        if moment == "in a file":
            content = io.BytesIO()
            call(args[0], content)
            Path(args[1]).write_bytes(content.getvalue()[: content.tell() // 2])
        if moment == "while one is removed":
            weights = next(Path(args[0]).rglob("*.safetensors"), None)
            if weights is None:
                return call(*args, **kwargs)
            weights.unlink()
        here.set()
        while True:
            signal.pause()

    setattr(owner, name, stopping)


def run(
    folder: Path,
    scenario: str,
    resume: Any = None,
    stop: tuple[str, int] | None = None,
    processes: int = 1,
    stopped: int = 0,
) -> None:
    """
    Train in one process or two.

    Args:
        folder: Output folder.
        scenario: Name of the arguments.
        resume: As for `train`.
        stop: Moment and step at which a process is killed; none without it.
        processes: One or two.
        stopped: Rank of the process that is killed.
    """
    here, port = CONTEXT.Event(), _free_port()
    started = [
        CONTEXT.Process(
            target=train,
            args=(
                folder,
                scenario,
                resume,
                stop if rank == stopped else None,
                here,
                rank if processes > 1 else None,
                port,
            ),
        )
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    try:
        deadline = time.monotonic() + 200
        while stop and not here.wait(0.1):
            assert all(process.is_alive() for process in started), f"ended before it was {stop[0]}"
            assert time.monotonic() < deadline, f"hangs, and never was {stop[0]}"
        if stop:
            started[stopped].kill()
        for process in started:
            process.join(100)
        codes = [process.exitcode for process in started]
    finally:
        for process in started:
            process.kill()
    if stop:
        assert codes[stopped] == -signal.SIGKILL and 0 not in codes and None not in codes
    else:
        assert codes == [0] * processes


def without_times(entry: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]
