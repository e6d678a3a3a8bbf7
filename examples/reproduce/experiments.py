"""The queue: which runs each table needs, and which of them are done."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """
    One training and what its student is judged on.

    Args:
        row (`str`): name of the method in the tables.
        settings (`dict`): the recipe's settings and the row's own: arguments of [`CompressionArguments`], and those of
            [`training.SWITCHES`].
        seed (`int`): of everything random.
        judged_on (`tuple[str, ...]`): names of the sets of sequences.
    """

    row: str
    settings: dict[str, Any]
    seed: int
    judged_on: tuple[str, ...]

    @property
    def key(self) -> str:
        """What makes it another run: everything but the name of the row."""
        return json.dumps([self.settings, self.seed, sorted(self.judged_on)], sort_keys=True)

    def judged(self, sets: Iterable[str]) -> "Run":
        """The run judged on those of its sets that are there."""
        return replace(self, judged_on=tuple(name for name in self.judged_on if name in sets))


@dataclass(frozen=True)
class Table:
    """
    Rows that are compared.

    Args:
        title (`str`): what they show.
        reference (`str`): row that the others are compared with.
        points (`list[dict]`): settings under which all rows are run; one without any where there is no grid.
        runs (`list[Run]`): every row at every point, seed by seed, so that what is done first can be compared.
        picture (`str`, *optional*): `"bars"` or `"curves"`.
    """

    title: str
    reference: str
    points: list[dict[str, Any]]
    runs: list[Run]
    picture: str | None = None

    @property
    def teacher(self) -> Run:
        """The teacher on the table's sequences, beside which everything is seen."""
        return Run("teacher", {"max_steps": 0}, 0, self.runs[0].judged_on)

    def at(self, point: dict[str, Any]) -> dict[str, list[Run]]:
        """Runs at a point by row."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            if point.items() <= run.settings.items():
                found.setdefault(run.row, []).append(run)
        return found


@dataclass(frozen=True)
class Queue:
    """
    What is compared, read from a file.

    Args:
        teacher (`str`): folder or Hub repository.
        sequences (`dict[str, dict[str, int]]`): seed and number of the rendered sequences of each set to judge on.
        tables (`dict[str, Table]`): tables by name; a run may belong to several.
    """

    teacher: str
    sequences: dict[str, dict[str, int]]
    tables: dict[str, Table]

    @classmethod
    def read(cls, path: str | Path) -> "Queue":
        """Read a queue file.

        Raises:
            ValueError: a table names a row that is not defined.
        """
        content = json.loads(Path(path).read_text())
        recipe, rows, tables = content["recipe"], content["rows"], {}
        for name, table in content["tables"].items():
            if unknown := {*table["rows"], table["reference"]} - set(rows):
                raise ValueError(f"table {name!r} of {path} names unknown rows: {', '.join(sorted(unknown))}.")
            grid = table.get("grid", {})
            points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
            runs = [
                Run(row, {**recipe, **rows[row], **point}, seed, tuple(table["judged_on"]))
                for seed in table["seeds"]
                for point in points
                for row in table["rows"]
            ]
            tables[name] = Table(table["title"], table["reference"], points, runs, table.get("picture"))
        return cls(content["teacher"], content["sequences"], tables)

    def judges(self, real: str | None = None) -> dict[str, dict[str, int] | str]:
        """Sets of sequences by name: seed and number of rendered ones, and the folder of the set `real`, if there is one."""
        return {**self.sequences, **({"real": real} if real else {})}

    def runs(self, tables: list[str] | None = None) -> list[Run]:
        """Runs of some tables and of their teacher, each once, in the order of the file."""
        if unknown := set(tables or ()) - set(self.tables):
            raise ValueError(f"no table is called {', '.join(sorted(unknown))}; there are {', '.join(self.tables)}.")
        chosen = [
            run for name in tables or self.tables for run in (self.tables[name].teacher, *self.tables[name].runs)
        ]
        return list({run.key: run for run in chosen}.values())


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Results in a file of a line each; none where there is no file.

    Raises:
        ValueError: a line cannot be read, as when a run was killed while it was written.
    """
    path, results = Path(path), []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            results.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"line {number} of {path} is no result ({error}). Remove it: its run is done again."
            ) from error
    return results


def find_result(run: Run, results: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """What a run gave, if it was judged on its sets, or on more."""
    judged = best_result(run, results)
    return judged if judged and set(run.judged_on) <= judged["auc"].keys() else None


def best_result(run: Run, results: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """What a run gave, judged on as many of its sets as ever, but on one at least."""
    same = [result for result in results if (result["settings"], result["seed"]) == (run.settings, run.seed)]
    judged = max(same, key=lambda result: len(result["auc"].keys() & set(run.judged_on)), default=None)
    return judged if judged and (judged["auc"].keys() & set(run.judged_on) or not run.judged_on) else None
