"""The `ct-hf data` commands."""

import argparse
import sys
from pathlib import Path

import numpy as np

from .data import Sequence, SequenceError


_SEQUENCES_A_PAIR = 4  # of so many sequences at most, pairs are drawn for a contact sheet


def convert(args: argparse.Namespace) -> None:
    """Convert a data set to shards of clips, write its card, and push both if asked to."""
    from huggingface_hub.utils import validate_repo_id

    from .data import convert_dataset
    from .hub import push_dataset, write_dataset_card

    if args.push_to_hub:
        validate_repo_id(args.push_to_hub)
    if args.license != args.license.lower():
        raise ValueError(f"--license {args.license} is not spelled as the Hub does: in small letters, such as mit.")
    if args.push_to_hub and args.license == "unknown":
        raise ValueError(
            "--push-to-hub needs --license, in the Hub's spelling, such as cc-by-nc-sa-4.0 or other: it is kept in every clip, "
            "and cannot be added later."
        )
    if not 0 <= args.max_bad <= 1:
        raise ValueError(f"--max-bad must be a share from 0 to 1, got {args.max_bad:g}.")
    done = convert_dataset(
        args.layout, args.root, args.out, split=args.split, stride=args.stride, license=args.license, progress=True
    )
    write_dataset_card(done, args.push_to_hub)
    print(
        f"{done.sequences} sequences, {done.clips} clips, {done.frames} frames, {done.size / 1e6:.1f} MB in {args.out}; left "
        f"out: {done.count('sequences').total()} sequences, {done.count('frames').total()} frames"
    )
    done.check(args.max_bad)
    if args.push_to_hub:
        print(f"pushed to {push_dataset(done, args.push_to_hub)}")


def show(args: argparse.Namespace) -> None:
    """Draw training pairs of a data set."""
    from PIL import Image
    from transformers import AutoConfig

    from .data import LAYOUTS, PairSampler, SequenceClips, draw_pairs, read_dataset
    from .data.errors import describe_causes
    from .models import OSTrackConfig

    if args.out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--out {args.out} does not end as an image does. Call it sheet.png, for instance.")
    config = AutoConfig.from_pretrained(args.tracker) if args.tracker else OSTrackConfig()
    split = args.split or (LAYOUTS[args.layout].training_split if args.layout in LAYOUTS else None)
    sequences = read_dataset(args.layout, args.root, split, check=False)
    drawn = _draw_sequences(sequences, _SEQUENCES_A_PAIR * args.pairs, args.seed)
    clips = SequenceClips(drawn, max_bad=1.0)  # what is broken is told below
    sheet, skipped = draw_pairs(clips, PairSampler(config), seed=args.seed, num_pairs=args.pairs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out)
    print(f"{args.pairs} pairs of {len(drawn)} of {len(sequences)} sequences, saved to {args.out}")
    for what, causes in (("sequences", clips.left_out), ("draws", skipped)):
        if causes:
            print(f"{what} that could not be used: {describe_causes(causes)}", file=sys.stderr)


def _draw_sequences(sequences: list[Sequence], count: int, seed: int) -> list[Sequence]:
    """Sequences at random, as many as it takes to have `count` usable ones: the annotation of all may be behind a URL."""
    from .data.clips import check_usable

    drawn, usable = [], 0
    for index in np.random.default_rng(seed).permutation(len(sequences)):
        drawn.append(sequences[index])
        try:
            check_usable(sequences[index])
        except SequenceError:  # counted with the clips
            continue
        usable += 1
        if usable == count:
            break
    return drawn


def add_data_commands(parser: argparse.ArgumentParser) -> None:
    """Describe the commands below `ct-hf data`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "convert",
        help="convert a data set to Parquet shards of clips that `datasets` streams from a folder or the Hub",
        description="Convert a data set to Parquet shards of clips. What was interrupted goes on when it is run again.",
    )
    command.set_defaults(run=convert)
    _add_source(command)
    command.add_argument(
        "out", type=Path, metavar="OUT", help="folder to write to: new, empty or of the same conversion"
    )
    command.add_argument(
        "--stride",
        default=8,
        type=int,
        help="most frames between neighbours in a clip, which has at most 32, at most 200 apart (default: 8)",
    )
    command.add_argument(
        "--license",
        default="unknown",
        help="the data set's licence in the Hub's spelling, such as cc-by-nc-sa-4.0; needed to push (default: unknown)",
    )
    command.add_argument(
        "--max-bad",
        default=0.01,
        type=float,
        help="share of sequences or frames that may be left out; more is an error at the end (default: 0.01)",
    )
    command.add_argument("--push-to-hub", metavar="REPO", help="data set repository to push to, made private if new")

    command = commands.add_parser(
        "show",
        help="draw sampled training pairs with their boxes into one picture",
        description="Draw training pairs as the training stream gives them, jittered and augmented, with their boxes.",
    )
    command.set_defaults(run=show)
    _add_source(command)
    command.add_argument("--out", default=Path("sheet.png"), type=Path, help="picture to write (default: sheet.png)")
    command.add_argument("--pairs", default=24, type=int, help="number of pairs (default: 24)")
    command.add_argument("--seed", default=0, type=int, help="seed of all draws (default: 0)")
    command.add_argument(
        "--tracker",
        help="folder or Hub repository of the tracker whose crops are drawn (default: template 128, search 256)",
    )


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "layout", metavar="LAYOUT", help="lasot, got10k, trackingnet, folder ...; see docs/datasets.md"
    )
    command.add_argument(
        "root",
        metavar="ROOT",
        help="folder of the data set; for lasot, lasot_ext and trackingnet also a URL such as hf://datasets/...",
    )
    command.add_argument("--split", help="split of the data set (default: train where there is one)")


__all__ = ["add_data_commands"]
