import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ct_hf.evaluation.result_files import ResultFiles, read_boxes


BOXES = np.array([[1.0, 2.0, 30.0, 40.0], [1.25, -2.5, 30.00004, 0.0]])


def test_flat_layout(tmp_path):
    files = ResultFiles(tmp_path / "results" / "tracker")
    path = files.write("car-1", BOXES, [0.5, 0.25])
    assert path == tmp_path / "results" / "tracker" / "car-1.txt" == files.boxes_path("car-1")
    assert path.read_text() == "1.0000,2.0000,30.0000,40.0000\n1.2500,-2.5000,30.0000,0.0000\n"
    assert (path.parent / "car-1_time.txt").read_text() == "0.50000000\n0.25000000\n"
    assert np.abs(files.read("car-1", num_frames=2) - BOXES).max() < 1e-4


def test_got10k_layout(tmp_path):
    files = ResultFiles(tmp_path, "got10k")
    path = files.write("GOT-10k_Val_000001", BOXES, [0.5, 0.25])
    folder = tmp_path / "GOT-10k_Val_000001"
    assert path == folder / "GOT-10k_Val_000001_001.txt"
    assert sorted(os.listdir(folder)) == ["GOT-10k_Val_000001_001.txt", "GOT-10k_Val_000001_time.txt"]
    # As its toolkit reads them.
    assert np.loadtxt(path, delimiter=",").shape == (2, 4)
    assert np.loadtxt(folder / "GOT-10k_Val_000001_time.txt", delimiter=",").tolist() == [0.5, 0.25]


def test_seconds_are_read_back(tmp_path):
    files = ResultFiles(tmp_path)
    assert not files.has("car")
    files.write("car", np.ones((3, 4)), [0.5, 0.25, 1e-6])
    assert files.has("car")
    assert files.read_seconds("car").tolist() == [0.5, 0.25, 1e-6]
    files.seconds_path("car").write_text("0.5\nnan\n")
    with pytest.raises(ValueError, match="car_time.txt line 2: got 'nan', expected one finite number"):
        files.read_seconds("car")


@pytest.mark.parametrize("layout", ["flat", "got10k"])
def test_a_sequence_is_finished_where_its_own_boxes_are(tmp_path, layout):
    """Neither where another has them whose name begins alike, nor where a run was killed behind the seconds."""
    files = ResultFiles(tmp_path, layout)
    files.write("car-10", BOXES, [1, 1])
    assert files.has("car-10") and not files.has("car-1")
    files.write("car-1", BOXES, [1, 1])
    assert files.has("car-1")
    files.boxes_path("car-1").unlink()
    assert files.seconds_path("car-1").is_file() and not files.has("car-1")


def test_seconds_are_optional_but_for_got10k(tmp_path):
    ResultFiles(tmp_path).write("a", BOXES)
    assert os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(ValueError, match="`seconds` of a is None, but layout got10k"):
        ResultFiles(tmp_path, "got10k").write("a", BOXES)


