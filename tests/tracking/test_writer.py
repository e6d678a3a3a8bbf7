import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from ct_hf.tracking import VideoError, VideoWriter, open_video, writer

from .conftest import numbered, numbers


def test_frames_come_back(tmp_path):
    """In their colours and order, at their rate."""
    with VideoWriter(tmp_path / "new" / "video.mp4", Fraction(30000, 1001)) as video:
        for index in range(30):
            video.write(numbered(index))
    video = open_video(tmp_path / "new" / "video.mp4")
    assert (video.num_frames, video.rate) == (30, Fraction(30000, 1001))
    frames = list(video)
    assert numbers(frames) == list(range(30))
    assert np.abs(frames[5].astype(int) - numbered(5)).max() <= 4


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("size", [(65, 49), (64, 49), (65, 48)])
def test_odd_sides_are_lengthened_at_the_right_and_bottom(tmp_path, monkeypatch, codec, size):
    """So that boxes stay where they are; the added pixels are like their neighbours."""
    monkeypatch.setattr(writer, "CODECS", {codec: writer.CODECS[codec]})
    frame = numbered(0, size)
    frame[10:20, 20:40] = 250
    with VideoWriter(tmp_path / "odd.mp4") as video:
        video.write(frame)
    (shown,) = open_video(tmp_path / "odd.mp4")
    assert shown.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert shown[12:18, 19].max() < 120 < 180 < shown[12:18, 20].min()
    assert shown[9, 22:38].max() < 120 < 180 < shown[10, 22:38].min()
    assert np.abs(shown[-1, -1].astype(int) - frame[-1, -1]).max() < 12


def test_h264_where_it_is_there_else_mpeg4(tmp_path, monkeypatch):
    for codecs, expected in ((av.codecs_available, "h264"), ({"mpeg4"}, "mpeg4")):
        monkeypatch.setattr(av, "codecs_available", codecs)
        with VideoWriter(tmp_path / "video.mp4") as video:
            video.write(numbered(0))
        with av.open(str(tmp_path / "video.mp4")) as container:
            assert container.streams.video[0].codec_context.name == expected


def test_an_exception_leaves_a_whole_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "video.mp4") as video:
        for index in range(12):
            video.write(numbered(index))
        raise KeyboardInterrupt
    assert numbers(open_video(tmp_path / "video.mp4")) == list(range(12))


def test_a_killed_process_leaves_a_file_that_plays(tmp_path):
    code = (
        "import sys, time\n"
        "import numpy as np\n"
        "from ct_hf.tracking import VideoWriter\n"
        f"video = VideoWriter({str(tmp_path / 'video.mp4')!r}, 10)\n"
        "for index in range(150):\n"
        "    video.write(np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8))\n"
        "print('written', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.wait()
    played = 0
    for _ in open_video(tmp_path / "video.mp4"):
        played += 1
    assert played >= 100


def test_nothing_is_made_without_a_frame(tmp_path):
    with VideoWriter(tmp_path / "video.mp4"):
        pass
    assert not (tmp_path / "video.mp4").exists()


def test_refuses_a_frame_of_another_size(tmp_path):
    with (
        pytest.raises(VideoError, match=r"`frame` has shape \(48, 60, 3\), expected .* \(48, 64, 3\)"),
        VideoWriter(tmp_path / "video.mp4") as video,
    ):
        video.write(numbered(0))
        video.write(numbered(1, (60, 48)))
    assert len(list(open_video(tmp_path / "video.mp4"))) == 1


def test_frames_are_seen_when_they_came(tmp_path):
    """Of a camera whose tracker is slower than the rate; two at once come one after the other."""
    with VideoWriter(tmp_path / "slow.mp4", 30) as writer:
        for seconds in (0.0, 0.1, 0.1, 0.5, 1.0):
            writer.write(np.zeros((32, 48, 3), dtype=np.uint8), seconds)
    with av.open(str(tmp_path / "slow.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert np.subtract(times, times[0]) == pytest.approx([0, 3 / 30, 4 / 30, 15 / 30, 1])


def test_a_killed_recording_of_few_frames_a_second_plays_too(tmp_path):
    """Of a camera whose tracker is slow: two frames a second, in a video of 30."""
    code = (
        "import os\n"
        "import numpy as np\n"
        "from ct_hf.tracking import VideoWriter\n"
        f"video = VideoWriter({str(tmp_path / 'video.mp4')!r})\n"
        "for index in range(60):\n"
        "    video.write(np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8), index * 0.5)\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    played = 0
    for _ in open_video(tmp_path / "video.mp4"):
        played += 1
    assert played >= 30


def test_names_may_have_colons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with VideoWriter("12:30.mp4") as video:
        video.write(numbered(3))
    assert numbers(open_video("12:30.mp4")) == [3]


def test_what_cannot_be_encoded_is_named(tmp_path):
    with (
        pytest.raises(VideoError, match=r"wide.mp4 cannot be written with frames of 17000x64 pixels"),
        VideoWriter(tmp_path / "wide.mp4") as video,
    ):
        video.write(np.zeros((64, 17000, 3), dtype=np.uint8))


def test_a_rate_of_less_than_a_frame_in_a_thousand_seconds(tmp_path):
    """Of a time lapse."""
    with VideoWriter(tmp_path / "slow.mp4", Fraction(1, 3600)) as video:
        for index in range(3):
            video.write(numbered(index))
    assert numbers(open_video(tmp_path / "slow.mp4")) == [0, 1, 2]
