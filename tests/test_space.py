"""The page of examples/space: what is behind it, without Gradio, and how it is laid out to become a Space."""

import configparser
import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.utils import httpx
from transformers import BertConfig

from ct_hf.cli_compress import build_parser
from ct_hf.models import OSTrackModel
from ct_hf.tracking import VideoError, VideoWriter, open_video


ROOT = Path(__file__).parents[1]
SPACE = ROOT / "examples" / "space"
BOX = [40.0, 30.0, 20.0, 16.0]

sys.path.append(str(SPACE))

import following  # noqa: E402
import score_curve  # noqa: E402
import trackers  # noqa: E402
import videos  # noqa: E402


@pytest.fixture
def video(tmp_path):
    """Twelve frames of 100 x 80 pixels: a square that moves over noise."""
    rng = np.random.default_rng(0)
    background = rng.integers(0, 120, (80, 100, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "walk.mp4", 25) as writer:
        for step in range(12):
            frame = background.copy()
            frame[30:46, 40 + step : 60 + step] = 230
            writer.write(frame)
    return tmp_path / "walk.mp4"


class TestBox:
    frame = np.zeros((80, 100, 3), dtype=np.uint8)

    @pytest.mark.parametrize("text", ["40, 30, 20, 16", "40,30,20,16", " 40 30  20 16 ", "40.0,30, 2e1 ,16"])
    def test_is_read_with_commas_and_spaces(self, text):
        assert videos.parse_box(text, self.frame) == BOX

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (" ", "no box yet"),
            ("1, 2, 3", "four numbers"),
            ("1, 2, 3, four", "four numbers"),
            ("1, 2, nan, 4", "four numbers"),
            ("1, 2, 0, 4", "positive width"),
            ("100, 2, 3, 4", "outside the frame of 100x80"),
        ],
    )
    def test_that_cannot_be_used_says_why(self, text, message):
        with pytest.raises(ValueError, match=message):
            videos.parse_box(text, self.frame)

    @pytest.mark.parametrize(("corner", "other"), [((10, 20), (13, 29)), ((13, 20), (10, 29)), ((13, 29), (10, 20))])
    def test_between_corners_in_any_order(self, corner, other):
        assert videos.box_between(corner, other) == [10, 20, 4, 10]

    def test_text_is_read_back(self):
        assert videos.parse_box(videos.box_text([39.6, 30.4, 20, 16]), self.frame) == BOX

    def test_is_drawn_where_it_is_and_nowhere_else(self):
        before = self.frame.copy()
        drawn = np.asarray(videos.draw_box(self.frame, BOX))
        rows, columns = np.nonzero(drawn.any(2))
        assert (columns.min(), rows.min(), columns.max(), rows.max()) == pytest.approx((40, 30, 60, 46), abs=1)
        assert not drawn[36:40, 46:54].any()
        assert np.array_equal(self.frame, before)

    def test_corner_is_marked(self):
        drawn = np.asarray(videos.draw_corner(self.frame, (50, 40)))
        assert drawn[40, 50].any()
        assert not drawn[0, 0].any()


class TestFirstFrame:
    def test_is_the_first(self, video):
        frame = videos.first_frame(video)
        assert frame.shape == (80, 100, 3)
        assert frame[32:44, 42:58].mean() > 200

    def test_none_is_asked_for(self):
        with pytest.raises(ValueError, match="Upload one"):
            videos.first_frame(None)

    def test_of_what_is_no_video_names_the_file_but_not_its_folder(self, tmp_path):
        (tmp_path / "notes.mp4").write_text("no video" * 100)
        with pytest.raises(VideoError, match=r"^notes\.mp4 is not a video") as caught:
            videos.first_frame(tmp_path / "notes.mp4")
        assert str(tmp_path) not in str(caught.value)

    def test_too_large_is_refused(self, video, monkeypatch):
        monkeypatch.setattr(videos, "MAX_SIDE", 99)
        with pytest.raises(ValueError, match="100x80 pixels, more than the 99"):
            videos.first_frame(video)


def test_sample_leaves_and_comes_back():
    """Which is why it is the sample."""
    visible = [videos.SAMPLE.annotation(index)[1] for index in (0, 20, 60, 75, 120, 149)]
    assert visible == [True, True, False, False, True, True]


