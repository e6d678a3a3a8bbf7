"""Collect freely licensed photographs from Debian packages, for the photographic world of train_teacher.py.

    python examples/collect_photographs.py --out outputs/photographs

Needs `apt-get` and `dpkg-deb` (Debian, Ubuntu and their kin) but no rights: packages are downloaded and unpacked, not
installed. Each package's statement of copyright is kept beside its images.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from transformers import HfArgumentParser

from ct_hf.data.photographs import SUFFIXES


# Package: folders whose images are drawings or letters, or show what another one shows.
PACKAGES = {
    "gnome-backgrounds": (),
    "lomiri-wallpapers-16.04": (),
    "lomiri-wallpapers-20.04": (),
    "mate-backgrounds": ("desktop",),
    "palapeli-data": ("pics", "icons"),
    "plasma-workspace-wallpapers": ("screenshot",),
    "tuxpaint-data": ("images", "brushes", "starters", "icons", "fonts", "osk", "stamps"),
    "tuxpaint-stamps-default": ("symbols", "cartoon", "hanukkah", "houses", "roadsigns"),
    "ukui-wallpapers": (),
}
LARGEST = 1200  # pixels of the longer side that are kept


@dataclass
class CollectArguments:
    """Where to collect."""

    out: str = field(
        default="outputs/photographs", metadata={"help": "Folder for the images, one below for a package."}
    )


def collect(package: str, left_out: tuple[str, ...], out: Path) -> int:
    """Download a package, keep its images (the largest of each) and its statement of copyright; return how many."""
    kept = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["apt-get", "download", "--quiet", package], cwd=folder, check=True)
        (archive,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, folder / "files"], check=True)
        target = out / package
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "files" / "usr" / "share" / "doc" / package / "copyright", target / "copyright")
        largest: dict[str, tuple[int, Path]] = {}
        for file in sorted((folder / "files").rglob("*")):
            parts = file.relative_to(folder / "files").parts
            if file.suffix.lower() not in SUFFIXES or file.is_symlink() or any(part in left_out for part in parts):
                continue
            if file.stem in left_out:
                continue
            with Image.open(file) as image:
                pixels = image.width * image.height
            # Plasma keeps one picture at several sizes, in .../Name/contents/images.
            key = parts[parts.index("contents") - 1] if "contents" in parts else file.stem
            if pixels > largest.get(key, (0, file))[0]:
                largest[key] = (pixels, file)
        for key, (_, file) in largest.items():
            with Image.open(file) as image:
                if min(image.size) < 96:
                    continue
                clear = "A" in image.getbands() or "transparency" in image.info
                image = image.convert("RGBA" if clear else "RGB")
                image.thumbnail((LARGEST, LARGEST), reducing_gap=2)
                image.save(target / f"{key}{'.png' if clear else '.jpg'}", quality=92)
                kept += 1
    return kept


def main() -> None:
    """Collect every package."""
    (args,) = HfArgumentParser(CollectArguments).parse_args_into_dataclasses()
    for package, left_out in PACKAGES.items():
        print(f"{package}: {collect(package, left_out, Path(args.out))} images", flush=True)


if __name__ == "__main__":
    main()
