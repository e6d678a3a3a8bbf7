"""Compress a tracker into one with fewer layers, and show what it kept.

    accelerate launch examples/compress.py

takes the small teacher in examples/assets/teacher and sequences rendered on the fly; with --from_scratch it also trains
a student of the same shape without the teacher, to compare. It is the command `ct-hf compress` with a recipe for that
teacher, which learns faster and shorter than the paper's and was tuned for it (docs/reproduce.md): for a tracker of your own
take the command, whose --help shows how. What it does step by step is in `ct_hf/cli_compress.py`.
"""

from pathlib import Path

from ct_hf.cli_compress import main


if __name__ == "__main__":
    main(
        teacher=str(Path(__file__).parent / "assets" / "teacher"),
        max_steps=350,
        learning_rate=4e-3,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        save_strategy="best",  # with --eval_strategy alone, since it takes minutes
    )
