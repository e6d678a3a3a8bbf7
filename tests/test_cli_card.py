"""The card of a run says what the run was."""

import copy
from pathlib import Path

import pytest
import torch

from ct_hf.cli_card import describe_run, find_license, public_command
from ct_hf.compression import CompressionArguments, InitializationReport, StagePlan
from ct_hf.compression.record import record_compression, training_rows
from ct_hf.hub import write_card
from ct_hf.models import OSTrackModel


PLAN = StagePlan.even(2, 1)
RENDERED = [{"share": 1.0, "source": "RenderedClips", "seed": 42}]
CONDITIONS = "cpu, float32, batch size 1, 1 thread, 0 frames of warm-up, clock: all of a step"


def make_record(tmp_path, data=RENDERED, step=700, is_best=False, **arguments):
    args = CompressionArguments(output_dir=str(tmp_path), use_cpu=True, **arguments)
    teacher = {"name": "teacher", "num_hidden_layers": 2}
    return record_compression(
        args,
        PLAN,
        teacher=teacher,
        data=data,
        pairs_per_step=64,
        precision="fp32",
        max_steps=700,
        step=step,
        is_best=is_best,
    )


def describe(record, **changes):
    row = {"auc": 60.0, "fps": 10.0, "conditions": CONDITIONS}
    fields = {
        "argv": ["--max_steps", "700"],
        "teacher": "org/teacher",
        "plan": PLAN,
        "report": InitializationReport(layers={0: 1}, copied=["a"]),
        "num_processes": 1,
        "num_sequences": 3,
        "judged_on": "sequences of `mine`",
        "photographs": False,
        "pictures": [],
    }
    return describe_run(record, [{"name": "teacher", **row}, {"name": "student", **row}], **{**fields, **changes})


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No card can be had from the Hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_settings_are_those_of_the_record(tmp_path):
    rows = training_rows(
        make_record(
            tmp_path,
            p_init=0.3,
            finetune_share=0.2,
            replacement_schedule="cosine",
            path_granularity="sample",
            learning_rate=2e-4,
            mimicking="gram",
            term_weights={"giou": 0.5},
            train_head=False,
            seed=5,
        )
    )
    assert (rows["Steps"], rows["Pairs a step"], rows["Seed"]) == ("700", 64, 5)
    assert rows["Learning rate"] == "0.0002, constant, a tenth after 80 %"
    assert rows["Replacement"] == "cosine, 0.3 to 1, a path for each sample; the student alone in the last 20 %"
    assert rows["Loss weights"].endswith("its hidden states 0.2 (gram, all stages)")
    assert rows["Factors of terms"] == "giou x0.5"
    assert rows["Not trained"] == "head, batch-norm statistics"
    assert f"torch {torch.__version__}" in rows["Versions"]


def test_the_best_checkpoint_is_named_and_what_it_was_chosen_on(tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    record = make_record(tmp_path, step=300, is_best=True, metric_for_best_model="tracking_auc", **best)
    assert training_rows(record)["Steps"] == "700; kept are the weights of step 300, best by tracking_auc"
    assert "these figures flatter it" in describe(record).notes
    for other in (make_record(tmp_path), make_record(tmp_path, is_best=True, metric_for_best_model="loss", **best)):
        assert "flatter" not in describe(other).notes


def test_a_linear_schedule_has_no_last_part(tmp_path):
    assert "alone" not in training_rows(make_record(tmp_path, replacement_schedule="linear"))["Replacement"]


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["--teacher", "org/t", "--train", "videos/train"], "ct-hf compress --teacher org/t --train videos/train"),
        (["--teacher=/srv/assets/small", "--max_steps", "7"], "ct-hf compress --teacher=small --max_steps 7"),
        (["--teacher=/srv/a/t", "--output_dir", "/srv/runs/out/"], "ct-hf compress --teacher=t --output_dir out"),
        (
            ["--teacher", "~/t", "--train", "lasot:/data/LaSOT", "../mine"],
            "ct-hf compress --teacher t --train lasot:LaSOT mine",
        ),
        (
            ["--teacher", "org/t", "--accelerator_config", '{"file": "/srv/runs/settings.json"}'],
            'ct-hf compress --teacher org/t --accelerator_config \'{"file": "settings.json"}\'',
        ),
        (
            ["--teacher", "org/t", "--term_weights", '{"giou": 0.5}', "--learning_rate", ".001"],
            "ct-hf compress --teacher org/t --term_weights '{\"giou\": 0.5}' --learning_rate .001",
        ),
    ],
)
def test_the_command_holds_no_path_of_the_machine(argv, command):
    assert public_command(argv) == command


