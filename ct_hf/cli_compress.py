"""The `ct-hf compress` command, which `examples/compress.py` runs too."""

import copy
import json
import re
import sys
import time
from argparse import SUPPRESS, Action, ArgumentDefaultsHelpFormatter, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, HfArgumentParser, TrainingArguments, set_seed
from transformers.trainer_utils import SaveStrategy

from .cli_card import describe_run
from .cli_tracker import load_tracker
from .compression import (
    CompressionArguments,
    CompressionTrainer,
    TrackerTrainer,
    build_student,
    describe_compression,
    plan_from_arguments,
    plot_training,
)
from .compression.checkpoints import list_checkpoints
from .compression.true_tracking import check_tracking_dataset
from .data import (
    Photographs,
    ProceduralWorld,
    Sequence,
    open_source,
    procedural_sequences,
    read_sequences,
    rendered_textures,
    stream_pairs,
)
from .evaluation import comparison_table, draw_animation, draw_strip, evaluate_trackers, save_plot
from .hub import write_card
from .models.cost import count_gmacs
from .names import public_name


DESCRIPTION = """Compress a tracker into one with fewer layers, and show what it kept.

On your own tracker and videos (folders of <sequence>/*.jpg + groundtruth.txt), and on several data sets, on a disk or
streamed from the Hub:

  ct-hf compress --teacher org/tracker --train videos/train --eval videos/val --num_stages 4 --max_steps 20000
  ct-hf compress --teacher org/tracker --train lasot:data/LaSOT got10k:data/GOT-10k user/clips --ratios 1 1 0.5 \\
      --max_steps 20000

The recipe is the paper's, which takes 500 epochs of 60,000 pairs, 117,188 steps of 256; how many steps yours takes is
said by --max_steps.
A checkpoint is saved every --save_steps steps, the newest two are kept, and --resume_from_checkpoint True goes on from the
newest.
--dry_run says what would happen, and stops. --eval_strategy steps --eval_steps 200 --load_best_model_at_end tracks the
sequences of --eval every 200 steps and keeps the student that tracks them best; they then judge what they chose, so judge it
on others too. On several GPUs: accelerate launch -m ct_hf.cli compress ..., see examples/accelerate_configs."""
EPILOG = (
    "These are the settings of the method and those most used. --help_all shows all that transformers' Trainer takes."
)
USUAL = {
    "output_dir",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "weight_decay",
    "max_grad_norm",
    "seed",
    "bf16",
    "use_cpu",
    "dataloader_num_workers",
    "logging_steps",
    "report_to",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "resume_from_checkpoint",
    "eval_strategy",
    "eval_steps",
    "load_best_model_at_end",
    "auto_find_batch_size",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
}
"""Arguments of the Trainer that the help shows."""


@dataclass
class ScriptArguments:
    """What to compress, and on which sequences."""

    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub repository of the tracker to compress."}
    )
    train: list[str] | None = field(
        default=None,
        metadata={
            "help": "What to train on: a folder of annotated sequences, a data set in its own layout such as "
            "lasot:data/LaSOT, a folder of stored clips or a Hub repository of them; or several. Default: rendered on the fly."
        },
    )
    ratios: list[float] | None = field(
        default=None, metadata={"help": "Pairs of each of several data sets to train on. Default: as many of each."}
    )
    eval: str | None = field(
        default=None,
        metadata={
            "help": "Folder of annotated sequences to judge on, while training too with --eval_strategy. Default: "
            "rendered, of another seed."
        },
    )
    eval_sequences: int = field(default=40, metadata={"help": "Rendered sequences to judge on."})
    photographs: str | None = field(
        default=None, metadata={"help": "Folder of photographs for the rendered sequences. Default: textures alone."}
    )
    search_frames: int = field(
        default=1,
        metadata={"help": "Search frames in a row of each pair, for trackers with a memory such as ODTrack."},
    )
    draft: bool = field(
        default=False,
        metadata={
            "help": "Decode JPEG frames of --train to 1/2, 1/4 or 1/8 of their size where the crops are smaller still: "
            "faster where frames are large, and crops are smoother than in tracking."
        },
    )
    max_bad: float = field(
        default=0.01,
        metadata={
            "help": "Share of the sequences of --train, and of draws from them, that may be broken; they are counted."
        },
    )
    center_jitter: float | None = field(
        default=None,
        metadata={
            "help": "Largest shift of a search crop from its target is half of this, in sides of the target. Default: the "
            "teacher's search factor less 1, 3 for OSTrack-256."
        },
    )
    scale_jitter: float = field(
        default=0.25,
        metadata={"help": "Standard deviation of the log of the factors by which a search crop is scaled."},
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention of teacher and student while training, by transformers' name. Default: the teacher's, sdpa as "
            "a rule. On a processor, eager may be faster with --bf16, for small trackers above all."
        },
    )
    from_scratch: bool = field(
        default=False,
        metadata={"help": "Train a student of the same shape on ground truth alone for as many steps, to compare."},
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Say stages, initialisation, size, cost and memory, and stop."}
    )


