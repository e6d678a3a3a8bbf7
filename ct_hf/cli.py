"""The `ct-hf` command."""

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .cli_data import add_data_commands
from .cli_tracker import load_tracker


def _setting(text: str) -> tuple[str, Any]:
    """Read `key=value`, the value as JSON where it is, else as text."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"expected key=value, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _box(text: str) -> list[float]:
    """Read `x,y,w,h`."""
    try:
        box = [float(value) for value in text.split(",")]
    except ValueError:
        box = []
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise argparse.ArgumentTypeError(f"expected four numbers x,y,w,h in pixels, got {text!r}")
    return box


def convert(args: argparse.Namespace) -> None:
    """Convert an original checkpoint."""
    from .conversion import convert_to_directory

    report = convert_to_directory(args.family, args.variant, args.checkpoint, args.out, **dict(args.set))
    print(f"{report}\nsaved to {args.out}")


def evaluate(args: argparse.Namespace) -> None:
    """Track annotated sequences with one or several trackers and print their figures."""
    from .data.layouts import LAYOUTS, read_dataset, which_split
    from .evaluation import DatasetEvaluation, comparison_table, evaluate_trackers
    from .evaluation.results import without_nan

    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(args.json if args.json.exists() else args.json.parent, os.W_OK) or args.json.is_dir():
            raise ValueError(f"--json {args.json} cannot be written. Give the name of a file.")
    if args.out and args.sequences and args.out.resolve() == args.sequences.resolve():
        raise ValueError(f"--out {args.out} is the folder of the sequences. Keep results apart from what they are of.")
    layout, root = args.dataset or ("folder", args.sequences)
    split = which_split(layout, args.split)
    sequences = read_dataset(layout, root, split)
    names = _names(args.tracker)
    trackers = {name: _place(path, args) for path, name in zip(args.tracker, names, strict=True)}
    if args.out:
        evaluation = DatasetEvaluation(args.out, layout, split, args.protocol, args.batch_size)
        result = evaluation.run(trackers, sequences)
        if result is None:  # another process, or a server, judges
            if not all(sequence.annotated for sequence in sequences):
                print(f"saved to {args.out}, with a .zip for the server that holds the ground truth", file=sys.stderr)
            return
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("`--out` is needed with several processes, which share their results through files.")
    else:
        protocol = args.protocol or LAYOUTS[layout].protocol
        result = evaluate_trackers(trackers, sequences, protocol=protocol, batch_size=args.batch_size)
    speeds = {tracker.speed.conditions for tracker in result.trackers if tracker.speed}
    result = result.to_dict()
    print(comparison_table([{**row, "layers": len(trackers[row["name"]].layers)} for row in result["trackers"]]))
    print(
        "\n".join(f"FPS: {conditions}" for conditions in sorted(speeds)) or "FPS: not of one kind of run, so not known"
    )
    if args.out:
        print(f"saved to {args.out}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(without_nan(result), indent=2, allow_nan=False) + "\n")


def push(args: argparse.Namespace) -> None:
    """Push a tracker and its card to the Hub."""
    import ct_hf  # noqa: F401 - registers the trackers

    from .hub import push_folder

    commit = push_folder(
        args.folder, args.repository, private=not args.public, message=args.message, revision=args.revision
    )
    print(f"pushed to {commit.repo_url}, commit {commit.oid[:8]}")


def report(args: argparse.Namespace) -> None:
    """Make a page of what was evaluated."""
    from .evaluation.page import write_plots, write_report

    out = write_report(args.results, args.out)
    print(f"saved to {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if args.plots:
        print(f"saved {len(write_plots(args.results, args.plots))} plots to {args.plots}")


def track(args: argparse.Namespace) -> int:
    """Follow targets through a video."""
    from .tracking import open_video, record_tracks
    from .tracking.record import TrackTable, check_output

    for path in args.out:
        check_output(path)  # before the work of loading
    video = open_video(args.video)
    model = _place(args.tracker, args)
    with _asked_to_stop() as asked:
        outputs, lost = args.out or [TrackTable(sys.stdout)], {"threshold": args.threshold, "patience": args.patience}
        done = record_tracks(model, video, args.box, outputs, **lost, stop=asked)
    saved = f", saved to {', '.join(map(str, args.out))}" if args.out else ""
    print(f"{'stopped after' if done.stopped else 'tracked'} {done.num_frames} frames{saved}", file=sys.stderr)
    for target, lost in enumerate(done.lost, start=1):
        if lost:
            print(f"target {target} was lost in {lost} of them", file=sys.stderr)
    return 130 if done.stopped else 0


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or termination be asked for between two frames; a second one is as always."""
    asked = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]

    def restore() -> None:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)

    def ask(*_: Any) -> None:
        asked.append(True)
        restore()

    for number in signals:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        restore()


def _place(path: str, args: argparse.Namespace) -> Any:
    return load_tracker(path, "--tracker", args.dtype).to(_device(args.device))


def _names(trackers: list[str]) -> list[str]:
    """Call each tracker by its folder's name, or by all of its path where two are called alike."""
    if len(set(trackers)) < len(trackers):
        raise ValueError("`--tracker` names a tracker twice, expected distinct ones.")
    names = [Path(tracker).resolve().name if Path(tracker).is_dir() else tracker for tracker in trackers]
    return [name if names.count(name) == 1 else tracker for name, tracker in zip(names, trackers, strict=True)]


