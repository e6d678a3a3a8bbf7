import copy
import re
from dataclasses import fields, replace
from pathlib import Path

import jinja2
import jinja2.nodes
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from ct_hf.hub import TrackerCard, write_card
from ct_hf.hub import card as card_module
from ct_hf.models import OSTrackConfig, OSTrackModel


RECORD = {
    "teacher": {"repository": "user/teacher", "revision": "0123456789abcdef" * 2 + "01234567", "num_hidden_layers": 4},
    "data": [{"share": 1.0, "source": "StoredClips", "repository": "user/clips", "revision": None, "files": 2}],
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = OSTrackConfig(
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        head_channels=32,
        template_size=32,
        search_size=64,
        compression=RECORD,
    )
    return OSTrackModel(config).eval()


@pytest.fixture
def plain(model):
    """The model without the record of a compression."""
    other = copy.deepcopy(model)
    other.config.compression = None
    return other


@pytest.fixture
def card(tmp_path):
    pictures = [tmp_path / "training.png", tmp_path / "tracks.png"]
    for picture in pictures:
        Image.new("RGB", (8, 8)).save(picture)
    conditions = "cpu, float32, batch size 1, 1 thread"
    return TrackerCard(
        name="user/small-tracker",
        place="user/small-tracker",
        about="Small, and made to be looked at.",
        recipe="Run `make demo`.",
        results=[
            {"name": "teacher", "auc": 66.0, "fps": 20.0, "conditions": conditions},
            {"name": "student", "auc": 62.7, "precision": 70.04, "fps": 50.0, "conditions": conditions},
        ],
        evaluated_on="3 sequences of `mine`",
        hardware="a pocket calculator",
        reported="| Tracker | LaSOT |\n| :-- | --: |\n| teacher | 69.1 |",
        training={"optimizer": "AdamW", "learning rate": 4e-05, "seeds | steps": "0 | 1000"},
        command="ct-hf compress --teacher user/teacher",
        notes="It rained.",
        pictures=pictures,
        stages="3-3-3-3 into 1-1-1-1",
        initialization="layers.0 from layers.0\nlayers.1 from layers.3",
        data="Sequences drawn by a procedure, 12/4/2 of a kind, see https://huggingface.co/datasets/user/data/tree.",
        limits="Never seen fish and/or birds.",
        licenses="Weights as the teacher's.",
        license="mit",
    )


def bare(card):
    """With nothing in it that may be left out."""
    optional = {field.name: field.default for field in fields(card) if field.name in vars(TrackerCard)}
    return replace(card, **{**optional, "place": card.place, "license": card.license})


def headings(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)


def test_metadata_round_trips(tmp_path, model, card):
    data = ModelCard.load(write_card(tmp_path / "new folder", model, card)).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "object-detection"
    assert data.tags == ["visual-object-tracking", "single-object-tracking", "compresstracker", "ct_hf"]
    assert (data.base_model, data.base_model_relation) == ("user/teacher", "finetune")
    assert data.datasets == ["user/clips"]
    assert data.license == "mit"


def test_figures_of_the_tracker_are_in_the_metadata(tmp_path, model, card):
    """The student's, not the teacher's, nor the paper's."""
    data = ModelCard.load(write_card(tmp_path, model, card)).data
    assert data.model_name == "small-tracker"
    found = [(result.metric_type, result.metric_value) for result in data.eval_results]
    assert found == [("success_auc", 62.7), ("distance_precision", 70.0)]
    assert data.metrics == ["success_auc", "distance_precision"]
    for result in data.eval_results:
        assert result.task_type == "visual-object-tracking"
        assert result.dataset_name == "3 sequences of `mine`" and result.dataset_type == "3-sequences-of-mine"


def test_figures_that_are_not_known_are_not_in_the_metadata(tmp_path, model, card):
    rows = [{"name": "this", "auc": 50.0, "precision": float("nan")}]
    data = ModelCard.load(write_card(tmp_path, model, replace(card, results=rows))).data
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [("success_auc", 50.0)]
    assert ModelCard.load(write_card(tmp_path, model, bare(card))).data.eval_results is None


def test_body_has_what_was_given(tmp_path, model, card):
    path = write_card(tmp_path / "card", model, card)
    assert path == tmp_path / "card" / "README.md"
    text = path.read_text(encoding="utf-8")
    assert "# user/small-tracker\n" in text
    assert "of 2 layers" in text
    assert "(`ostrack`)" in text
    assert "compressed from [user/teacher](https://huggingface.co/user/teacher) (commit `0123456789ab`) with" in text
    assert re.search(r"\| student \| 62.7 \| +70.0 \| +95.0 \| 50.0 \| +2.50x \|", text)
    assert "Measured under: cpu, float32, batch size 1, 1 thread. Hardware: a pocket calculator." in text
    assert "| learning rate  | 4e-05     |" in text
    assert "| seeds \\| steps | 0 \\| 1000 |" in text
    for name in (field.name for field in fields(card)):
        if isinstance(getattr(card, name), str):
            assert getattr(card, name) in text, name
    assert "https://huggingface.co/papers/2409.17564" in text
    assert not re.search(r"\{\{|\}\}|\{%|%\}|\n\n\n|None", text)
    for picture in ("training.png", "tracks.png"):
        assert f"]({picture})" in text and (tmp_path / "card" / picture).is_file()


def test_absent_sections_are_left_out_whole(tmp_path, plain, card):
    path = write_card(tmp_path / "card", plain, bare(card))
    expected = ["Use", "Training", "Data", "Limits and biases", "Licences", "Citation"]
    assert headings(path) == ["user/small-tracker", *expected]
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\n\n\n|None|compressed from|base_model|model-index|\.png", text)
    assert ModelCard.load(path).data.base_model is None


def test_all_sections_are_in_order(tmp_path, model, card):
    results = ["Results", "How speed was measured", "Reported by the paper"]
    training = ["Training", "Stages", "Initialisation"]
    expected = ["Use", "Recipe", *results, *training, "Data", "Limits and biases", "Licences", "Citation"]
    assert headings(write_card(tmp_path / "card", model, card)) == ["user/small-tracker", *expected]


def test_a_tracker_without_weights_is_not_loaded(tmp_path, model, card):
    text = write_card(tmp_path / "card", model, replace(card, place=None)).read_text()
    assert "from_pretrained" not in text and "## Recipe" in text


def test_speeds_of_unlike_conditions_are_told_apart(tmp_path, model, card):
    rows = [dict(row, conditions=f"on {row['name']}'s machine") for row in card.results]
    text = write_card(tmp_path / "card", model, replace(card, results=rows)).read_text()
    assert (
        "not measured under the same conditions: teacher: on teacher's machine; student: on student's machine" in text
    )
    assert "2.50x" not in text


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ({"name": "small"}, "from the tracker `small` with"),
        (
            {"repository": "user/teacher", "revision": None},
            "from [user/teacher](https://huggingface.co/user/teacher) with",
        ),
        ({}, "from a teacher without a name with"),
    ],
)
def test_the_teacher_is_named_as_far_as_it_is_known(tmp_path, plain, card, teacher, said):
    plain.config.compression = {**RECORD, "teacher": teacher}
    assert said in write_card(tmp_path / "card", plain, card).read_text()


