"""What the stubs of model cards say of stages is what the library does."""

import re
from pathlib import Path

import pytest

from ct_hf.compression import StagePlan
from ct_hf.compression.student import source_layers


CARDS = Path(__file__).parents[1] / "model_cards"


def test_stages_of_the_ostrack_students():
    rows = re.findall(r"\| CT-OSTrack-(\d) \| ([\d-]+) \| ([\d, ]+) \|", (CARDS / "ct-ostrack.md").read_text())
    assert [int(row[0]) for row in rows] == [2, 3, 4, 6, 8]
    for layers, sizes, sources in rows:
        plan = StagePlan.even(12, int(layers))
        assert plan == StagePlan.from_sizes([int(size) for size in sizes.split("-")])
        assert list(source_layers(plan, "skip").values()) == [int(layer) for layer in sources.split(",")]


@pytest.mark.parametrize("card", sorted(CARDS.glob("*.md")), ids=lambda card: card.stem)
def test_stages_of_students_of_four_layers(card):
    """Rows of "stage | teacher layers | student layer | starts as teacher layer"."""
    text = card.read_text()
    plan = re.search(r"StagePlan\.even\((\d+), (\d)\)", text)
    rows = re.findall(r"^\| \d \| ([\d, -]+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    if not rows:
        return
    plan = StagePlan.even(int(plan[1]), int(plan[2]))
    assert len(rows) == plan.num_stages
    for stage, (layers, student, source) in enumerate(rows):
        numbers = [int(number) for number in re.findall(r"\d+", layers)]
        assert (numbers[0], numbers[-1]) == (plan.teacher_stage(stage)[0], plan.teacher_stage(stage)[-1])
        assert [int(student)] == list(plan.student_stage(stage))
        assert source_layers(plan, "skip")[stage] == int(source)
