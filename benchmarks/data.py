"""Training pairs a second from a folder and from Parquet, beside the rate at which their frames can merely be decoded.

    OMP_NUM_THREADS=1 python benchmarks/data.py --out docs/results/data.json
    OMP_NUM_THREADS=1 python benchmarks/data.py --size 1280 720 --opened 0 --out docs/results/data_1280.json

Frames are rendered once and written as JPEG; batches come from the trainer's own loader. Everything takes turns
in one run. At the end, how long it takes to open a made-up data set of the size of LaSOT,
up to a stream of pairs, and the most memory that this takes. "Draft" is the option of that name of `stream_pairs`.
"""

import cProfile
import io
import multiprocessing
import pstats
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import psutil
import torch
from common import write_results
from PIL import Image
from transformers import HfArgumentParser

from ct_hf import OSTrackConfig, OSTrackModel
from ct_hf.compression import TrackerTrainer, TrackerTrainingArguments
from ct_hf.data import (
    PairSampler,
    ProceduralSequence,
    SequenceClips,
    StoredClips,
    convert_dataset,
    read_dataset,
    read_sequences,
    rendered_textures,
    stream_pairs,
)
from ct_hf.data.crops import cut_crop, frame_pixels
from ct_hf.data.frames import decode_frame
from ct_hf.evaluation.report import markdown_table
from ct_hf.models.image_processing_tracker import CropWindow


SHARES = {
    "decoding": ("frames.py:decode_frame",),
    "crops": ("crops.py:frame_pixels", "crops.py:cut_crop"),
    "augmentation": ("augmentation.py:__call__",),
    "collation": ("collator.py:__call__",),
}


@dataclass
class DataArguments:
    """What is written, and how long it is read."""

    photographs: str | None = field(default=None, metadata={"help": "Folder of photographs for the frames."})
    size: list[int] = field(default_factory=lambda: [640, 360], metadata={"help": "Width and height of the frames."})
    sequences: int = field(default=16, metadata={"help": "Sequences that are written."})
    frames: int = field(default=64, metadata={"help": "Frames of each."})
    quality: int = field(default=90, metadata={"help": "Of the JPEG files."})
    batch: int = field(default=32, metadata={"help": "Pairs of a batch."})
    batches: int = field(default=16, metadata={"help": "Batches of each turn."})
    turns: int = field(default=7, metadata={"help": "Turns of each source."})
    opened: int = field(
        default=1400, metadata={"help": "Sequences of 2,500 frames that are opened at the end; 0 for none."}
    )
    out: str | None = field(default=None, metadata={"help": "File for the figures; a table goes beside it."})


def write_folder(args: DataArguments, root: Path) -> None:
    """Render sequences to folders of JPEG files."""
    textures = rendered_textures(args.photographs)
    for number in range(args.sequences):
        sequence = ProceduralSequence(0, number, args.frames, size=tuple(args.size), textures=textures)
        folder = root / sequence.name
        folder.mkdir(parents=True)
        for index in range(args.frames):
            sequence.frame(index).save(folder / f"{index + 1:06d}.jpg", quality=args.quality)
        boxes = np.where(sequence.visible[:, None], sequence.boxes, np.nan)
        np.savetxt(folder / "groundtruth.txt", boxes, "%.2f", ",")


def read_batches(
    source: Any, model: OSTrackModel, args: DataArguments, workers: int, out: Path, draft: bool = False
) -> Iterator[Any]:
    """Batches as the trainer receives them."""
    settings = TrackerTrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=args.batch,
        dataloader_num_workers=workers,
        max_steps=1,
        use_cpu=True,
    )
    pairs = stream_pairs(source, model.config, seed=0, draft=draft)
    return iter(TrackerTrainer(model=model, args=settings, train_dataset=pairs).get_train_dataloader())


def time_batches(batches: Iterator[Any], workers: int, args: DataArguments) -> float:
    """Pairs a second of workers that are kept busy: what they had read before is taken first, and not timed."""
    for _ in islice(batches, 2 * workers):
        pass
    start = time.perf_counter()
    for _ in islice(batches, args.batches):
        pass
    rate = args.batches * args.batch / (time.perf_counter() - start)
    time.sleep(1)  # they read two batches each ahead, and disturb nobody afterwards
    return rate


