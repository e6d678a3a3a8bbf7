"""Compress a tracker into one with fewer layers, and show what it kept.

    accelerate launch examples/compress.py

takes the small teacher as it was halfway, in examples/assets/teacher_9500, and sequences rendered on the fly; with --from_scratch
it also trains a student of the same shape without the teacher, to compare. It is the command `ct-hf compress` with a recipe for
that teacher, which learns faster and shorter than the paper's and was tuned for it (docs/reproduce.md): for a tracker of your own
take the command, whose --help shows how. What it does step by step is in `ct_hf/cli_compress.py`.
"""

from pathlib import Path

import torch

from ct_hf.cli_compress import main
from ct_hf.compression.products import is_bf16_faster


if __name__ == "__main__":
    # On processors that have products in bf16, and there with attention written out: for a tracker as small as this one
    # torch's fused attention takes longer in bf16 than all the rest.
    fast = not torch.accelerator.is_available() and is_bf16_faster()
    precision = {"use_cpu": True, "bf16": True, "attn_implementation": "eager"} if fast else {}
    main(
        description=__doc__,
        teacher=str(Path(__file__).parent / "assets" / "teacher_9500"),
        max_steps=350,
        learning_rate=4e-3,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        save_strategy="best",  # with --eval_strategy alone, since it takes minutes
        **precision,
    )
