"""How the teacher compares with simple trackers, on held-out procedural and on real sequences.

    python benchmarks/baselines.py --photographs outputs/photographs --sequences videos --out docs/results/teacher.json

One table for each set of sequences: the tracker; a box that never moves; normalised cross-correlation of the first
frame's target at three scales; the tracker with the template of another sequence, which must fail; OpenCV's MIL where
`pip install ct_hf[benchmark]` was run; and other trackers, given by --beside. --results keeps boxes and figures of each set of
sequences for `ct-hf report`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, HfArgumentParser

import ct_hf  # noqa: F401 - registers the trackers
from ct_hf.data import Photographs, Sequence, procedural_sequences, read_sequences
from ct_hf.evaluation import DatasetEvaluation, comparison_table, evaluate_trackers
from ct_hf.models import PreTrainedTracker
from ct_hf.models.session import Track


@dataclass
class BaselineArguments:
    """What is judged on what."""

    tracker: str = field(default="examples/assets/teacher", metadata={"help": "Folder or Hub repository."})
    beside: list[str] = field(default_factory=list, metadata={"help": "Further trackers, folders or repositories."})
    procedural: int = field(default=100, metadata={"help": "Rendered sequences of 60 frames in each world."})
    seed: int = field(default=10_042, metadata={"help": "Seed of the rendered sequences; not one of training."})
    photographs: str | None = field(default=None, metadata={"help": "Folder that the teacher was trained on."})
    sequences: str | None = field(default=None, metadata={"help": "Folder of annotated sequences."})
    out: str | None = field(default=None, metadata={"help": "File for the figures; tables go beside it as .md."})
    results: str | None = field(default=None, metadata={"help": "Folder for the results of each set of sequences."})


class Baseline:
    """What the evaluation asks of a tracker, without weights."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """None."""
        return iter(())

    def start(self, frame, box) -> "Baseline":
        """Start on a frame with the target's box."""
        raise NotImplementedError


class StaticBox(Baseline):
    """A box that never moves."""

    def start(self, frame, box) -> "StaticBox":
        """Remember the box."""
        self.box = np.asarray(box, dtype=np.float64)
        return self

    def update(self, frame) -> Track:
        """Say it again."""
        return Track(self.box, 1.0)


class CrossCorrelation(Baseline):
    """Normalised cross-correlation with the grey target of the first frame, around where it was last, at three scales."""

    SIDE = 16  # pixels to which the target's box is resized

    def start(self, frame, box) -> "CrossCorrelation":
        """Cut the template out of the frame."""
        self.box = np.asarray(box, dtype=np.float64)
        x, y, width, height = self.box
        self.template = self._gray(frame, (x, y, x + width, y + height), (self.SIDE, self.SIDE))
        return self

    def update(self, frame) -> Track:
        """Take the place and the scale that agree best."""
        best = (-np.inf, self.box)
        center = self.box[:2] + self.box[2:] / 2
        for scale in (0.95, 1.0, 1.05):
            size = self.box[2:] * scale
            # A region of three times the target: matches are found up to one target away.
            low, high = center - 1.5 * size, center + 1.5 * size
            region = self._gray(frame, (*low, *high), (3 * self.SIDE, 3 * self.SIDE))
            windows = np.lib.stride_tricks.sliding_window_view(region, self.template.shape)
            scores = self._correlate(windows)
            row, column = np.unravel_index(scores.argmax(), scores.shape)
            corner = low + np.array([column, row]) / self.SIDE * size
            score = scores[row, column] - (0.01 if scale != 1 else 0)
            if score > best[0]:
                best = (score, np.concatenate([corner, size]))
        width, height = frame.size
        box = best[1]
        box[:2] = np.clip(box[:2], -box[2:] / 2, (width, height) - box[2:] / 2)
        self.box = box
        return Track(box.copy(), float(best[0]))

    def _correlate(self, windows: np.ndarray) -> np.ndarray:
        template = (self.template - self.template.mean()) / (self.template.std() + 1e-6)
        # The template is free of its mean, so that of a window drops out. Flat windows agree with nothing.
        return np.einsum("ijkl,kl->ij", windows, template) / template.size / np.maximum(windows.std(axis=(2, 3)), 1.0)

    @staticmethod
    def _gray(frame, box, size) -> np.ndarray:
        return np.asarray(
            frame.convert("L").transform(
                size,
                Image.Transform.EXTENT,
                tuple(box),
                resample=Image.Resampling.BILINEAR,
            ),
            dtype=np.float32,
        )