def test_the_command_calls_relative_folders_by_their_last_names_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("clients/acme/train", "outputs/secret/tracker"):
        (tmp_path / folder).mkdir(parents=True)
    argv = ["--teacher", "outputs/secret/tracker", "--train", "folder:clients/acme/train", "org/clips"]
    assert public_command(argv) == "ct-hf compress --teacher tracker --train folder:train org/clips"


def test_the_command_of_several_processes():
    start = "accelerate launch --num_processes 8 -m ct_hf.cli compress --teacher org/t"
    assert public_command(["--teacher", "org/t"], 8) == start


@pytest.mark.parametrize("given", [["--hub_token", "hf_secret"], ["--hub-token=hf_secret"]])
def test_no_command_tells_a_token(given):
    told = public_command(["--teacher", "org/t", *given, "--max_steps", "4"])
    assert told == "ct-hf compress --teacher org/t --max_steps 4"


def test_the_licence_is_that_of_the_teachers_card(tmp_path, tiny_config):
    def say(head):
        (tmp_path / "README.md").write_text(head)
        return find_license(str(tmp_path))

    assert say("---\nlicense: mit\n---\n") == "mit"
    assert say("---\ntags: [a]\n---\n") == "unknown"
    assert say("---\nlicense: other\nlicense_name: mine\n---\n") == "unknown", "its terms are not repeated"
    assert say("---\nlicense: [mit, apache-2.0]\n---\n") == "unknown"
    assert say("No head.") == "unknown"
    assert find_license(str(tmp_path / "nothing")) == "unknown"
    assert find_license("org/teacher") == "unknown", "and no error where the Hub is out of reach"


def test_what_is_not_known_of_licences_is_said(tmp_path):
    card = describe(make_record(tmp_path))
    assert card.license == "unknown" and "nobody said under which licence" in card.licenses
    assert "rendered by ct_hf" in card.licenses and "No footage" in card.data
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert "`mit`, that of the teacher's card" in describe(make_record(tmp_path), teacher=str(tmp_path)).licenses


def test_data_are_named_with_their_shares(tmp_path):
    data = [
        {"name": "lasot", "share": 0.25, "source": "SequenceClips", "sequences": 1120, "clips": 9},
        {"share": 0.75, "source": "StoredClips", "repository": "user/clips", "revision": "v1", "files": 2},
    ]
    card = describe(make_record(tmp_path, data))
    assert card.data.splitlines() == [
        "- `lasot`, 1120 sequences: 25 % of the pairs",
        "- `user/clips` at `v1`: 75 % of the pairs",
    ]
    assert "each data set keeps its own licence" in card.licenses


def test_photographs_are_somebodys(tmp_path):
    card = describe(make_record(tmp_path), photographs=True)
    assert (
        "photographs of whoever trained it" in card.data and "whose licences this card does not know" in card.licenses
    )


def test_the_card_is_whole(tmp_path, tiny_config):
    """And says what `write_card` accepts."""
    record = make_record(tmp_path)
    config = copy.deepcopy(tiny_config)
    config.compression = record
    text = write_card(tmp_path / "card", OSTrackModel(config), describe(record)).read_text()
    assert "It was compressed from the tracker `teacher`" in text
    assert f"Measured under: {CONDITIONS}." in text
    assert "ct-hf compress --max_steps 700" in text
    assert "on\n3 sequences of `mine`;" in text
    assert Path(tmp_path).name not in text
