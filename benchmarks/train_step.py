"""What one step of compression costs beside a plain recipe: time, share of each part, memory, and the machine's limit.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/train_step.py --out docs/results/train_step.json

Weights are random, crops are noise, shapes are those of the released model. A step is guidance pass, mixed path, losses,
backward, clipping and AdamW. ct_hf's is made by a `CompressionTrainer` of default arguments, but for the paths, which are
listed: at replacement rate 0.5 eight, whose student stages (2.1 on average), teacher stages before the first student stage
(0.75) and after it (1.1) are about those of all draws (2.1, 0.8 and 1.2); at rate 1 the student alone. The plain recipe is
`plain_recipe.py`. All take turns within one run, so that a machine which slows down does it to all; the median of each path
counts, and their mean at a rate.

- Limit: the time that the multiply-accumulates of a step take at the rate of one large matrix product, measured in the same
  run, in the recipe's type and by the library that it uses. What is neither matrix product nor convolution is not in it.
- Static memory: weights of teacher and student, gradients and optimizer, counted.
- Activations: peak of resident memory while forward and backward run, over its level before them, in a fresh process for each
  recipe whose allocator gives freed tensors back at once. Gradients are in the level before. Resident memory and not saved
  tensors, since what is never saved, such as a map that is laid out and dropped, can make the peak. Linux only.
- Per sample: the eight paths in two batches, each of its samples along another, beside the eight batches of one path.
"""

import copy
import gc
import multiprocessing
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Clock, alternate, build_tracker, write_results
from plain_recipe import PlainRecipe
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import HfArgumentParser

from ct_hf.compression import CompressionArguments, CompressionTrainer, StagePlan, build_student, losses, mixed
from ct_hf.compression.products import fast_products
from ct_hf.data import TrackingCollator
from ct_hf.evaluation.report import markdown_table
from ct_hf.models import PreTrainedTracker


MODEL = "ostrack/vitb_256_mae_32x4_ep300"
STAGES = 4
# Where each stage runs: student or teacher. The first is also the path of rate 1.
PATHS = ["SSSS", "STST", "SSTT", "STTS", "TSTS", "TSST", "TTSS", "TTST"]
RATES = {0.5: PATHS, 1.0: PATHS[:1]}
RECIPES = ["plain, fp32", "ct_hf, fp32", "ct_hf, bf16"]
PARTS = ["guidance", "mixed path", "losses", "backward", "clipping", "AdamW"]
TOLERANCE = 1e-4


@dataclass
class StepArguments:
    """How long and on what is measured."""

    turns: int = field(default=4, metadata={"help": "Steps of each recipe along each path, after one to warm up."})
    batch: int = field(default=4, metadata={"help": "Samples of a step; a divisor of 8, the number of paths."})
    threads: int = field(default=2, metadata={"help": "Threads of torch."})
    memory: bool = field(default=True, metadata={"help": "Whether to measure memory."})
    out: str | None = field(default=None, metadata={"help": "File for the figures; the tables go beside it as .md."})


class ListedPaths(CompressionTrainer):
    """The trainer, but for the draw."""

    paths: list[tuple[bool, ...]]

    def _path_inputs(self, model: torch.nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"paths": self.paths} if model.training else {}


