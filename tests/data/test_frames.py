import io
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from ct_hf.data.archives import MemberPath, UrlPath
from ct_hf.data.frames import FramePaths, decode_frame, frame_size, reduced_size, sorted_frames


def empty_files(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["00000009.jpg", "00000010.jpg", "00000100.jpg"],
        ["1.jpg", "2.jpg", "10.jpg"],
        ["a9bc.jpg", "a10b.jpg"],
        ["00.PNG", "01.jpeg", "02.png", "10.jpg"],
        ["img_1.jpg", "img_02.jpg", "img_3.jpg"],
        ["cam1-9.png", "cam1-10.png", "cam2-1.png"],
        ["٩.jpg", "١٠.jpg"],
        ["1²3.jpg", "1²10.jpg"],
    ],
)
def test_numbers_in_names_count_by_value(tmp_path, names):
    """Else boxes would belong to other frames without anybody noticing; also where all names are of one length."""
    for files in (names, names[::-1]):
        folder = empty_files(tmp_path / str(len(list(tmp_path.iterdir()))), files)
        assert [file.name for file in sorted_frames(folder)] == names
        assert all(file.parent == folder for file in sorted_frames(folder))


def test_only_images_are_frames(tmp_path):
    folder = empty_files(tmp_path / "walk", ["1.jpg", "._1.jpg", ".jpg", "groundtruth.txt", "2.gif", "jpg", "3.JPEG"])
    assert [file.name for file in sorted_frames(folder)] == ["1.jpg", "3.JPEG"]


def test_folders_without_frames(tmp_path, fails):
    with fails("empty", tmp_path / "nowhere", "is not a folder", ".jpg, .jpeg, .png"):
        sorted_frames(tmp_path / "nowhere")
    with fails("empty", tmp_path, "holds no frames"):
        sorted_frames(tmp_path)


NAMES = ["1.jpg", "2.jpg", "10.jpeg", "größe-11.png", os.fsdecode(b"\xff12.jpg")]
FOLDERS = [
    Path("walk"),
    UrlPath("memory://data/walk"),
    MemberPath("walk", Path("a.zip")),
    MemberPath("", Path("a.zip")),
]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: type(folder).__name__)
def test_paths_are_a_sequence_of_those_of_the_files(folder):
    files, expected = FramePaths(folder, NAMES), [folder / name for name in NAMES]
    assert isinstance(files, Sequence) and len(files) == 5 and bool(files) and not FramePaths(folder, [])
    assert list(files) == expected and list(reversed(files)) == expected[::-1]
    assert files[0] == files[np.int64(0)] == expected[0] and files[-1] == files[4] == expected[4]
    assert expected[2] in files and files.index(expected[2]) == 2 and folder / "3.jpg" not in files
    for part in (slice(1, 3), slice(None, -1), slice(None, None, 2), slice(3, 3), slice(2, 99)):
        assert isinstance(files[part], FramePaths) and list(files[part]) == expected[part]
    for index in (5, -6):
        with pytest.raises(IndexError):
            files[index]
    copy = pickle.loads(pickle.dumps(files))
    assert list(copy) == expected and copy.folder == folder


def test_paths_do_not_change():
    files = FramePaths(Path("walk"), NAMES)
    with pytest.raises(TypeError):
        files[0] = Path("other.jpg")
    for change in ("append", "sort", "__dict__"):
        assert not hasattr(files, change)


def test_paths_take_no_more_than_their_names():
    files = FramePaths(Path("walk"), (f"{number:08d}.jpg" for number in range(100_000)))
    assert len(pickle.dumps(files)) < 13 * 100_000