def build_parser() -> HfArgumentParser:
    """Describe the command line. Where nothing else is said, the recipe is the paper's; how many steps, its user says."""
    parser = HfArgumentParser(
        (ScriptArguments, CompressionArguments),
        prog="ct-hf compress",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="ct-hf compress --teacher TRACKER [--train DATA ...] [--eval VIDEOS] [settings]",
        formatter_class=_Formatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, default=SUPPRESS, help="Show this, and stop.")
    parser.add_argument("--help_all", "--help-all", action=_Help, nargs=0, default=SUPPRESS, help="Show all.")
    parser.set_defaults(
        output_dir="outputs/compress",
        per_device_train_batch_size=32,
        metric_for_best_model="tracking_auc",
        dataloader_num_workers=1,
        save_total_limit=2,
    )
    return parser


class _Formatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Lines of the description as they stand, and the default of each setting."""


class _Help(Action):
    """Help of the method's own settings and the usual ones; of all with `--help_all`."""

    def __call__(self, parser: ArgumentParser, namespace: Any, values: Any, option_string: str | None = None) -> None:
        inherited = {field.name for field in fields(TrainingArguments)} - USUAL
        for action in parser._actions:
            if action.dest in inherited and option_string in ("-h", "--help"):
                action.help = SUPPRESS
        parser.print_help()
        parser.exit()


