"""What tracking costs beside the network, and what lock-step batches, remembered templates and bf16 give.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/tracking.py --out docs/results/tracking.json

Weights are random and shapes those of the released models, but for the shipped tracker, whose accuracy is measured too.
What is compared takes turns within one run, so that a machine which slows down does it to all; medians count. Frames are
1280x720 pixels of noise, decoded before the clock starts, and the box is put back before each frame: random weights would
shrink it, and the crop with it.

- Loop: the share of a frame's time that is spent outside the network (crop, normalisation, reading the answer, templates).
- Templates: a forward pass with the templates embedded in it, and with what the session remembers of them.
- Lock-step: targets a second of `batch` sessions one by one and together. Why it gives what it gives: GMACs a second of the
  forward pass alone, at batch 1 and at `batch`, beside those of one large matrix product.
- bf16: a forward pass in bfloat16 and in float32, and the success AUC of the shipped tracker in both on rendered sequences.
"""

import copy
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from common import alternate, build_tracker, write_results
from transformers import AutoModel, HfArgumentParser

import ct_hf  # noqa: F401 - registers the trackers
from ct_hf.data import procedural_sequences
from ct_hf.evaluation import evaluate_trackers
from ct_hf.evaluation.report import markdown_table
from ct_hf.models import PreTrainedTracker, TrackingSession
from ct_hf.models.cost import count_gmacs
from ct_hf.tracking import update_together


MODELS = ["ostrack/vitb_256_mae_32x4_ep300", "sutrack/sutrack_b224"]
BOX = [600.0, 300.0, 120.0, 90.0]


@dataclass
class TrackingArguments:
    """What is measured, and how long."""

    tracker: str = field(default="examples/assets/teacher", metadata={"help": "Tracker whose accuracy is measured."})
    models: list[str] = field(
        default_factory=lambda: list(MODELS), metadata={"help": "Family/variant, several; the first counts."}
    )
    passes: int = field(default=30, metadata={"help": "Turns that are timed, after two to warm up."})
    batch: int = field(default=8, metadata={"help": "Targets in lock-step."})
    sequences: int = field(default=40, metadata={"help": "Rendered sequences for the accuracy; 0 for none."})
    threads: int = field(default=2, metadata={"help": "Threads of torch."})
    out: str | None = field(default=None, metadata={"help": "File for the figures; the table goes beside it as .md."})


