"""Accuracy against speed from one run: every path of teacher and student stages as a tracker of its own.

    python examples/reproduce/front.py --sequences videos

compresses the teacher by the queue's recipe, unless that was done before, builds the tracker of each path, and judges it on the
sequences of the table `supervision`. Their speeds come from one pass in which they take turns, on one thread. --row takes
another row of that table; what is known of others stays in the file, and a row whose figures are there is not judged again.
"""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from experiments import Queue
from run import HERE
from training import BATCH, execute, judged_sequences, log_name
from transformers import AutoModel, HfArgumentParser

from ct_hf.compression import StagePlan, build_hybrid
from ct_hf.compression.products import is_bf16_faster
from ct_hf.data import procedural_sequences
from ct_hf.evaluation import evaluate_trackers


@dataclass
class FrontArguments:
    """What the trackers are judged on, and where results go."""

    queue: str = field(default=str(HERE / "queue.json"), metadata={"help": "File of the queue."})
    sequences: str | None = field(default=None, metadata={"help": "Folder of annotated sequences, the set `real`."})
    timed: int = field(default=4, metadata={"help": "Rendered sequences on which speed is measured."})
    row: str | None = field(default=None, metadata={"help": "Row that trains. Default: what the others are beside."})
    out: str = field(default="docs/results/reproduce/front.json", metadata={"help": "File for the figures."})
    student: str | None = field(
        default=None, metadata={"help": "Folder of the student. Default: one in outputs/reproduce."}
    )


def main() -> None:
    """Compress, build, judge, time."""
    (args,) = HfArgumentParser(FrontArguments).parse_args_into_dataclasses()
    queue = Queue.read(args.queue)
    table = queue.tables["supervision"]
    runs = table.at(table.points[0])
    if (row := args.row or table.reference) not in runs:
        raise SystemExit(f"--row must be one of {', '.join(runs)}, got {row}.")
    (run, *_) = runs[row]
    judges = queue.judges(args.sequences)
    run = run.judged(judges)
    out = Path(args.out)
    known = json.loads(out.read_text()) if out.exists() else {}
    front = known.get(run.row)
    if (
        front
        and (front["settings"], front["seed"]) == (run.settings, run.seed)
        and set(run.judged_on) <= front["paths"][0]["auc"].keys()
    ):
        print(f"{run.row} is done.")
        return
    folder = Path(args.student or f"outputs/reproduce/{log_name(run)}")
    if not (folder / "config.json").exists():
        execute(run.judged(()), queue.teacher, judges, folder, keep=folder)
    torch.set_num_threads(1)
    teacher, student = AutoModel.from_pretrained(queue.teacher), AutoModel.from_pretrained(folder)
    plan = StagePlan.even(len(teacher.layers), len(student.layers))
    trackers = {"T" * plan.num_stages: teacher}
    for path in map("".join, itertools.product("TS", repeat=plan.num_stages)):
        if "S" in path:
            trackers[path] = build_hybrid(student, teacher, path, plan)
    auc = {}
    for name in run.judged_on:
        result = evaluate_trackers(trackers, judged_sequences(judges[name]), batch_size=BATCH)
        auc[name] = {tracker.name: tracker.score["auc"] for tracker in result.trackers}
    timed = evaluate_trackers(trackers, procedural_sequences(0, args.timed))
    milliseconds = {tracker.name: 1e3 / tracker.fps for tracker in timed.trackers}
    rows = [
        {
            "path": name,
            "layers": len(tracker.layers),
            "milliseconds": milliseconds[name],
            "auc": {judged_on: auc[judged_on][name] for judged_on in auc},
        }
        for name, tracker in trackers.items()
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    precision = "bf16" if is_bf16_faster() else "fp32"
    known[run.row] = {"settings": run.settings, "seed": run.seed, "precision": precision, "paths": rows}
    out.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