@contextmanager
def _answered_in_a_line(parser: ArgumentParser) -> Iterator[None]:
    """Say what is wrong with what the user gave as a command does; what goes wrong in training keeps its traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))


def judge(trackers: dict[str, torch.nn.Module], sequences: list) -> tuple[list[dict], dict]:
    """Track the sequences with each tracker in turn; return a row for each, and the predicted boxes."""
    result = evaluate_trackers(trackers, sequences)
    rows = []
    for row in result.to_dict()["trackers"]:
        tracker = trackers[row["name"]]
        rows.append({**row, "layers": len(tracker.layers), "gmacs": count_gmacs(tracker)})
    return rows, {tracker.name: tracker.predictions for tracker in result.trackers}


def train_from_scratch(
    config: Any, args: CompressionArguments, pairs: Any, tracking_dataset: list[Sequence] | None, folder: Path
) -> None:
    """Train a tracker of the student's shape on ground truth alone, with the same recipe and pairs, and save it.

    A run that is resumed goes on with its own checkpoints, where it has any.
    """
    set_seed(args.seed)
    args = copy.copy(args)
    args.output_dir = str(folder)  # of its checkpoints
    args.push_to_hub = False
    own = config.for_student(config.num_hidden_layers)  # without the record of a compression
    model = AutoModel.from_config(own, attn_implementation=config._attn_implementation)
    trainer = TrackerTrainer(model=model, args=args, train_dataset=pairs, tracking_dataset=tracking_dataset)
    trainer.train(resume_from_checkpoint=bool(args.resume_from_checkpoint and list_checkpoints(folder)))
    trainer.save_model(str(folder))


def main(argv: list[str] | None = None, description: str = DESCRIPTION, **defaults: Any) -> None:
    """Compress, judge, save, and track with what was saved.

    Args:
        argv (`list[str]`, *optional*): arguments; those of the process by default.
        description (`str`, *optional*): what the help says first; by default that the recipe is the paper's.
        defaults: values of settings that `argv` does not name, such as `learning_rate=1e-3`.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    parser.description = description
    parser.set_defaults(**defaults)
    # Where a user says nothing else, checkpoints come every --save_steps and the best beside. transformers knows no such
    # strategy, and would ask that one number of steps is a multiple of the other.
    usual = "save_strategy" not in defaults and not any(re.match("--save[_-]str", word) for word in argv)
    with _answered_in_a_line(parser):
        script, args = parser.parse_args_into_dataclasses([*argv, "--save_strategy", "best"] if usual else argv)
    if usual:
        args.save_strategy = SaveStrategy.STEPS
    used = {
        name: value for name, value in defaults.items() if value == getattr(script, name, getattr(args, name, None))
    }
    if script.teacher is None:
        parser.error("--teacher is missing: give the folder or the Hub repository of the tracker to compress.")
    if args.eval_strategy == "no" and args.load_best_model_at_end:
        parser.error(
            "--load_best_model_at_end has nothing to choose by: give --eval_strategy steps, and --eval_steps."
        )
    out = Path(args.output_dir)
    if (there := list_checkpoints(out)) and not args.resume_from_checkpoint and not script.dry_run:
        parser.error(
            f"--output_dir {out} holds {there[-1].name} of another run, which this one would remove. Go on with it by "
            "--resume_from_checkpoint True, give another folder, or delete this one."
        )
    if script.ratios and len(script.ratios) != len(script.train or ()):
        parser.error(f"--ratios has {len(script.ratios)} numbers for {len(script.train or ())} data sets of --train.")
    set_seed(args.seed)
    started = time.perf_counter()

    ################
    # Teacher and student
    ################
    with _answered_in_a_line(parser):
        teacher = load_tracker(script.teacher, "--teacher")
        plan = plan_from_arguments(args, teacher, num_stages=max(1, len(teacher.layers) // 3))
        drops = args.drop_path_rate or hasattr(teacher.config, "drop_path_rate")
        changes = {"drop_path_rate": args.drop_path_rate} if drops else {}
        student, report = build_student(teacher, plan, args.initialization, **changes)
    batch_size = args.per_device_train_batch_size
    weights = {name: getattr(args, name) for name in ("track_weight", "guidance_weight", "mimicking_weight")}
    summary = describe_compression(student, teacher, plan, report, batch_size, script.search_frames, **weights)
    if args.should_log:
        print(summary)
        if teacher.carries_memory and script.search_frames == 1:
            print(
                "The teacher carries a memory from frame to frame, which one search frame does not train: --search_frames 2."
            )
    if script.dry_run:
        return

    ################
    # Training
    ################
    with _answered_in_a_line(parser):
        if script.attn_implementation:  # not sooner: what is described runs on the processor, in fp32
            for tracker in (teacher, student):
                tracker.set_attn_implementation(script.attn_implementation)
        if script.train:
            readers = args.world_size * max(1, args.dataloader_num_workers)
            shards = readers * -(-8 // readers)  # readers that share them out evenly draw from each clip as often
            source = {place: open_source(place, shards, script.max_bad) for place in script.train}
            ratios = dict(zip(script.train, script.ratios, strict=True)) if script.ratios else None
        else:
            source, ratios = ProceduralWorld(textures=rendered_textures(script.photographs)), None
        if script.eval:
            eval_sequences, judged_on = read_sequences(script.eval), f"sequences of `{public_name(script.eval)}`"
        else:
            held_out = Photographs(script.photographs, "test") if script.photographs else None
            eval_sequences = procedural_sequences(args.seed + 10_000, script.eval_sequences, textures=held_out)
            judged_on = f"rendered sequences of another seed ({args.seed + 10_000})"
        check_tracking_dataset(eval_sequences)  # it is judged at the end at any rate
        # Where nothing is tracked while training, trackers that are spread over processes may train too.
        tracking_dataset = eval_sequences if args.eval_strategy != "no" else None
        pairs = stream_pairs(
            source,
            teacher.config,
            seed=args.seed,
            ratios=ratios,
            clip_length=6,
            pairs_per_clip=4 if script.train else 12,
            max_bad=script.max_bad,
            num_search_frames=script.search_frames,
            center_jitter=script.center_jitter,
            scale_jitter=script.scale_jitter,
            draft=script.draft,
        )
        trainer = CompressionTrainer(
            model=student,
            teacher_model=teacher,
            args=args,
            train_dataset=pairs,
            plan=plan,
            tracking_dataset=tracking_dataset,
        )
        checkpoint = trainer.find_checkpoint(args.resume_from_checkpoint)
    training = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(out / "student"), _internal_call=True)  # it is pushed below, with all that is said of it
    skipped = dict(trainer.skipped)
    logged = any("loss" in row for row in trainer.state.log_history)  # a run may be shorter than `logging_steps`
    curves = args.should_save and logged and bool(find_spec("matplotlib"))
    if curves:
        save_plot(plot_training(trainer.state.log_history), out / "training.png")
    folders = {"student": out / "student"}
    if script.from_scratch:
        folders["from scratch"] = out / "from_scratch"
        train_from_scratch(student.config, args, pairs, tracking_dataset, folders["from scratch"])
    trainer.end_training()  # processes part here
    if not args.should_save:
        return

    ################
    # Result
    ################
    # What is judged is what a user would load, not what is in memory.
    students = {name: AutoModel.from_pretrained(folder) for name, folder in folders.items()}
    # A teacher stored in half precision had a student of full precision: their speeds are compared in one type.
    dtype = str(students["student"].dtype).removeprefix("torch.")
    trackers = {"teacher": load_tracker(script.teacher, "--teacher", dtype), **students}
    trackers = {name: tracker.to(teacher.device) for name, tracker in trackers.items()}
    # Frames come one by one: on several threads a small tracker is slower, and its speed unsteady.
    torch.set_num_threads(1)
    student = trackers["student"]
    rows, predictions = judge(trackers, eval_sequences)
    table = comparison_table(rows)
    print(f"\n{len(eval_sequences)} sequences:\n{table}")

    # The ones that the teacher follows best: there a reader sees what the student lost.
    followed = rows[0]["per_sequence"]
    best = sorted(eval_sequences, key=lambda sequence: followed[sequence.name]["auc"], reverse=True)
    shown = best[0]
    draw_strip(shown, {name: tracks[shown.name] for name, tracks in predictions.items()}).save(out / "tracks.png")
    alike = [sequence for sequence in best if len(sequence) == len(shown)][:2]
    frames = draw_animation(alike, predictions, frames=range(0, min(len(shown), 180), 2))  # a file to look at: 12 s
    frames[0].save(out / "tracks.gif", save_all=True, append_images=frames[1:], duration=133, loop=0)
    pictures = [out / "training.png"] if curves else []
    if not script.eval and not script.photographs:  # a card is made to be shared, and others' pictures are not
        pictures.append(out / "tracks.png")
    card = describe_run(
        student.config.compression,
        rows,
        argv=[*(f"--{name}={value}" for name, value in used.items()), *argv],
        teacher=script.teacher,
        plan=plan,
        report=report,
        num_processes=args.world_size,
        num_sequences=len(eval_sequences),
        judged_on=judged_on,
        photographs=bool(script.photographs),
        pictures=pictures,
    )
    write_card(out / "student", student, card)
    figures = {row["name"]: {key: row[key] for key in ("layers", "parameters", "gmacs", "auc", "fps")} for row in rows}
    seconds = time.perf_counter() - started
    teacher_row, student_row = figures["teacher"], figures["student"]
    retention = 100 * student_row["auc"] / teacher_row["auc"]
    content = {
        **{name.replace(" ", "_"): figure for name, figure in figures.items()},
        "retention": retention,
        "speedup": student_row["fps"] / teacher_row["fps"],
        "sequences": len(eval_sequences),
        "steps": args.max_steps,
        "skipped": skipped,
        "training_seconds": training.metrics["train_runtime"],
        "seconds": seconds,
    }
    (out / "summary.json").write_text(json.dumps(content, indent=2) + "\n")

    session = student.start(shown.frame(0), shown.boxes[0])
    track = session.update(shown.frame(1))
    print(f"the saved student finds {shown.name}'s target in frame 1 at {track.box.round(1)}, score {track.score:.2f}")
    print(
        f"kept {retention:.1f} % of the teacher's AUC with {student_row['layers']} of {teacher_row['layers']} layers, "
        f"{content['speedup']:.2f}x its speed, in {seconds:.0f} s; see {out}"
    )

    if args.push_to_hub:
        commit = trainer.push_run(out)
        print(f"pushed to {commit.repo_url}, commit {commit.oid[:8]}")
