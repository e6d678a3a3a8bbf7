"""Does it work? The comparisons behind the method, reproduced with the small teacher on two cores.

    python examples/reproduce/run.py --sequences videos

goes through the queue in `queue.json`, two runs at a time on a thread each, and adds each result to
`docs/results/reproduce/runs.jsonl`; what is there already is not run again, so a stopped queue goes on. --tables takes some
of its tables, --minutes ends after a while. Then `python examples/reproduce/tables.py` writes the tables and pictures.
"""

import json
import multiprocessing
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from experiments import Queue, find_result, read_results
from training import execute
from transformers import HfArgumentParser


HERE = Path(__file__).parent


@dataclass
class QueueArguments:
    """What to run, and for how long."""

    queue: str = field(default=str(HERE / "queue.json"), metadata={"help": "File of the queue."})
    tables: list[str] | None = field(default=None, metadata={"help": "Tables of the queue. Default: all."})
    sequences: str | None = field(
        default=None, metadata={"help": "Folder of annotated sequences, the set `real`. Default: judge without it."}
    )
    out: str = field(default="docs/results/reproduce", metadata={"help": "Folder for the results."})
    logs: str = field(default="outputs/reproduce", metadata={"help": "Folder for the logs of the runs."})
    jobs: int = field(default=2, metadata={"help": "Runs at a time, on a thread each."})
    minutes: float = field(default=float("inf"), metadata={"help": "Begin no run after so many minutes."})


def main() -> None:
    """Run what is not done yet."""
    (args,) = HfArgumentParser(QueueArguments).parse_args_into_dataclasses()
    started = time.monotonic()
    queue = Queue.read(args.queue)
    judges = queue.judges(args.sequences)
    results = Path(args.out) / "runs.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    done = read_results(results)
    todo = [run.judged(judges) for run in queue.runs(args.tables)]
    total = len(todo)
    todo = [run for run in todo if find_result(run, done) is None]
    print(f"{total - len(todo)} of {total} runs are done.", flush=True)
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running, failed = {}, []
        while todo or running:
            while todo and len(running) < args.jobs and time.monotonic() - started < 60 * args.minutes:
                run = todo.pop(0)
                running[pool.submit(execute, run, queue.teacher, judges, Path(args.logs))] = run
            if not running:
                print(f"{len(todo)} runs are left for another time.")
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                if error := future.exception():
                    failed.append(f"{run.row}, seed {run.seed}: {error!r}")
                    print(f"failed: {failed[-1]}", flush=True)
                    continue
                result = future.result()
                with open(results, "a") as file:
                    file.write(json.dumps(result) + "\n")
                print(
                    f"{run.row}, seed {run.seed}: {result['auc']}, {result['seconds']:.0f} s, {len(todo)} to go",
                    flush=True,
                )
    if failed:
        raise SystemExit(f"{len(failed)} runs failed; they are tried again next time. The first: {failed[0]}")


if __name__ == "__main__":
    main()
