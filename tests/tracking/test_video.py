import io
import logging
import struct
import sys

import av
import numpy as np
import pytest
from PIL import Image

from ct_hf.tracking import VideoError, VideoWriter, open_video

from .conftest import numbered, numbers


@pytest.fixture
def log(caplog):
    """Text of the warnings."""
    caplog.set_level(logging.WARNING)
    logging.getLogger("ct_hf").propagate = True
    return lambda: caplog.text


def encode(path, frames, codec="libx264", container_format=None, options=None, container_options=None):
    with av.open(str(path), "w", format=container_format, container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def packets(path):
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def read(video):
    """Frames up to an error, and the error."""
    frames = []
    try:
        for frame in video:
            frames.append(frame)
    except VideoError as error:
        return frames, str(error)
    return frames, None


class TestFile:
    def test_gives_every_frame_in_its_order(self, make_video):
        video = open_video(make_video(10, rate=12.5))
        assert (video.num_frames, video.rate) == (10, 12.5)
        frames = list(video)
        assert numbers(frames) == list(range(10))
        assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)

    def test_can_be_read_again(self, make_video):
        video = open_video(make_video(3))
        assert numbers(video) == numbers(video) == [0, 1, 2]

    def test_reads_only_what_is_asked_for(self, make_video, monkeypatch):
        """An hour of video takes no more memory than a second."""
        video = open_video(make_video(40))
        decoded = []
        upright = sys.modules["ct_hf.tracking.video"]._upright
        monkeypatch.setattr("ct_hf.tracking.video._upright", lambda frame: decoded.append(1) or upright(frame))
        frames = iter(video)
        next(frames), next(frames)
        assert len(decoded) == 2

    @pytest.mark.parametrize(
        ("matrix", "turned"),
        [
            ((0, 1, -1, 0), "right"),
            ((0, -1, 1, 0), "left"),
            ((-1, 0, 0, -1), "around"),
            ((-1, 0, 0, 1), "right"),  # mirrored, as of a camera at the front
            ((1, 0, 0, -1), "left"),
            ((0, 1, 1, 0), "upper left"),
            ((0, -1, -1, 0), "around"),
        ],
    )
    def test_is_turned_as_its_metadata_ask(self, tmp_path, matrix, turned):
        """Boxes are drawn on what players show. The matrix maps stored pixels to shown ones, y downwards."""
        frame = np.zeros((48, 64, 3), dtype=np.uint8)
        frame[:24, :32] = 250  # upper left
        path = encode(tmp_path / "turned.mp4", [frame] * 3)
        data = bytearray(path.read_bytes())
        start = data.rfind(b"tkhd") + 4 + 4 + 20 + 16
        a, b, c, d = (65536 * value for value in matrix)
        assert struct.unpack(">9i", data[start : start + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
        data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
        shown = next(iter(open_video(path)))
        assert shown.shape == ((48, 64, 3) if matrix[0] else (64, 48, 3))
        height, width = shown.shape[0] // 2, shown.shape[1] // 2
        corners = {
            "upper left": shown[:height, :width],
            "right": shown[:height, width:],
            "left": shown[height:, :width],
            "around": shown[height:, width:],
        }
        assert max(corners, key=lambda name: corners[name].mean()) == turned

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("text.mp4", b"no video at all" * 20, "text.mp4 is not a video that can be read"),
            ("empty.mp4", b"", "empty.mp4 is not a video that can be read"),
        ],
    )
    def test_refuses_what_is_no_video(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match=message):
            open_video(tmp_path / name)

    def test_refuses_sound_without_picture(self, tmp_path):
        with av.open(str(tmp_path / "sound.wav"), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with pytest.raises(VideoError, match="sound.wav holds no video"):
            open_video(tmp_path / "sound.wav")

    @pytest.mark.parametrize("source", ["nowhere.mp4", "nowhere/", 97, "97", "/dev/video97"])
    def test_refuses_what_is_not_there(self, source):
        with pytest.raises(
            FileNotFoundError, match="`source` .* does not exist. Give a video file, a folder of images"
        ):
            open_video(source)


class TestDamage:
    """What was decoded so far is kept, and the message names the frame."""

    def frames(self, number=40):
        rng = np.random.default_rng(0)
        return [
            np.maximum(numbered(index), rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)) for index in range(number)
        ]

    def test_data_that_cannot_be_decoded(self, tmp_path):
        path = encode(tmp_path / "damaged.mp4", self.frames(), options={"bf": "0", "g": "10"})
        data = bytearray(path.read_bytes())
        position, size = packets(path)[17]
        data[position : position + size] = b"\xff" * size
        path.write_bytes(data)
        video = open_video(path)
        assert video.num_frames == 40
        frames, error = read(video)
        assert len(frames) == 17
        assert "damaged.mp4, frame 17: cannot be decoded" in error
        again, _ = read(video)
        assert np.array_equal(frames, again)

    def test_a_file_that_was_cut_off(self, tmp_path, log):
        """The header still tells of 40 frames."""
        path = encode(
            tmp_path / "cut.mp4", self.frames(), options={"bf": "0"}, container_options={"movflags": "faststart"}
        )
        position, _ = packets(path)[25]
        path.write_bytes(path.read_bytes()[:position])
        frames, error = read(open_video(path))
        assert len(frames) == 25 and error is None
        assert "cut.mp4 ends after frame 24, but its header says that it has 40" in log()

    def test_a_file_that_was_cut_off_and_knows_only_its_duration(self, tmp_path, log):
        path = encode(tmp_path / "cut.mkv", self.frames(55), options={"bf": "0"})
        position, _ = packets(path)[25]
        path.write_bytes(path.read_bytes()[:position])
        frames, error = read(open_video(path))
        assert error is None and 20 <= len(frames) <= 25
        assert f"cut.mkv ends after frame {len(frames) - 1}, at" in log()
        assert "says that it lasts 2.20 s" in log()

    def test_frames_that_are_missing_in_the_middle(self, tmp_path, log):
        path = tmp_path / "gap.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for index in [*range(10), *range(15, 20)]:
                frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        assert len(list(open_video(path))) == 15
        assert "gap.mkv, frame 10 comes 0.24 s after the one before" in log()

    def test_a_damaged_picture(self, tmp_path, log):
        """MPEG-4 conceals what it cannot decode of a picture and says so."""
        path = encode(tmp_path / "damaged.mp4", self.frames(), codec="mpeg4")
        data = bytearray(path.read_bytes())
        position, size = packets(path)[20]
        middle = position + size // 2
        data[middle : position + size] = np.random.default_rng(1).bytes(position + size - middle)
        path.write_bytes(data)
        frames, error = read(open_video(path))
        assert len(frames) == 40 and error is None
        assert "damaged.mp4, frame 20 is damaged" in log()

    def test_whole_videos_give_no_warning(self, tmp_path, log):
        for name in ("whole.mp4", "whole.mkv", "whole.ts", "whole.avi"):
            codec = "mpeg4" if name.endswith("avi") else "libx264"
            assert len(list(open_video(encode(tmp_path / name, self.frames(), codec=codec)))) == 40
        assert log() == ""

    def test_frames_that_change_size(self, tmp_path):
        parts = [[numbered(index, size) for index in range(4)] for size in ((64, 48), (96, 64))]
        data = b"".join(encode(tmp_path / "part.h264", part, container_format="h264").read_bytes() for part in parts)
        (tmp_path / "change.h264").write_bytes(data)
        frames, error = read(open_video(tmp_path / "change.h264"))
        assert numbers(frames) == [0, 1, 2, 3]
        assert "change.h264, frame 4: 96x64 pixels, but the video started with 64x48" in error


