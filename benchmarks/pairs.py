"""Training pairs a second on one core, from rendering or reading to crops.

    OMP_NUM_THREADS=1 python benchmarks/pairs.py --photographs outputs/photographs --sequences videos

The sources take turns, so that a machine which slows down does it to all of them; the median of the turns is printed.
"""

import json
import time
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from transformers import HfArgumentParser

from ct_hf import OSTrackConfig
from ct_hf.data import Photographs, ProceduralWorld, read_sequences, rendered_textures, stream_pairs
from ct_hf.evaluation.hardware import describe_device
from ct_hf.evaluation.report import markdown_table


@dataclass
class PairsArguments:
    """Sources beside the plain world of textures, and how long to measure."""

    photographs: str | None = field(default=None, metadata={"help": "Folder of photographs for a rendered world."})
    sequences: str | None = field(default=None, metadata={"help": "Folder of annotated sequences."})
    clip_length: int = field(default=6, metadata={"help": "Frames read or rendered at a time."})
    pairs_per_clip: int = field(default=12, metadata={"help": "Pairs drawn from these."})
    pairs: int = field(default=480, metadata={"help": "Pairs of each turn."})
    turns: int = field(default=5, metadata={"help": "Turns of each source."})
    out: str | None = field(default=None, metadata={"help": "File for the figures."})


def main() -> None:
    """Measure and print."""
    (args,) = HfArgumentParser(PairsArguments).parse_args_into_dataclasses()
    config = OSTrackConfig(template_size=64, search_size=128)
    sources = {"rendered, textures": ProceduralWorld()}
    if args.photographs:
        sources["rendered, photographs"] = ProceduralWorld(textures=Photographs(args.photographs))
        sources["rendered, both, as for the teacher"] = ProceduralWorld(textures=rendered_textures(args.photographs))
    if args.sequences:
        sources["folder of sequences"] = read_sequences(args.sequences)
    streams = {
        name: iter(
            stream_pairs(source, config, seed=0, clip_length=args.clip_length, pairs_per_clip=args.pairs_per_clip)
        )
        for name, source in sources.items()
    }
    rates = {name: [] for name in streams}
    for turn in range(args.turns + 1):
        for name, stream in streams.items():
            start = time.perf_counter()
            count = sum(1 for _ in islice(stream, args.pairs))
            if turn:  # the first one reads photographs and fills caches
                rates[name].append(count / (time.perf_counter() - start))
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    print(markdown_table(["Source", "Pairs a second"], [[name, f"{rate:.0f}"] for name, rate in medians.items()]))
    if args.out:
        processor = describe_device(torch.device("cpu"))
        figures = {"processor": processor, "median": medians, "turns": rates, "clip_length": args.clip_length}
        with open(args.out, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
