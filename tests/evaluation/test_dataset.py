"""An evaluation in a folder: resumed, shared out, and never mixed up."""

import json
import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from ct_hf.evaluation import DatasetEvaluation, comparison_table, dataset, evaluate_trackers
from ct_hf.evaluation.hardware import describe_device
from ct_hf.evaluation.results import read_results


HERE = describe_device(torch.device("cpu"))


def test_the_folder_says_what_the_result_says(tmp_path, make_sequence, make_tracker):
    sequences = [make_sequence("a", num_frames=6), make_sequence("b", num_frames=3)]
    trackers = {"perfect": make_tracker(sequences[0].boxes), "org/static": make_tracker()}
    result = DatasetEvaluation(tmp_path, split="small").run(trackers, sequences, progress=False)
    expected = evaluate_trackers(trackers, sequences, progress=False)
    kept = read_results(tmp_path)
    assert (kept.dataset, kept.protocol) == ("folder small", "visible")
    assert [(sequence.name, sequence.frames) for sequence in kept.sequences] == [("a", 6), ("b", 3)]
    for ours, theirs, written in zip(result.trackers, expected.trackers, kept.trackers, strict=True):
        assert ours.name == theirs.name == written.name
        assert ours.score == written.score == pytest.approx(theirs.score)
        assert ours.per_sequence == written.per_sequence
        assert np.mean(written.curves["success"].values) == pytest.approx(written.score["auc"])
        assert written.speed.fps == ours.fps > 0
        assert (written.speed.device, written.speed.batch_size, written.speed.dtype) == (HERE, 2, "float32")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "perfect" / "a.txt", delimiter=","), sequences[0].boxes)
    assert len(np.loadtxt(tmp_path / "org--static" / "b_time.txt")) == 3
    with Image.open(tmp_path / "strips" / "a.png") as strip:
        assert strip.width > strip.height


def test_finished_sequences_are_not_tracked_again(tmp_path, make_sequence, make_tracker):
    """Also after a run that broke off in the middle; figures are those of an uninterrupted one."""

    class Broken(type(make_sequence())):
        def frame(self, index):
            if index == 2 and self.broken:
                raise OSError("the disk is gone")
            return super().frame(index)

    sequences = [make_sequence("a"), Broken("b"), make_sequence("c")]
    sequences[1].broken = True
    tracker = make_tracker()
    evaluation = DatasetEvaluation(tmp_path, batch_size=1)
    with pytest.raises(OSError, match="the disk is gone"):
        evaluation.run({"t": tracker}, sequences, progress=False)
    assert (tmp_path / "t" / "a.txt").is_file() and not (tmp_path / "results.json").exists()
    sequences[1].broken = False
    tracker.starts.clear()
    result = evaluation.run({"t": tracker}, sequences, progress=False)
    assert len(tracker.starts) == 2
    assert result.trackers[0].score == evaluate_trackers({"t": tracker}, sequences, progress=False).trackers[0].score
    tracker.starts.clear()
    again = evaluation.run({"t": tracker}, sequences, progress=False)
    assert tracker.starts == [] and again.to_dict() == result.to_dict()


def test_boxes_of_other_weights_are_not_taken(tmp_path, make_sequence, make_tracker):
    tracker, sequences = make_tracker(), [make_sequence()]
    DatasetEvaluation(tmp_path).run({"t": tracker}, sequences, progress=False)
    with torch.no_grad():
        tracker.weight[0] = 1
    with pytest.raises(ValueError, match="t holds boxes of another tracker.*Delete that folder"):
        DatasetEvaluation(tmp_path).run({"t": tracker}, sequences, progress=False)
    (tmp_path / "t" / "tracker.json").unlink()
    with pytest.raises(ValueError, match="tracker.json is not there"):
        DatasetEvaluation(tmp_path).run({"t": tracker}, sequences, progress=False)


def test_a_changed_configuration_is_another_tracker(tmp_path, make_sequence, tiny_config):
    from ct_hf import OSTrackModel

    torch.manual_seed(0)
    tracker = OSTrackModel(tiny_config).eval()
    before = dataset._fingerprint(tracker)
    tracker.config.search_factor += 0.5
    assert dataset._fingerprint(tracker) != before
    tracker.config.search_factor -= 0.5
    tracker.head.score.norms[0].running_mean += 1
    assert dataset._fingerprint(tracker) != before, "statistics decide boxes as well"


