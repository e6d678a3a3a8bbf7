import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel

import ct_hf
from ct_hf import SUTrackConfig
from ct_hf.models.image_processing_tracker import (
    CropWindow,
    TrackerImageProcessor,
    as_frame,
    check_box,
    normalize_pixels,
    resize_bilinear,
)
from ct_hf.models.session import clip_box


PREPROCESS = Path(__file__).parents[2].parent / "shared" / "parity" / "common_preprocess"

size = st.floats(0.5, 500)
place = st.floats(-1000, 3000)
box = st.tuples(place, place, size, size)


@pytest.fixture(scope="module")
def parity():
    """What the original's cropping made of one image: specification, tensors, image."""
    if not PREPROCESS.is_dir():
        pytest.skip(f"parity fixtures are not at {PREPROCESS}")
    spec = json.loads((PREPROCESS / "spec.json").read_text())
    generator = torch.Generator().manual_seed(7)
    image = torch.randint(0, 256, (97, 131, 3), generator=generator, dtype=torch.int64).to(torch.uint8).numpy()
    return spec, load_file(PREPROCESS / "io.safetensors"), image


def xywh_to_unit(window, box):
    """A box of the frame in `x, y, w, h` of the crop, in [0, 1]."""
    center_x, center_y, width, height = window.to_crop(np.asarray(box))
    return np.array([center_x - width / 2, center_y - height / 2, width, height])


class TestParity:
    @pytest.mark.parametrize("number", range(10))
    @pytest.mark.parametrize("form", [np.asarray, Image.fromarray])
    def test_crop(self, parity, number, form):
        spec, tensors, image = parity
        case = spec["sample_target"][number]
        window = CropWindow.around(case["box_xywh"], case["factor"], case["output_sz"])
        assert window.size == case["crop_sz"]
        assert window.scale == case["resize_factor"]
        crop, expected = window.extract(form(image)), tensors[f"crop{number}"].numpy()
        difference = np.abs(crop.astype(int) - expected.astype(int))
        assert crop.dtype == np.uint8
        assert difference.max() <= 1
        assert difference.mean() < 0.01

    def test_normalised_crop(self, parity):
        _, tensors, _ = parity
        processor = TrackerImageProcessor()
        actual = processor.normalize(tensors["crop0"].permute(2, 0, 1))
        torch.testing.assert_close(actual, tensors["preprocessed_crop0"][0], atol=1e-6, rtol=0)

    @pytest.mark.parametrize("number", range(8))
    def test_clip_box(self, parity, number):
        case = parity[0]["clip_box"][number]
        clipped = clip_box(np.array(case["box_xywh"]), (case["W"], case["H"]), case["margin"])
        assert clipped.tolist() == pytest.approx(case["out"])

    @pytest.mark.parametrize("number", range(3))
    def test_box_back_to_the_frame(self, parity, number):
        case = parity[0]["map_box_back"][number]
        factor = {256: 4.0, 384: 5.0}[case["search_size"]]
        window = CropWindow.around(case["state"], factor, case["search_size"])
        assert window.scale == pytest.approx(case["resize_factor"], rel=1e-12)
        assert window.to_frame(case["pred_cxcywh_norm"]).tolist() == pytest.approx(case["mapped_xywh"])

    def test_template_box_in_the_crop(self, parity):
        """Ours lies exactly half a crop pixel to the lower right of the original's, see `CropWindow.to_crop`."""
        case = parity[0]["template_box_in_crop"][0]
        side = case["crop_sz"]  # here the crop after resizing
        size = round(side / case["resize_factor"])
        x, y, w, h = case["box"]
        window = CropWindow(0, 0, size, (x + w / 2, y + h / 2), side)
        difference = xywh_to_unit(window, case["box"]) - case["out_normalized_xywh"]
        assert difference * side == pytest.approx([0.5, 0.5, 0, 0], abs=1e-4)


