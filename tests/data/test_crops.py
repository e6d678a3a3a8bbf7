import resource

import numpy as np
import pytest
import torch
from PIL import Image

from ct_hf.data.crops import cut_crop, frame_pixels
from ct_hf.models.image_processing_tracker import CropWindow


@pytest.fixture
def frame():
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((131, 97))


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((40, 30, 30, 20), 128),
        ((50, 40, 16, 16), 40),  # as large as its window
        ((3, 60, 40, 44), 256),
        ((20, 20, 90, 70), 64),
        ((110, 80, 30, 30), 96),
    ],
)
def test_within_one_grey_level_of_a_trackers_own(frame, box, size, copied):
    pixels = torch.from_numpy(np.array(frame)) if copied else frame_pixels(frame)
    window = CropWindow.around(box, 2.5, size)
    fast, exact = cut_crop(window, pixels).astype(int), window.extract(frame).transpose(2, 0, 1).astype(int)
    assert fast.shape == exact.shape == (3, size, size)
    assert np.abs(fast - exact).max() <= 1 and np.abs((fast - exact).mean()) < 0.3
    assert exact.std() > 10


@pytest.mark.parametrize(("left", "top"), [(-40, 20), (140, 20), (20, -40), (20, 98), (-40, 200)])
def test_a_window_beside_the_frame_is_black(frame, left, top):
    window = CropWindow(left, top, 30, (0.0, 0.0), 20)
    assert not cut_crop(window, frame_pixels(frame)).any()


def test_pixels_are_those_of_the_frame_and_no_copy(frame):
    pixels = frame_pixels(frame)
    np.testing.assert_array_equal(pixels[..., :3], np.asarray(frame))
    frame.putpixel((5, 7), (1, 2, 3))
    assert pixels[7, 5, :3].tolist() == [1, 2, 3]


def test_pixels_outlive_their_frame(frame):
    expected, pixels = np.array(frame), frame_pixels(frame)
    del frame
    np.testing.assert_array_equal(pixels[..., :3], expected)


def test_frames_too_large_for_one_piece_of_memory_are_copied():
    frame = Image.new("RGB", (2400, 1800), (9, 8, 7))
    frame.paste((200, 100, 50), (1000, 900, 1100, 1000))
    pixels = frame_pixels(frame)
    assert pixels.shape == (1800, 2400, 3) and pixels[950, 1050].tolist() == [200, 100, 50]
    crop = cut_crop(CropWindow.around((1000, 900, 100, 100), 2.0, 64), pixels)
    assert crop[:, 32, 32].tolist() == [200, 100, 50] and crop[:, 2, 2].tolist() == [9, 8, 7]


def test_crops_lie_in_memory_pixel_by_pixel_and_frames_stay_as_they_are(frame):
    before, window = np.array(frame), CropWindow(2, 3, 40, (0.0, 0.0), 40)
    crop = cut_crop(window, frame_pixels(frame))
    assert crop.strides[0] == 1
    crop[:] = 0
    np.testing.assert_array_equal(np.asarray(frame), before)


def test_a_window_many_times_the_frame_takes_little_memory(frame):
    """Only what is put somewhere takes any; a gigabyte of zeros would end a worker."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    crop = cut_crop(CropWindow(-9000, -9000, 18000, (0, 0), 64), frame_pixels(frame))
    assert crop.shape == (3, 64, 64)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "in kB; all of it would be 1.3 GB"