class TestFollowing:
    def test_files_and_scores_are_those_of_a_session(self, video, tiny_tracker, tmp_path):
        told = []
        out = following.follow_target(tiny_tracker, video, BOX, tmp_path / "out", lambda *step: told.append(step))
        frames = iter(open_video(video))
        session = tiny_tracker.start(next(frames), BOX)
        tracks = [session.update(frame) for frame in frames]
        assert out.scores == pytest.approx([1.0] + [track.score for track in tracks], abs=1e-6)
        boxes = np.loadtxt(out.tables[0], delimiter=",")
        np.testing.assert_allclose(boxes, [BOX] + [track.box for track in tracks], atol=0.01)
        table = np.genfromtxt(out.tables[1], delimiter=",", names=True)
        assert table["lost"].astype(bool).tolist() == out.lost
        assert sum(1 for _ in open_video(out.video)) == 12
        assert open_video(out.video).rate == Fraction(25)
        assert told[0] == (1, 12)
        assert told[-1] == (12, 12)
        assert out.ended == ""
        assert "clock: crop, forward pass and box" in out.speed.conditions
        assert f"{torch.get_num_threads()} thread" in out.speed.conditions

    def test_the_clock_runs_for_the_tracker_alone(self, video, tiny_tracker, tmp_path, monkeypatch):
        """Seconds are counted by hand: 100 for reading and 50 for telling, which do not count, and half a one a step."""
        now = [0.0]
        locate = type(tiny_tracker).locate

        def read(opened):
            for frame in opened.read():
                now[0] += 100
                yield frame

        def step(model, output):
            now[0] += 0.5
            return locate(model, output)

        def opened(path):
            plain = open_video(path)
            return replace(plain, read=lambda: read(plain))

        monkeypatch.setattr(following, "perf_counter", lambda: now[0])
        monkeypatch.setattr(following, "open_video", opened)
        monkeypatch.setattr(following, "MAX_SECONDS", 1e9)
        monkeypatch.setattr(type(tiny_tracker), "locate", step)
        out = following.follow_target(tiny_tracker, video, BOX, tmp_path, lambda *_: now.__setitem__(0, now[0] + 50))
        assert out.speed.fps == pytest.approx(2.0)
        assert out.seconds == pytest.approx(12 * 150 + 11 * 0.5)

    def test_long_videos_are_cut_and_it_is_said(self, video, tiny_tracker, tmp_path, monkeypatch):
        monkeypatch.setattr(following, "MAX_FRAMES", 5)
        told = []
        out = following.follow_target(tiny_tracker, video, BOX, tmp_path, lambda *step: told.append(step))
        assert len(out.scores) == sum(1 for _ in open_video(out.video)) == 5
        assert "first 5 frames" in out.ended
        assert told[-1] == (5, 5)

    def test_slow_trackers_are_stopped_and_it_is_said(self, video, tiny_tracker, tmp_path, monkeypatch):
        monkeypatch.setattr(following, "MAX_SECONDS", 0.0)
        out = following.follow_target(tiny_tracker, video, BOX, tmp_path)
        assert len(out.scores) == 1
        assert "Stopped after 0 seconds" in out.ended
        assert out.speed is None

    def test_a_video_that_breaks_off_is_followed_until_there(self, video, tiny_tracker, tmp_path, monkeypatch):
        def broken(path):
            plain = open_video(path)

            def read():
                for number, frame in enumerate(plain.read()):
                    if number == 4:
                        raise VideoError(f"{path}, frame 4: cannot be decoded")
                    yield frame

            return replace(plain, read=read)

        monkeypatch.setattr(following, "open_video", broken)
        out = following.follow_target(tiny_tracker, video, BOX, tmp_path / "out")
        assert len(out.scores) == sum(1 for _ in open_video(out.video)) == 4
        assert out.ended == "walk.mp4, frame 4: cannot be decoded"

    def test_large_frames_are_drawn_small_but_tracked_whole(self, video, tiny_tracker, tmp_path, monkeypatch):
        whole = following.follow_target(tiny_tracker, video, BOX, tmp_path / "whole")
        drawn = []

        def draw(frame, tracks, **marks):
            drawn.append(tracks[0].box.tolist())
            return frame

        monkeypatch.setattr("ct_hf.tracking.record.draw_tracks", draw)
        monkeypatch.setattr(following, "DRAWN_SIDE", 50)
        small = following.follow_target(tiny_tracker, video, BOX, tmp_path / "small")
        assert small.tables[0].read_text() == whole.tables[0].read_text()
        assert next(iter(open_video(small.video))).shape == (40, 50, 3)
        np.testing.assert_allclose(drawn, np.loadtxt(whole.tables[0], delimiter=",") / 2, atol=0.01)

    def test_a_box_that_cannot_be_used_leaves_no_file(self, video, tiny_tracker, tmp_path):
        with pytest.raises(ValueError, match="outside"):
            following.follow_target(tiny_tracker, video, [200, 0, 5, 5], tmp_path / "out")
        assert not list((tmp_path / "out").glob("*.mp4"))


