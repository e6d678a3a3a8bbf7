"""Train a small OSTrack on procedural sequences, as a teacher for the demo.

    accelerate launch examples/train_teacher.py --max_steps 4000 --output_dir outputs/teacher

Everything is rendered on the fly; no footage is needed. A run that was stopped goes on with
--resume_from_checkpoint outputs/teacher/checkpoint-1000.
"""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoModel, HfArgumentParser, set_seed

from ct_hf import OSTrackConfig, OSTrackModel
from ct_hf.compression import TrackerTrainer, TrackerTrainingArguments
from ct_hf.data import ProceduralWorld, procedural_sequences, read_sequences, stream_pairs
from ct_hf.evaluation import evaluate_trackers


@dataclass
class TeacherArguments:
    """Size of the teacher and what it is judged on."""

    num_hidden_layers: int = field(default=9, metadata={"help": "Layers of the trunk."})
    hidden_size: int = field(default=128, metadata={"help": "Width of the tokens."})
    eval_sequences: int = field(default=20, metadata={"help": "Held-out procedural sequences to track at the end."})
    eval: str | None = field(default=None, metadata={"help": "Folder of annotated sequences to track at the end too."})


def main() -> None:
    """Train, save, and track held-out sequences."""
    parser = HfArgumentParser((TeacherArguments, TrackerTrainingArguments))
    # From scratch and short: the paper's recipe is for 500 epochs from a pretrained backbone.
    parser.set_defaults(
        output_dir="outputs/teacher",
        max_steps=4000,
        per_device_train_batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.02,
        max_grad_norm=1.0,
        lr_scheduler_type="cosine",
        warmup_steps=200,
        dataloader_num_workers=1,
        save_steps=500,
        save_total_limit=2,
    )
    teacher_args, args = parser.parse_args_into_dataclasses()
    set_seed(args.seed)

    ################
    # Model
    ################
    config = OSTrackConfig(
        template_size=64,
        search_size=128,
        hidden_size=teacher_args.hidden_size,
        num_hidden_layers=teacher_args.num_hidden_layers,
        num_attention_heads=teacher_args.hidden_size // 64,
        intermediate_size=3 * teacher_args.hidden_size,
        head_channels=64,
    )
    model = OSTrackModel(config)

    ################
    # Training
    ################
    pairs = stream_pairs(ProceduralWorld(), config, seed=args.seed, pairs_per_clip=8)
    trainer = TrackerTrainer(model=model, args=args, train_dataset=pairs)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    trainer.accelerator.end_training()  # processes part here; left to their exit, gloo now and then aborts one
    if not args.should_save:
        return

    ################
    # Evaluation
    ################
    # What is judged is what a user would load, not what is in memory.
    model = AutoModel.from_pretrained(args.output_dir)
    # Another seed: sequences that no training pair came from.
    held_out = {"procedural": procedural_sequences(args.seed + 10_000, teacher_args.eval_sequences)}
    if teacher_args.eval:
        held_out["eval"] = read_sequences(Path(teacher_args.eval))
    for name, sequences in held_out.items():
        tracker = evaluate_trackers({"teacher": model}, sequences).to_dict()["trackers"][0]
        figures = ", ".join(f"{key} {tracker[key]:.1f}" for key in ("auc", "precision", "norm_precision", "fps"))
        print(f"{name}: {len(sequences)} sequences, {figures}")


if __name__ == "__main__":
    main()
