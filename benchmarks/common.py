"""What the benchmarks share: trackers of random weights, actions that take turns, and files of results."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def alternate(actions: dict[str, Callable[[], Any]], passes: int, warm_up: int = 2) -> dict[str, float]:
    """Median seconds of actions that take turns, so that a machine which slows down does it to all, after turns to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(passes + warm_up):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


class Clock:
    """Seconds that parts of an action take; what runs within another part counts by itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block, or as a decorator each call of a function."""
        start = time.perf_counter()
        self._within.append(0.0)
        yield
        elapsed = time.perf_counter() - start
        self.seconds[name] += elapsed - self._within.pop()
        if self._within:
            self._within[-1] += elapsed

    def take(self) -> dict[str, float]:
        """Return what was counted, and begin anew."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds


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