def _device(name: str) -> Any:
    import torch

    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # one for each of several processes
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"`--device` {name} is not available here; expected cpu, cuda, cuda:1 or the like."
        ) from error
    return torch.device(name)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="ct-hf", description="Compress, convert, use and judge visual object trackers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    commands.add_parser("compress", help="compress a tracker into one with fewer layers")

    command = commands.add_parser("convert", help="turn an original checkpoint into a model that AutoModel loads")
    command.set_defaults(run=convert)
    command.add_argument("--family", required=True, help="ostrack, sutrack, odtrack, mixformerv2 or compresstracker")
    command.add_argument(
        "--variant", required=True, help="the original's configuration name; another is answered by those there are"
    )
    command.add_argument("--checkpoint", required=True, type=Path, help="original file; nothing pickled in it is run")
    command.add_argument("--out", required=True, type=Path, help="folder to save to")
    command.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", help="override a configuration field"
    )

    command = commands.add_parser(
        "track", help="follow targets through a video, a folder of images or a camera's picture"
    )
    command.set_defaults(run=track)
    command.add_argument("video", help="video file, folder of images, or camera (0, /dev/video0)")
    command.add_argument(
        "--box",
        required=True,
        action="append",
        type=_box,
        metavar="X,Y,W,H",
        help="target in pixels of the first frame, from 0; several are tracked in one batch (--box=-5,0,20,20 if negative)",
    )
    command.add_argument("--tracker", required=True, help="folder or Hub repository")
    command.add_argument(
        "--out",
        action="append",
        default=[],
        type=Path,
        help="file to write, several: .mp4 with drawn boxes, .txt of x,y,w,h a frame, .csv with scores (default: to stdout)",
    )
    command.add_argument("--threshold", type=float, default=0.25, help="scores below it are low (default: 0.25)")
    command.add_argument(
        "--patience", type=int, default=5, help="low scores in a row with which a target is lost (default: 5)"
    )
    _add_device(command)

    command = commands.add_parser("evaluate", help="track annotated sequences and print accuracy and speed")
    command.set_defaults(run=evaluate)
    command.add_argument(
        "--tracker", required=True, nargs="+", help="folders or Hub repositories; the first is compared to"
    )
    data = command.add_mutually_exclusive_group(required=True)
    data.add_argument("--sequences", type=Path, help="folder of <sequence>/*.jpg + groundtruth.txt")
    data.add_argument(
        "--dataset",
        nargs=2,
        metavar=("LAYOUT", "ROOT"),
        help="data set in its own layout: lasot, lasot_ext, got10k, trackingnet, tnl2k, uav123, otb100, nfs, vot, ...",
    )
    command.add_argument("--split", help="split of the data set (default: the layout's first, such as test)")
    command.add_argument(
        "--out", type=Path, help="folder for boxes, figures and curves; what is in it is not tracked again"
    )
    command.add_argument("--json", type=Path, help="file to write the figures to")
    command.add_argument("--protocol", help="whose rules (default: the data set's own; visible for a folder)")
    command.add_argument(
        "--batch-size",
        default=8,
        type=int,
        help="sequences in lock-step; FPS is throughput then, and with 1 what a camera would get (default: 8)",
    )
    _add_device(command)

    command = commands.add_parser("report", help="make a page with tables, plots and pictures of what was evaluated")
    command.set_defaults(run=report)
    command.add_argument("results", nargs="+", type=Path, help="folders that `evaluate` wrote, a section each")
    command.add_argument(
        "--out", default=Path("report.html"), type=Path, help="HTML file, self-contained (default: report.html)"
    )
    command.add_argument("--plots", type=Path, help="folder to save the plots to as well, as .svg and .png")

    command = commands.add_parser(
        "push",
        help="push a tracker, its card and its code to a private Hub repository",
        description="Push a tracker in one commit. What was interrupted is repeated, and sends only what is missing.",
    )
    command.set_defaults(run=push)
    command.add_argument("folder", metavar="DIR", type=Path, help="what `compress` left behind, or a saved tracker")
    command.add_argument("repository", metavar="REPO", help="Hub repository, user/tracker, made if it is not there")
    command.add_argument("--public", action="store_true", help="let everybody see it (default: its owner alone)")
    command.add_argument("--message", default="Upload tracker", help="message of the commit (default: Upload tracker)")
    command.add_argument("--revision", help="branch to push to (default: the main one)")

    add_data_commands(commands.add_parser("data", help="look at data sets, and convert them for streaming"))
    return parser


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="cpu", help="device to track on (default: cpu)")
    command.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16"],
        help="type to compute in; bfloat16 is faster for large trackers where the processor has it (default: that of the weights)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run `ct-hf`.

    Args:
        argv (sequence of `str`, *optional*): arguments; those of the process by default.

    Returns:
        `int`: 0, 1 after an error that the user can mend, or 130 if it was stopped on its way.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["compress"]:  # takes all that transformers' Trainer takes, and says itself what is wrong
            from .cli_compress import main as compress

            compress(argv[1:])
            return 0
        return _run(argv)
    except KeyboardInterrupt:
        print("ct-hf: stopped", file=sys.stderr)
        return 130


def _run(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"ct-hf: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