def time_decoding(files: list[Path]) -> float:
    """Pairs of frames a second, decoded and dropped."""
    start = time.perf_counter()
    for file in files:
        Image.open(io.BytesIO(file.read_bytes())).load()
    return len(files) / 2 / (time.perf_counter() - start)


def time_cropping(files: list[Path], boxes: np.ndarray, config: OSTrackConfig) -> float:
    """Pairs a second of what no way of streaming can leave out: two frames decoded, cropped, brightened, laid into a batch."""
    template = np.empty((3, config.template_size, config.template_size), dtype=np.uint8)
    search = np.empty((3, config.search_size, config.search_size), dtype=np.uint8)
    crops = ((template, config.template_factor), (search, config.search_factor))
    table = np.clip(np.arange(256) * 1.1, 0, 255).astype(np.uint8)
    start = time.perf_counter()
    for number, (file, box) in enumerate(zip(files, boxes, strict=True)):
        place, factor = crops[number % 2]
        frame = decode_frame(file.read_bytes(), str(file))
        crop = cut_crop(CropWindow.around(box, factor, place.shape[-1]), frame_pixels(frame))
        place[:] = np.frombuffer(crop.tobytes().translate(table), np.uint8).reshape(crop.shape)
    return len(files) / 2 / (time.perf_counter() - start)