def test_snippet_tracks(tmp_path, card, model, monkeypatch):
    text = write_card(tmp_path, model, card).read_text()
    snippet = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL).group(1)
    assert len([line for line in snippet.splitlines() if line]) == 5
    assert 'AutoModel.from_pretrained("user/small-tracker")' in snippet
    model.save_pretrained(tmp_path / "user" / "small-tracker")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(snippet, scope)
    assert len(scope["boxes"]) == 59 and all(box.shape == (4,) for box in scope["boxes"])


def test_every_field_has_its_place_in_the_template():
    source = Path(card_module._TEMPLATE).read_text(encoding="utf-8")
    nodes = jinja2.Environment().parse(source).find_all(jinja2.nodes.Getattr)
    asked = {node.attr for node in nodes if getattr(node.node, "name", None) == "card"}
    prepared = {"license", "results", "training", "pictures", "hardware"}
    assert asked == {field.name for field in fields(TrackerCard)} - prepared


TEXTS = ["about", "reported", "notes", "stages", "initialization", "data", "limits", "licenses"]


@pytest.mark.parametrize("key", [*TEXTS, "license", "command"])
@pytest.mark.parametrize("empty", ["", " \n"])
def test_empty_text_is_refused(tmp_path, model, card, key, empty):
    with pytest.raises(ValueError, match=f"`{key}` is empty"):
        write_card(tmp_path, model, replace(card, **{key: empty}))
    assert not (tmp_path / "README.md").exists()


def test_empty_training_and_results_are_refused(tmp_path, model, card):
    with pytest.raises(ValueError, match="`training` is empty"):
        write_card(tmp_path, model, replace(card, training={}))
    with pytest.raises(ValueError, match=r"`training\['steps'\]` is empty"):
        write_card(tmp_path, model, replace(card, training={"steps": None}))
    with pytest.raises(ValueError, match="`rows` is empty"):
        write_card(tmp_path, model, replace(card, results=[]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluated_on": None}, "`evaluated_on` is missing"),
        ({"place": None, "recipe": None}, "`place` and `recipe` are missing"),
    ],
)
def test_half_a_statement_is_refused(tmp_path, model, card, changes, message):
    with pytest.raises(ValueError, match=message):
        write_card(tmp_path, model, replace(card, **changes))


@pytest.mark.parametrize(
    "path", ["/srv/runs/teacher", "in `/srv/data/`", "out=/srv/x", "~/data", r"C:\data", "file:///srv/x", "(/srv/a/b)"]
)
@pytest.mark.parametrize("key", [*TEXTS, "command", "training", "results"])
def test_paths_of_the_machine_are_refused(tmp_path, model, card, key, path):
    value = {"training": {"teacher": path}, "results": [{"name": path}]}.get(key, f"From {path}.")
    with pytest.raises(ValueError, match="holds the path"):
        write_card(tmp_path, model, replace(card, **{key: value}))


@pytest.mark.parametrize("value", ["/srv/runs/teacher", "./teacher/x", "", "a/b/c"])
def test_name_that_is_no_repository_is_refused(tmp_path, model, card, value):
    with pytest.raises(ValueError, match="`name` (must be a Hub repository|is empty|holds the path)"):
        write_card(tmp_path, model, replace(card, name=value))
