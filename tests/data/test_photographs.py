import logging
import pickle

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ct_hf.data import Photographs, ProceduralTextures, ProceduralWorld, TextureMix
from ct_hf.data.shapes import SIDE


@pytest.fixture
def album(tmp_path):
    """Folder of six opaque images of noise, of a colour each, and a red disk on a transparent ground."""
    rng = np.random.default_rng(0)
    (tmp_path / "below").mkdir()
    for number in range(6):
        pixels = np.zeros((12, 16, 3), dtype=np.uint8)
        pixels[..., number % 3] = rng.integers(60, 256, (12, 16))
        folder = tmp_path / "below" if number % 2 else tmp_path
        Image.fromarray(pixels).resize((240, 180)).save(folder / f"photograph-{number}.png")
    disk = Image.new("RGBA", (300, 200), (0, 255, 0, 0))
    ImageDraw.Draw(disk).ellipse((50, 50, 150, 150), fill=(255, 0, 0, 255))
    disk.save(tmp_path / "disk.webp", lossless=True)
    return tmp_path


def draws(source, count, seed=0, size=(40, 30)):
    return [np.asarray(source.texture(np.random.default_rng([seed, number]), size)) for number in range(count)]


def test_textures_are_parts_of_the_photographs(album):
    source = Photographs(album)
    images = draws(source, 60)
    assert all(image.shape == (30, 40, 3) for image in images)
    lit = [image.max(axis=(0, 1)) > 50 for image in images]
    assert all(sum(channels) == 1 for channels in lit), (
        "colours of several photographs are mixed, or the disk is shown"
    )
    assert np.any(lit, axis=0).all(), "photographs of all three colours are used, those in a folder below too"
    for again, image in zip(draws(source, 60), images, strict=True):
        np.testing.assert_array_equal(again, image)


def test_cutouts_keep_outline_and_colours(album):
    source = Photographs(album)
    things = [source.cutout(np.random.default_rng(number), SIDE) for number in range(20)]
    axis = np.arange(SIDE) + 0.5 - SIDE / 2
    outside = np.hypot(axis, axis[:, None]) > SIDE / 2
    for thing in things:
        assert thing.mode == "RGBA" and thing.size == (SIDE, SIDE)
        pixels = np.asarray(thing)
        seen = pixels[..., 3] > 127
        assert not seen[outside].any()
        rows, columns = np.nonzero(seen)
        assert abs(np.ptp(rows) - np.ptp(columns)) <= 2 and seen.sum() / np.ptp(rows) ** 2 == pytest.approx(
            np.pi / 4, 0.1
        )
        assert (pixels[seen][:, :3].max(axis=1) > 100).all(), (
            "the green under the transparent part does not shine through"
        )


def test_a_folder_without_cutouts_has_none(album):
    (album / "disk.webp").unlink()
    assert Photographs(album).cutout(np.random.default_rng(0), SIDE) is None


def test_parts_share_no_image(album):
    train, test = Photographs(album, "train"), Photographs(album, "test")
    assert set(train.files).isdisjoint(test.files)
    assert set(train.files) | set(test.files) == set(Photographs(album).files)
    assert len(test.files) == 1


def test_unreadable_and_small_files_are_left_out_with_a_warning(album, caplog):
    (album / "broken.jpg").write_bytes(b"not an image")
    Image.new("RGB", (20, 20)).save(album / "small.png")
    with caplog.at_level(logging.WARNING):
        draws(Photographs(album), 3)
    assert "broken.jpg is left out" in caplog.text and "small.png is left out: it is of 20x20" in caplog.text


def test_errors_name_the_argument(tmp_path, album):
    with pytest.raises(ValueError, match="`folder`.* is not a folder"):
        Photographs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        Photographs(tmp_path / "empty")
    with pytest.raises(ValueError, match="`part`"):
        Photographs(album, "validation")
    with pytest.raises(ValueError, match="`weights`"):
        TextureMix([ProceduralTextures()], [0.5, 0.5])


def test_pixels_are_not_sent_to_workers(album):
    source = Photographs(album)
    images = draws(source, 5)
    assert len(pickle.dumps(source)) < 5000
    for copy, image in zip(draws(pickle.loads(pickle.dumps(source)), 5), images, strict=True):
        np.testing.assert_array_equal(copy, image)


def test_a_world_of_photographs_is_a_pure_function_of_its_seed(album):
    first, second = (ProceduralWorld(length=4, textures=Photographs(album)).sequence(3, 4) for _ in range(2))
    assert first.frame_bytes(2) == second.frame_bytes(2)


def test_a_mix_takes_each_source_as_often_as_it_says(album):
    class Red:
        def texture(self, rng, size):
            return Image.new("RGB", size, "red")

        def cutout(self, rng, side):
            return None

    class Blue(Red):
        def texture(self, rng, size):
            return Image.new("RGB", size, "blue")

    shades = [image[0, 0, 0] for image in draws(TextureMix([Red(), Blue()], [3, 1]), 400)]
    assert np.mean(np.array(shades) > 0) == pytest.approx(0.75, abs=0.07)


def test_sixteen_bits_keep_their_grey_levels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**16, (100, 120), dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    (kept,) = Photographs(tmp_path)._images
    np.testing.assert_array_equal(np.asarray(kept)[..., 0], pixels >> 8)
