"""What the benchmarks share: trackers of random weights, actions that take turns, and files of results."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ct_hf.conversion.convert import FAMILIES
from ct_hf.models import PreTrainedTracker


def build_tracker(family: str, variant: str, **fields: Any) -> PreTrainedTracker:
    """A tracker of random weights in the shape of an original model, but for some configuration fields."""
    table = FAMILIES[family]
    config = table.model_class.config_class.from_fields(**{**table.variants[variant], **fields})
    return table.model_class(config).eval()


def alternate(actions: dict[str, Callable[[], Any]], passes: int) -> dict[str, float]:
    """Median seconds of actions that take turns, so that a machine which slows down does it to all; two turns warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(passes + 2):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def write_results(out: str | None, conditions: dict[str, Any], rows: list[dict[str, Any]], table: str) -> None:
    """Print a table; with `out`, a JSON file, keep figures and conditions there and the table beside it as Markdown."""
    print(table)
    if out is None:
        return
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    conditions = {"torch": torch.__version__, **conditions}
    path.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n")
    path.with_suffix(".md").write_text(table + "\n")