def test_where_a_tracker_is_from_does_not_matter(tmp_path, tiny_tracker):
    tiny_tracker.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    loaded.config.transformers_version = "99.0"
    loaded.config.auto_map = {"AutoModel": "modeling_ostrack.OSTrackModel"}
    assert dataset._fingerprint(loaded) == dataset._fingerprint(tiny_tracker)


def test_boxes_of_other_coordinates_or_annotation_are_not_taken(tmp_path, make_sequence, make_tracker):
    tracker, sequence = make_tracker(), make_sequence()
    DatasetEvaluation(tmp_path, "lasot").run({"t": tracker}, [sequence], progress=False)
    with pytest.raises(ValueError, match="t holds boxes that count from 1, those of folder count from 0"):
        DatasetEvaluation(tmp_path).run({"t": tracker}, [sequence], progress=False)
    sequence.boxes = sequence.boxes + np.float32(2)
    with pytest.raises(ValueError, match=r"square.txt starts at \[10.0, .*but square at \[12.0, .*Delete the file"):
        DatasetEvaluation(tmp_path, "lasot").run({"t": tracker}, [sequence], progress=False)


def test_two_evaluations_do_not_write_into_one_folder(tmp_path, make_sequence, make_tracker):
    class Nested(type(make_sequence())):
        def frame(self, index):
            with pytest.raises(ValueError, match="Another evaluation writes into"):
                DatasetEvaluation(tmp_path).run({"t": make_tracker()}, [make_sequence()], progress=False)
            return super().frame(index)

    DatasetEvaluation(tmp_path).run({"t": make_tracker()}, [Nested(num_frames=2)], progress=False)
    DatasetEvaluation(tmp_path).run({"t": make_tracker()}, [make_sequence(num_frames=2)], progress=False)


def test_sequences_whose_files_would_be_called_alike_are_refused(tmp_path, make_sequence, make_tracker):
    with pytest.raises(ValueError, match="holds lap and lap_time, whose result files are called alike"):
        DatasetEvaluation(tmp_path).run({"t": make_tracker()}, [make_sequence("lap"), make_sequence("lap_time")])


def test_speed_is_of_one_kind_of_run_or_none(tmp_path, make_sequence, make_tracker):
    tracker, sequences = make_tracker(), [make_sequence("a"), make_sequence("b")]
    DatasetEvaluation(tmp_path, batch_size=1).run({"t": tracker}, sequences[:1], progress=False)
    DatasetEvaluation(tmp_path, batch_size=2).run({"t": tracker}, sequences, progress=False)
    assert read_results(tmp_path).trackers[0].speed is None
    assert read_results(tmp_path).trackers[0].score["auc"] > 0


def test_speed_is_that_of_the_run_whatever_judges_it_again(tmp_path, make_sequence, make_tracker):
    tracker, sequences = make_tracker(), [make_sequence("a"), make_sequence("b")]
    before = DatasetEvaluation(tmp_path, batch_size=1).run({"t": tracker}, sequences, progress=False)
    again = DatasetEvaluation(tmp_path, batch_size=2).run({"t": tracker}, sequences, progress=False)
    assert again.trackers[0].speed == before.trackers[0].speed
    assert again.trackers[0].speed.batch_size == 1


def test_a_kill_before_the_first_box_is_no_obstacle(tmp_path, make_sequence, make_tracker):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / ".tracker.json.partial").write_text('{"weig')
    DatasetEvaluation(tmp_path).run({"t": make_tracker()}, [make_sequence()], progress=False)
    assert (tmp_path / "results.json").is_file()


def test_strips_are_of_this_evaluation(tmp_path, make_sequence, make_tracker):
    trackers = {"a": make_tracker(make_sequence().boxes), "b": make_tracker()}
    DatasetEvaluation(tmp_path).run(trackers, [make_sequence("old"), make_sequence("new")], progress=False)
    DatasetEvaluation(tmp_path).run(trackers, [make_sequence("new")], progress=False)
    assert [path.name for path in (tmp_path / "strips").iterdir()] == ["new.png"]
    DatasetEvaluation(tmp_path).run({"a": trackers["a"]}, [make_sequence("new")], progress=False)
    assert not any((tmp_path / "strips").iterdir()), "one alone differs from none"


