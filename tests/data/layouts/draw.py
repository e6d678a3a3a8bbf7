"""Writes a tiny data set in each layout: a white thing on grey, whose pixels say where the boxes have to be.

    python tests/data/layouts/draw.py

wrote `drawn`, which is committed so that the readers are tested without footage.
"""

import json
import shutil
from pathlib import Path

from PIL import Image, ImageDraw


DRAWN = Path(__file__).parent / "drawn"
SIZE = (80, 60)
BOXES = [(10, 8, 22, 14), (14, 9, 23, 15), None, (22, 11, 25, 17), (57, 45, 23, 15)]
"""Box of each frame, xywh from 0; the last one ends with the frame. `None` where the thing cannot be seen."""


def write(file: Path, content: str) -> None:
    """Write a text file and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def draw(folder: Path, names: list[str]) -> None:
    """Write the frames under their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for box, name in zip(BOXES, names, strict=True):
        image = Image.new("L", SIZE, 60)
        if box is not None:
            left, top, width, height = box
            ImageDraw.Draw(image).rectangle([left, top, left + width - 1, top + height - 1], fill=255)
        image.save(folder / name)


def names(form: str, first: int) -> list[str]:
    """Names of the frames by number."""
    return [form.format(first + index) for index in range(len(BOXES))]


def rows(origin: int, absent: str, separator: str = ",") -> str:
    """Rows of boxes that count from 0 or 1."""
    lines = []
    for box in BOXES:
        x, y, w, h = box or (0, 0, 0, 0)
        lines.append(separator.join(map(str, (x + origin, y + origin, w, h))) if box else absent)
    return "\n".join(lines) + "\n"


def flags(separator: str = "\n", seen: int = 0, unseen: int = 1) -> str:
    """Whether the thing can be seen, a number a frame."""
    return separator.join(str(unseen if box is None else seen) for box in BOXES)


def lasot(root: Path, name: str) -> None:
    """A sequence of LaSOT or its extension."""
    path = root / name.rpartition("-")[0] / name
    draw(path / "img", names("{:08d}.jpg", 1))
    write(path / "groundtruth.txt", rows(1, "1,1,0,0"))
    write(path / "full_occlusion.txt", flags(","))
    write(path / "out_of_view.txt", ",".join("0" * len(BOXES)))
    write(path / "nlp.txt", "white box moving to the right\n")


def got10k(root: Path, split: str, name: str) -> None:
    """A sequence of GOT-10k; the ground truth of the test split is withheld."""
    path = root / split / name
    draw(path, names("{:08d}.jpg", 1))
    text = rows(0, "0,0,0,0")
    write(path / "groundtruth.txt", text.splitlines()[0] + "\n" if split == "test" else text)
    if split != "test":
        write(path / "absence.label", flags())
        write(path / "cover.label", flags(seen=8, unseen=0))
    write(root / split / "list.txt", f"{name}\n")


def trackingnet(root: Path, chunk: str, name: str) -> None:
    """A sequence of TrackingNet, of which every frame is annotated."""
    draw(root / chunk / "frames" / name, names("{}.jpg", 0))
    text = rows(0, "18.00,10.00,24.00,16.00")
    write(root / chunk / "anno" / f"{name}.txt", text.splitlines()[0] + "\n" if chunk == "TEST" else text)


def coco(root: Path) -> None:
    """Two photographs of one object each, and a group that does not count."""
    draw(root / "images" / "val2017", names("{:012d}.jpg", 1))
    (root / "images" / "val2017" / "000000000003.jpg").unlink()
    numbers = [number for number, box in enumerate(BOXES, start=1) if box]
    images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "width": SIZE[0], "height": SIZE[1]} for number in numbers
    ]
    annotations = [
        {"id": 10 + number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": list(BOXES[number - 1])}
        for number in numbers
    ]
    annotations.append({"id": 99, "image_id": 1, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 80, 60]})
    write(root / "annotations" / "instances_val2017.json", json.dumps({"images": images, "annotations": annotations}))


