"""What trackers and their students cost: parameters, GMACs, and the time of one forward pass.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/forward.py --out docs/results/forward.json

Weights are random, shapes are those of the released models. Within a comparison teacher and student take turns, so that a
machine which slows down does it to both; the median time at batch 1 counts. A comparison is TEACHER:STAGES, where TEACHER is
family/variant of an original model and STAGES a number of stages of even length, each with configuration fields behind a
comma: "mixformerv2/288_depth8_score:4,intermediate_size=768".
"""

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from common import alternate, build_tracker, write_results
from transformers import HfArgumentParser

from ct_hf.compression import StagePlan, build_student
from ct_hf.evaluation.report import markdown_table, short_number
from ct_hf.models import PreTrainedTracker
from ct_hf.models.cost import count_gmacs, count_parameters


# The students of the paper (section 4).
COMPARISONS = [
    "ostrack/vitb_256_mae_32x4_ep300:2",
    "ostrack/vitb_256_mae_32x4_ep300:3",
    "ostrack/vitb_256_mae_32x4_ep300:4",
    "ostrack/vitb_256_mae_32x4_ep300:6",
    "ostrack/vitb_256_mae_32x4_ep300:8",
    "ostrack/vitb_256_mae_ce_32x4_ep300:4",
    "sutrack/sutrack_b224:4",
    "odtrack/baseline,elimination_layers=[]:4",
    "odtrack/baseline:4",
    "mixformerv2/288_depth8_score:4,intermediate_size=768",
]


@dataclass
class ForwardArguments:
    """What is compared, and how."""

    compare: list[str] = field(
        default_factory=lambda: list(COMPARISONS), metadata={"help": "TEACHER:STAGES, several."}
    )
    passes: int = field(default=15, metadata={"help": "Forward passes of each tracker that are timed."})
    threads: int = field(default=2, metadata={"help": "Threads of torch."})
    out: str | None = field(default=None, metadata={"help": "File for the figures; the table goes beside it as .md."})


@dataclass
class Comparison:
    """A teacher and the number of stages of its student, with configuration fields of both."""

    family: str
    variant: str
    fields: dict[str, Any]
    stages: int
    student_fields: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Comparison":
        """Read "family/variant,field=value:stages,field=value"."""
        try:
            teacher, student = text.split(":")
            source, *fields = teacher.split(",")
            family, variant = source.split("/")
            stages, *student_fields = student.split(",")
            return cls(family, variant, _fields(fields), int(stages), _fields(student_fields))
        except ValueError as error:
            raise ValueError(
                f"`compare` must look like ostrack/VARIANT:4 or ostrack/VARIANT:4,field=8, got {text!r}."
            ) from error

    def build(self) -> dict[str, PreTrainedTracker]:
        """A teacher of random weights and its student."""
        teacher = build_tracker(self.family, self.variant, **self.fields)
        plan = StagePlan.even(len(teacher.layers), self.stages)
        student, _ = build_student(teacher, plan, **self.student_fields)
        return {"teacher": teacher, "student": student.eval()}


def _fields(entries: list[str]) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in (entry.split("=") for entry in entries)}


def inputs_of(model: PreTrainedTracker) -> dict[str, torch.Tensor]:
    """One search crop of noise with its templates."""
    config = model.config
    template = (1, config.num_templates, 3, config.template_size, config.template_size)
    return {
        "template_pixel_values": torch.randn(template),
        "search_pixel_values": torch.randn(1, 3, config.search_size, config.search_size),
        "template_boxes": torch.tensor([0.5, 0.5, 0.5, 0.5]).expand(1, config.num_templates, 4),
    }


@torch.inference_mode()
def measure(trackers: dict[str, PreTrainedTracker], passes: int) -> dict[str, float]:
    """Median milliseconds of a forward pass of each tracker, taking turns after two turns of warming up."""
    inputs = {name: inputs_of(model) for name, model in trackers.items()}
    actions = {name: lambda name=name: trackers[name](**inputs[name]) for name in trackers}
    return {name: 1000 * seconds for name, seconds in alternate(actions, passes).items()}


def main() -> None:
    """Measure each comparison and print the table."""
    (args,) = HfArgumentParser(ForwardArguments).parse_args_into_dataclasses()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    rows = []
    for text in args.compare:
        comparison = Comparison.parse(text)
        trackers = comparison.build()
        milliseconds = measure(trackers, args.passes)
        for name, model in trackers.items():
            rows.append(
                {
                    "comparison": text,
                    "tracker": text.split(":")[0] if name == "teacher" else f"  student of {comparison.stages} stages",
                    "layers": len(model.layers),
                    "parameters": count_parameters(model),
                    "gmacs": count_gmacs(model),
                    "gmacs_without_attention": count_gmacs(model, attention=False),
                    "milliseconds": milliseconds[name],
                    "speedup": milliseconds["teacher"] / milliseconds[name],
                }
            )
        print(f"{text}: {rows[-1]['speedup']:.2f}x", flush=True)
    table = markdown_table(
        ["Tracker", "Layers", "Parameters (M)", "GMACs", "without attention", "ms", "Speed-up"],
        [
            [
                row["tracker"],
                str(row["layers"]),
                short_number(row["parameters"] / 1e6),
                short_number(row["gmacs"]),
                short_number(row["gmacs_without_attention"]),
                short_number(row["milliseconds"]),
                f"{row['speedup']:.2f}x",
            ]
            for row in rows
        ],
    )
    conditions = {"threads": args.threads, "dtype": "float32", "passes": args.passes}
    write_results(args.out, conditions, rows, table)


if __name__ == "__main__":
    main()
