"""Write the cards of this folder: the students' from `facts.py` and the library's template, the teacher's from its own folder.

python model_cards/render.py
"""

import sys
import tempfile
from pathlib import Path

import torch
from facts import STUDENTS, Student
from transformers import AutoConfig, AutoModel

import ct_hf  # noqa: F401 - registers the trackers
from ct_hf.conversion import FAMILIES
from ct_hf.hub import write_card
from ct_hf.models.tracker import PreTrainedTracker


ROOT = Path(__file__).parents[1]


def build(student: Student) -> PreTrainedTracker:
    """The tracker of a card, without weights: a card needs its sizes."""
    if student.family == "teacher":
        config = AutoConfig.from_pretrained(ROOT / student.variant).for_student(student.layers)
        config.compression = {"teacher": {"name": student.variant}}
    else:
        table = FAMILIES[student.family]
        teacher = table.model_class.config_class(**table.variants[student.variant])
        config = teacher.for_student(student.layers, **student.overrides)
    with torch.device("meta"):
        return AutoModel.from_config(config)


def render(folder: Path) -> None:
    """Write all cards into a folder."""
    for name, student in STUDENTS.items():
        with tempfile.TemporaryDirectory() as aside:
            text = write_card(aside, build(student), student.card).read_text(encoding="utf-8")
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    teacher = (ROOT / "examples" / "assets" / "teacher" / "README.md").read_text(encoding="utf-8")
    (folder / "teacher.md").write_text(teacher.replace("](../../../", "](../"), encoding="utf-8")


if __name__ == "__main__":
    render(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
