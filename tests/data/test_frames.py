import io

import numpy as np
import pytest
from PIL import Image

from ct_hf.data.frames import decode_frame, frame_size, sorted_frames


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
        ["x².jpg", "x³.jpg"],
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
