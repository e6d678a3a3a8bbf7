import json

import numpy as np
import pytest
import torch
from PIL import Image

from ct_hf.data import Sequence
from ct_hf.models import Track


class SquareSequence(Sequence):
    """A target that moves 3 pixels a frame to the right over a grey background."""

    def __init__(self, name="square", num_frames=6, size=(96, 64), visible=None):
        self.name = name
        steps = np.arange(num_frames, dtype=np.float32)
        self.boxes = np.stack([10 + 3 * steps, 20 + 0 * steps, 16 + 0 * steps, 12 + 0 * steps], axis=1)
        self.visible = np.ones(num_frames, dtype=bool) if visible is None else np.asarray(visible)
        self.size = size

    def __len__(self):
        return len(self.boxes)

    def frame(self, index):
        return Image.new("RGB", self.size, (90, 90, 90))

    def frame_bytes(self, index):
        raise NotImplementedError


class ReplayTracker(torch.nn.Module):
    """Tracker that answers with a given row of boxes, or stands still without one."""

    def __init__(self, boxes=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(5))
        self.boxes = boxes
        self.starts = []

    def start(self, frame, box):
        self.starts.append(np.asarray(box).tolist())
        return ReplaySession(self.boxes, box)


class ReplaySession:
    def __init__(self, boxes, box):
        self.boxes, self.box, self.index = boxes, np.asarray(box, dtype=np.float64), 0

    def update(self, frame):
        self.index += 1
        if self.boxes is not None:
            self.box = np.asarray(self.boxes[self.index], dtype=np.float64)
        return Track(self.box, 1.0)


@pytest.fixture
def make_sequence():
    return SquareSequence


@pytest.fixture
def make_tracker():
    return ReplayTracker


class DrawnResults:
    """Content of a results.json of some trackers, whose main figure is given; all else follows from it."""

    MAIN = {"got10k": "ao", "trackingnet": "success"}

    def __init__(self, scores, dataset="Drawn", protocol="otb", num_sequences=3, fps=None):
        sequences = [{"name": f"drawn-{index}", "frames": 10 + index} for index in range(num_sequences)]
        main = self.MAIN.get(protocol, "auc")
        self.content = {
            "dataset": dataset,
            "protocol": protocol,
            "sequences": sequences,
            "trackers": [
                {
                    "name": name,
                    "layers": 12 // (place + 1),
                    "parameters": 92_100_000 // (place + 1),
                    "score": {main: score, "precision": score + 5},
                    "per_sequence": {
                        row["name"]: {main: score + place * index} for index, row in enumerate(sequences)
                    },
                    "curves": {
                        "success": {"thresholds": [0, 0.5, 1], "values": [100, score, 0]},
                        "precision": {"thresholds": [0, 25, 50], "values": [0, score, 100]},
                    },
                    "speed": fps and self.speed(fps[place]),
                }
                for place, (name, score) in enumerate(scores.items())
            ],
        }

    @staticmethod
    def speed(fps, **conditions):
        usual = {
            "device": "cpu",
            "dtype": "float32",
            "batch_size": 1,
            "threads": 1,
            "warm_up": 5,
            "clock": "of update",
        }
        return {"fps": fps, **usual, **conditions}

    def write(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(self.content))
        return folder


@pytest.fixture
def draw_results():
    return DrawnResults
