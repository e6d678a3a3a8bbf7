"""Curves of trainings, from the states that the Trainer keeps in its checkpoints.

    python benchmarks/training_curves.py --states outputs/teacher_match outputs/teacher --out docs/results/teacher_training.svg

The folders are those of one training's phases in their order; of each, the checkpoint of most steps counts. A .json that this
script wrote stands for the phases that it shows.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import HfArgumentParser

from ct_hf.evaluation import save_plot


@dataclass
class CurveArguments:
    """Which trainings, and where their curves go."""

    states: list[str] = field(metadata={"help": "Output folders of the phases of one training."})
    out: str = field(metadata={"help": "Picture; the logged values go beside it as .json."})
    values: list[str] = field(
        default_factory=lambda: ["iou", "focal"], metadata={"help": "Logged values, a panel each."}
    )
    window: int = field(default=10, metadata={"help": "Logs of which the mean is drawn over them."})


def read_history(folders: list[str], values: list[str]) -> list[dict[str, float]]:
    """Logged values of some trainings, steps counted on from one to the next."""
    rows, before = [], 0
    for folder in folders:
        if folder.endswith(".json"):
            rows += [{**row, "step": before + row["step"]} for row in json.loads(Path(folder).read_text())]
            before = rows[-1]["step"]
            continue
        last = max(Path(folder).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        state = json.loads((last / "trainer_state.json").read_text())
        logged = [row for row in state["log_history"] if values[0] in row]
        rows += [
            {"step": before + row["step"], **{name: row[name] for name in (*values, "learning_rate")}}
            for row in logged
        ]
        before += state["global_step"]
    return rows


def main() -> None:
    """Draw and keep."""
    import matplotlib.pyplot as plt

    (args,) = HfArgumentParser(CurveArguments).parse_args_into_dataclasses()
    rows = read_history(args.states, args.values)
    steps = np.array([row["step"] for row in rows])
    figure, panels = plt.subplots(1, len(args.values), figsize=(5 * len(args.values), 3.2), layout="constrained")
    for panel, name in zip(np.atleast_1d(panels), args.values, strict=True):
        values = np.array([row[name] for row in rows])
        panel.plot(steps, values, color="0.75", linewidth=0.8)
        if len(values) >= args.window:
            mean = np.convolve(values, np.full(args.window, 1 / args.window), "valid")
            panel.plot(steps[args.window // 2 :][: len(mean)], mean, color="#0072B2", linewidth=1.8)
        panel.set(xlabel="step", title=f"{name} of training pairs")
        panel.grid(alpha=0.3)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_plot(figure, out)
    out.with_suffix(".json").write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
