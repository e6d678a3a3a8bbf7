"""Tables and pictures of what the reproduction has run so far.

    python examples/reproduce/tables.py

reads `runs.jsonl` and `front.json` in `docs/results/reproduce` and writes `README.md` and pictures beside them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comparison import paired_bootstrap, spread
from experiments import Queue, Run, Table, best_result, read_results
from pictures import best_paths, plot_curves, plot_front, plot_rows
from run import HERE
from transformers import HfArgumentParser

from ct_hf.evaluation import save_plot
from ct_hf.evaluation.report import markdown_table


Results = list[dict[str, Any]]


@dataclass
class TablesArguments:
    """Where the runs are."""

    queue: str = field(default=str(HERE / "queue.json"), metadata={"help": "File of the queue."})
    tables: list[str] | None = field(default=None, metadata={"help": "Tables of the queue. Default: all."})
    results: str = field(default="docs/results/reproduce", metadata={"help": "Folder of the results."})


def done_runs(runs: list[Run], results: Results) -> list[dict[str, Any]]:
    """Results of those runs that are done, by whatever sets they were judged on."""
    found = (best_result(run, results) for run in runs)
    return [result for result in found if result is not None]


def compare(table: Table, point: dict[str, Any], results: Results, teacher: dict[str, float]) -> str:
    """Markdown of the rows at a point: steps, seconds, and for each set AUC, what was kept and the difference; the precision."""
    rows = rows_at(table, point, results)
    if not rows:
        return "Not run yet.\n"
    done = [result for row in rows.values() for result in row]
    sets = [name for name in table.runs[0].judged_on if any(name in result["auc"] for result in done)]
    header = ["Method", "Seeds", "Steps", "CPU seconds"]
    for name in sets:
        header += [f"AUC, {name}", *(["kept (%)"] if name in teacher else []), f"beside {table.reference} (95 %)"]
    lines = []
    for name, row in rows.items():
        seconds = sum(result["cpu_seconds"] for result in row) / len(row)
        line = [name, str(len(row)), str(row[0]["settings"]["max_steps"]), f"{seconds:.0f}"]
        for judged_on in sets:
            judged = on_set(row, judged_on)
            values = [result["auc"][judged_on] for result in judged]
            line.append(spread(values) if values else "")
            if judged_on in teacher:
                line.append(spread([100 * value / teacher[judged_on] for value in values]) if values else "")
            reference = on_set(rows.get(table.reference, []), judged_on) if name != table.reference else []
            line.append(str(paired_bootstrap(judged, reference, judged_on)) if judged and reference else "")
        lines.append(line)
    precisions = " and ".join(sorted({result["precision"] for result in done}))
    return f"{markdown_table(header, lines)}\n\nTrained in {precisions}."


def on_set(row: Results, judged_on: str) -> Results:
    """Those results of a row that were judged on a set."""
    return [result for result in row if judged_on in result["auc"]]


def rows_at(table: Table, point: dict[str, Any], results: Results) -> dict[str, list[dict[str, Any]]]:
    """Results at a point by row; rows without any are left out."""
    rows = {name: done_runs(runs, results) for name, runs in table.at(point).items()}
    return {name: row for name, row in rows.items() if row}


def describe(point: dict[str, Any]) -> str:
    """A point of a grid in words."""
    return ", ".join(f"`{name}` {value}" for name, value in point.items())


def draw(table: Table, results: Results, teacher: dict[str, float], folder: Path, name: str) -> list[str]:
    """Pictures of a table that asks for them, and Markdown that shows them."""
    shown = []
    for judged_on in teacher if table.picture else ():
        groups = {}
        for point in table.points:
            rows = {row: on_set(done, judged_on) for row, done in rows_at(table, point, results).items()}
            if rows := {row: done for row, done in rows.items() if done}:
                groups[describe(point)] = rows
        if not groups:
            continue
        plot = {"bars": plot_rows, "curves": plot_curves}[table.picture]
        file = save_plot(plot(groups, judged_on, teacher[judged_on]), folder / f"{name}_{judged_on}.png")
        shown.append(f"![{table.title}, on {judged_on} sequences]({file.name})")
    return [*shown, ""] if shown else []


def front_text(folder: Path) -> list[str]:
    """Table and pictures of the front of each method; the table has the speeds of the first, as paths cost the same in all."""
    fronts = {name: front["paths"] for name, front in json.loads((folder / "front.json").read_text()).items()}
    (rows, *_) = fronts.values()
    sets = list(rows[0]["auc"])
    text = ["## Every path of one run as a tracker", ""]
    for judged_on in sets:
        judged = {name: paths for name, paths in fronts.items() if judged_on in paths[0]["auc"]}
        file = save_plot(plot_front(judged, judged_on), folder / f"front_{judged_on}.png")
        text += [f"![AUC against milliseconds of every path, on {judged_on} sequences]({file.name})", ""]
    columns = [(name, on) for on in sets for name, paths in fronts.items() if on in paths[0]["auc"]]
    auc = {name: {row["path"]: row["auc"] for row in paths} for name, paths in fronts.items()}
    best = {(name, on): {row["path"] for row in best_paths(fronts[name], on)} for name, on in columns}

    def cell(path: str, name: str, judged_on: str) -> str:
        figure = f"{auc[name][path][judged_on]:.1f}"
        return f"**{figure}**" if path in best[name, judged_on] else figure

    header = ["Path", "Layers", "Milliseconds", *(f"AUC, {on}, {name}" for name, on in columns)]
    lines = [
        [
            row["path"],
            str(row["layers"]),
            f"{row['milliseconds']:.1f}",
            *(cell(row["path"], name, on) for name, on in columns),
        ]
        for row in sorted(rows, key=lambda row: row["milliseconds"])
    ]
    return [
        *text,
        markdown_table(header, lines),
        "",
        "Bold: no path of the method has as few layers and is better.",
        "",
    ]


def main() -> None:
    """Write everything."""
    (args,) = HfArgumentParser(TablesArguments).parse_args_into_dataclasses()
    folder = Path(args.results)
    queue, results = Queue.read(args.queue), read_results(folder / "runs.jsonl")
    text = ["# Tables of the reproduction", "", "By `examples/reproduce/tables.py` from [the runs](runs.jsonl).", ""]
    for name in args.tables or queue.tables:
        table = queue.tables[name]
        judged = done_runs([table.teacher], results)
        teacher = judged[0]["auc"] if judged else {}
        text += [f"## {table.title}", ""]
        for point in table.points:
            text += [*([f"{describe(point)}:", ""] if point else []), compare(table, point, results, teacher), ""]
        text += draw(table, results, teacher, folder, name)
    if args.tables is None and (folder / "front.json").exists():
        text += front_text(folder)
    (folder / "README.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
