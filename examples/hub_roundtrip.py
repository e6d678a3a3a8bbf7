"""Push a student, load it back with and without ct_hf, and compare what it predicts bit for bit.

    make demo
    python examples/hub_roundtrip.py outputs/compress

The repository is one of a server on loopback, which the tests use and which forgets all when this ends. --endpoint takes another,
with the token in HF_TOKEN. The student is pushed by `ct-hf push`, and loaded twice in processes of their own with an empty cache:
by `import ct_hf`, and by the code that travelled with it where nothing but torch, transformers, pillow, safetensors and numpy
can be imported. Each predicts on the same noise and tracks through the same frames.
"""

import argparse
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoImageProcessor, AutoModel

import ct_hf  # noqa: F401 - registers the trackers


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.hub.clean import differences, load, make_case, make_site  # noqa: E402
from tests.hub.server import HubServer  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Push, load twice, compare; return 0 if all is equal."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", nargs="?", default="outputs/compress", help="what `ct-hf compress` left behind")
    parser.add_argument("--repository", default="org/ct-student", help="repository to push to")
    parser.add_argument(
        "--endpoint", help="address of another server (default: one on loopback, for as long as this runs)"
    )
    args = parser.parse_args(argv)
    student = Path(args.folder, "student")
    student = student if student.is_dir() else Path(args.folder)
    if not (student / "config.json").is_file():
        parser.error(f"{args.folder} holds no student. `make demo` makes one in outputs/compress.")

    with TemporaryDirectory() as place, nullcontext() if args.endpoint else HubServer() as server:
        place = Path(place)

        def environment(name: str) -> dict[str, str]:
            if server is not None:
                return server.environment(place / name)
            kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
            return {**kept, "HF_ENDPOINT": args.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(place / name)}

        command = [sys.executable, "-m", "ct_hf.cli", "push", args.folder, args.repository]
        path = {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        subprocess.run(command, env={**environment("push"), **path}, check=True)

        expected = make_case(
            AutoModel.from_pretrained(student), place / "case", AutoImageProcessor.from_pretrained(student)
        )
        site, equal = make_site(place / "site"), True
        for way, where in (("with ct_hf", None), ("without ct_hf", site)):
            seconds = load({args.repository: place / "case"}, environment(way.replace(" ", "-")), where)
            unlike = differences(expected, place / "case")
            equal = equal and not unlike
            verdict = f"unlike in {', '.join(unlike)}" if unlike else "equal bit for bit"
            print(f"loaded {way} in {seconds[args.repository]:.1f} s: {', '.join(expected)}: {verdict}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