@pytest.mark.parametrize("text", ["1\t2\t30\t40\n5\t6\t7\t8\n", "1,2,30,40\n5,6,7,8", "1 2 30 40\r\n5 6 7 8\r\n\r\n"])
def test_other_trackers_files_are_read(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert ResultFiles(tmp_path).read("a").tolist() == [[1, 2, 30, 40], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n1,2,3\n", "line 2: got '1,2,3', expected four finite numbers"),
        ("1,2,3,4,5\n", "line 1: got '1,2,3,4,5', expected four"),
        ("1,2,3,4\nnan,nan,nan,nan\n", "line 2: got 'nan,nan,nan,nan', expected four finite"),
        ("1,2,inf,4\n", "line 1: got '1,2,inf,4'"),
        ("1,2,3,four\n", "line 1: got '1,2,3,four'"),
        ("1,2,3,4\n\n5,6,7,8\n", "line 2: got ''"),
        ("", "is empty"),
    ],
)
def test_broken_file_is_refused_by_line(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_boxes(tmp_path / "a.txt")
    assert "a.txt" in str(caught.value)


def test_another_length_and_a_missing_file_are_refused(tmp_path):
    files = ResultFiles(tmp_path)
    files.write("a", BOXES)
    with pytest.raises(ValueError, match=r"a\.txt has 2 rows, but a has 3 frames"):
        files.read("a", num_frames=3)
    with pytest.raises(FileNotFoundError, match=r"b\.txt is not there"):
        files.read("b")


@pytest.mark.parametrize("row", [[np.nan] * 4, [0, 0, np.inf, 1], [0, 0, -1, 1]])
def test_broken_boxes_are_not_written(tmp_path, row):
    with pytest.raises(ValueError, match="`boxes` of a frame 1: got"):
        ResultFiles(tmp_path).write("a", np.array([[0, 0, 1, 1], row]))
    assert os.listdir(tmp_path) == []


def test_other_arguments_are_refused(tmp_path):
    files = ResultFiles(tmp_path)
    for boxes in (np.zeros(4), np.zeros((2, 8)), np.zeros((0, 4))):
        with pytest.raises(ValueError, match=r"`boxes` of a must have shape \(num_frames, 4\)"):
            files.write("a", boxes)
    for seconds in ([0.1], [0.1, -1], [0.1, np.nan]):
        with pytest.raises(ValueError, match="`seconds` of a must be 2 numbers of at least 0"):
            files.write("a", BOXES, seconds)
    for name in ("", "..", "a/b", "a\\b"):
        with pytest.raises(ValueError, match="`name` must be a sequence's name"):
            files.write(name, BOXES)
    with pytest.raises(ValueError, match="`layout` must be flat or got10k, got 'vot'"):
        ResultFiles(tmp_path, "vot")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("layout", ["flat", "got10k"])
def test_killed_run_leaves_no_half_file(tmp_path, monkeypatch, layout):
    """Neither where there was nothing, nor in place of what was there."""
    files = ResultFiles(tmp_path, layout)
    files.write("old", BOXES, [1, 1])

    class KilledError(BaseException):
        pass

    def half(self, text, *args, **kwargs):
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        if "time" not in self.name:
            raise KilledError

    monkeypatch.setattr(Path, "write_text", half)
    for name in ("old", "new"):
        with pytest.raises(KilledError):
            files.write(name, BOXES + 1, [2, 2])
    assert files.read("old").tolist() == pytest.approx(BOXES.round(4))
    assert not files.boxes_path("new").exists()
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []


def test_boxes_come_last(tmp_path, monkeypatch):
    """Where there are boxes, the seconds are there too."""
    order = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: order.append(target.name) or replace(self, target))
    ResultFiles(tmp_path).write("a", BOXES, [1, 1])
    assert order == ["a_time.txt", "a.txt"]


def test_others_may_read_the_files(tmp_path):
    mask = os.umask(0o022)
    try:
        path = ResultFiles(tmp_path).write("a", BOXES)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644


def test_zip_for_trackingnet_holds_boxes_alone(tmp_path):
    files = ResultFiles(tmp_path / "tracker")
    for name in ("b", "a", "left_out"):
        files.write(name, BOXES, [1, 1])
    path = files.pack(["b", "a"], tmp_path / "out" / "tracker.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["b.txt", "a.txt"]
        assert archive.read("a.txt").decode() == files.boxes_path("a").read_text()
    assert os.listdir(tmp_path / "out") == ["tracker.zip"]


def test_zip_for_got10k_holds_folders_with_seconds(tmp_path):
    files = ResultFiles(tmp_path / "tracker", "got10k")
    files.write("s1", BOXES, [1, 1])
    with zipfile.ZipFile(files.pack(["s1"], tmp_path / "tracker.zip")) as archive:
        assert sorted(archive.namelist()) == ["s1/s1_001.txt", "s1/s1_time.txt"]


def test_zip_is_refused_where_something_is_missing_or_broken(tmp_path):
    files, out = ResultFiles(tmp_path / "tracker"), tmp_path / "tracker.zip"
    files.write("a", BOXES)
    with pytest.raises(FileNotFoundError, match=r"1 of 2 result files are not there, the first is .*b\.txt"):
        files.pack(["a", "b"], out)
    with pytest.raises(ValueError, match="`names` is empty"):
        files.pack([], out)
    files.boxes_path("b").write_text("1,2,3")
    with pytest.raises(ValueError, match=r"b\.txt line 1"):
        files.pack(["a", "b"], out)
    assert not out.exists()
