"""The `ct-hf` command."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def _setting(text: str) -> tuple[str, Any]:
    """Read `key=value`, the value as JSON where it is, else as text."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"expected key=value, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def convert(args: argparse.Namespace) -> None:
    """Convert an original checkpoint."""
    from .conversion import convert_to_directory

    report = convert_to_directory(args.family, args.variant, args.checkpoint, args.out, **dict(args.set))
    print(f"{report}\nsaved to {args.out}")


def evaluate(args: argparse.Namespace) -> None:
    """Track annotated sequences with one or several trackers and print their figures."""
    from transformers import AutoModel

    import ct_hf  # noqa: F401 - registers the trackers

    from .data.sequences import read_sequences
    from .evaluation import comparison_table, evaluate_trackers
    from .models import PreTrainedTracker

    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.touch()  # a file that cannot be written is found before the work is done
    sequences = read_sequences(args.sequences)
    trackers = {}
    for path, name in zip(args.tracker, _names(args.tracker), strict=True):
        model = AutoModel.from_pretrained(path)
        if not isinstance(model, PreTrainedTracker):
            raise ValueError(f"`--tracker` {path} holds a {type(model).__name__}, which is no tracker.")
        trackers[name] = model.to(_device(args.device)).eval()
    result = evaluate_trackers(trackers, sequences).to_dict()
    print(comparison_table([{**row, "layers": len(trackers[row["name"]].layers)} for row in result["trackers"]]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def _names(trackers: list[str]) -> list[str]:
    """Call each tracker by its folder's name, or by all of its path where two are called alike."""
    if len(set(trackers)) < len(trackers):
        raise ValueError("`--tracker` names a tracker twice, expected distinct ones.")
    names = [Path(tracker).resolve().name if Path(tracker).is_dir() else tracker for tracker in trackers]
    return [name if names.count(name) == 1 else tracker for name, tracker in zip(names, trackers, strict=True)]


def _device(name: str) -> Any:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"`--device` {name} is not available here; expected cpu, cuda, cuda:1 or the like."
        ) from error
    return torch.device(name)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="ct-hf", description="Compress, convert and judge visual object trackers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("convert", help="turn an original checkpoint into a model that AutoModel loads")
    command.set_defaults(run=convert)
    command.add_argument("--family", required=True, help="family of the tracker")
    command.add_argument("--variant", required=True, help="the original's configuration name")
    command.add_argument("--checkpoint", required=True, type=Path, help="original file; nothing pickled in it is run")
    command.add_argument("--out", required=True, type=Path, help="folder to save to")
    command.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", help="override a configuration field"
    )

    command = commands.add_parser("evaluate", help="track annotated sequences and print accuracy and speed")
    command.set_defaults(run=evaluate)
    command.add_argument(
        "--tracker", required=True, nargs="+", help="folders or Hub repositories; the first is compared to"
    )
    command.add_argument("--sequences", required=True, type=Path, help="folder of <sequence>/*.jpg + groundtruth.txt")
    command.add_argument("--json", type=Path, help="file to write the figures to")
    command.add_argument("--device", default="cpu", help="device to track on (default: cpu)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run `ct-hf`.

    Args:
        argv (sequence of `str`, *optional*): arguments; those of the process by default.

    Returns:
        `int`: 0, or 1 after an error that the user can mend.
    """
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"ct-hf: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