class TestCurve:
    def test_shows_scores_and_marks_each_loss(self):
        lost = [False] * 3 + [True] * 2 + [False] * 2 + [True] * 3
        figure = score_curve.plot_scores(np.linspace(1, 0.1, 10).tolist(), lost)
        (axes,) = figure.axes
        curve = axes.get_lines()[0]
        assert curve.get_xdata()[[0, -1]].tolist() == [1, 9]
        np.testing.assert_allclose(curve.get_ydata(), np.linspace(1, 0.1, 10)[1:])
        bands = [(band.get_x(), band.get_x() + band.get_width()) for band in axes.patches]
        assert bands == [(2.5, 4.5), (6.5, 9.5)]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["score", "low below 0.25", "lost"]

    def test_without_a_loss_has_no_word_of_it(self):
        figure = score_curve.plot_scores([1.0, 0.9, 0.8], [False] * 3)
        assert len(figure.legends[0].get_texts()) == 2

    @pytest.mark.parametrize(("scores", "lost"), [([1.0], [False]), ([1.0, 0.5], [False])])
    def test_needs_frames(self, scores, lost):
        with pytest.raises(ValueError, match="of one length"):
            score_curve.plot_scores(scores, lost)


class TestOffered:
    def test_by_default_the_teacher_that_ships(self):
        offered = trackers.offered_trackers({})
        assert Path(offered["teacher"]) == ROOT / "examples" / "assets" / "teacher"

    def test_what_the_demo_made_is_offered_too(self, tmp_path, monkeypatch):
        student = ROOT / build_parser().get_default("output_dir") / "student"
        made = [place for place in trackers._DEFAULT if place.resolve() == student]
        assert len(made) == 1
        (tmp_path / "student").mkdir()
        (tmp_path / "student" / "config.json").touch()
        monkeypatch.setattr(trackers, "_DEFAULT", (tmp_path / "student", tmp_path / "nothing"))
        assert trackers.offered_trackers({}) == {"student": str(tmp_path / "student")}

    def test_what_the_environment_names(self, tmp_path):
        folders = [tmp_path / "a" / "student", tmp_path / "b" / "student", tmp_path / "c" / "other"]
        for folder in folders:
            folder.mkdir(parents=True)
        named = ", ".join([*map(str, folders), "name/tracker", ""])
        offered = trackers.offered_trackers({"CT_HF_TRACKERS": named})
        assert list(offered) == [str(folders[0]), str(folders[1]), "other", "name/tracker"]
        assert offered["other"] == str(folders[2])

    def test_none_is_an_error(self, monkeypatch):
        monkeypatch.setattr(trackers, "_DEFAULT", ())
        with pytest.raises(ValueError, match="no tracker is at hand"):
            trackers.offered_trackers({"CT_HF_TRACKERS": " , "})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that stands for the Hub's only repository, `org/thing`; whatever else is asked for does not exist."""
    folder, asked = tmp_path / "thing", []
    folder.mkdir()

    class Api:
        def __init__(self, token):
            assert token is False

        def model_info(self, repository, files_metadata, timeout):
            if repository != "org/thing":
                raise httpx.ConnectError("Name or service not known")
            files = [path for path in folder.iterdir() if path.is_file()]
            siblings = [type("File", (), {"rfilename": path.name, "size": path.stat().st_size}) for path in files]
            return type("Info", (), {"siblings": siblings, "sha": "0" * 40})

    def download(repository, token, allow_patterns, revision):
        assert token is False
        asked.extend([allow_patterns] if isinstance(allow_patterns, str) else allow_patterns)
        return str(folder)

    monkeypatch.setattr(trackers, "HfApi", Api)
    monkeypatch.setattr(trackers, "snapshot_download", download)
    trackers.load_tracker.cache_clear()
    yield folder, asked
    trackers.load_tracker.cache_clear()


