"""Compress a tracker into one with fewer layers, and show what it kept.

    accelerate launch examples/compress.py

takes the small teacher in examples/assets/teacher and sequences rendered on the fly; with --from_scratch it also trains
a student of the same shape without the teacher, to compare. --help shows how it is done on your own tracker and videos; it is
the command `ct-hf compress`, and what it does step by step is in `ct_hf/cli_compress.py`.
"""

from pathlib import Path

from ct_hf.cli_compress import main


if __name__ == "__main__":
    main(teacher=str(Path(__file__).parent / "assets" / "teacher"))
