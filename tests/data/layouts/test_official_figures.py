"""Figures from the records are those that the official toolkits compute from the files."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from ct_hf.data import LAYOUTS, read_dataset
from ct_hf.evaluation import score_sequences


CASES = Path(__file__).parents[3].parent / "shared" / "data" / "metric_cases.json"


@pytest.fixture
def put(tmp_path, frames, write):
    """Writes one sequence into the tree of a layout: its boxes as they stand, its flags as each data set has them."""

    def rows(boxes):
        return "".join(",".join("NaN" if value is None else repr(value) for value in box) + "\n" for box in boxes)

    def put(layout, boxes, visible=None, cover=None, size=(64, 48)):
        root, numbers = tmp_path / layout, range(1, len(boxes) + 1)
        visible = [True] * len(boxes) if visible is None else visible
        name = "cat-1"
        if layout == "lasot":
            path = frames(root / "cat" / name / "img", numbers, size=size).parent
            write(path / "groundtruth.txt", rows(boxes))
            write(path / "full_occlusion.txt", ",".join(str(int(not seen)) for seen in visible))
            write(path / "out_of_view.txt", ",".join("0" for _ in boxes))
            write(root / "testing_set.txt", name)
        elif layout == "got10k":
            path = frames(root / "test" / name, numbers, size=size)
            write(path / "groundtruth.txt", rows(boxes))
            write(path / "absence.label", "".join(f"{int(not seen)}\n" for seen in visible))
            write(path / "cover.label", "".join(f"{seen}\n" for seen in (cover or [8] * len(boxes))))
            write(root / "test" / "list.txt", name)
        elif layout == "trackingnet":
            frames(root / "TEST" / "frames" / name, range(len(boxes)), "{}.jpg", size=size)
            write(root / "TEST" / "anno" / f"{name}.txt", rows(boxes))
        elif layout == "uav123":
            frames(root / "data_seq" / "UAV123" / name, numbers, "{:06d}.jpg", size=size)
            write(root / "anno" / "UAV123" / f"{name}.txt", rows(boxes))
        else:
            frames(root / name / "img", numbers, "{:04d}.jpg", size=size)
            write(root / name / "groundtruth_rect.txt", rows(boxes))
        return root

    return put


def score(layout, root, predictions):
    (sequence,) = read_dataset(layout, root, check=False)
    predictions = np.array([[math.nan if value is None else value for value in box] for box in predictions])
    return score_sequences(
        [LAYOUTS[layout].from_own(predictions)],
        [sequence.boxes],
        protocol=LAYOUTS[layout].protocol,
        visible=[sequence.visible],
        cover=[sequence.cover],
        image_sizes=[sequence.size],
    )


BOXES = [(11 + 3 * n, 20, 16, 12) for n in range(4)]


@pytest.mark.parametrize(("layout", "absent"), [("lasot", BOXES[2]), ("uav123", (None,) * 4)])
def test_absent_frames_count_as_in_their_data_sets(put, layout, absent):
    """A perfect tracker, and one frame of four where there is nothing to find."""
    boxes = [*BOXES[:2], absent, BOXES[3]]
    figures = score(layout, put(layout, boxes, visible=[True, True, False, True]), BOXES)
    misses = 75 if layout == "lasot" else 100
    assert figures["auc"] == pytest.approx(75 * 20 / 21)
    assert figures["precision"] == figures["norm_precision"] == pytest.approx(misses)


def test_boxes_of_got10k_are_clipped_to_the_image_and_covered_frames_left_out(put):
    """10 of 16 columns are inside of the frame of 64 pixels."""
    boxes = [(1, 1, 9, 9), (54, 10, 16, 12), (20, 20, 9, 9)]
    root = put("got10k", boxes, visible=[True, True, False], cover=[8, 8, 0])
    assert score("got10k", root, [boxes[0], (54, 10, 10, 12), (0, 0, 1, 1)])["ao"] == pytest.approx(100)


@pytest.mark.skipif(not CASES.is_file(), reason="the table of the toolkits' own scores is not beside the checkout")
@pytest.mark.parametrize("layout", ["lasot", "got10k", "trackingnet", "uav123", "otb100"])
def test_figures_of_official_toolkits(put, layout):
    """Predictions and ground truth of each case are taken for files of the data set, in its own coordinates."""
    protocol, compared = LAYOUTS[layout].protocol, 0
    for case in json.loads(CASES.read_text())["cases"]:
        toolkit = {"got10k": "got10k_toolkit", "trackingnet": "trackingnet_devkit"}.get(protocol, "ostrack")
        expected = case["expected"][toolkit]
        expected = expected if protocol == "trackingnet" else expected[protocol]
        names = {"got10k": ("ao", "sr50", "sr75"), "trackingnet": ("success", "precision", "norm_precision")}
        names = names.get(protocol, ("auc", "precision", "norm_precision", "op50", "op75"))
        scale = 100 if protocol == "got10k" else 1
        if len(case["sequences"]) > 1 or "error" in expected or any(expected[name] is None for name in names):
            continue
        (one,) = case["sequences"]
        size = tuple(one["image_size"]) if layout == "got10k" else (8, 6)  # only GOT-10k asks for it
        root = put(layout, one["gt"], one["visible"], one["cover"], size)
        result = score(layout, root, one["pred"])
        figures = {name: result[name] for name in names}
        assert figures == pytest.approx({name: scale * expected[name] for name in names}, abs=2e-3), case["name"]
        compared += 1
        shutil.rmtree(root)
    assert compared >= 14