def test_more_trackers_than_colours_are_judged(tmp_path, make_sequence, make_tracker):
    sequence = make_sequence()
    trackers = {"perfect": make_tracker(sequence.boxes), **{f"static{number}": make_tracker() for number in range(8)}}
    result = DatasetEvaluation(tmp_path).run(trackers, [sequence], progress=False)
    assert len(result.trackers) == 9 and (tmp_path / "strips" / "square.png").is_file()


def test_boxes_of_another_length_are_refused(tmp_path, make_sequence, make_tracker):
    tracker = make_tracker()
    DatasetEvaluation(tmp_path).run({"t": tracker}, [make_sequence(num_frames=5)], progress=False)
    with pytest.raises(ValueError, match="has 5 rows, but square has 6 frames"):
        DatasetEvaluation(tmp_path).run({"t": tracker}, [make_sequence(num_frames=6)], progress=False)


def test_trackers_that_would_share_a_folder_are_refused(tmp_path, make_sequence, make_tracker):
    trackers = {"org/t": make_tracker(), "org:t": make_tracker()}
    with pytest.raises(ValueError, match="would share a folder"):
        DatasetEvaluation(tmp_path).run(trackers, [make_sequence()], progress=False)
    DatasetEvaluation(tmp_path / "in").run({"../../t": make_tracker()}, [make_sequence()], progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_two_processes_share_the_work(tmp_path, tiny_tracker):
    """Each sequence is tracked once; the figures are those of one process."""
    tiny_tracker.save_pretrained(tmp_path / "tracker")
    worker = """
import sys
from transformers import AutoModel
import ct_hf
from ct_hf.data import procedural_sequences
from ct_hf.evaluation import DatasetEvaluation, lock_step

track, mine = lock_step._Lane, []
lock_step._Lane = lambda model, sequence: mine.append(sequence.name) or track(model, sequence)
sequences = procedural_sequences(0, 3, length=3, size=(96, 72))
tracker = {"t": AutoModel.from_pretrained(sys.argv[1])}
result = DatasetEvaluation(sys.argv[2], batch_size=1).run(tracker, sequences)
DatasetEvaluation(sys.argv[2], batch_size=1).run(tracker, sequences)  # another data set may come next
sys.stdout.write(f"{len(mine)} tracked, {'judged' if result else 'silent'}\\n")
"""
    (tmp_path / "worker.py").write_text(worker)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    run = subprocess.run(
        [*launch, str(tmp_path / "worker.py"), str(tmp_path / "tracker"), str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(line for line in run.stdout.splitlines() if "tracked" in line) == [
        "1 tracked, silent",
        "2 tracked, judged",
    ]
    from ct_hf.data import procedural_sequences

    sequences = procedural_sequences(0, 3, length=3, size=(96, 72))
    alone = evaluate_trackers({"t": tiny_tracker}, sequences, progress=False).trackers[0]
    together = read_results(tmp_path / "two").trackers[0]
    assert together.score == pytest.approx(alone.score, abs=0.1)
    assert together.speed.device == f"{HERE}, 2 processes"
    assert json.loads((tmp_path / "two" / "results.json").read_text())["versions"]["torch"]


def test_files_are_in_the_data_sets_own_coordinates(tmp_path, make_sequence, make_tracker):
    """LaSOT counts pixels from 1; the figures do not change by it."""
    sequence = make_sequence()
    tracker = make_tracker(sequence.boxes)
    result = DatasetEvaluation(tmp_path, "lasot").run({"t": tracker}, [sequence], progress=False)
    assert result.protocol == "lasot"
    np.testing.assert_allclose(
        np.loadtxt(tmp_path / "t" / "square.txt", delimiter=","), sequence.boxes + [1, 1, 0, 0], atol=1e-4
    )
    assert result.trackers[0].score["auc"] == pytest.approx(100 * 20 / 21)


def test_withheld_ground_truth_gives_a_zip_for_the_server(tmp_path, make_sequence, make_tracker):
    sequences = [make_sequence("GOT-10k_Test_000001"), make_sequence("GOT-10k_Test_000002", num_frames=4)]
    for sequence in sequences:
        sequence.annotated = False
        sequence.boxes[1:] = np.nan
        sequence.visible[1:] = False
    evaluation = DatasetEvaluation(tmp_path, "got10k", split="test")
    assert evaluation.run({"t": make_tracker()}, sequences, progress=False) is None
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        assert "GOT-10k_Test_000002/GOT-10k_Test_000002_001.txt" in archive.namelist()
        assert len(archive.read("GOT-10k_Test_000002/GOT-10k_Test_000002_time.txt").split()) == 4
    assert not (tmp_path / "results.json").exists()
    with pytest.raises(ValueError, match="ground truth in frame 0 only.*DatasetEvaluation"):
        evaluate_trackers({"t": make_tracker()}, sequences, progress=False)


def test_unknown_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`layout` must be one of lasot.*got 'mot'"):
        DatasetEvaluation(tmp_path, "mot")


def test_speeds_of_two_runs_are_not_compared(tmp_path, make_sequence, make_tracker, monkeypatch):
    """Trackers took turns in neither: the machine may have had other work in one of them."""
    sequences = [make_sequence("a")]
    DatasetEvaluation(tmp_path).run({"first": make_tracker()}, sequences, progress=False)
    monkeypatch.setattr(dataset, "datetime", SimpleNamespace(now=lambda _: datetime(2030, 1, 1, tzinfo=UTC)))
    both = {"first": make_tracker(), "second": make_tracker()}
    result = DatasetEvaluation(tmp_path).run(both, sequences, progress=False)
    first, second = (tracker.speed.conditions for tracker in result.trackers)
    assert first != second and second.endswith("run begun 2030-01-01T00:00:00+00:00")
    assert first.partition(", run begun")[0] == second.partition(", run begun")[0]
    header, _, *rows = comparison_table(result.to_dict()["trackers"]).splitlines()
    assert "Speed-up" in header and rows[0].endswith(" 1.00x |") and rows[1].endswith(" - |")


def test_the_batch_is_the_one_that_runs(tmp_path, make_sequence, make_tracker):
    """Of fewer sequences than fit, no more are tracked at once."""
    sequences = [make_sequence("a"), make_sequence("b"), make_sequence("c")]
    (few,) = evaluate_trackers({"t": make_tracker()}, sequences, batch_size=8, progress=False).trackers
    (one,) = DatasetEvaluation(tmp_path).run({"t": make_tracker()}, sequences[:1], progress=False).trackers
    (grown,) = DatasetEvaluation(tmp_path).run({"t": make_tracker()}, sequences, progress=False).trackers
    assert (few.speed.batch_size, one.speed.batch_size, grown.speed) == (3, 1, None)


def test_no_zip_is_made_of_boxes_of_another_annotation(tmp_path, make_sequence, make_tracker):
    sequence = make_sequence("a")
    sequence.annotated = False
    evaluation = DatasetEvaluation(tmp_path, layout="got10k", split="test")
    evaluation.run({"static": make_tracker()}, [sequence], progress=False)
    (tmp_path / "static.zip").unlink()
    sequence.boxes = sequence.boxes + 5
    with pytest.raises(ValueError, match="its annotation was another then"):
        evaluation.run({"static": make_tracker()}, [sequence], progress=False)
    assert not (tmp_path / "static.zip").exists()


@pytest.mark.parametrize("content", ["{}", "[]", "{"])
def test_a_damaged_claim_is_named(tmp_path, make_sequence, make_tracker, content):
    DatasetEvaluation(tmp_path).run({"t": make_tracker()}, [make_sequence("a")], progress=False)
    (tmp_path / "t" / "tracker.json").write_text(content)
    with pytest.raises(ValueError, match="tracker.json does not say whose results"):
        DatasetEvaluation(tmp_path).run({"t": make_tracker()}, [make_sequence("a")], progress=False)


def test_boxes_without_seconds_have_figures_and_no_speed(tmp_path, make_sequence, make_tracker, caplog):
    """As of results that were copied without them."""
    run = [{"t": make_tracker()}, [make_sequence("a")]]
    before = DatasetEvaluation(tmp_path).run(*run, progress=False)
    (tmp_path / "t" / "a_time.txt").unlink()
    after = DatasetEvaluation(tmp_path).run(*run, progress=False)
    assert after.trackers[0].score == before.trackers[0].score and after.trackers[0].speed is None
    assert "no seconds of 1 sequences, such as a" in caplog.text