class WrongTemplate(Baseline):
    """A tracker that is shown the target of another sequence, at the right place."""

    def __init__(self, model, sequences: list[Sequence]):
        self.model, self.sequences = model, sequences

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Those of the tracker."""
        return self.model.parameters()

    def start(self, frame, box):
        """Start as the model does, but with the next sequence's template."""
        # Not by counting starts: sequences come in any order, and after a resumption not all of them.
        own = next(n for n, sequence in enumerate(self.sequences) if np.array_equal(sequence.boxes[0], box))
        following = [*self.sequences[own + 1 :], *self.sequences[:own]]
        other = next(sequence for sequence in following if not np.array_equal(sequence.boxes[0], box))
        wrong = self.model.start(other.frame(0), other.boxes[0])
        session = self.model.start(frame, box)
        session.templates = wrong.templates
        return session


class MIL(Baseline):
    """OpenCV's multiple instance learning tracker."""

    def start(self, frame, box) -> "MIL":
        """Start OpenCV's tracker."""
        import cv2

        self.tracker = cv2.TrackerMIL_create()
        self.tracker.init(self._pixels(frame), tuple(np.asarray(box).round().astype(int).tolist()))
        self.box = np.asarray(box, dtype=np.float64)
        return self

    def update(self, frame) -> Track:
        """Take its box; where it has none, the last one."""
        found, box = self.tracker.update(self._pixels(frame))
        self.box = np.asarray(box, dtype=np.float64) if found else self.box
        return Track(self.box, float(found))

    @staticmethod
    def _pixels(frame) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(frame)[..., ::-1])


def judge(
    model: PreTrainedTracker, beside: dict[str, PreTrainedTracker], sequences: list[Sequence], results: Path | None
) -> list[dict]:
    """Track with everything that is here; return a row for each."""
    trackers = {
        "tracker": model,
        **beside,
        "static box": StaticBox(),
        "cross-correlation": CrossCorrelation(),
        "tracker, wrong template": WrongTemplate(model, sequences),
    }
    try:
        import cv2

        if hasattr(cv2, "TrackerMIL_create"):
            trackers["OpenCV MIL"] = MIL()
    except ImportError:
        print("OpenCV is not installed: no MIL.")
    if results:
        result = DatasetEvaluation(results, protocol="visible", batch_size=1).run(trackers, sequences)
    else:
        result = evaluate_trackers(trackers, sequences)
    return [{key: value for key, value in row.items() if key != "parameters"} for row in result.to_dict()["trackers"]]


def main() -> None:
    """Judge on every set that was asked for."""
    (args,) = HfArgumentParser(BaselineArguments).parse_args_into_dataclasses()
    torch.set_num_threads(1)
    model = AutoModel.from_pretrained(args.tracker)
    beside = {Path(place).name: AutoModel.from_pretrained(place) for place in args.beside}
    sets = {"procedural textures": procedural_sequences(args.seed, args.procedural)}
    if args.photographs:
        held_out = Photographs(args.photographs, "test")
        sets["procedural photographs"] = procedural_sequences(args.seed, args.procedural, textures=held_out)
    if args.sequences:
        sets["real"] = read_sequences(args.sequences)
    results, text = {}, []
    for name, sequences in sets.items():
        folder = Path(args.results) / name.replace(" ", "_") if args.results else None
        results[name] = judge(model, beside, sequences, folder)
        shown = [{key: value for key, value in row.items() if key != "fps"} for row in results[name]]
        text.append(f"{name}, {len(sequences)} sequences:\n\n{comparison_table(shown)}\n")
        print(text[-1], flush=True)
    if args.out:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=2) + "\n")
        out.with_suffix(".md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
