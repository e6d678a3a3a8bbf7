"""What a training pushes: trackers with a card, in whole commits, and nothing of the run."""

import json

import pytest
from safetensors.torch import load
from transformers import AutoModel

from ct_hf import cli_compress
from ct_hf.compression import TrackerTrainer, TrackerTrainingArguments

from ..hub.conftest import api, hub  # noqa: F401 - fixtures
from ..hub.server import TOKEN, Fault
from .tiny import make_pairs, make_tracker
from .training import make_arguments, make_trainer


PLACE = "org/student"


@pytest.fixture(autouse=True)
def at_the_server(hub, api, monkeypatch):  # noqa: F811
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)


def trainer_in(folder, **changes):
    defaults = {"push_to_hub": True, "hub_model_id": PLACE, "hub_token": TOKEN, "max_steps": 3}
    return make_trainer(folder, **{**defaults, **changes})


def test_each_checkpoint_is_pushed_while_training_goes_on(hub, tmp_path):  # noqa: F811
    trainer = trainer_in(tmp_path, save_strategy="steps", save_steps=1, hub_always_push=True, save_total_limit=1)
    trainer.train()
    trainer.push_to_hub()  # the same once more, for which no commit is made
    repository = hub.repositories["models", PLACE]
    titles = [f"Training in progress, step {step}" for step in (3, 2, 1)]
    assert [commit.title for commit in repository.history("main")] == [*titles, "initial commit"]
    assert repository.private
    for commit in repository.history("main")[:-1]:
        weights = load(commit.files["model.safetensors"].data)
        assert weights.keys() == trainer.student.state_dict().keys(), "no projections, and a whole file"
        for name in commit.files:
            assert name.endswith((".json", ".py", ".md", ".safetensors")) or name == ".gitattributes", name
    for name, value in trainer.student.state_dict().items():
        assert (load(repository.head.files["model.safetensors"].data)[name] == value).all(), name
    assert not any(TOKEN.encode() in entry.data for entry in repository.head.files.values())


def test_the_card_says_what_is_known_and_no_more(hub, tmp_path):  # noqa: F811
    trainer = trainer_in(tmp_path)
    trainer.train()
    trainer.push_to_hub()
    card = hub.repositories["models", PLACE].head.files["README.md"].data.decode()
    assert f"# {PLACE}" in card and "| Steps" in card and "library_name: transformers" in card
    assert "progressive, 0.5 to 1" in card and "- `list`, " in card, "method and data are those of the record"
    assert "generated_from_trainer" not in card and "license: unknown" in card and "model-index" not in card
    trainer.push_to_hub(data="Noise of one seed.", license="mit", commit_message="Card")
    card = hub.repositories["models", PLACE].head.files["README.md"].data.decode()
    assert "Noise of one seed." in card and "license: mit" in card
    assert not (tmp_path / "README.md").exists()


def test_a_card_that_somebody_wrote_is_the_one_that_is_pushed(hub, tmp_path):  # noqa: F811
    trainer = trainer_in(tmp_path)
    trainer.create_model_card(limits="Only for noise.")
    trainer.create_model_card()
    trainer.push_to_hub()
    assert b"Only for noise." in hub.repositories["models", PLACE].head.files["README.md"].data


def test_a_trainer_of_any_tracker_pushes_no_pickle(hub, tmp_path):  # noqa: F811
    """It writes pickled arguments where it saves; a token of theirs too."""
    args = make_arguments(tmp_path, TrackerTrainingArguments, max_steps=1, hub_model_id=PLACE, hub_token=TOKEN)
    trainer = TrackerTrainer(make_tracker(2), args, train_dataset=make_pairs(4))
    trainer.train()
    assert trainer.push_to_hub(blocking=False).result(30).oid == hub.repositories["models", PLACE].head.oid
    assert "model.safetensors" in hub.repositories["models", PLACE].head.files
    assert not any(name.endswith(".bin") for name in hub.repositories["models", PLACE].head.files)


def test_strategies_that_push_pickles_are_refused(hub, tmp_path):  # noqa: F811
    for strategy in ("checkpoint", "all_checkpoints"):
        with pytest.raises(ValueError, match=f"`hub_strategy` is {strategy}, but checkpoints hold pickles"):
            trainer_in(tmp_path, hub_strategy=strategy)
    assert not hub.requests


def test_a_token_that_may_not_write_is_found_before_training(hub, tmp_path):  # noqa: F811
    with pytest.raises(PermissionError, match="other/student cannot be pushed to.*hf auth login"):
        trainer_in(tmp_path, hub_model_id="other/student")


def test_public_by_choice(hub, tmp_path):  # noqa: F811
    trainer_in(tmp_path, hub_private_repo=False).push_to_hub()
    assert not hub.repositories["models", PLACE].private
    assert "model.safetensors" in hub.repositories["models", PLACE].head.files
    with pytest.raises(ValueError, match="org/student is public"):
        trainer_in(tmp_path).push_to_hub()


def test_a_push_that_fails_stops_no_training_and_is_told(hub, tmp_path, caplog):  # noqa: F811
    hub.faults.append(Fault("status", "POST .*/commit/", status=500, times=1))
    trainer = trainer_in(tmp_path, save_strategy="steps", save_steps=1, hub_always_push=True)
    trainer.train()
    assert trainer.state.global_step == 3
    titles = [commit.title for commit in hub.repositories["models", PLACE].history("main")]
    assert titles == [f"Training in progress, step {step}" for step in (3, 2)] + ["initial commit"]
    assert "The tracker of step 1 was not pushed, and training goes on" in caplog.text
    assert TOKEN not in caplog.text


def test_a_compression_is_pushed_with_its_card_and_pictures(hub, tmp_path, capsys):  # noqa: F811
    make_tracker(4).save_pretrained(tmp_path / "teacher")
    arguments = ["--teacher", tmp_path / "teacher", "--max_steps", 2, "--eval_sequences", 1, "--from_scratch"]
    arguments += ["--per_device_train_batch_size", 2, "--use_cpu", "--dataloader_num_workers", 0, "--num_stages", 2]
    arguments += ["--push_to_hub", "--hub_model_id", PLACE, "--hub_token", TOKEN, "--output_dir", tmp_path / "out"]
    cli_compress.main([*map(str, arguments), "--save_strategy", "no"])
    history = hub.repositories["models", PLACE].history("main")
    assert len(history) == 2, "one commit, of the student alone"
    files = history[0].files
    assert {"tracks.png", "summary.json", "README.md", "model.safetensors"} <= files.keys()
    assert f"# {PLACE}" in files["README.md"].data.decode() and "AUC" in files["README.md"].data.decode()
    assert f"pushed to {hub.endpoint}/{PLACE}, commit" in capsys.readouterr().out
    student = AutoModel.from_pretrained(tmp_path / "out" / "student")
    for name, value in load(files["model.safetensors"].data).items():
        assert (student.state_dict()[name] == value).all()
    assert json.loads(files["config.json"].data)["num_hidden_layers"] == 2