class TestFolder:
    def folder(self, path, names, size=(64, 48)):
        path.mkdir(exist_ok=True)
        for index, name in enumerate(names):
            Image.fromarray(numbered(index, size)).save(path / name)
        return path

    def test_in_natural_order(self, tmp_path):
        video = open_video(self.folder(tmp_path / "images", ["1.png", "2.png", "10.png", "20.PNG"]))
        assert (video.num_frames, video.rate) == (4, 30)
        frames = list(video)
        assert numbers(frames) == [0, 1, 2, 3] and frames[0].shape == (48, 64, 3)

    def test_grey_images(self, tmp_path):
        (tmp_path / "grey").mkdir()
        Image.new("L", (64, 48), 100).save(tmp_path / "grey" / "0.png")
        assert next(iter(open_video(tmp_path / "grey"))).shape == (48, 64, 3)

    def test_without_images(self, tmp_path):
        (tmp_path / "notes.txt").write_text("no image")
        with pytest.raises(ValueError, match="holds no frames. Expected files that end in .jpg"):
            open_video(tmp_path)

    def test_damaged_image(self, tmp_path):
        folder = self.folder(tmp_path / "images", ["0.png", "1.png", "2.png"])
        buffer = io.BytesIO()
        Image.fromarray(numbered(1)).save(buffer, "PNG")
        (folder / "1.png").write_bytes(buffer.getvalue()[:60])
        frames, error = read(open_video(folder))
        assert len(frames) == 1 and "images, frame 1: " in error and "1.png is not a readable image" in error

    def test_images_that_change_size(self, tmp_path):
        folder = self.folder(tmp_path / "images", ["0.png", "1.png"])
        Image.fromarray(numbered(2, (50, 40))).save(folder / "2.png")
        frames, error = read(open_video(folder))
        assert len(frames) == 2 and "frame 2: 50x40 pixels, but the video started with 64x48" in error


class TestCamera:
    def test_is_read_as_such(self, tmp_path, monkeypatch):
        """No camera is here: what is asked of PyAV is looked at."""
        asked = []

        def refuse(name, **arguments):
            asked.append((name, arguments))
            raise av.error.PermissionError(13, "Permission denied", name)

        monkeypatch.setattr("pathlib.Path.exists", lambda path: str(path) == "/dev/video0")
        monkeypatch.setattr("pathlib.Path.is_char_device", lambda path: str(path) == "/dev/video0")
        monkeypatch.setattr(av, "open", refuse)
        for source in (0, "0", "/dev/video0"):
            video = open_video(source)
            assert (video.name, video.num_frames) == ("/dev/video0", None)
            with pytest.raises(VideoError, match="/dev/video0, frame 0: .*Permission denied"):
                next(iter(video))
        assert asked == [("/dev/video0", {"format": "v4l2"})] * 3


class TestWithoutPyAV:
    def test_says_what_to_install(self, make_video, monkeypatch, tmp_path):
        path = make_video(2)
        monkeypatch.setitem(sys.modules, "av", None)
        for call in (lambda: open_video(path), lambda: VideoWriter(tmp_path / "out.mp4")):
            with pytest.raises(ImportError, match=r"pip install ct_hf\[video\]"):
                call()

    def test_a_folder_needs_none(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "av", None)
        Image.fromarray(numbered(0)).save(tmp_path / "0.png")
        assert len(list(open_video(tmp_path))) == 1

    def test_importing_loads_neither_it_nor_data_sets(self, fresh_python, tmp_path):
        code = "import sys, ct_hf.tracking; print(sorted({'av', 'datasets'} & set(sys.modules)))"
        assert fresh_python(code, tmp_path) == "[]\n"