def shares(batches: Iterator[Any], count: int) -> dict[str, float]:
    """Parts of the time of some batches, read without workers."""
    profile = cProfile.Profile()
    profile.enable()
    for _ in islice(batches, count):
        pass
    profile.disable()
    stats = pstats.Stats(profile)
    found = dict.fromkeys(SHARES, 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():
        for name, keys in SHARES.items():
            if f"{Path(file).name}:{function}" in keys:
                found[name] += cumulative / stats.total_tt
    return {**found, "everything else": 1 - sum(found.values())}


def compare_drafts(clips: SequenceClips, config: OSTrackConfig) -> dict[str, float]:
    """How the crops of drafts differ from the others, in grey levels, and how many pairs have some."""
    full, draft = (PairSampler(config, augmentation=None, draft=draft) for draft in (False, True))
    errors, unlike = [], 0
    for number in range(len(clips)):
        clip = clips.read(number)
        one, other = (sampler.draw(clip, np.random.default_rng(number)) for sampler in (full, draft))
        for name in ("template_pixel_values", "search_pixel_values"):
            errors.append(np.abs(one[name].astype(int) - other[name]).mean())
        unlike += errors[-1] > 0
    used = [error for error in errors if error]
    return {"pairs": unlike / len(clips), "grey_levels": float(np.mean(used)) if used else 0.0}


def open_lasot(root: str, queue: multiprocessing.Queue) -> None:
    """Open the made-up data set for two workers; report seconds, the largest number of megabytes, and clips."""
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    clips = SequenceClips(read_dataset("lasot", root, "train", check=False))
    stream_pairs(clips, OSTrackConfig(), seed=0).shared(2)
    seconds, most = time.perf_counter() - start, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue.put((seconds, (most - before) / 2**20, len(clips)))


def start_up(root: Path, sequences: int, frames: int = 2500) -> tuple[float, float, int]:
    """Make a data set of annotation alone in LaSOT's layout and open it in a process of its own."""
    rng = np.random.default_rng(0)
    names = [f"made{number % 70}-{number}" for number in range(sequences)]
    (root / "training_set.txt").parent.mkdir(parents=True)
    (root / "training_set.txt").write_text("\n".join(names))
    for name in names:
        folder = root / name.rpartition("-")[0] / name
        (folder / "img").mkdir(parents=True)
        (folder / "img" / f"{frames:08d}.jpg").touch()
        np.savetxt(folder / "groundtruth.txt", rng.integers(1, 700, (frames, 4)), "%d", ",")
        for flag in ("full_occlusion.txt", "out_of_view.txt"):
            (folder / flag).write_text(",".join(map(str, (rng.random(frames) < 0.05).astype(int))))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=open_lasot, args=(str(root), queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def main() -> None:
    """Write, read, print."""
    (args,) = HfArgumentParser(DataArguments).parse_args_into_dataclasses()
    torch.set_num_threads(1)
    config = OSTrackConfig(
        template_size=128, search_size=256, hidden_size=32, num_hidden_layers=1, num_attention_heads=1
    )
    model, parts, memory = OSTrackModel(config), {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_folder(args, root / "folder")
        convert_dataset("folder", root / "folder", root / "parquet")
        sequences = read_sequences(root / "folder")
        chosen = np.random.default_rng(0).integers(args.frames, size=(2 * args.batches * args.batch, 1))
        places = [(sequences[number % args.sequences], frame) for number, (frame,) in enumerate(chosen.tolist())]
        shown = [np.flatnonzero(sequence.visible) for sequence, _ in places]
        places = [
            (sequence, frames[frame % len(frames)]) for (sequence, frame), frames in zip(places, shown, strict=True)
        ]
        files = [sequence.files[frame] for sequence, frame in places]
        boxes = np.stack([sequence.boxes[frame] for sequence, frame in places])
        actions: dict[str, Callable[[], float]] = {
            "decoding alone": partial(time_decoding, files),
            "decoding, cropping, brightness": partial(time_cropping, files, boxes, config),
        }
        workers_of: dict[str, list[psutil.Process]] = {}
        for name, source in {"folder": sequences, "Parquet": StoredClips(root / "parquet")}.items():
            batches = read_batches(source, model, args, 0, root / "out")
            next(batches)
            parts[name] = shares(batches, args.batches)
            for workers, draft in ((1, False), (2, False), (1, True)):
                label = f"{name}, {workers} worker{'s' if workers > 1 else ''}{', draft' if draft else ''}"
                others = set(psutil.Process().children())
                batches = read_batches(source, model, args, workers, root / "out", draft)
                next(batches)
                workers_of[label] = list(set(psutil.Process().children()) - others)
                actions[label] = partial(time_batches, batches, workers, args)
        rates = {name: [] for name in actions}
        for turn in range(args.turns + 1):
            for name, action in actions.items():
                rate = action()
                if turn:  # the first one warms up
                    rates[name].append(rate)
        for label, processes in workers_of.items():
            memory[label] = max(process.memory_full_info().uss for process in processes) / 2**20
        drafts = compare_drafts(SequenceClips(sequences), config)
        sides = np.sqrt(boxes[:, 2:].prod(axis=1))
        opened = start_up(root / "LaSOT", args.opened) if args.opened else None
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    alone, least = (medians[name] for name in list(actions)[:2])
    rows = [
        {
            "name": name,
            "pairs_per_second": rate,
            "of_decoding": rate / alone,
            "of_cropping": rate / least,
            "worker_mb": memory.get(name),
        }
        for name, rate in medians.items()
    ]
    cells = [
        [
            row["name"],
            f"{row['pairs_per_second']:.0f}",
            f"{row['of_decoding']:.2f}",
            f"{row['of_cropping']:.2f}",
            f"{row['worker_mb']:.0f}" if row["worker_mb"] else "",
        ]
        for row in rows
    ]
    header = ["Source", "Pairs a second", "Of decoding", "Of decoding and cropping", "Memory of a worker (MB)"]
    text = [markdown_table(header, cells), ""]
    for name, found in parts.items():
        text.append(f"{name}, in one process: " + ", ".join(f"{part} {100 * v:.0f} %" for part, v in found.items()))
    text += [
        "",
        f"Frames of {args.size[0]}x{args.size[1]}, targets of {np.median(sides):.0f} pixels in the median. Drafts: used of "
        f"{100 * drafts['pairs']:.0f} % of the pairs, whose crops differ by {drafts['grey_levels']:.1f} grey levels in the mean",
    ]
    if opened:
        figures = f"{opened[0]:.2f} s, {opened[1]:.0f} MB, {opened[2]:,} clips"
        text += ["", f"Opening {args.opened:,} x 2,500 annotations: {figures}"]
    conditions = {
        **vars(args),
        "out": None,
        "shares": parts,
        "start_up": opened,
        "drafts": drafts,
        "pillow": PIL.__version__,
    }
    write_results(args.out, conditions, rows, "\n".join(text))


if __name__ == "__main__":
    main()