class TestTypedRepository:
    def test_loads_without_fetching_code(self, hub, tiny_tracker):
        folder, asked = hub
        tiny_tracker.save_pretrained(folder)
        model = trackers.load_tracker(" org/thing ")
        assert isinstance(model, OSTrackModel)
        assert not model.training
        assert asked and not any(pattern.endswith((".py", "*")) for pattern in asked)

    def test_of_another_kind_is_refused_before_its_weights(self, hub):
        folder, asked = hub
        BertConfig().save_pretrained(folder)
        (folder / "model.safetensors").write_bytes(b"0" * 100)
        with pytest.raises(trackers.TrackerError, match="model of type bert"):
            trackers.load_tracker("org/thing")
        assert asked == ["config.json"]

    def test_runs_no_code(self, hub):
        folder, _ = hub
        config = {"model_type": "unheard_of", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
        with pytest.raises(trackers.TrackerError, match="its own code is not run"):
            trackers.load_tracker("org/thing")
        assert not (folder / "ran").exists()

    def test_too_large_is_refused(self, hub, tiny_tracker, monkeypatch):
        tiny_tracker.save_pretrained(hub[0])
        monkeypatch.setattr(trackers, "MAX_WEIGHTS", 1000)
        with pytest.raises(trackers.TrackerError, match="more than the"):
            trackers.load_tracker("org/thing")

    def test_without_all_weights_does_not_track_at_random(self, hub, tiny_tracker):
        kept = {name: tensor for name, tensor in tiny_tracker.state_dict().items() if "layers.1." not in name}
        tiny_tracker.save_pretrained(hub[0], state_dict=kept)
        with pytest.raises(trackers.TrackerError, match="lack .* tensors"):
            trackers.load_tracker("org/thing")

    def test_with_cut_weights_says_so(self, hub, tiny_tracker):
        tiny_tracker.save_pretrained(hub[0])
        weights = hub[0] / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        with pytest.raises(trackers.TrackerError, match="cannot be loaded"):
            trackers.load_tracker("org/thing")

    @pytest.mark.parametrize("files", [{}, {"config.json": "[1]"}, {"config.json": "{"}, {"config.json": "{}"}])
    def test_that_is_no_tracker(self, hub, files):
        for name, text in files.items():
            (hub[0] / name).write_text(text)
        with pytest.raises(trackers.TrackerError, match="tracker"):
            trackers.load_tracker("org/thing")

    def test_that_cannot_be_reached(self, hub):
        with pytest.raises(trackers.TrackerError, match="org/other could not be fetched"):
            trackers.load_tracker("org/other")

    @pytest.mark.parametrize("name", ["", "teacher2", "/etc", "../secret", "a/b/c", str(ROOT)])
    def test_that_has_no_such_name(self, hub, name):
        """Also not a folder of this machine."""
        with pytest.raises(trackers.TrackerError, match="repository"):
            trackers.load_tracker(name)


class TestLayout:
    def test_header_says_what_a_space_needs(self):
        header = yaml.safe_load(SPACE.joinpath("README.md").read_text().split("---")[1])
        assert header["sdk"] == "gradio"
        assert (SPACE / header["app_file"]).is_file()
        assert header["license"] == "apache-2.0"
        assert len(header["short_description"]) <= 60
        pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
        assert header["sdk_version"] == pins["gradio"]

    def test_requirements_are_those_of_ct_hf(self):
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        needed = set(setup["options"]["install_requires"].split("\n")) - {""}
        extra = {
            line for line in setup["options.extras_require"]["space"].split("\n") if line and "gradio" not in line
        }
        lines = (SPACE / "requirements.txt").read_text().splitlines()
        assert {line for line in lines if not line.startswith("#")} == needed | extra
