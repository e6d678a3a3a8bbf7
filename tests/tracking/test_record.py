import csv
import io
from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import pytest

from ct_hf.models import Track
from ct_hf.tracking import VideoError, open_video, record, record_tracks, track_targets
from ct_hf.tracking.record import TrackTable

from .conftest import BOX


OTHER_BOX = [10.0, 12.0, 30.0, 24.0]


@pytest.fixture
def video(frames, tmp_path):
    """A folder of the frames, read without loss."""
    from PIL import Image

    (tmp_path / "frames").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{index}.png")
    return open_video(tmp_path / "frames")


@pytest.fixture
def model(models):
    return models("ostrack")


def outputs(folder):
    return [folder / "out" / name for name in ("drawn.mp4", "boxes.txt", "table.csv")]


def test_all_forms_hold_all_frames(model, video, frames, tmp_path):
    drawn, boxes, table = outputs(tmp_path)
    done = record_tracks(model, video, [BOX, OTHER_BOX], [drawn, boxes, table], progress=False)
    assert (done.num_frames, done.stopped) == (8, False)
    expected = np.array(
        [[track.box for track in tracks] for _, tracks in track_targets(model, frames, [BOX, OTHER_BOX])]
    )
    np.testing.assert_allclose(np.loadtxt(boxes, delimiter=",").reshape(8, 2, 4), expected, atol=0.01)
    rows = list(csv.DictReader(table.open()))
    assert [(row["frame"], row["target"]) for row in rows[:3]] == [("0", "1"), ("0", "2"), ("1", "1")]
    assert len(rows) == 16 and rows[0]["score"] == "1.0000"
    np.testing.assert_allclose([float(row["w"]) for row in rows], expected[:, :, 2].flatten(), atol=0.01)
    shown = list(open_video(drawn))
    assert len(shown) == 8 and shown[0].shape == (80, 100, 3)
    assert np.abs(shown[0].astype(int) - frames[0]).mean() > 2


def test_an_error_leaves_whole_files(model, video, tmp_path):
    from PIL import Image

    Image.new("RGB", (50, 40)).save(tmp_path / "frames" / "5.png")
    drawn, boxes, table = outputs(tmp_path)
    with pytest.raises(VideoError, match="frame 5: 50x40 pixels"):
        record_tracks(model, video, [BOX], [drawn, boxes, table], progress=False)
    assert len(list(open_video(drawn))) == 5
    assert np.loadtxt(boxes, delimiter=",").shape == (5, 4)
    assert len(table.read_text().splitlines()) == 1 + 5


def test_stops_between_two_frames_when_asked(model, video, tmp_path):
    asked = iter([False, False, True])
    drawn, boxes, table = outputs(tmp_path)
    done = record_tracks(model, video, [BOX], [drawn, boxes, table], progress=False, stop=lambda: next(asked))
    assert (done.num_frames, done.stopped) == (3, True)
    assert len(list(open_video(drawn))) == len(boxes.read_text().splitlines()) == 3


def test_lost_targets_are_counted_and_marked(model, video, monkeypatch):
    scores = [1.0, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    steps = [(frame, [Track(np.array(BOX), score)]) for frame, score in zip(video, scores, strict=True)]
    monkeypatch.setattr(record, "track_targets", lambda *_: iter(steps))
    table = io.StringIO()
    assert record_tracks(model, video, [BOX], [TrackTable(table)], progress=False).lost == [2]
    assert [row["lost"] for row in csv.DictReader(io.StringIO(table.getvalue()))] == list("00000011")


class TestRefuses:
    def test_before_a_file_is_touched(self, model, video, tmp_path):
        """A result of last time is not written over by a run that cannot start."""
        (tmp_path / "boxes.txt").write_text("last time")
        with pytest.raises(ValueError, match="lies outside the frame"):
            record_tracks(model, video, [[200, 30, 20, 16]], [tmp_path / "boxes.txt"], progress=False)
        with pytest.raises(ValueError, match="`out` .*video.avi must end in .mp4, .txt, .csv"):
            record_tracks(model, video, [BOX], [tmp_path / "boxes.txt", tmp_path / "video.avi"], progress=False)
        assert (tmp_path / "boxes.txt").read_text() == "last time"

    def test_to_write_over_the_video(self, model, make_video):
        path = make_video(3)
        size = path.stat().st_size
        with pytest.raises(ValueError, match="`out` .*video.mp4 is the video itself"):
            record_tracks(model, open_video(path), [[10, 10, 20, 20]], [path], progress=False)
        assert path.stat().st_size == size


def test_a_camera_is_recorded_at_the_pace_of_its_tracker(model, video, tmp_path, monkeypatch):
    clock = iter(np.arange(100) * 0.2)
    monkeypatch.setattr(record, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    record_tracks(model, replace(video, live=True), [BOX], [tmp_path / "live.mp4"], progress=False)
    with av.open(str(tmp_path / "live.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    np.testing.assert_allclose(np.diff(times), 0.2, atol=1e-3)


def test_the_rule_of_loss_is_the_users(model, video, tmp_path):
    done = record_tracks(model, video, [BOX], [tmp_path / "t.csv"], threshold=1.0, patience=1, progress=False)
    # The first frame has score 1; no score of a model is that high.
    assert done.lost == [done.num_frames - 1]
