import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ct_hf.data import PairSampler, SequenceError, sampling
from ct_hf.data.clip_sources import Clip
from ct_hf.data.frames import decode_frame


def jpeg(size=(96, 72), color=(90, 120, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG")
    return buffer.getvalue()


def draw(sampler, clip, count=1, seed=0):
    return [sampler.draw(clip, np.random.default_rng([seed, number])) for number in range(count)]


@pytest.mark.parametrize("num_templates", [1, 3])
@pytest.mark.parametrize("num_search_frames", [1, 2])
def test_columns_shapes_and_types(config, make_clip, num_templates, num_search_frames):
    config.num_templates = num_templates
    (pair,) = draw(PairSampler(config, num_search_frames=num_search_frames), make_clip())
    chain = () if num_search_frames == 1 else (2,)
    assert {name: (value.shape, value.dtype) for name, value in pair.items()} == {
        "template_pixel_values": ((num_templates, 3, 32, 32), np.uint8),
        "search_pixel_values": ((*chain, 3, 64, 64), np.uint8),
        "template_boxes": ((num_templates, 4), np.float32),
        "search_boxes": ((*chain, 4), np.float32),
        "frame_index": ((num_templates + num_search_frames,), np.int32),
    }


def spy_windows(monkeypatch):
    windows = []

    class Window(sampling.CropWindow):
        @classmethod
        def around(cls, box, factor, output_size):
            windows.append((np.array(box), sampling_window(box, factor, output_size)))
            return windows[-1][1]

    sampling_window = sampling.CropWindow.around
    monkeypatch.setattr(sampling, "CropWindow", Window)
    return windows


@given(
    box=st.tuples(st.floats(-5, 60), st.floats(-5, 50), st.floats(6, 40), st.floats(6, 40)),
    seed=st.integers(0, 2**32),
    num_templates=st.integers(1, 3),
    num_search_frames=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_labels_mapped_back_with_the_crop_window_are_the_true_box(box, seed, num_templates, num_search_frames):
    config = SimpleNamespace(
        template_size=32, search_size=64, template_factor=2.0, search_factor=4.0, num_templates=num_templates
    )
    frame = Image.new("RGB", (96, 72))
    clip = Clip("plain", 0, [0, 1], np.array([box] * 2, np.float32), np.ones(2, bool), lambda *_: frame)
    with pytest.MonkeyPatch.context() as monkeypatch:
        windows = spy_windows(monkeypatch)
        sampler = PairSampler(config, num_search_frames=num_search_frames, augmentation=None)
        (pair,) = draw(sampler, clip, seed=seed)
    assert len(windows) == num_templates + num_search_frames
    labels = [*pair["template_boxes"], *pair["search_boxes"].reshape(-1, 4)]
    for (_, window), label in zip(windows, labels, strict=True):
        np.testing.assert_allclose(window.to_frame(label), box, atol=window.size / window.output_size + 1e-3)
    for source, window in windows[:num_templates]:
        np.testing.assert_allclose(source, box, atol=1e-4)
        assert window.output_size == 32
    assert all(window.output_size == 64 for _, window in windows[num_templates:])


@pytest.mark.parametrize("num_search_frames", [1, 2])
def test_label_lies_on_the_target_in_the_crop(config, make_clip, num_search_frames):
    """A white target on black is found in the crops where the labels say, also when mirrored."""
    frame = Image.new("RGB", (96, 72))
    frame.paste((255, 255, 255), (30, 20, 48, 44))
    buffer = io.BytesIO()
    frame.save(buffer, "PNG")
    clip = make_clip(frames=[buffer.getvalue()] * 5, boxes=[[30, 20, 18, 24]] * 5)
    for pair in draw(PairSampler(config, num_search_frames=num_search_frames), clip, 40):
        crops = [(pair["template_pixel_values"][0], pair["template_boxes"][0])]
        crops += zip(
            pair["search_pixel_values"].reshape(-1, 3, 64, 64), pair["search_boxes"].reshape(-1, 4), strict=True
        )
        for pixels, (cx, cy, width, height) in crops:
            side = pixels.shape[-1]
            edges = np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]) * side
            rows, columns = np.nonzero(pixels[0] > 100)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            inside = np.array([edges[0] > 1, edges[1] > 1, edges[2] < side - 1, edges[3] < side - 1])
            np.testing.assert_allclose(np.array(found)[inside], edges[inside], atol=1.5)


def test_template_is_centered_and_search_is_jittered(config, make_clip):
    pairs = draw(PairSampler(config, augmentation=None), make_clip(), 400)
    templates = np.stack([pair["template_boxes"][0] for pair in pairs])
    labels = np.stack([pair["search_boxes"] for pair in pairs])
    np.testing.assert_allclose(templates[:, :2], 0.5, atol=0.02)
    np.testing.assert_allclose(np.sqrt(templates[:, 2] * templates[:, 3]), 0.5, atol=0.02)
    # The shift is uniform up to 1.5 target sides of a crop of 4 sides.
    assert np.abs(labels[:, :2] - 0.5).max() < 0.4 and np.abs(labels[:, :2] - 0.5).max() > 0.34
    np.testing.assert_allclose(labels[:, :2].std(axis=0), 0.75 / np.sqrt(12), rtol=0.12)
    # The log of the mean side is the mean of two normal draws.
    np.testing.assert_allclose(np.log(np.sqrt(labels[:, 2] * labels[:, 3]) * 4).std(), 0.25 / np.sqrt(2), rtol=0.15)


def test_jitter_can_be_turned_off(config, make_clip):
    sampler = PairSampler(config, augmentation=None, center_jitter=0, scale_jitter=0)
    np.testing.assert_allclose([pair["search_boxes"][:2] for pair in draw(sampler, make_clip(), 4)], 0.5, atol=0.02)


def test_each_search_crop_of_a_chain_is_jittered_by_itself(config, make_clip):
    clip = make_clip(boxes=[[20.0, 15.0, 18.0, 24.0]] * 5)
    (pair,) = draw(PairSampler(config, num_search_frames=3, augmentation=None), clip)
    assert len({tuple(box) for box in pair["search_boxes"].tolist()}) == 3


def frames_of(config, clip, count=300, **options):
    return {tuple(pair["frame_index"].tolist()) for pair in draw(PairSampler(config, **options), clip, count)}


def test_search_is_later_than_templates_and_all_are_visible(config, make_clip):
    config.num_templates = 2
    drawn = frames_of(config, make_clip(count=6, visible=[True, False, True, True, False, True]))
    assert all(first <= second < search for first, second, search in drawn)
    assert {frame for frames in drawn for frame in frames} == {0, 20, 30, 50}
    assert {(0, 20, 30), (0, 0, 50), (20, 30, 50)} <= drawn


def test_search_frames_of_a_chain_come_in_order_of_time(config, make_clip):
    config.num_templates = 2
    drawn = frames_of(config, make_clip(), num_search_frames=3)
    assert all(list(frames) == sorted(frames) and frames[1] < frames[2] for frames in drawn)
    assert {(0, 0, 10, 20, 30), (0, 10, 20, 30, 40)} <= drawn
    assert (0, 0, 10, 10, 10) in drawn, "of two frames, the chain repeats the later one"


def test_an_image_is_template_and_search_frame(config, make_clip):
    config.num_templates = 2
    assert frames_of(config, make_clip(count=1), count=3) == {(0, 0, 0)}
    with pytest.raises(SequenceError, match="visible in 0 frames"):
        draw(PairSampler(config), make_clip(count=1, visible=[False]))


def test_only_frames_that_are_drawn_are_decoded_and_each_once(config, make_clip):
    config.num_templates = 4
    clip, asked = make_clip(), []
    spied = Clip(
        clip.name,
        0,
        clip.frame_index,
        clip.boxes,
        clip.visible,
        lambda position, reduction: asked.append(position) or clip.frame(position, reduction),
    )
    (pair,) = draw(PairSampler(config), spied)
    assert sorted(10 * position for position in asked) == sorted(set(pair["frame_index"].tolist()))


def test_pairs_depend_on_what_is_given_alone(config, make_clip, same):
    sampler = PairSampler(config)
    assert same(draw(sampler, make_clip(), 4), draw(PairSampler(config), make_clip(), 4))
    assert not same(draw(sampler, make_clip(), 4, seed=1), draw(sampler, make_clip(), 4))


@pytest.mark.parametrize(
    ("cause", "columns"),
    [
        ("corrupt_image", {"frames": [jpeg()[:200]] * 5}),
        ("corrupt_image", {"frames": [b""] * 5}),
        ("bad_box", {"boxes": [[20.0, 15.0, 0.0, 24.0]] * 5}),
        ("bad_box", {"boxes": [[20.0, 15.0, -3.0, 24.0]] * 5}),
        ("bad_box", {"boxes": [[float("nan")] * 4] * 5}),
        ("bad_box", {"boxes": [[500.0, 15.0, 18.0, 24.0]] * 5}),
        ("frame_size", {"frames": [jpeg((96 + index, 72)) for index in range(5)]}),
        ("too_few_visible", {"visible": [True] + [False] * 4}),
    ],
)
def test_bad_clips_are_errors_that_name_the_sequence(config, make_clip, cause, columns):
    with pytest.raises(SequenceError, match="plain") as info:
        draw(PairSampler(config), make_clip(**columns))
    assert info.value.cause == cause


def test_one_bad_frame_costs_only_its_pairs(config, make_clip):
    clip, good = make_clip(frames=[jpeg()] * 4 + [b"nonsense"]), 0
    for seed in range(40):
        try:
            draw(PairSampler(config), clip, seed=seed)
        except SequenceError:
            continue
        good += 1
    assert 15 < good < 35, "a pair of 5 frames holds a given one in 2 of 5 cases"


def test_no_search_frames_asked_for(config):
    with pytest.raises(ValueError, match="`num_search_frames` must be at least 1, got 0"):
        PairSampler(config, num_search_frames=0)


def patterned_clip(side, size=(1280, 960), length=3):
    """A clip of large frames, all blue but for a red target; and the reductions that were asked for."""
    boxes = np.array([[300 + 20.5 * index, 250 + 11 * index, side, side] for index in range(length)])
    files, asked = [], []
    for x, y, w, h in boxes:
        image = Image.new("RGB", size, (0, 0, 200))
        image.paste((220, 0, 0), (round(x), round(y), round(x + w), round(y + h)))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())

    def frame(position, reduction):
        asked.append(reduction)
        return decode_frame(files[position], "plain", reduction)

    clip = Clip("plain", 0, list(range(length)), boxes.astype(np.float32), np.ones(length, bool), frame)
    return clip, asked


