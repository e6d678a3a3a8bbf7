"""GOT-10k: 9,335 training sequences, 180 for validation and 180 for test.

    <root>/<split>/list.txt                              a name a line
    <root>/<split>/<name>/00000001.jpg ...
                         /groundtruth.txt                x,y,w,h with four decimals; test: the first frame only
                         /absence.label, cover.label     a number a line; not in the test split

Boxes are as given. The target is visible where `absence` is 0 and `cover`, its visible eighths, is above 0. Ground truth of
the test split is withheld: a server scores results of the layout `got10k`. Scored by `got10k`, which clips boxes to the
image; what it needs is `boxes`, `cover` and `size`.
"""

from pathlib import Path

from ..annotation import read_flags, read_rows
from ..frames import FramePaths
from .layout import Annotation, Layout, LayoutSequence, withheld
from .reading import check_root, numbered_frames, read_names


class GOT10kSequence(LayoutSequence):
    """Sequence of GOT-10k.

    Args:
        path: Its folder.
        test: Whether it is of the test split, of which one box is published.
    """

    def __init__(self, path: Path, test: bool):
        super().__init__(path.name, path / "groundtruth.txt")
        self.path, self.test = path, test

    def read_annotation(self) -> Annotation:
        """See [`LayoutSequence`]."""
        boxes = read_rows(self.source)
        if self.test and len(boxes) == 1 < (count := len(self.list_frames())):
            return withheld(boxes, count)
        absence = read_flags(self.path / "absence.label", len(boxes))
        cover = read_flags(self.path / "cover.label", len(boxes), most=8)
        return Annotation(boxes, (absence == 0) & (cover > 0), cover)

    def list_frames(self) -> FramePaths:
        """See [`LayoutSequence`]."""
        return numbered_frames(self.path, first=1)


def _read(root: Path, split: str) -> list[GOT10kSequence]:
    check_root(root, f"{split}/list.txt", f"{split}/list.txt and {split}/<name>/00000001.jpg")
    return [GOT10kSequence(root / split / name, split == "test") for name in read_names(root / split / "list.txt")]


GOT10K = Layout("got10k", _read, protocol="got10k", results="got10k", splits=("test", "val", "train"))