class TestCropWindow:
    def test_side_and_rounding(self):
        """ceil(sqrt(w h) factor), and halves go to the even pixel as Python rounds."""
        assert CropWindow.around([10, 10, 20, 20], 2.0, 32).size == 40
        assert CropWindow.around([10, 10, 20, 20.1], 2.0, 32).size == 41
        assert [CropWindow.around([x, 10, 21, 21], 2.0, 32).left for x in (11, 12, 13)] == [0, 2, 2]  # 0.5, 1.5, 2.5

    @given(box, st.floats(1, 6), st.tuples(place, place, size, size))
    def test_to_frame_inverts_to_crop(self, box, factor, other):
        window = CropWindow.around(box, factor, 128)
        for inner in (box, other):
            assert window.to_frame(window.to_crop(np.array(inner))) == pytest.approx(inner, abs=1e-6)

    @given(box, st.floats(1, 6))
    def test_the_box_itself_is_in_the_middle(self, box, factor):
        window = CropWindow.around(box, factor, 128)
        expected = [0.5, 0.5, box[2] / window.size, box[3] / window.size]
        assert window.to_crop(np.array(box)) == pytest.approx(expected, abs=1e-6)

    def test_many_boxes_at_once(self):
        window = CropWindow.around([10, 10, 20, 20], 2.0, 32)
        boxes = np.random.default_rng(0).random((3, 2, 4))
        assert window.to_frame(boxes).shape == (3, 2, 4)
        assert np.allclose(window.to_frame(boxes)[1, 0], window.to_frame(boxes[1, 0]))

    @settings(max_examples=50)
    @given(st.tuples(*[st.floats(-80, 150)] * 2, *[st.floats(1, 60)] * 2), st.floats(1, 4))
    def test_image_and_array_give_the_same_crop(self, box, factor):
        """Anywhere, also beyond the frame, where the crop is black."""
        frame = np.random.default_rng(0).integers(1, 256, (40, 60, 3), dtype=np.uint8)
        window = CropWindow.around(box, factor, 16)
        crop = window.extract(frame)
        assert np.array_equal(crop, window.extract(Image.fromarray(frame)))
        if window.left > 60 or window.top > 40 or window.left + window.size < 0 or window.top + window.size < 0:
            assert not crop.any()

    def test_pixels_are_where_they_belong(self):
        """A window of the crop's own size copies the frame; what leaves it is zero."""
        frame = np.random.default_rng(0).integers(1, 256, (40, 60, 3), dtype=np.uint8)
        crop = CropWindow(-4, 10, 16, (0, 0), 16).extract(frame)
        assert not crop[:, :4].any()
        assert np.array_equal(crop[:, 4:], frame[10:26, :12])

    def test_frame_is_not_changed(self):
        frame = np.full((40, 60, 3), 9, dtype=np.uint8)
        CropWindow.around([10, 10, 8, 8], 2.0, 16).extract(frame)[:] = 0
        assert (frame == 9).all()

    @pytest.mark.parametrize(
        "box", [[0, 0, 0, 5], [0, 0, 5, -1], [0, 0, float("nan"), 5], [0, 0, float("inf"), 5], [1, 2, 3]]
    )
    def test_impossible_boxes_are_refused(self, box):
        with pytest.raises(ValueError, match="`box` must"):
            CropWindow.around(box, 2.0, 32)


class TestResize:
    @pytest.mark.parametrize(("side", "size"), [(7, 3), (3, 7), (10, 10), (16, 8), (17, 8), (90, 8), (1, 4)])
    def test_against_interpolation_in_floats(self, side, size):
        """Within one grey level of torch's bilinear interpolation without antialiasing."""
        image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=False)
        difference = resize_bilinear(image, size) - expected[0].permute(1, 2, 0).numpy()
        assert np.abs(difference).max() <= 1

    def test_flat_stays_flat(self):
        image = np.full((33, 33, 3), 201, dtype=np.uint8)
        assert (resize_bilinear(image, 20) == 201).all() and (resize_bilinear(image, 50) == 201).all()


class TestFrames:
    def test_every_form_is_the_same_frame(self, noise_frames):
        frame = noise_frames[0]
        forms = [Image.fromarray(frame), frame, torch.from_numpy(frame), torch.from_numpy(frame).permute(2, 0, 1)]
        assert all(np.array_equal(np.asarray(as_frame(form)), frame) for form in forms)

    def test_grey_becomes_rgb(self, noise_frames):
        grey = noise_frames[0, :, :, 0]
        for form in (Image.fromarray(grey), grey, torch.from_numpy(grey)):
            assert np.array_equal(np.asarray(as_frame(form)), np.stack([grey] * 3, axis=2))

    def test_other_image_modes(self):
        assert as_frame(Image.new("RGBA", (6, 4), (1, 2, 3, 4))).getpixel((0, 0)) == (1, 2, 3)
        assert as_frame(Image.new("P", (6, 4))).mode == "RGB"

    @pytest.mark.parametrize("frame", [np.zeros((4, 6, 3)), torch.zeros(3, 4, 6), "frame.jpg", None])
    def test_wrong_types_are_refused(self, frame):
        with pytest.raises(TypeError, match="`frame` must"):
            as_frame(frame)

    @pytest.mark.parametrize("shape", [(4, 6, 4), (4, 6, 1), (2, 4, 6, 3), (0, 6, 3), (6,)])
    def test_wrong_shapes_are_refused(self, shape):
        with pytest.raises(ValueError, match="`frame` must have shape"):
            as_frame(np.zeros(shape, dtype=np.uint8))

    def test_box_must_overlap_the_frame(self):
        assert check_box((90, 70, 20, 20), (100, 80)).tolist() == [90, 70, 20, 20]
        for outside in ([100, 10, 5, 5], [10, 80, 5, 5], [-5, 10, 5, 5], [10, -9, 5, 5]):
            with pytest.raises(ValueError, match="lies outside the frame of 100x80 pixels"):
                check_box(outside, (100, 80))