def imagenet_vid(root: Path) -> None:
    """A video of one object."""
    video = "VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
    draw(root / "Data" / video, names("{:06d}.JPEG", 0))
    for number, box in enumerate(BOXES):
        text = ""
        if box is not None:
            x, y, w, h = box
            corners = f"<xmax>{x + w}</xmax><xmin>{x}</xmin><ymax>{y + h}</ymax><ymin>{y}</ymin>"
            text = f"<object><trackid>0</trackid><bndbox>{corners}</bndbox><occluded>0</occluded></object>"
        write(root / "Annotations" / video / f"{number:06d}.xml", f"<annotation>{text}</annotation>\n")


def nfs(root: Path) -> None:
    """A sequence of NfS at 30 frames a second, annotated at 240."""
    draw(root / "box" / "30" / "box", names("{:05d}.jpg", 1))
    lines = []
    for row in range(8 * len(BOXES)):
        box = BOXES[row // 8] if row % 8 == 0 else (0, 0, 5, 5)
        x, y, w, h = box or (0, 0, 0, 0)
        lines.append(f'0 {x} {y} {x + w} {y + h} {row + 1} {int(box is None)} 0 0 "box"')
    write(root / "box" / "30" / "box.txt", "\n".join(lines) + "\n")


def vot(root: Path) -> None:
    """A sequence of VOT with rotated rectangles that are not."""
    draw(root / "box", names("{:08d}.jpg", 1))
    lines = []
    for box in BOXES:
        x, y, w, h = box or (0, 0, 0, 0)
        corners = (x, y + h, x, y, x + w, y, x + w, y + h)
        lines.append(",".join(map(str, corners)) if box else "nan,nan,nan,nan")
    write(root / "box" / "groundtruth.txt", "\n".join(lines) + "\n")
    write(root / "list.txt", "box\n")


def main() -> None:
    """Write all of them."""
    shutil.rmtree(DRAWN, ignore_errors=True)
    lasot(DRAWN / "lasot", "box-1")
    lasot(DRAWN / "lasot", "box-2")
    write(DRAWN / "lasot" / "testing_set.txt", "box-1\n")
    write(DRAWN / "lasot" / "training_set.txt", "box-2\n")
    lasot(DRAWN / "lasot_ext", "crate-1")
    got10k(DRAWN / "got10k", "train", "GOT-10k_Train_000001")
    got10k(DRAWN / "got10k", "val", "GOT-10k_Val_000001")
    got10k(DRAWN / "got10k", "test", "GOT-10k_Test_000001")
    trackingnet(DRAWN / "trackingnet", "TRAIN_0", "-box_0")
    trackingnet(DRAWN / "trackingnet", "TEST", "box_1")
    coco(DRAWN / "coco")
    imagenet_vid(DRAWN / "imagenet_vid")
    nfs(DRAWN / "nfs")
    vot(DRAWN / "vot")

    path = DRAWN / "tnl2k" / "train" / "box_video_01"
    draw(path / "imgs", names("{:05d}.png", 0))
    write(path / "groundtruth.txt", rows(0, "0,0,0,0"))
    write(path / "language.txt", "the white box\n")

    draw(DRAWN / "uav123" / "data_seq" / "UAV123" / "bike1", names("{:06d}.jpg", 1))
    write(DRAWN / "uav123" / "anno" / "UAV123" / "bike1.txt", rows(1, "NaN,NaN,NaN,NaN"))

    draw(DRAWN / "otb100" / "Box" / "img", names("{:04d}.jpg", 1))
    write(DRAWN / "otb100" / "Box" / "groundtruth_rect.txt", rows(1, "NaN\tNaN\tNaN\tNaN", "\t"))

    draw(DRAWN / "folder" / "box", names("{}.jpg", 8))
    write(DRAWN / "folder" / "box" / "groundtruth.txt", rows(0, "nan nan nan nan", " "))


if __name__ == "__main__":
    main()