class TrainerStep:
    """The step of [`~compression.CompressionTrainer`], taken apart and timed; to its caller like [`PlainRecipe`]."""

    def __init__(
        self,
        teacher: PreTrainedTracker,
        student: PreTrainedTracker,
        plan: StagePlan,
        args: CompressionArguments,
        clock: Clock,
    ):
        self.trainer = trainer = ListedPaths(model=student, teacher_model=teacher, args=args, plan=plan)
        # What `train` does before its first step.
        trainer.create_optimizer()
        self.model, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.create_scheduler(num_training_steps=1000)
        trainer.current_gradient_accumulation_steps = 1
        self.optimizer = trainer.optimizer
        tracker = trainer.accelerator.unwrap_model(self.model)
        self.teacher, self.student = tracker.teacher, tracker.student
        mixed.mimicking_loss = clock.part("losses")(losses.mimicking_loss)
        for owner, name, part in (
            (tracker, "_guide", "guidance"),
            (tracker, "_mix", "mixed path"),
            (tracker.student, "decode", "mixed path"),
            (tracker.student, "compute_loss", "losses"),
            (tracker.student, "compute_guidance", "losses"),
            (trainer.accelerator, "backward", "backward"),
            (trainer.accelerator, "clip_grad_norm_", "clipping"),
            (trainer.optimizer, "step", "AdamW"),
        ):
            setattr(owner, name, clock.part(part)(getattr(owner, name)))

    def backward(self, batch: dict[str, torch.Tensor], paths: list[tuple[bool, ...]]) -> float:
        """Run forward and backward of a batch as it was collated, a path for each sample; return the loss."""
        self.trainer.paths = paths
        return self.trainer.training_step(self.model, batch).item()

    def update(self) -> None:
        """Clip, take the optimizer's step and the schedule's."""
        trainer = self.trainer
        trainer.accelerator.clip_grad_norm_(self.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        self.model.zero_grad()


Step = PlainRecipe | TrainerStep


def build_step(recipe: str, tracker: PreTrainedTracker, clock: Clock, batch: int) -> Step:
    """A recipe of [`RECIPES`] on copies of a tracker and its student of four stages, from the same start each time."""
    torch.manual_seed(0)
    plan = StagePlan.even(len(tracker.layers), STAGES)
    teacher = copy.deepcopy(tracker)
    student, _ = build_student(teacher, plan)
    folder = str(Path(tempfile.gettempdir(), "train_step"))
    bf16 = recipe.endswith("bf16")
    args = CompressionArguments(output_dir=folder, per_device_train_batch_size=batch, bf16=bf16, use_cpu=True)
    return (PlainRecipe if recipe.startswith("plain") else TrainerStep)(teacher, student, plan, args, clock)


def build_batch(tracker: PreTrainedTracker, size: int) -> dict[str, torch.Tensor]:
    """Crops of noise as the collator gives them to the trainer."""
    config, rng = tracker.config, np.random.default_rng(0)

    def pixels(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    return TrackingCollator()(
        [
            {
                "template_pixel_values": pixels(config.num_templates, 3, config.template_size, config.template_size),
                "search_pixel_values": pixels(3, config.search_size, config.search_size),
                "template_boxes": np.full((config.num_templates, 4), 0.5, dtype=np.float32),
                "search_boxes": np.concatenate([rng.uniform(0.3, 0.7, 2), rng.uniform(0.2, 0.4, 2)]),
            }
            for _ in range(size)
        ]
    )


def parse_path(text: str) -> tuple[bool, ...]:
    """Read "STTS"."""
    return tuple(stage == "S" for stage in text)


def paths_per_sample(batch: int) -> list[list[tuple[bool, ...]]]:
    """All paths, shared out to batches whose samples take different ones."""
    if len(PATHS) % batch:
        raise ValueError(f"`batch` must be a divisor of {len(PATHS)}, the number of paths, got {batch}.")
    number = len(PATHS) // batch
    return [[parse_path(text) for text in PATHS[first::number]] for first in range(number)]


def check_losses(steps: dict[str, Step], batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Loss of each recipe along the second path, before anything is trained; those in fp32 must be equal."""
    paths = [parse_path(PATHS[1])] * len(batch["search_boxes"])
    values = {recipe: step.backward(batch, paths) for recipe, step in steps.items()}
    for step in steps.values():
        step.student.zero_grad()
    plain, ours = values[RECIPES[0]], values[RECIPES[1]]
    if not abs(plain - ours) <= TOLERANCE:
        raise RuntimeError(
            f"the loss of the plain recipe is {plain}, that of ct_hf {ours}: the steps are not the same."
        )
    return values


def count_step_gmacs(step: Step, batch: dict[str, torch.Tensor], path: str) -> float:
    """10^9 multiply-accumulates of forward and backward of a batch along a path, counted with one sample."""
    one = {name: value[:1] for name, value in batch.items()}
    # The fused kernels for CPU are unknown to the counter.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step.backward(one, [parse_path(path)])
    step.student.zero_grad()
    return len(batch["search_boxes"]) * counter.get_total_flops() / 2e9


def measure_time(
    steps: dict[str, Step], clock: Clock, batch: dict[str, torch.Tensor], turns: int, size: int = 2048
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """
    Run all recipes along all paths in turns, and a matrix product of `size` as each recipe takes it.

    Returns:
        `tuple` of `dict[str, float]`: median seconds of a step by "recipe path" and "recipe sample", and of 10^9
        multiply-accumulates of the product by "recipe"; and of `dict[str, dict[str, float]]`: median seconds of the parts.
    """
    parts: dict[str, list[dict[str, float]]] = defaultdict(list)

    def action(name: str, step: Step, batches: list[list[tuple[bool, ...]]]) -> Callable[[], None]:
        def run() -> None:
            for paths in batches:
                step.backward(batch, paths)
                step.update()
            parts[name].append(clock.take())

        return run

    actions: dict[str, Callable[[], Any]] = {}
    samples = len(batch["search_boxes"])
    for path in PATHS:
        for recipe, step in steps.items():
            actions[f"{recipe} {path}"] = action(f"{recipe} {path}", step, [[parse_path(path)] * samples])
    for recipe in RECIPES[1:]:
        actions[f"{recipe} sample"] = action(f"{recipe} sample", steps[recipe], paths_per_sample(samples))

    def product(recipe: str) -> Callable[[], None]:
        matrix = torch.randn(size, size, dtype=torch.bfloat16 if recipe.endswith("bf16") else torch.float32)

        def run() -> None:
            with nullcontext() if recipe == RECIPES[0] else fast_products(matrix.device):
                for _ in range(5):
                    matrix @ matrix

        return run

    actions.update({recipe: product(recipe) for recipe in RECIPES})
    clock.take()
    seconds = alternate(actions, turns, warm_up=1)
    for recipe in RECIPES[1:]:
        seconds[f"{recipe} sample"] /= len(paths_per_sample(samples))
    for recipe in RECIPES:
        seconds[recipe] /= 5 * size**3 / 1e9
    medians = {
        name: {part: float(np.median([turn.get(part, 0.0) for turn in each[1:]])) for part in PARTS}
        for name, each in parts.items()
    }
    return seconds, medians


def _resident(name: str) -> int:
    """Bytes of this process, now (VmRSS) or at most so far (VmHWM)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status[name].split()[0])


def measure_memory(recipe: str, batch: int, threads: int, fields: dict[str, Any]) -> dict[str, Any]:
    """Bytes of static memory by kind, and of activations by path; to be run in a fresh process."""
    torch.set_num_threads(threads)
    tracker = build_tracker(*MODEL.split("/"), **fields)
    step = build_step(recipe, tracker, Clock(), batch)
    inputs = build_batch(tracker, batch)
    del tracker
    for path in PATHS[:2]:
        step.backward(inputs, [parse_path(path)] * batch)
        step.update()
    for parameter in step.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    activations = {}
    for path in PATHS:
        gc.collect()
        level = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM is the peak of what follows
        step.backward(inputs, [parse_path(path)] * batch)
        activations[path] = _resident("VmHWM") - level
    held = {
        "weights": [*step.teacher.state_dict().values(), *step.student.state_dict().values()],
        "gradients": [parameter.grad for parameter in step.student.parameters()],
        "optimizer": [value for state in step.optimizer.state.values() for value in state.values()],
    }
    static = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in held.items()}
    return {"static": static, "activations": activations}


def measure_memory_apart(recipe: str, *arguments: Any) -> dict[str, Any]:
    """[`measure_memory`] in a process of its own, whose allocator keeps no freed tensor."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_memory, recipe, *arguments).result()


def rows_of(
    seconds: dict[str, float],
    parts: dict[str, dict[str, float]],
    gmacs: dict[str, dict[str, float]],
    memory: dict[str, dict[str, Any]],
    batch: int,
) -> list[dict[str, Any]]:
    """Figures of each recipe at each rate."""
    rows = []
    for rate, paths in RATES.items():
        plain: dict[str, Any] = {}
        for recipe in RECIPES:
            names = [f"{recipe} {path}" for path in paths]
            time = float(np.mean([seconds[name] for name in names]))
            macs = float(np.mean([gmacs[recipe][path] for path in paths]))
            row = {
                "rate": rate,
                "recipe": recipe,
                "milliseconds": 1000 * time,
                "samples_per_second": batch / time,
                "gmacs": macs,
                "limit_milliseconds": 1000 * macs * seconds[recipe],
                "parts": {part: float(np.mean([parts[name][part] for name in names])) / time for part in PARTS},
                "path_milliseconds": {path: 1000 * seconds[f"{recipe} {path}"] for path in paths},
            }
            row["parts"]["everything else"] = 1 - sum(row["parts"].values())
            if memory:
                row["static_bytes"] = memory[recipe]["static"]
                row["activation_bytes"] = {path: memory[recipe]["activations"][path] for path in paths}
            plain = plain or row
            row["speedup"] = plain["milliseconds"] / row["milliseconds"]
            rows.append(row)
    return rows


def table_of(rows: list[dict[str, Any]], per_sample: dict[str, float]) -> str:
    """Three tables: the whole step, its parts, and paths by sample."""
    step, shares = [], []
    for row in rows:
        name = [f"{row['rate']:g}", row["recipe"]]
        memory = ["-", "-", "-"]
        if "static_bytes" in row:
            plain = next(each for each in rows if each["rate"] == row["rate"])
            peak = max(row["activation_bytes"].values())
            memory = [
                f"{sum(row['static_bytes'].values()) / 1e6:.0f}",
                f"{peak / 1e6:.0f}",
                f"{peak / max(plain['activation_bytes'].values()):.2f}x",
            ]
        step.append(
            [
                *name,
                f"{row['milliseconds']:.0f}",
                f"{row['samples_per_second']:.2f}",
                f"{row['speedup']:.2f}x",
                f"{row['gmacs']:.0f}",
                f"{row['limit_milliseconds']:.0f}",
                f"{100 * row['limit_milliseconds'] / row['milliseconds']:.0f} %",
                *memory,
            ]
        )
        shares.append([*name, *(f"{100 * share:.1f}" for share in row["parts"].values())])
    header = ["Rate", "Recipe", "ms a step", "samples/s", "Speed-up", "GMACs", "Limit (ms)", "of it reached"]
    header += ["Static (MB)", "Activations (MB)", "of plain"]
    return "\n\n".join(
        [
            markdown_table(header, step, left=2),
            markdown_table(["Rate", "Recipe", *(f"{part} (%)" for part in rows[0]["parts"])], shares, left=2),
            markdown_table(
                ["Paths of a sample each", "Time of paths of a batch each"],
                [[recipe, f"{ratio:.3f}x"] for recipe, ratio in per_sample.items()],
            ),
        ]
    )


def main() -> None:
    """Measure and print the tables."""
    (args,) = HfArgumentParser(StepArguments).parse_args_into_dataclasses()
    torch.set_num_threads(args.threads)
    memory = {}
    if args.memory:
        memory = {recipe: measure_memory_apart(recipe, args.batch, args.threads, {}) for recipe in RECIPES}
    tracker = build_tracker(*MODEL.split("/"))
    clock = Clock()
    steps = {recipe: build_step(recipe, tracker, clock, args.batch) for recipe in RECIPES}
    batch = build_batch(tracker, args.batch)
    losses_before = check_losses(steps, batch)
    gmacs = {recipe: {path: count_step_gmacs(steps[recipe], batch, path) for path in PATHS} for recipe in RECIPES[:2]}
    gmacs[RECIPES[2]] = gmacs[RECIPES[1]]
    seconds, parts = measure_time(steps, clock, batch, args.turns)
    rows = rows_of(seconds, parts, gmacs, memory, args.batch)
    per_sample = {
        recipe: seconds[f"{recipe} sample"] / float(np.mean([seconds[f"{recipe} {path}"] for path in PATHS]))
        for recipe in RECIPES[1:]
    }
    conditions = {
        "model": MODEL,
        "stages": STAGES,
        "paths": PATHS,
        **{name: getattr(args, name) for name in ("turns", "batch", "threads")},
        "product_gmacs_per_second": {recipe: 1 / seconds[recipe] for recipe in RECIPES},
        "losses": losses_before,
        "per_sample": per_sample,
    }
    write_results(args.out, conditions, rows, table_of(rows, per_sample))


if __name__ == "__main__":
    main()
