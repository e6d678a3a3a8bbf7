"""What the model cards say is true as far as it can be known here, runs as printed, and has its form from the Hub."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from transformers import AutoModel

import ct_hf.data
from ct_hf.cli_compress import main as compress
from ct_hf.conversion import FAMILIES
from ct_hf.data import LAYOUTS, procedural_sequences
from ct_hf.hub.card import METRICS, TAGS
from ct_hf.models import OSTrackConfig, OSTrackModel

from .conversion.checkpoints import save_original
from .parity import fill_weights, load_case


ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"
TEACHER = ROOT / "examples" / "assets" / "teacher"
NAMES = sorted(path.stem for path in CARDS.glob("*.md") if path.stem != "README")
WITH_WEIGHTS = ["demo-student", "teacher"]
RECIPES = [name for name in NAMES if name not in WITH_WEIGHTS]

KEYS = {"library_name", "license", "metrics", "pipeline_tag", "tags", "model-index", "datasets", "base_model"}
LICENSES = {"apache-2.0", "mit", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "unknown"}
TINY = {
    "ostrack": "ostrack_tiny_plain",
    "odtrack": "odtrack_tiny_plain",
    "sutrack": "sutrack_tiny_two",
    "mixformerv2": "mixformerv2_tiny_score",
}


def read(name):
    return (CARDS / f"{name}.md").read_text(encoding="utf-8")


def section(text, heading):
    return re.search(rf"^#+ {heading}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)[1]


def code_of(text, language="python"):
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    return block


@pytest.fixture
def published(tmp_path, monkeypatch):
    """
    Make a tracker loadable under the name that a card gives it: by a folder of this name, below the one that tests run in. On a
    server's endpoint it would be a repository, and the cards' code would not see the difference.
    """
    monkeypatch.chdir(tmp_path)

    def publish(model, name):
        model.save_pretrained(tmp_path / name)

    return publish


def test_there_is_a_card_of_every_student_of_the_paper():
    students = [f"ct-ostrack-{layers}" for layers in (2, 3, 4, 6, 8)]
    assert set(NAMES) == {*students, "ct-sutrack-4", "ct-odtrack-4", "ct-m-s", "demo-student", "teacher"}


def test_cards_are_up_to_date(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(CARDS)
    import render

    render.render(tmp_path)
    stale = [name for name in NAMES if (tmp_path / f"{name}.md").read_text() != read(name)]
    assert not stale, f"{stale} are not what `python model_cards/render.py` writes; run it"
    assert {path.stem for path in tmp_path.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_head_is_what_the_hub_reads(name):
    card = ModelCard(read(name))
    data = card.data.to_dict()
    assert set(data) <= {*KEYS, "base_model_relation"}
    assert data["license"] in LICENSES and data["tags"] == list(TAGS)
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "object-detection")
    assert ("base_model" in data) == ("base_model_relation" in data)
    again = ModelCardData(**vars(card.data))
    assert again.to_dict() == data
    known = {identifier for identifier, _ in METRICS.values()}
    assert set(data.get("metrics", ())) == {result.metric_type for result in card.data.eval_results or ()} <= known
    for result in card.data.eval_results or ():
        assert result.task_type == "visual-object-tracking" and 0 < result.metric_value < 100


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_unfilled(name):
    text = read(name)
    assert not re.search(r"\{\{|\}\}|\{%|TODO|TBD|\bNone\b(?! of)|\bnan\b|\bnull\b|\n\n\n", text)
    for line in text.splitlines():
        if line.startswith("|"):
            assert all(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]), line
    needed = ["Training", "Stages", "Data", "Limits and biases", "Licences", "Citation"]
    for heading in needed if name != "teacher" else [one for one in needed if one != "Stages"]:
        assert section(text, heading).strip(), heading


@pytest.mark.parametrize("name", [*NAMES, "README"])
def test_links_lead_somewhere(name):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", read(name)):
        place = (CARDS / target).resolve()
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", place.read_text(), flags=re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], anchor


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_code_that_loads_runs_as_printed(name, published):
    code = code_of(section(read(name), "Use"))
    assert len([line for line in code.splitlines() if line]) == 5
    (place,) = re.findall(r'from_pretrained\("(.*?)"\)', code)
    torch.manual_seed(0)
    sizes = {"template_size": 32, "search_size": 64, "hidden_size": 32, "num_attention_heads": 2, "head_channels": 16}
    published(OSTrackModel(OSTrackConfig(num_hidden_layers=1, intermediate_size=64, **sizes)), place)
    scope = {}
    exec(code, scope)
    assert len(scope["boxes"]) == 59 and all(box.shape == (4,) for box in scope["boxes"])


@pytest.fixture
def original(tmp_path, monkeypatch):
    """Put a tiny checkpoint of a family in place of the original: as deep, so that the same stages cut it."""
    monkeypatch.chdir(tmp_path)

    def place(family, variant, checkpoint):
        table = FAMILIES[family]
        spec, _ = load_case(TINY[family])
        weights = fill_weights(spec)
        (trunk,) = {match[1] for key in weights if (match := re.match(r"(backbone|encoder\.body)\.blocks\.", key))}
        block = re.compile(rf"{re.escape(trunk)}\.blocks\.(\d+)\.(.+)")
        last = max(int(match[1]) for key in weights if (match := block.match(key)))
        layers = table.model_class.config_class(**table.variants[variant]).num_hidden_layers
        for key in [key for key in weights if key.startswith(f"{trunk}.blocks.{last}.")]:
            for number in range(1, layers - spec["config"]["num_hidden_layers"] + 1):
                weights[f"{trunk}.blocks.{last + number}.{block.match(key)[2]}"] = weights[key]
        monkeypatch.setitem(table.variants, variant, {**spec["config"], "num_hidden_layers": layers})
        save_original(tmp_path / checkpoint, weights)

    return place


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_run_as_printed(name, original, monkeypatch, capsys):
    """From a stand-in for the original checkpoint to the student; its long training is left to who has eight devices."""
    text = section(read(name), "Recipe")
    code = code_of(text)
    original(*re.search(r'convert_checkpoint\("(.+?)", "(.+?)", "(.+?)"\)', code).groups())
    if name == "ct-m-s":
        few = "max_steps=1, per_device_train_batch_size=2, use_cpu=True"
        assert "max_steps=117_188" in code
        code = code.replace("max_steps=117_188", few)
        monkeypatch.setattr(ct_hf.data, "open_source", lambda place: procedural_sequences(len(place), 1, length=4))
    scope = {}
    exec(code, scope)
    sizes = [len(scope["teacher"].layers), len(scope["student"].layers)]
    if name == "ct-m-s":
        student = AutoModel.from_pretrained("ct-m-s/student")
        assert student.config.intermediate_size == 768
        record = student.config.compression
        assert [source["name"] for source in record["data"]] == ["lasot", "trackingnet", "got10k", "coco"]
        return
    words = shlex.split(code_of(text, "bash").replace("\\\n", " "))
    assert words[:6] == ["accelerate", "launch", "--num_processes", "8", "-m", "ct_hf.cli"]
    compress([*words[7:], "--dry_run", "--use_cpu"])
    printed = capsys.readouterr().out
    assert f"teacher: {sizes[0]} layers" in printed and f"student: {sizes[1]} layers" in printed


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_papers(name):
    """500 epochs of 60,000 pairs, 256 a step; all four data sets, in layouts that can be read."""
    text = section(read(name), "Recipe")
    steps = int(re.search(r"max_steps[= ]([\d_]+)", text)[1])
    assert 0 <= steps * 256 - 500 * 60_000 < 256
    places = re.findall(r"\b(\w+):data/", text)
    assert places == ["lasot", "trackingnet", "got10k", "coco"] and set(places) <= set(LAYOUTS)
    if name != "ct-m-s":  # which has them by default
        assert "--learning_rate 4e-5" in text and "--per_device_train_batch_size 32" in text


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_say_that_there_are_no_weights(name):
    text = read(name)
    assert "**Recipe only, no weights.**" in text and "## Use" not in text
    assert "model-index" not in text, "figures of others are no results of ours"
    figures = section(text, "Results") if "## Results" in text else ""
    assert "Reported by the paper" in figures or not figures
    assert "How speed was measured" not in figures


STAGES = {
    "ct-ostrack-2": ("6-6", [5, 11]),
    "ct-ostrack-3": ("4-4-4", [3, 7, 11]),
    "ct-ostrack-4": ("3-3-3-3", [2, 5, 8, 11]),
    "ct-ostrack-6": ("2-2-2-2-2-2", [1, 3, 5, 7, 9, 11]),
    "ct-ostrack-8": ("1-2-1-2-1-2-1-2", [0, 2, 3, 5, 6, 8, 9, 11]),
    "ct-sutrack-4": ("6-6-6-6", [5, 11, 17, 23]),
    "ct-odtrack-4": ("3-3-3-3", [2, 5, 8, 11]),
    "ct-m-s": ("2-2-2-2", [1, 3, 5, 7]),
    "demo-student": ("3-3-3-3", [2, 5, 8, 11]),
}


@pytest.mark.parametrize("name", STAGES)
def test_stages(name):
    rows = re.findall(r"^\| (\d) +\| (\d+)(?:-(\d+))? +\| (\d) +\| (\d+) +\|$", read(name), flags=re.MULTILINE)
    sizes = [int(last or first) - int(first) + 1 for _, first, last, *_ in rows]
    expected, sources = STAGES[name]
    assert "-".join(map(str, sizes)) == expected
    assert [int(row[4]) for row in rows] == sources
    assert [(int(row[0]), int(row[3])) for row in rows] == [(number + 1, number) for number in range(len(rows))]


def test_figures_of_the_demo_are_those_of_the_readme():
    table = re.search(
        r"(^\| Tracker .*?)\n\n", section(read("demo-student"), "Results"), flags=re.DOTALL | re.MULTILINE
    )[1]
    readme = (ROOT / "README.md").read_text()
    assert table in readme
    measured = json.loads((ROOT / "docs" / "results" / "demo.json").read_text())["demo"]["summary"]
    for name in ("teacher", "student", "from_scratch"):
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {name.replace('_', ' ')} ")]
        assert f" {measured[name]['auc']:.1f} " in row and f" {measured[name]['fps']:.1f} " in row
    assert f"{measured['retention']:.1f}" in table and f"{measured['speedup']:.2f}x" in table
    readme = " ".join(readme.split())
    limits = section(read("demo-student"), "Limits and biases")
    real = re.findall(r"\d+\.\d", re.search(r"real sequences(.*?) there\.", readme, flags=re.DOTALL)[1])
    assert len(real) == 5 and all(figure in limits for figure in real)
    (time,) = re.findall(r"It took (\S+ minutes.*?) \(\[figures\]", readme)
    assert time in read("demo-student")


def test_figures_of_the_teacher_are_those_that_were_measured():
    measured = (ROOT / "docs" / "results" / "teacher.md").read_text()
    rows = re.findall(r"\| tracker +\| ([\d.]+) \| +([\d.]+) \| +([\d.]+) \|", measured)
    textures, photographs, real = [[float(figure) for figure in row] for row in rows]
    results = ModelCard(read("teacher")).data.eval_results
    assert [result.metric_value for result in results] == [*photographs, *textures, *real]


def test_what_ships_is_what_its_card_describes():
    if not (TEACHER / "model.safetensors").is_file():
        pytest.skip("no teacher is shipped")
    config = json.loads((TEACHER / "config.json").read_text())
    assert f"{config['num_hidden_layers']} layers" in read("teacher")
    assert f"{config['template_size']}x{config['template_size']}" in read("teacher")


def test_the_page_on_the_template_runs(published, tmp_path):
    if not (TEACHER / "model.safetensors").is_file():
        pytest.skip("no teacher is shipped")
    published(AutoModel.from_pretrained(TEACHER), "examples/assets/teacher")
    exec(code_of(read("README")), {})
    assert "# your-name/tracker\n" in (tmp_path / "outputs" / "card" / "README.md").read_text()
