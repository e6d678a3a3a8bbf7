"""What is pushed, where to, and what of it stays here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from PIL import Image
from safetensors.torch import load, save_file
from transformers import AutoConfig, AutoModel, pipeline

from ct_hf import OSTrackConfig, OSTrackModel, TrackerImageProcessor
from ct_hf.cli import main
from ct_hf.hub import TrackerCard, push_folder, write_card
from ct_hf.hub import push as push_module
from ct_hf.hub.card import UNNAMED
from ct_hf.hub.push import tracker_files
from ct_hf.models import PreTrainedTracker, TrackerConfig

from .clean import run
from .server import TOKEN


PLACE = "org/ct-tiny"
ROOT = Path(__file__).parents[2]
CODE = {
    "box_ops.py",
    "configuration_ostrack.py",
    "configuration_tracker.py",
    "heads.py",
    "image_processing_tracker.py",
    "layers.py",
    "modeling_ostrack.py",
    "session.py",
    "templates.py",
    "tracker.py",
    "weights.py",
}
SAVED = {".gitattributes", "README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture
def left(tiny_tracker, tmp_path):
    """What `ct-hf compress` leaves behind."""
    out = tmp_path / "out"
    tiny_tracker.save_pretrained(out / "student")
    TrackerImageProcessor.from_config(tiny_tracker.config).save_pretrained(out / "student")
    for name in ("training.png", "tracks.png"):
        Image.new("RGB", (8, 8)).save(out / name)
    card = TrackerCard(
        name=UNNAMED,
        place=UNNAMED,
        about="From org/teacher.",
        results=[{"name": "teacher", "auc": 60.0}, {"name": "student", "auc": 50.0}],
        evaluated_on="noise",
        training={"Steps": 3},
        pictures=[out / "training.png"],
        data="Noise.",
        limits="All of them.",
        licenses="Apache-2.0.",
        license="apache-2.0",
    )
    write_card(out / "student", tiny_tracker, card)
    (out / "summary.json").write_text("{}")
    (out / "checkpoint-500").mkdir()
    (out / "checkpoint-500" / "optimizer.pt").write_bytes(b"x")
    return out


def files_of(hub, place=PLACE):
    return {name: entry.data for name, entry in hub.repositories["models", place].head.files.items()}


def test_all_of_it_goes_in_one_commit_to_a_private_repository(hub, api, left):
    commit = push_folder(left, PLACE, api=api, message="A student")
    repository = hub.repositories["models", PLACE]
    assert [entry.title for entry in repository.history("main")] == ["A student", "initial commit"]
    assert repository.private and commit.oid == repository.head.oid
    files = files_of(hub)
    assert files.keys() == SAVED | CODE | {"training.png", "summary.json"}, "tracks.png may show footage"
    assert files["model.safetensors"] == (left / "student" / "model.safetensors").read_bytes()
    assert json.loads(files["config.json"])["auto_map"] == {
        "AutoConfig": "configuration_ostrack.OSTrackConfig",
        "AutoModel": "modeling_ostrack.OSTrackModel",
        "AutoImageProcessor": "image_processing_tracker.TrackerImageProcessor",
    }


def test_the_card_speaks_of_the_repository(hub, api, left):
    push_folder(left, PLACE, api=api)
    card = files_of(hub)["README.md"].decode()
    assert f"# {PLACE}\n" in card and f'AutoModel.from_pretrained("{PLACE}")' in card
    assert (
        "ct-student" not in card
        and "- name: ct-tiny\n" in card
        and "From org/teacher" in card
        and "library_name: transformers" in card
    )
    assert "your-name/ct-student" in (left / "student" / "README.md").read_text(), "here it stays as it was"


def test_the_code_of_pushed_cards_runs_as_printed(hub, api, left, tmp_path):
    """Of a run's student, and of the teacher that ships here, whose card speaks of its folder."""
    environment = {**hub.environment(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    code = []
    for place, folder in ((PLACE, left), ("org/small-teacher", ROOT / "examples" / "assets" / "teacher")):
        push_folder(folder, place, api=api)
        card = files_of(hub, place)["README.md"].decode()
        code += re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
        assert "examples/assets/teacher" not in card and f'from_pretrained("{place}")' in code[-1]
    assert len(code) == 2
    done = run("\nprint(len(boxes))\n".join([*code, ""]), environment=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["59", "59"]


def test_nothing_here_is_changed_by_a_push(hub, api, left, tiny_tracker, tmp_path):
    """Neither the folder, nor classes, nor the model: what is saved later holds no code."""
    before = {path: path.read_bytes() for path in left.rglob("*") if path.is_file()}
    push_folder(left, PLACE, api=api)
    assert {path: path.read_bytes() for path in left.rglob("*") if path.is_file()} == before
    for cls in (OSTrackModel, OSTrackConfig, TrackerImageProcessor):
        assert cls._auto_class is None
    tiny_tracker.save_pretrained(tmp_path / "later")
    assert {path.name for path in (tmp_path / "later").iterdir()} == {"config.json", "model.safetensors"}
    assert "auto_map" not in (tmp_path / "later" / "config.json").read_text()


def test_a_repeated_push_sends_nothing_twice(hub, api, left):
    first = push_folder(left, PLACE, api=api)
    large = hub.count("PUT /storage")
    assert push_folder(left, PLACE, api=api).oid == first.oid, "no commit without a change"
    (left / "summary.json").write_text('{"auc": 1}')
    assert push_folder(left, PLACE, api=api).oid != first.oid
    assert hub.count("PUT /storage") == large == 2, "weights and picture, once each"


def test_what_an_earlier_tracker_left_goes_with_the_same_commit(hub, api, left):
    """Shards and code of another family would be read together with the new ones; other files stay."""
    push_folder(left, PLACE, api=api)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.md", repo_id=PLACE)
    model = AutoModel.from_pretrained(left / "student")
    (left / "student" / "model.safetensors").unlink()
    model.save_pretrained(left / "student", max_shard_size="20kB")
    shards = {path.name for path in (left / "student").glob("model-*.safetensors")}
    assert len(shards) > 1
    push_folder(left, PLACE, api=api)
    assert "notes.md" in files_of(hub) and shards < files_of(hub).keys()
    assert "model.safetensors" not in files_of(hub)
    assert len(hub.repositories["models", PLACE].history("main")) == 4


@pytest.fixture
def warnings(monkeypatch):
    told = []
    monkeypatch.setattr(push_module.logger, "warning", told.append)
    return told


def test_a_public_repository_takes_what_is_meant_to_be_public(hub, api, left, warnings):
    with pytest.raises(ValueError, match="org/open is public.*--public"):
        api.create_repo("org/open", private=False)
        push_folder(left, "org/open", api=api)
    assert files_of(hub, "org/open").keys() == {".gitattributes"}
    push_folder(left, "org/open", private=False, api=api)
    assert "model.safetensors" in files_of(hub, "org/open")
    push_folder(left, PLACE, api=api)
    assert not warnings
    push_folder(left, PLACE, private=False, api=api)
    assert "org/ct-tiny is private and stays so" in warnings[0]
    assert hub.repositories["models", PLACE].private


def test_a_branch_is_made_and_main_left_alone(hub, api, left):
    push_folder(left, PLACE, api=api, revision="wide")
    repository = hub.repositories["models", PLACE]
    assert repository.head.files.keys() == {".gitattributes"}
    assert "model.safetensors" in repository.resolve("wide").files


def test_a_tracker_in_memory_gets_a_card_that_claims_nothing(hub, api, tiny_tracker, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    commit = tiny_tracker.push_to_hub(PLACE, token=TOKEN, commit_message="From memory")
    assert commit.commit_message == "From memory" and hub.repositories["models", PLACE].private
    assert files_of(hub).keys() == SAVED | CODE
    card = files_of(hub)["README.md"].decode()
    assert "license: unknown" in card and "Nobody has said how well" in card and "AUC" not in card
    assert json.loads(files_of(hub)["preprocessor_config.json"])["search_size"] == tiny_tracker.config.search_size
    assert not hasattr(tiny_tracker.config, "auto_map")
    tiny_tracker.push_to_hub("org/open", token=TOKEN, private=False)
    assert not hub.repositories["models", "org/open"].private


def test_every_way_of_transformers_pushes_privately(hub, api, tiny_tracker, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # made once, for the server of that time
    processor = TrackerImageProcessor.from_config(tiny_tracker.config)
    tracking = pipeline("visual-object-tracking", model=tiny_tracker, image_processor=processor)
    tiny_tracker.save_pretrained(tmp_path, push_to_hub=True, repo_id="org/saved", commit_message="Saved")
    tracking.push_to_hub("org/piped")
    processor.push_to_hub("org/processor")
    for name in ("org/saved", "org/piped", "org/processor"):
        assert hub.repositories["models", name].private, name
    for name in ("org/saved", "org/piped"):
        assert files_of(hub, name).keys() == SAVED | CODE
    assert not any((tmp_path / name).exists() for name in ("README.md", "modeling_ostrack.py")), (
        "a folder is only saved"
    )
    tiny_tracker.save_pretrained(tmp_path / "tiny", True, push_to_hub=True)
    assert files_of(hub, "org/tiny").keys() == SAVED | CODE, "the user's own, of the folder's name"
    tiny_tracker.push_to_hub("org/parts", max_shard_size="20kB", commit_description="In parts.")
    assert sum(name.endswith(".safetensors") for name in files_of(hub, "org/parts")) > 1
    with pytest.raises(TypeError, match="unexpected keyword argument 'tags'"):
        tiny_tracker.push_to_hub("org/tagged", tags=["x"])
    assert ("models", "org/tagged") not in hub.repositories, "nothing is left behind"
    with pytest.raises(ValueError, match="org/open is public"):
        api.create_repo("org/open", private=False)
        tiny_tracker.save_pretrained(tmp_path, push_to_hub=True, repo_id="org/open")


def test_a_folder_without_card_and_processor_gets_both(tiny_tracker, tmp_path):
    tiny_tracker.save_pretrained(tmp_path / "bare")
    files = tracker_files(tmp_path / "bare", PLACE)
    assert b"not recorded" in files["README.md"] and b'"search_size": 64' in files["preprocessor_config.json"]


def test_folders_that_hold_no_tracker(tmp_path, tiny_tracker, hub, api):
    with pytest.raises(ValueError, match="holds no config.json, neither itself nor in its folder 'student'"):
        push_folder(tmp_path, PLACE, api=api)
    tiny_tracker.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no model.safetensors, and other weights are not pushed"):
        push_folder(tmp_path, PLACE, api=api)
    tiny_tracker.save_pretrained(tmp_path, max_shard_size="20kB")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(ValueError, match="lacks model-00002-of-.*a part of the weights"):
        push_folder(tmp_path, PLACE, api=api)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="holds a vit, which is no tracker"):
        push_folder(tmp_path, PLACE, api=api)
    for name in ("a/b/c", "/srv/x", ""):
        with pytest.raises(ValueError, match="`repository` must"):
            push_folder(tmp_path, name, api=api)
    assert hub.requests == [], "nothing was asked of the Hub"


def test_a_tracker_of_ones_own_is_pushed_without_its_code(hub, api, tmp_path, warnings):
    class OwnConfig(TrackerConfig):
        model_type = "own_tracker"

    class OwnTracker(OSTrackModel):
        config: OwnConfig
        config_class = OwnConfig

    AutoConfig.register("own_tracker", OwnConfig, exist_ok=True)
    AutoModel.register(OwnConfig, OwnTracker, exist_ok=True)
    config = OwnConfig(hidden_size=16)
    config.save_pretrained(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Own\n")
    push_folder(tmp_path, PLACE, api=api)
    assert files_of(hub).keys() == SAVED and b"auto_map" not in files_of(hub)["config.json"]
    assert "OwnConfig is defined outside ct_hf, so its code is not pushed" in warnings[0]


def test_without_a_right_to_write(hub, api, left):
    for token in (False, "hf_wrong"):
        with pytest.raises(PermissionError, match="cannot be pushed to.*hf auth login") as caught:
            push_folder(left, PLACE, api=HfApi(hub.endpoint, token=token))
        assert "hf_wrong" not in str(caught.value)
    with pytest.raises(PermissionError, match="other/tracker cannot be pushed to"):
        push_folder(left, "other/tracker", api=api)
    assert not hub.repositories


def test_the_command(hub, left, tmp_path):
    """In a process of its own: the client reads its address when it is imported."""

    def push(*arguments, token=TOKEN):
        environment = {**hub.environment(tmp_path / "home", token=token), "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "ct_hf.cli", "push", *map(str, arguments)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    done = push(left, PLACE, "--message", "From the shell")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"pushed to {hub.endpoint}/{PLACE}, commit {hub.repositories['models', PLACE].head.oid[:8]}" in done.stdout
    assert (
        hub.repositories["models", PLACE].head.title == "From the shell" and hub.repositories["models", PLACE].private
    )
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN in request for request in hub.requests)
    assert not any(TOKEN.encode() in data for data in files_of(hub).values())


def test_the_command_says_what_is_wrong_in_a_line(tmp_path, capsys):
    assert main(["push", str(tmp_path), PLACE]) == 1
    assert capsys.readouterr().err.startswith(f"ct-hf: `folder` {tmp_path} holds no config.json")


def test_pushing_is_there_for_every_tracker():
    assert PreTrainedTracker.push_to_hub.__doc__ and OSTrackModel.push_to_hub is PreTrainedTracker.push_to_hub


def test_frames_of_the_users_own_stay_here(left):
    """What `ct-hf evaluate` and `report` wrote into the folder: figures go, pictures and pages do not."""
    results = left / "results"
    for name in ("results.json", "student/walk.txt", "strips/walk.png", "report.html", "tracks.mp4"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("{}")
    names = {name for name in tracker_files(left, PLACE) if name.startswith("results/")}
    assert names == {"results/results.json", "results/student/walk.txt"}


@pytest.fixture
def signed_in(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def weights_of(hub):
    return {name for name in files_of(hub) if name.startswith("model") and not name.endswith(".py")}


def test_a_variant_leaves_the_other_weights_alone(hub, api, tiny_tracker, signed_in):
    """As in transformers, they live side by side; shards of an earlier push of the same go."""
    tiny_tracker.push_to_hub(PLACE, max_shard_size="40kB")
    plain = weights_of(hub)
    assert len(plain) > 2
    tiny_tracker.push_to_hub(PLACE, variant="fp16", max_shard_size="40kB")
    both = weights_of(hub)
    assert plain < both and "model.safetensors.index.fp16.json" in both
    tiny_tracker.push_to_hub(PLACE, variant="fp16")
    assert weights_of(hub) == {*plain, "model.fp16.safetensors"}


def test_code_of_an_earlier_push_goes_and_that_of_the_owner_stays(hub, api, tiny_tracker, signed_in):
    tiny_tracker.push_to_hub(PLACE)
    own = ("handler.py", "app.py", "tools/modeling_odtrack.py", "__init__.py")
    api.create_commit(
        PLACE,
        [CommitOperationAdd(name, b"pass") for name in (*own, "modeling_odtrack.py")],
        commit_message="Serve it",
    )
    tiny_tracker.push_to_hub(PLACE)
    assert set(own) < set(files_of(hub)) and "modeling_odtrack.py" not in files_of(hub)


def test_a_folder_of_a_variant_alone(tiny_tracker, tmp_path):
    tiny_tracker.save_pretrained(tmp_path, variant="fp16")
    assert {"model.fp16.safetensors", "README.md"} < tracker_files(tmp_path, PLACE).keys()


def test_saving_and_pushing_at_once_pushes_what_is_saved(hub, api, tiny_tracker, tmp_path, signed_in):
    zeros = {name: torch.zeros_like(value) for name, value in tiny_tracker.state_dict().items()}
    tiny_tracker.save_pretrained(tmp_path, False, push_to_hub=True, repo_id=PLACE)
    assert ("models", PLACE) not in hub.repositories, "this process is not the one that saves"
    tiny_tracker.save_pretrained(tmp_path / "out", True, zeros, True, "40kB", "fp16", repo_id=PLACE)
    shards = {name for name in weights_of(hub) if name.endswith(".safetensors")}
    assert len(shards) > 1 and all(name.startswith("model.fp16-") for name in shards)
    for name in shards:
        assert not any(value.any() for value in load(files_of(hub)[name]).values())


def test_a_card_keeps_the_names_of_others(tiny_tracker, tmp_path):
    card = """---
base_model: org/teacher
---

# org/mine

From org/teacher, with `AutoModel.from_pretrained("org/teacher")` and `CLIPModel.from_pretrained("openai/clip")`.
`AutoModel.from_pretrained("me/old").start(frame, box)`
"""
    tiny_tracker.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text(card)
    pushed = tracker_files(tmp_path, PLACE)["README.md"].decode()
    assert pushed == card.replace("org/mine", PLACE).replace("me/old", PLACE)
    teachers = card.replace("me/old", "org/teacher")  # a card that starts its teacher
    (tmp_path / "README.md").write_text(teachers)
    assert tracker_files(tmp_path, PLACE)["README.md"].decode() == teachers.replace("org/mine", PLACE)


@pytest.mark.parametrize("card", [b"caf\xe9", b"---\nlicense: [mit\n---\n# A card"])
def test_a_card_that_is_none(tiny_tracker, tmp_path, card):
    tiny_tracker.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_bytes(card)
    with pytest.raises(ValueError, match=r"README.md cannot be read as a card \(.*\). Mend or remove it"):
        tracker_files(tmp_path, PLACE)


def test_a_card_that_somebody_wrote_outlives_new_weights(hub, api, tiny_tracker, signed_in):
    """One that nobody wrote is made anew, since it tells sizes."""
    tiny_tracker.push_to_hub(PLACE)
    plain = files_of(hub)["README.md"]
    written = b"# org/tiny\n\nIt follows balls.\n"
    api.upload_file(path_or_fileobj=written, path_in_repo="README.md", repo_id=PLACE)
    tiny_tracker.push_to_hub(PLACE)
    assert files_of(hub)["README.md"] == written
    api.upload_file(path_or_fileobj=plain.replace(b"2 layers", b"9 layers"), path_in_repo="README.md", repo_id=PLACE)
    tiny_tracker.push_to_hub(PLACE)
    assert files_of(hub)["README.md"] == plain


def test_no_message_is_the_usual_one_and_no_token_a_missing_right(hub, api, tiny_tracker, signed_in, monkeypatch):
    tiny_tracker.push_to_hub(PLACE, commit_message=None)
    assert api.list_repo_commits(PLACE)[0].title == "Upload tracker"
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match="hf auth login"):
        tiny_tracker.push_to_hub("tracker")