@pytest.mark.parametrize(
    ("side", "expected"), [(15.5, {1}), (31.5, {1}), (32.5, {2}), (63.0, {2}), (65.0, {4}), (129.0, {8}), (400.0, {8})]
)
def test_drafts_are_as_small_as_crops_allow(config, side, expected):
    """Templates of twice the target's side become 32 pixels, search regions of four times become 64."""
    clip, asked = patterned_clip(side)
    sampler = PairSampler(config, scale_jitter=0, draft=True)
    draw(sampler, clip, 5)
    assert set(asked) == expected
    asked.clear()
    draw(PairSampler(config), clip, 5)
    assert set(asked) == {1}, "off by default"


def test_a_crop_that_needs_its_pixels_keeps_them_for_the_pair(config):
    config.template_size = 64  # half the target's side is spare in a search crop, none in a template
    clip, asked = patterned_clip(35.0)
    draw(PairSampler(config, scale_jitter=0, draft=True), clip, 5)
    assert set(asked) == {1}


@pytest.mark.parametrize("side", [50.3, 100.0, 213.7])
def test_drafts_show_targets_where_the_labels_are(config, side):
    clip, _ = patterned_clip(side)
    full, draft = (draw(PairSampler(config, augmentation=None, draft=draft), clip, 8) for draft in (False, True))
    for one, other in zip(full, draft, strict=True):
        assert one["frame_index"].tolist() == other["frame_index"].tolist()
        for pair in (one, other):
            cx, cy, w, h = pair["search_boxes"] * config.search_size
            red = pair["search_pixel_values"][0] > 110
            rows, columns = (np.flatnonzero(red.any(axis=axis)) for axis in (1, 0))
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            corners = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, config.search_size)
            np.testing.assert_allclose(seen, corners, atol=1.6)
        np.testing.assert_allclose(one["search_boxes"], other["search_boxes"], atol=0.03)


def test_drafts_of_frames_with_broken_boxes_are_refused(config, fails):
    clip, _ = patterned_clip(100.0, length=2)
    clip.boxes[1, 2] = -4
    with fails("bad_box", "plain, frame 1", "not a box of positive width"):
        draw(PairSampler(config, draft=True), clip)
