"""One run of the reproduction: a student trained as its row says, and judged."""

import functools
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from experiments import Run
from transformers import AutoModel, set_seed

import ct_hf  # noqa: F401 - registers the trackers
from ct_hf.compression import CompressionArguments, CompressionTrainer, StagePlan, TrackerTrainer, build_student
from ct_hf.compression.mixed import MixedTracker
from ct_hf.compression.products import is_bf16_faster
from ct_hf.data import ProceduralWorld, Sequence, procedural_sequences, read_sequences, stream_pairs
from ct_hf.evaluation import evaluate_trackers
from ct_hf.models import PreTrainedTracker


SWITCHES = {
    "student": ("compressed", "scratch"),  # from the teacher beside it, or of random weights without one
    "teacher_mode": ("eval", "train"),  # of its batch norms; the released code leaves it in train mode
    "prefix": ("teacher", "student"),  # whose embeddings a path starts from whose first stages are the teacher's
}
"""Settings beside those of [`CompressionArguments`], and their values, the default first."""

BATCH = 16  # sequences tracked in lock-step


class StudentPrefix(MixedTracker):
    """Paths that begin with teacher stages start from the student's embeddings, as in the released code."""

    def _start(self, embed_inputs, teacher_states, stage, rows):
        samples = super()._start(embed_inputs, teacher_states, 0, rows)
        for before in range(stage):
            samples.state = self._run(self.teacher, self.plan.teacher_stage(before), samples.state)
        return samples


def train(run: Run, teacher: PreTrainedTracker, folder: Path) -> tuple[PreTrainedTracker, float]:
    """Train a student.

    Args:
        run ([`Run`]): how.
        teacher ([`PreTrainedTracker`]): from whom.
        folder (`Path`): of the trainer.

    Returns:
        `tuple` of the student and the processor's seconds that its training took.
    """
    switches = {name: run.settings.get(name, values[0]) for name, values in SWITCHES.items()}
    for name, value in switches.items():
        if value not in SWITCHES[name]:
            raise ValueError(f"`{name}` must be one of {', '.join(SWITCHES[name])}, got {value!r}.")
    args = CompressionArguments(
        output_dir=str(folder),
        seed=run.seed,
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=20,
        save_strategy="no",
        dataloader_num_workers=0,  # so that a run is one process, and its seconds are counted whole
        bf16=is_bf16_faster(),
        **{name: value for name, value in run.settings.items() if name not in SWITCHES},
    )
    set_seed(run.seed)
    plan = StagePlan.even(len(teacher.layers), args.num_stages)
    pairs = stream_pairs(ProceduralWorld(), teacher.config, seed=run.seed, clip_length=6, pairs_per_clip=12)
    if switches["student"] == "scratch":
        student = AutoModel.from_config(teacher.config.for_student(args.num_stages))
        trainer = TrackerTrainer(model=student, args=args, train_dataset=pairs)
    else:
        student, _ = build_student(teacher, plan, args.initialization)
        trainer = CompressionTrainer(model=student, teacher_model=teacher, args=args, train_dataset=pairs, plan=plan)
        if switches["teacher_mode"] == "train":
            trainer.model.teacher.train()
        if switches["prefix"] == "student":
            trainer.model.__class__ = StudentPrefix
    started = time.process_time()
    trainer.train()
    return student.eval(), time.process_time() - started


def judged_sequences(judge: dict[str, int] | str) -> list[Sequence]:
    """Sequences of one of [`Queue.judges`]."""
    return read_sequences(judge) if isinstance(judge, str) else _rendered(**judge)


@functools.cache
def _rendered(seed: int, count: int) -> list[Sequence]:
    """Rendered sequences whose frames are rendered once and kept."""
    sequences = procedural_sequences(seed, count)
    for sequence in sequences:
        sequence.frame = functools.cache(sequence.frame)
    return sequences


def execute(run: Run, teacher: str, judges: dict[str, Any], logs: Path, keep: Path | None = None) -> dict[str, Any]:
    """Train, judge, and say what came out.

    Args:
        run ([`Run`]): what to do; without `max_steps` the teacher itself is judged.
        teacher (`str`): folder or Hub repository.
        judges (`dict`): see [`Queue.judges`].
        logs (`Path`): folder for the log of the run.
        keep (`Path`, *optional*): folder to save the student in.

    Returns:
        `dict` for a line of JSON: settings, seed, precision, success AUC in per cent by set, and by sequence, seconds.
    """
    torch.set_num_threads(1)
    started = time.perf_counter()
    model, cpu_seconds = AutoModel.from_pretrained(teacher), 0.0
    logs.mkdir(parents=True, exist_ok=True)
    if run.settings.get("max_steps"):
        with open(logs / f"{log_name(run)}.log", "w", buffering=1) as log, redirect_stdout(log):
            model, cpu_seconds = train(run, model, logs)
    trained = time.perf_counter() - started
    if keep:
        model.save_pretrained(keep)
    auc, per_sequence = {}, {}
    for name in run.judged_on:
        sequences = judged_sequences(judges[name])
        result = evaluate_trackers({"student": model}, sequences, batch_size=BATCH, progress=False).trackers[0]
        auc[name] = round(result.score["auc"], 3)
        per_sequence[name] = {key: round(value["auc"], 2) for key, value in result.per_sequence.items()}
    return {
        "row": run.row,
        "settings": run.settings,
        "seed": run.seed,
        "precision": "bf16" if run.settings.get("max_steps") and is_bf16_faster() else "fp32",
        "auc": auc,
        "cpu_seconds": round(cpu_seconds, 1),
        "train_seconds": round(trained, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "per_sequence": per_sequence,
    }


def log_name(run: Run) -> str:
    """Name of a run's log: its row, its seed and what it was told."""
    told = "-".join(str(value) for value in run.settings.values())
    return f"{run.row}-{told}-seed{run.seed}".replace(" ", "_")
