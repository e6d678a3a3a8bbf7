import re
from pathlib import Path

import jinja2
import jinja2.meta
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from ct_hf.hub import card as card_module
from ct_hf.hub import write_card
from ct_hf.models import OSTrackConfig, OSTrackModel


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
    )
    return OSTrackModel(config).eval()


@pytest.fixture
def fields(model):
    return {
        "model": model,
        "name": "user/small-tracker",
        "base_model": "user/teacher",
        "results": [{"name": "teacher", "auc": 66.0}, {"name": "student", "auc": 62.7}],
        "training": {"optimizer": "AdamW", "learning rate": 4e-05, "seeds | steps": "0 | 1000"},
        "initialization": "layers.0 from layers.0\nlayers.1 from layers.3",
        "stages": "3-3-3-3 into 1-1-1-1",
        "data": "Sequences drawn by a procedure, 12/4/2 of a kind, see https://huggingface.co/datasets/user/data/tree.",
        "limits": "Never seen fish and/or birds.",
    }


def test_metadata_round_trips(tmp_path, fields):
    data = ModelCard.load(write_card(tmp_path / "new folder", **fields)).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "object-detection"
    assert data.tags == ["visual-object-tracking", "single-object-tracking", "compresstracker", "ct_hf"]
    assert data.base_model == "user/teacher"
    assert data.license == "apache-2.0"


def test_body_has_what_was_given(tmp_path, fields):
    path = write_card(tmp_path, **fields)
    assert path == tmp_path / "README.md"
    text = path.read_text(encoding="utf-8")
    assert "# user/small-tracker\n" in text
    assert "of 2 layers" in text
    assert "(`ostrack`)" in text
    assert "compressed from [user/teacher](https://huggingface.co/user/teacher)" in text
    assert "| student | 62.7 |         95.0 |" in text
    assert "| learning rate  | 4e-05     |" in text
    assert "| seeds \\| steps | 0 \\| 1000 |" in text
    for key in ("initialization", "stages", "data", "limits"):
        assert fields[key] in text
    assert "https://huggingface.co/papers/2409.17564" in text
    assert not re.search(r"\{\{|\}\}|\{%|%\}|\n\n\n|None", text)


def test_absent_sections_are_left_out_whole(tmp_path, fields):
    fields |= {"base_model": None, "results": None, "initialization": None, "stages": None}
    text = write_card(tmp_path, **fields).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    assert headings == ["user/small-tracker", "Use", "Training", "Data", "Limits", "Citation"]
    assert "base_model" not in text
    assert "compressed" not in text
    assert not re.search(r"\n\n\n|None", text)
    assert ModelCard.load(tmp_path / "README.md").data.base_model is None


def test_all_sections_are_in_order(tmp_path, fields):
    text = re.sub(r"```.*?```", "", write_card(tmp_path, **fields).read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    expected = ["Use", "Results", "Training", "Stages", "Initialisation", "Data", "Limits", "Citation"]
    assert headings == ["user/small-tracker", *expected]


def test_snippet_tracks(tmp_path, fields, model, monkeypatch):
    snippet = re.search(r"```python\n(.*?)```", write_card(tmp_path, **fields).read_text(), flags=re.DOTALL).group(1)
    assert len([line for line in snippet.splitlines() if line]) == 5
    assert 'AutoModel.from_pretrained("user/small-tracker")' in snippet
    model.save_pretrained(tmp_path / "user" / "small-tracker")
    monkeypatch.chdir(tmp_path)
    scope = {"frame": Image.new("RGB", (96, 64), (90, 90, 90)), "box": (20, 20, 20, 16)}
    exec(snippet, scope)
    assert scope["box"].shape == (4,)


def test_template_asks_for_nothing_that_is_not_given(tmp_path, fields, monkeypatch):
    given = {}

    def record(card_data, **keywords):
        given.update(keywords)
        return ModelCard("---\nlicense: mit\n---\n")

    monkeypatch.setattr(card_module.ModelCard, "from_template", record)
    write_card(tmp_path, **fields)
    source = Path(given.pop("template_path")).read_text(encoding="utf-8")
    asked = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(source))
    assert asked == {"card_data", *given}


@pytest.mark.parametrize("key", ["data", "limits", "license", "stages", "initialization"])
@pytest.mark.parametrize("empty", ["", " \n"])
def test_empty_text_is_refused(tmp_path, fields, key, empty):
    with pytest.raises(ValueError, match=f"`{key}` is empty"):
        write_card(tmp_path, **fields | {key: empty})
    assert not (tmp_path / "README.md").exists()


def test_empty_training_and_results_are_refused(tmp_path, fields):
    with pytest.raises(ValueError, match="`training` is empty"):
        write_card(tmp_path, **fields | {"training": {}})
    with pytest.raises(ValueError, match=r"`training\['steps'\]` is empty"):
        write_card(tmp_path, **fields | {"training": {"steps": None}})
    with pytest.raises(ValueError, match="`rows` is empty"):
        write_card(tmp_path, **fields | {"results": []})


@pytest.mark.parametrize(
    "path", ["/srv/runs/teacher", "in `/srv/data/`", "out=/srv/x", "~/data", r"C:\data", "file:///srv/x", "(/srv/a/b)"]
)
@pytest.mark.parametrize("key", ["data", "limits", "stages", "initialization", "training", "results"])
def test_paths_of_the_machine_are_refused(tmp_path, fields, key, path):
    value = {"training": {"teacher": path}, "results": [{"name": path}]}.get(key, f"From {path}.")
    with pytest.raises(ValueError, match="holds the path"):
        write_card(tmp_path, **fields | {key: value})


@pytest.mark.parametrize("key", ["name", "base_model"])
@pytest.mark.parametrize("value", ["/srv/runs/teacher", "./teacher/x", "", "a/b/c"])
def test_name_that_is_no_repository_is_refused(tmp_path, fields, key, value):
    with pytest.raises(ValueError, match=f"`{key}` must be a Hub repository"):
        write_card(tmp_path, **fields | {key: value})
