r"""Train a small OSTrack on procedural sequences, as a teacher, in five phases.

    python examples/collect_photographs.py --out outputs/photographs
    torchrun --nproc_per_node 2 examples/train_teacher.py --photographs outputs/photographs --bf16 --use_cpu \
        --per_device_train_batch_size 32 --learning_rate 1e-3 --lr_scheduler_type constant_with_warmup \
        --patches 1.0 --max_steps 1000 --output_dir outputs/teacher_match
    torchrun --nproc_per_node 2 examples/train_teacher.py --photographs outputs/photographs --bf16 --use_cpu \
        --per_device_train_batch_size 32 --learning_rate 1e-3 --lr_scheduler_type warmup_stable_decay \
        --lr_scheduler_kwargs '{"num_decay_steps": 2500}' --seed 43 \
        --patches 0.3 --init_from outputs/teacher_match --max_steps 8500
    torchrun --nproc_per_node 2 examples/train_teacher.py --photographs outputs/photographs --bf16 --use_cpu \
        --per_device_train_batch_size 32 --learning_rate 1e-3 --lr_scheduler_type warmup_stable_decay \
        --lr_scheduler_kwargs '{"num_decay_steps": 2500}' --seed 50 --attn_implementation eager \
        --patches 0.3 --init_from outputs/teacher --max_steps 9000 --output_dir outputs/teacher_longer

as the last once more, with --init_from outputs/teacher_longer --seed 70 --max_steps 7500 --output_dir outputs/teacher_fourth; and

    torchrun --nproc_per_node 2 examples/train_teacher.py --photographs outputs/photographs --use_cpu \
        --per_device_train_batch_size 32 --learning_rate 5e-4 --lr_scheduler_type cosine --seed 80 \
        --attn_implementation eager --patches 0.3 --init_from outputs/teacher_fourth --max_steps 2600 \
        --output_dir outputs/teacher_fifth

In the first phase every target is a part of the background, which nothing but the template tells from the rest, so that the
tracker has to learn to compare; without it, it learns what stands out and never looks at its template. The second phase is the
world as it is, and the others go on in it. Everything is rendered on the fly; no footage is needed, and without --photographs
no image either. A run that was stopped goes on with --resume_from_checkpoint outputs/teacher/checkpoint-1000.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModel, HfArgumentParser, set_seed

from ct_hf import OSTrackConfig, OSTrackModel
from ct_hf.compression import TrackerTrainer, TrackerTrainingArguments
from ct_hf.data import (
    Augmentation,
    Photographs,
    ProceduralTextures,
    ProceduralWorld,
    procedural_sequences,
    read_sequences,
    rendered_textures,
    stream_pairs,
)
from ct_hf.evaluation import evaluate_trackers


@dataclass
class TeacherArguments:
    """Size of the teacher, what it learns from and what it is judged on."""

    photographs: str | None = field(
        default=None, metadata={"help": "Folder of photographs for the rendered world. Default: textures alone."}
    )
    num_hidden_layers: int = field(default=12, metadata={"help": "Layers of the trunk."})
    hidden_size: int = field(default=128, metadata={"help": "Width of the tokens."})
    patch_size: int = field(default=16, metadata={"help": "Side of a patch, in pixels."})
    patches: float = field(
        default=0.15,
        metadata={"help": "Share of targets that are parts of the background: all of them at first teach to match."},
    )
    init_from: str | None = field(
        default=None, metadata={"help": "Folder of a tracker to go on from, with a new optimizer and schedule."}
    )
    attn_implementation: str = field(
        default="sdpa",
        metadata={
            "help": "Attention in training: in bf16 on a processor, eager takes 0.42 s a step where sdpa takes 0.60."
        },
    )
    eval_sequences: int = field(default=20, metadata={"help": "Held-out procedural sequences to track at the end."})
    eval: str | None = field(default=None, metadata={"help": "Folder of annotated sequences to track at the end too."})


@torch.no_grad()
def prepare_to_match(model: OSTrackModel) -> None:
    """
    Let attention compare from the first step.

    Sine positions, a constant that tells template tokens from search tokens, and one random projection for queries and keys,
    so that what looks alike attends to each other. From the usual small weights a tracker learns what stands out in the
    search crop and never looks at its template; pretrained backbones have that behind them.
    """
    width = model.config.hidden_size
    # From a wave of 64 tokens, longer than any side, to one of 4.
    speed = torch.pi / 32 * 16 ** (torch.arange(width // 4) / (width // 4))
    tables = (model.embeddings.template_position_embeddings, model.embeddings.search_position_embeddings)
    for table in tables:
        side = round(table.shape[1] ** 0.5)
        angle = (torch.arange(side) - (side - 1) / 2)[:, None] * speed
        axis = torch.cat([angle.sin(), angle.cos()], dim=1)
        down, across = axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)
        table.copy_(0.5 * torch.cat([down, across], dim=2).view_as(table))
    tables[0].add_(torch.randn(width))
    for layer in model.layers:
        attention = layer.attention
        attention.q_proj.weight.normal_(std=1.5 / width**0.5)
        attention.k_proj.weight.copy_(attention.q_proj.weight)


def main() -> None:
    """Train, save, and track held-out sequences."""
    parser = HfArgumentParser((TeacherArguments, TrackerTrainingArguments))
    # From scratch and short: the paper's recipe is for 500 epochs from a pretrained backbone.
    parser.set_defaults(
        output_dir="outputs/teacher",
        max_steps=10_000,
        per_device_train_batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.02,
        max_grad_norm=1.0,
        lr_scheduler_type="cosine",
        warmup_steps=200,
        dataloader_num_workers=1,
        logging_steps=50,
        save_steps=500,
        save_total_limit=2,
    )
    teacher_args, args = parser.parse_args_into_dataclasses()
    set_seed(args.seed)
    # Sharp attention leaves probabilities too small for normal floats, on which processors are slow: 15 % of a step in fp32.
    torch.set_flush_denormal(True)

    ################
    # Model
    ################
    config = OSTrackConfig(
        template_size=96,
        search_size=128,
        # Crops closer than usual: a small network needs the pixels on the target, which seldom moves by half its side.
        # Both are of the same scale, so that a target looks the same in both.
        template_factor=1.875,
        search_factor=2.5,
        patch_size=teacher_args.patch_size,
        hidden_size=teacher_args.hidden_size,
        num_hidden_layers=teacher_args.num_hidden_layers,
        num_attention_heads=teacher_args.hidden_size // 64,
        intermediate_size=3 * teacher_args.hidden_size,
        head_channels=64,
    )
    if teacher_args.init_from:
        model = AutoModel.from_pretrained(teacher_args.init_from)
    else:
        model = OSTrackModel(config)
        prepare_to_match(model)
    model.set_attn_implementation(teacher_args.attn_implementation)

    ################
    # Training
    ################
    pairs = stream_pairs(
        ProceduralWorld(textures=rendered_textures(teacher_args.photographs), patches=teacher_args.patches),
        model.config,
        seed=args.seed,
        clip_length=6,
        pairs_per_clip=12,
        # Template and search crop are mirrored together only: a small network has enough to learn.
        augmentation=Augmentation(crop_flip=0.0),
        # Sizes have to be seen, not guessed from the crop's: a tracker that guesses too large grows from frame to frame.
        scale_jitter=0.35,
    )
    trainer = TrackerTrainer(model=model, args=args, train_dataset=pairs)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    trainer.end_training()  # processes part here
    if not args.should_save:
        return

    ################
    # Evaluation
    ################
    # What is judged is what a user would load, not what is in memory.
    model = AutoModel.from_pretrained(args.output_dir).to(args.device)
    # Another seed and other photographs: sequences that no training pair came from.
    textures = {"textures": ProceduralTextures()}
    if teacher_args.photographs:
        textures["photographs"] = Photographs(teacher_args.photographs, "test")
    held_out = {
        name: procedural_sequences(args.seed + 10_000, teacher_args.eval_sequences, textures=source)
        for name, source in textures.items()
    }
    if teacher_args.eval:
        held_out["eval"] = read_sequences(Path(teacher_args.eval))
    for name, sequences in held_out.items():
        tracker = evaluate_trackers({"teacher": model}, sequences).to_dict()["trackers"][0]
        figures = ", ".join(f"{key} {tracker[key]:.1f}" for key in ("auc", "precision", "norm_precision", "fps"))
        print(f"{name}: {len(sequences)} sequences, {figures}")


if __name__ == "__main__":
    main()
