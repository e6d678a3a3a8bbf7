"""Which weights a student's single layer should start with: those of its stage's last layer, their mean, or either scaled.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/initialization.py --out docs/results/initialization.json

A layer taken from a stage of n moves the tokens about an n-th as far as the stage does, so scaling what it adds by n might
give a better start. Each student is judged on the same held-out pairs before and after the same short compression.
"""

from dataclasses import dataclass, field
from itertools import islice

import torch
from common import write_results
from transformers import AutoModel, HfArgumentParser, set_seed

import ct_hf  # noqa: F401 - registers the trackers
from ct_hf.compression import CompressionArguments, CompressionTrainer, StagePlan, build_student
from ct_hf.data import ProceduralWorld, stream_pairs
from ct_hf.evaluation.report import markdown_table
from ct_hf.models import PreTrainedTracker


STARTS = ("last", "last, scaled", "mean", "mean, scaled")
BRANCH_ENDS = ("o_proj", "fc2")  # what attention and MLP add to the tokens is linear in these


@dataclass
class InitializationArguments:
    """Teacher, and how long and how often a student is trained."""

    teacher: str = field(default="examples/assets/teacher_9500", metadata={"help": "Folder or Hub repository."})
    stages: int = field(default=4, metadata={"help": "Stages of even length, one student layer each."})
    steps: int = field(default=100, metadata={"help": "Steps of 32 pairs."})
    seeds: int = field(default=1, metadata={"help": "Runs of each start."})
    held_out: int = field(default=256, metadata={"help": "Pairs to judge on."})
    threads: int = field(default=2, metadata={"help": "Threads of torch."})
    out: str | None = field(default=None, metadata={"help": "File for the figures; the table goes beside it as .md."})


@torch.no_grad()
def start_student(teacher: PreTrainedTracker, plan: StagePlan, start: str) -> PreTrainedTracker:
    """A student whose layer i starts as `start` says of the teacher's stage i."""
    student, _ = build_student(teacher, plan)
    for stage in range(plan.num_stages):
        layers = [teacher.layers[index].state_dict() for index in plan.teacher_stage(stage)]
        (own,) = plan.student_stage(stage)
        weights = dict(layers[-1])
        if start.startswith("mean"):
            weights = {name: torch.stack([layer[name] for layer in layers]).mean(0) for name in weights}
        if start.endswith("scaled"):
            weights = {
                name: value * len(layers) if any(end in name for end in BRANCH_ENDS) else value
                for name, value in weights.items()
            }
        student.layers[own].load_state_dict(weights)
    return student


def main() -> None:
    """Train each student and print the table."""
    (args,) = HfArgumentParser(InitializationArguments).parse_args_into_dataclasses()
    torch.set_num_threads(args.threads)
    teacher = AutoModel.from_pretrained(args.teacher)
    plan = StagePlan.even(len(teacher.layers), args.stages)
    held_out = list(
        islice(stream_pairs(ProceduralWorld(), teacher.config, seed=10_000, pairs_per_clip=2), args.held_out)
    )
    rows = []
    for seed in range(args.seeds):
        for start in STARTS:
            set_seed(seed)
            training = CompressionArguments(
                output_dir="outputs/initialization",
                max_steps=args.steps,
                per_device_train_batch_size=32,
                per_device_eval_batch_size=32,
                learning_rate=1e-3,
                lr_scheduler_type="cosine",
                max_grad_norm=1.0,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=seed,
            )
            pairs = stream_pairs(ProceduralWorld(), teacher.config, seed=seed, clip_length=6, pairs_per_clip=12)
            trainer = CompressionTrainer(
                model=start_student(teacher, plan, start),
                teacher_model=teacher,
                args=training,
                train_dataset=pairs,
                eval_dataset=held_out,
                plan=plan,
            )
            before = trainer.evaluate()["eval_iou"]
            trainer.train()
            rows.append({"seed": seed, "start": start, "before": before, "after": trainer.evaluate()["eval_iou"]})
            print(rows[-1], flush=True)
    table = markdown_table(
        ["Start", "Seed", "Pair IoU before", f"after {args.steps} steps"],
        [[row["start"], str(row["seed"]), f"{row['before']:.3f}", f"{row['after']:.3f}"] for row in rows],
    )
    conditions = {"teacher": args.teacher, "plan": str(plan), "steps": args.steps, "pairs": args.held_out}
    write_results(args.out, conditions, rows, table)


if __name__ == "__main__":
    main()