def noise_frames(number: int) -> list[np.ndarray]:
    """Frames of noise."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8) for _ in range(number)]


@torch.inference_mode()
def measure_loop(model: PreTrainedTracker, passes: int) -> dict[str, float]:
    """Milliseconds of a frame before, in and after the forward pass, and the share outside it in per cent."""
    frames = noise_frames(4)
    session = model.start(frames[0], BOX)
    parts: list[tuple[float, float, float]] = []
    for turn in range(passes + 2):
        session.box = np.array(BOX)
        marks = [time.perf_counter()]
        inputs = session.inputs(frames[turn % 4])
        marks.append(time.perf_counter())
        output = model(**inputs, return_dict=True)
        marks.append(time.perf_counter())
        session.advance(output)
        marks.append(time.perf_counter())
        parts.append(tuple(np.diff(marks)))
    before, network, after = np.median(np.array(parts)[2:], axis=0) * 1000
    return {
        "before_ms": float(before),
        "network_ms": float(network),
        "after_ms": float(after),
        "outside_percent": float(100 * (before + after) / (before + network + after)),
    }


@torch.inference_mode()
def measure_templates(model: PreTrainedTracker, passes: int) -> dict[str, float]:
    """Milliseconds of a forward pass with its templates embedded in it, and remembered."""
    frames = noise_frames(2)
    inputs = model.start(frames[0], BOX).inputs(frames[1])
    plain = {**inputs, "memory": None}
    actions = {"each_frame": lambda: model(**plain), "remembered": lambda: model(**inputs)}
    return {f"{name}_ms": 1000 * seconds for name, seconds in alternate(actions, passes).items()}


@torch.inference_mode()
def measure_lock_step(model: PreTrainedTracker, passes: int, batch: int) -> dict[str, float]:
    """Targets a second one by one and together, and GMACs a second of the network alone in both."""
    frames = noise_frames(batch)
    sessions = [model.start(frame, BOX) for frame in frames]

    def reset() -> list[TrackingSession]:
        for session in sessions:
            session.box = np.array(BOX)
        return sessions

    one = sessions[0].inputs(frames[0])
    one = {**one, "memory": None}
    many = {name: torch.cat([value] * batch) for name, value in one.items() if value is not None}
    size = 2048
    matrix = torch.randn(size, size)
    seconds = alternate(
        {
            "singles": lambda: [session.update(frame) for session, frame in zip(reset(), frames, strict=True)],
            "together": lambda: update_together(reset(), frames),
            "network_singles": lambda: [model(**one) for _ in range(batch)],
            "network_together": lambda: model(**many),
            "product": lambda: matrix @ matrix,
        },
        passes,
    )
    gmacs = count_gmacs(model) * batch
    return {
        "singles_fps": batch / seconds["singles"],
        "together_fps": batch / seconds["together"],
        "speedup": seconds["singles"] / seconds["together"],
        "network_speedup": seconds["network_singles"] / seconds["network_together"],
        "network_singles_gmacs": gmacs / seconds["network_singles"],
        "network_together_gmacs": gmacs / seconds["network_together"],
        "matrix_product_gmacs": size**3 / 1e9 / seconds["product"],
    }


@torch.inference_mode()
def measure_bf16(model: PreTrainedTracker, passes: int) -> dict[str, float]:
    """Milliseconds of a frame in float32 and bfloat16."""
    frames = noise_frames(2)
    sessions = {
        "float32": model.start(frames[0], BOX),
        "bfloat16": copy.deepcopy(model).to(torch.bfloat16).start(frames[0], BOX),
    }

    def step(session: TrackingSession) -> None:
        session.box = np.array(BOX)
        session.update(frames[1])

    actions = {name: lambda session=session: step(session) for name, session in sessions.items()}
    seconds = alternate(actions, passes)
    return {
        **{f"{name}_ms": 1000 * value for name, value in seconds.items()},
        "speedup": seconds["float32"] / seconds["bfloat16"],
    }


def measure_accuracy(model: PreTrainedTracker, number: int) -> dict[str, float]:
    """Success AUC of a tracker in float32 and bfloat16, on the same rendered sequences."""
    trackers = {"float32": model, "bfloat16": copy.deepcopy(model).to(torch.bfloat16)}
    result = evaluate_trackers(trackers, procedural_sequences(10_042, number))
    return {f"{tracker.name}_auc": tracker.score["auc"] for tracker in result.trackers}


def table_of(rows: list[dict[str, Any]]) -> str:
    """Figures as Markdown, one line a tracker and measurement."""
    lines = []
    for row in rows:
        loop, templates, steps, bf16 = (row[name] for name in ("loop", "templates", "lock_step", "bf16"))
        outside = loop["before_ms"] + loop["after_ms"]
        rates = ("network_singles_gmacs", "network_together_gmacs", "matrix_product_gmacs")
        measured = [
            (
                "outside the network",
                f"{outside:.2f} of {outside + loop['network_ms']:.1f} ms",
                f"{loop['outside_percent']:.2f} %",
            ),
            (
                "templates remembered",
                f"{templates['each_frame_ms']:.1f} -> {templates['remembered_ms']:.1f} ms",
                f"{templates['each_frame_ms'] / templates['remembered_ms']:.3f}x",
            ),
            (
                "lock-step",
                f"{steps['singles_fps']:.2f} -> {steps['together_fps']:.2f} targets a second",
                f"{steps['speedup']:.2f}x",
            ),
            (
                "GMACs a second: singles, together, matrix product",
                ", ".join(f"{steps[name]:.0f}" for name in rates),
                f"{steps['network_speedup']:.2f}x",
            ),
            ("bf16", f"{bf16['float32_ms']:.1f} -> {bf16['bfloat16_ms']:.1f} ms", f"{bf16['speedup']:.2f}x"),
        ]
        if "accuracy" in row:
            before, after = row["accuracy"]["float32_auc"], row["accuracy"]["bfloat16_auc"]
            measured.append(("AUC, float32 -> bf16", f"{before:.2f} -> {after:.2f}", f"{after - before:+.2f}"))
        lines += [["" if number else row["model"], *line] for number, line in enumerate(measured)]
    return markdown_table(["Tracker", "What", "Measured", "Gives"], lines)


def main() -> None:
    """Measure and print the table."""
    (args,) = HfArgumentParser(TrackingArguments).parse_args_into_dataclasses()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    models = {name: build_tracker(*name.split("/")) for name in args.models}
    models[args.tracker] = AutoModel.from_pretrained(args.tracker).eval()
    rows = []
    for name, model in models.items():
        row: dict[str, Any] = {"model": name}
        row["loop"] = measure_loop(model, args.passes)
        row["templates"] = measure_templates(model, args.passes)
        row["lock_step"] = measure_lock_step(model, args.passes, args.batch)
        row["bf16"] = measure_bf16(model, args.passes)
        if name == args.tracker and args.sequences:
            row["accuracy"] = measure_accuracy(model, args.sequences)
        rows.append(row)
    conditions = {name: getattr(args, name) for name in ("passes", "batch", "threads", "sequences")}
    write_results(args.out, conditions, rows, table_of(rows))


if __name__ == "__main__":
    main()
