"""What the tests of both trainers share."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ct_hf.compression import CompressionArguments, CompressionTrainer
from ct_hf.data import ProceduralWorld, TrackingCollator, stream_pairs
from ct_hf.models import TrackerImageProcessor

from .tiny import NARROW, make_config, make_pairs, make_student, make_tracker


def small_world():
    """Endless pairs rendered on the fly."""
    world = ProceduralWorld(length=10, size=(96, 72))
    return stream_pairs(world, make_config(), seed=0, clip_length=3, pairs_per_clip=3)


def make_arguments(folder: Any, cls: type = CompressionArguments, **changes: Any) -> CompressionArguments:
    defaults = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "learning_rate": 1e-3,
    }
    return cls(output_dir=str(folder), **{**defaults, **changes})


def make_trainer(
    folder: Any,
    stages: int | str = 2,
    teacher_changes: dict[str, Any] | None = None,
    student_changes: dict[str, Any] | None = None,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    callbacks: list[TrainerCallback] | None = None,
    compute_metrics: Any = None,
    tracking_dataset: Any = None,
    **arguments: Any,
) -> CompressionTrainer:
    """A trainer and all it needs, each made anew, as another process would."""
    teacher = make_tracker(4, **(teacher_changes or {}))
    student, _ = make_student(teacher, stages, **(student_changes or {}))
    torch.manual_seed(11)
    return CompressionTrainer(
        model=student,
        teacher_model=teacher,
        args=make_arguments(folder, **arguments),
        train_dataset=make_pairs(8) if train_dataset is None else train_dataset,
        eval_dataset=eval_dataset,
        callbacks=callbacks,
        compute_metrics=compute_metrics,
        tracking_dataset=tracking_dataset,
    )


def make_trainer_of_processes(folder: Any, **arguments: Any) -> CompressionTrainer:
    """Two steps of plain gradient descent, so that the weights tell the gradients; a path for each sample."""
    pairs = make_pairs(16)
    pairs[0]["skipped"][0] = 3  # one process sees it, the other does not
    return make_trainer(
        folder,
        student_changes=NARROW,
        train_dataset=pairs,
        path_granularity="sample",
        max_steps=2,
        optim="sgd",
        learning_rate=0.1,
        max_grad_norm=0,
        **arguments,
    )


def run_in_two_processes(script: str, folder: Path) -> None:
    """Run a script in two processes of gloo; its argument is the folder."""
    (folder / "run.py").write_text(script)
    root = Path(__file__).parents[2]
    launch = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
        + [str(folder / "run.py"), str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert launch.returncode == 0, launch.stderr[-4000:]


def normalised(pairs: list[dict[str, Any]], tracker: Any) -> dict[str, torch.Tensor]:
    """A batch as a tracker takes it, normalised by its image processor."""
    batch = TrackingCollator()(pairs)
    batch.pop("skipped")
    processor = TrackerImageProcessor.from_config(tracker.config)
    return {name: processor.normalize(value) if "pixel" in name else value for name, value in batch.items()}


def train_logs(trainer: Any) -> list[dict[str, float]]:
    return [
        {name: value for name, value in entry.items() if name != "pairs_per_second"}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


class Watch(TrainerCallback):
    """Gradients just before each optimizer step, and the learning rate of the step."""

    def __init__(self):
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.gradients.append(
            {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        )
        self.rates.append(optimizer.param_groups[0]["lr"])