class TestProcessor:
    FIELDS = {
        "template_size": 48,
        "search_size": 80,
        "template_factor": 1.5,
        "search_factor": 3.5,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "num_templates": 2,
    }

    def test_shapes(self, noise_frames):
        processor = TrackerImageProcessor(**self.FIELDS)
        boxes = [[10, 20, 30, 20], [50, 40, 8, 12]]
        template = processor(noise_frames[0], boxes=boxes, target="template")
        search = processor([noise_frames[0], Image.fromarray(noise_frames[1])], boxes=boxes)
        assert template["template_pixel_values"].shape == (2, 2, 3, 48, 48)
        assert search["search_pixel_values"].shape == (2, 3, 80, 80)
        assert search["search_pixel_values"].dtype == torch.float32
        assert [window.output_size for window in search.windows] == [80, 80]
        assert [window.size for window in template.windows] == [CropWindow.around(box, 1.5, 48).size for box in boxes]

    def test_values(self, noise_frames):
        processor = TrackerImageProcessor(**self.FIELDS)
        batch = processor(noise_frames[0], boxes=[[10, 20, 30, 20]])
        crop = batch.windows[0].extract(noise_frames[0])
        expected = (crop / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.4, 0.5, 0.6])
        assert np.allclose(batch["search_pixel_values"][0].permute(1, 2, 0), expected, atol=1e-5)

    def test_errors(self, noise_frames):
        processor = TrackerImageProcessor()
        with pytest.raises(ValueError, match="`images` holds 1 frames but `boxes` 2"):
            processor([noise_frames[0]], boxes=[[1, 2, 3, 4]] * 2)
        with pytest.raises(ValueError, match='`target` must be "template" or "search", got \'both\''):
            processor(noise_frames[0], boxes=[[1, 2, 3, 4]], target="both")
        with pytest.raises(ValueError, match="`return_tensors` must be 'pt', got 'np'"):
            processor(noise_frames[0], boxes=[[1, 2, 3, 4]], return_tensors="np")

    def test_round_trip_through_auto(self, tmp_path, tiny_config):
        """Every field survives, alone and beside a model."""
        processor = TrackerImageProcessor(**self.FIELDS)
        processor.save_pretrained(tmp_path)
        tiny_config.save_pretrained(tmp_path)
        loaded = AutoImageProcessor.from_pretrained(tmp_path)
        assert type(loaded) is TrackerImageProcessor
        assert {name: getattr(loaded, name) for name in self.FIELDS} == self.FIELDS
        assert loaded.to_dict() == processor.to_dict()

    def test_is_built_from_the_configuration(self):
        config = SUTrackConfig(**self.FIELDS)
        processor = TrackerImageProcessor.from_config(config)
        assert {name: getattr(processor, name) for name in self.FIELDS} == self.FIELDS


def test_normalisation_by_hand():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
    expected = torch.tensor([(0 - 0.5) / 0.25, (0.2 - 0.4) / 0.2, (1 - 0) / 2]).view(3, 1, 1)
    torch.testing.assert_close(normalize_pixels(pixels, [0.5, 0.4, 0.0], [0.25, 0.2, 2.0]), expected)


def test_import_registers_every_family(tiny_tracker, tmp_path):
    """`import ct_hf` is all that the Auto classes need."""
    assert isinstance(AutoConfig.for_model("ostrack"), ct_hf.OSTrackConfig)
    tiny_tracker.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is ct_hf.OSTrackModel
    assert type(AutoConfig.from_pretrained(tmp_path)) is ct_hf.OSTrackConfig


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_images_of_more_than_8_bits_are_refused(mode):
    """Pillow would crush them to black or white without a word."""
    with pytest.raises(TypeError, match=f"`frame` must hold 8 bits a channel, got a PIL image of mode {mode}"):
        as_frame(Image.new(mode, (8, 8)))


def test_processor_refuses_what_it_would_ignore():
    frame = np.zeros((20, 20, 3), dtype=np.uint8)
    with pytest.raises(TypeError, match="unexpected argument `traget`"):
        TrackerImageProcessor()(frame, boxes=[[2, 2, 8, 8]], traget="template")
    columns = [[2, 4], [2, 3], [8, 8], [8, 7]]
    for boxes in ([], None, [1, 2, 3, 4, 5], columns, [[1, 2, 3, 4], [1, 2, 3]], [{"xmin": 3}], np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match="`boxes` must hold rows of four numbers"):
            TrackerImageProcessor()(frame, boxes=boxes)
    for box, words in (([30, 30, 8, 8], "lies outside the frame"), ([0, 0, 900, 9], "is more than 3 times as large")):
        with pytest.raises(ValueError, match=words):
            TrackerImageProcessor()(frame, boxes=[[2, 2, 8, 8], box])
    with pytest.raises(ValueError, match="`box` must be four finite numbers"):
        check_box({"xmin": 3})


@pytest.mark.parametrize("copy_of", [copy.copy, copy.deepcopy, lambda features: pickle.loads(pickle.dumps(features))])
def test_windows_go_along_with_a_copy(copy_of):
    """As into and out of a DataLoader's worker."""
    features = TrackerImageProcessor()(np.zeros((20, 20, 3), dtype=np.uint8), boxes=[2, 2, 8, 8])
    copied = copy_of(features)
    assert copied.windows == features.windows and len(copied.windows) == 1
    assert torch.equal(copied["search_pixel_values"], features["search_pixel_values"])