def test_frames_in_archives_and_behind_urls(tmp_path):
    folder = empty_files(tmp_path / "walk", ["2.jpg", "10.jpg", "1.txt"])
    with zipfile.ZipFile(tmp_path / "walk.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"walk/{file.name}")
    for place in (folder, MemberPath("walk", tmp_path / "walk.zip"), UrlPath(f"file://{folder}")):
        assert list(sorted_frames(place)) == [place / "2.jpg", place / "10.jpg"]


def encode(form, size=(80, 60), mode="RGB"):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_become_rgb_and_tell_their_size(form, mode):
    data = encode(form, mode=mode)
    image = decode_frame(data, "frame 3")
    assert image.mode == "RGB" and image.size == frame_size(data, "frame 3") == (80, 60)


@pytest.mark.parametrize("read", [decode_frame, frame_size])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("keep", [0, 20, 600, -100])
def test_corrupt_or_truncated_images(fails, read, form, keep):
    with fails("corrupt_image", "walk/3.jpg is not a readable image"):
        read(encode(form)[:keep], "walk/3.jpg")


@pytest.mark.parametrize("read", [decode_frame, frame_size])
def test_what_is_no_image(fails, read):
    with fails("corrupt_image", "frame 3", "unknown format"):
        read(b"<html>not found</html>", "frame 3")


def test_sixteen_bits_keep_their_upper_byte():
    """As OpenCV takes thermal and depth pictures; clipped they would be white."""
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    image = decode_frame(buffer.getvalue(), "frame 0")
    assert image.mode == "RGB" and np.array_equal(np.asarray(image)[..., 0].ravel(), np.arange(256))


def image_file(kind, mode="RGB", size=(101, 75)):
    """A smooth picture, so that it is the same at any resolution; and the picture itself, in RGB."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    pixels = np.stack([255 * x, 255 * y, 255 * (x + y) / 2], axis=2).astype(np.uint8)
    buffer, image = io.BytesIO(), Image.fromarray(pixels).convert(mode)
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue(), image.convert("RGB")


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")])
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_frames_are_decoded_to_a_part_of_their_size(monkeypatch, kind, mode, reduction):
    data, image = image_file(kind, mode)
    with monkeypatch.context() as patch:
        if kind == "JPEG":
            patch.delattr(Image.Image, "reduce")  # it comes small out of the decoder
        decoded = decode_frame(data, "walk, frame 3", reduction)
    assert decoded.mode == "RGB" and decoded.size == reduced_size(image.size, reduction)
    assert decoded.size == (-(-101 // reduction), -(-75 // reduction))
    np.testing.assert_allclose(np.asarray(decoded).astype(int), np.asarray(image.reduce(reduction)), atol=8)


def test_tiny_frames_are_decoded_to_a_pixel():
    assert decode_frame(image_file("JPEG", size=(3, 9))[0], "walk, frame 3", 8).size == (1, 2)


def test_what_is_not_decoded_is_still_read_to_its_end(fails):
    with fails("corrupt_image", "walk, frame 3"):
        decode_frame(image_file("JPEG", size=(640, 480))[0][:-400], "walk, frame 3", 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_frames_are_turned_as_viewers_show_them(orientation, form):
    """Who drew boxes on them saw them so; OpenCV reads them so too."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    image.save(file, form, exif=exif)
    data = file.getvalue()
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
    assert upright.size == ((60, 80) if orientation > 4 else (80, 60))
    decoded = decode_frame(data, "it")
    assert decoded.tobytes() == upright.tobytes() and frame_size(data, "it") == decoded.size
    assert decode_frame(data, "it", 4).size == reduced_size(upright.size, 4)


def test_an_orientation_behind_the_pixels_counts(folder, sequence):
    """As some tools write it into PNG files."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    Image.new("RGB", (80, 60)).save(file, "PNG", exif=exif)
    data = file.getvalue()
    start = data.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
    end = data.index(b"IEND") - 4
    data = data[:start] + data[stop:end] + data[start:stop] + data[end:]
    assert decode_frame(data, "it").size == frame_size(data, "it") == (60, 80)
    for old in folder.glob("*.jpg"):
        old.with_suffix(".png").write_bytes(data)
        old.unlink()
    assert sequence.size == sequence.frame(0).size == (60, 80)


def test_a_broken_orientation_says_nothing(folder, sequence):
    image = Image.new("RGB", (80, 60), "red")
    image.save(folder / "00000001.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x99")
    assert sequence.size == sequence.frame(0).size == (80, 60)


def test_the_size_of_a_sequence_is_that_of_its_turned_frames(folder, sequence):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for file in folder.glob("*.jpg"):
        Image.new("RGB", (80, 60)).save(file, exif=exif)
    assert sequence.size == sequence.frame(0).size == (60, 80)
