import json
import math
from dataclasses import asdict

import pytest

from ct_hf.evaluation.results import Curve, Results, SequenceLength, Speed, TrackerScores, read_results


RESULTS = Results(
    "Drawn",
    "otb",
    [SequenceLength("a", 10), SequenceLength("b", 20)],
    [
        TrackerScores(
            "teacher",
            12,
            92_100_000,
            {"auc": 61.5},
            {"a": {"auc": 60.0}, "b": {"auc": 63.0}},
            {"success": Curve([0.0, 1.0], [98.5, 0.0])},
            Speed(20.5, "cpu", "float32", 1, 1, 5, "median of update"),
        ),
        TrackerScores("static box", None, None, {"auc": 20.0}, {"a": {"auc": 20.0}}),
    ],
)


def save(folder, content):
    (folder / "results.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_what_the_dataclasses_hold_is_what_is_read(tmp_path):
    assert read_results(save(tmp_path, asdict(RESULTS))) == RESULTS


def test_other_keys_are_ignored_and_optional_ones_may_lack(tmp_path):
    content = asdict(RESULTS) | {"commit": "1234", "written": [1, 2]}
    for key in ("layers", "parameters", "curves", "speed"):
        del content["trackers"][1][key]
    content["trackers"][0]["curves"]["of another kind"] = "unknown"
    assert read_results(save(tmp_path, content)) == RESULTS


@pytest.mark.parametrize("text", ["NaN", "null"])
def test_an_unknown_figure_is_nan_and_not_0(tmp_path, text):
    content = json.dumps(asdict(RESULTS)).replace("61.5", text)
    assert math.isnan(read_results(save(tmp_path, content)).trackers[0].score["auc"])


def test_main_figure_is_the_one_that_ranks_by_the_protocol():
    figures = {
        protocol: Results("x", protocol, [], []).main_figure
        for protocol in ("otb", "lasot", "uav", "visible", "got10k", "trackingnet")
    }
    assert figures == dict.fromkeys(("otb", "lasot", "uav", "visible"), "auc") | {
        "got10k": "ao",
        "trackingnet": "success",
    }


def test_conditions_say_all_but_the_speed():
    speed = RESULTS.trackers[0].speed
    assert speed.conditions == "cpu, float32, batch size 1, 1 thread, 5 frames of warm-up, clock: median of update"
    assert Speed(**asdict(speed) | {"fps": 99.0}).conditions == speed.conditions
    for key, value in asdict(speed).items():
        if key != "fps":
            assert Speed(**asdict(speed) | {key: value * 2 if value else "then"}).conditions != speed.conditions


def without(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def with_(value, *keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("protocol"), "the whole lacks the key `protocol`"),
        (without("trackers", 1, "score"), r"`trackers\[1\]` lacks the key `score`"),
        (with_("vot", "protocol"), '`protocol` must be one of otb, .*got "vot"'),
        (with_({}, "trackers"), r"`trackers` must be a list, got \{\}"),
        (with_([], "trackers"), "`trackers` must be at least one, of distinct names, got none"),
        (with_("teacher", "trackers", 1, "name"), "`trackers` must be .* several called teacher"),
        (with_("a", "sequences", 1, "name"), "`sequences` must be .* several called a"),
        (with_("a\nb", "dataset"), "`dataset` must be a text without control"),
        (with_(0, "sequences", 0, "frames"), r"`sequences\[0\].frames` must be a whole number of at least 1, got 0"),
        (with_("61", "trackers", 0, "score", "auc"), r'`trackers\[0\].score.auc` must be a number.*got "61"'),
        (with_(True, "trackers", 0, "score", "auc"), r"`trackers\[0\].score.auc` must be a number.*got true"),
        (with_(math.inf, "trackers", 0, "score", "auc"), r"`trackers\[0\].score.auc` must be a number"),
        (with_(1.5, "trackers", 0, "layers"), r"`trackers\[0\].layers` must be a whole number"),
        (with_({"c": {"auc": 1}}, "trackers", 0, "per_sequence"), r"`trackers\[0\].per_sequence` names c, which"),
        (with_([1.0], "trackers", 0, "curves", "success", "values"), "got 1 values and 2 thresholds"),
        (with_([None, 1], "trackers", 0, "curves", "success", "thresholds"), "2 thresholds with null"),
        (with_(0, "trackers", 0, "speed", "fps"), r"`trackers\[0\].speed.fps` must be above 0.*got 0"),
        (without("trackers", 0, "speed", "clock"), r"`trackers\[0\].speed` lacks the key `clock`"),
    ],
)
def test_another_form_is_named_by_file_and_key(tmp_path, change, message):
    content = asdict(RESULTS)
    change(content)
    with pytest.raises(ValueError, match=message) as error:
        read_results(save(tmp_path, content))
    assert str(error.value).startswith(str(tmp_path / "results.json"))


def test_a_list_or_no_json_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`the whole` must be an object of keys and values, got \[1\]"):
        read_results(save(tmp_path, [1]))
    with pytest.raises(ValueError, match=r"results\.json is not JSON: .*line 1"):
        read_results(save(tmp_path, '{"dataset": '))
    (tmp_path / "results.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"results\.json is not JSON"):
        read_results(tmp_path)


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing/results\.json is not there.*ct-hf evaluate"):
        read_results(tmp_path / "nothing")
