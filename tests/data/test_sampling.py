import io
import zlib
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from ct_hf.data import (
    CAUSES,
    FolderSequence,
    PairSampler,
    ProceduralWorld,
    SequenceError,
    TrackingCollator,
    read_sequences,
    sampling,
    stream_clips,
    stream_pairs,
)


WORLD = ProceduralWorld(length=20, size=(96, 72))


def jpeg(size=(96, 72), color=(90, 120, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG")
    return buffer.getvalue()


def clip(number=0, count=5, **columns):
    """Columns of one clip of plain frames, as `map(batched=True, batch_size=1)` hands them over."""
    row = {
        "name": "plain",
        "clip": number,
        "frames": [{"bytes": jpeg(), "path": None}] * count,
        "frame_index": list(range(0, 10 * count, 10)),
        "boxes": [[20.0 + index, 15.0, 18.0, 24.0] for index in range(count)],
        "visible": [True] * count,
        "skipped": [0] * len(CAUSES),
        **columns,
    }
    return {name: [value] for name, value in row.items()}


def counts(skipped):
    return {cause: int(count) for cause, count in zip(CAUSES, skipped, strict=True) if count}


def pair_list(columns):
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("num_templates", [1, 3])
def test_columns_shapes_and_types(config, num_templates):
    config.num_templates = num_templates
    pairs = PairSampler(config, seed=0, pairs_per_clip=6)(clip())
    expected = {
        "template_pixel_values": ((num_templates, 3, 32, 32), np.uint8),
        "search_pixel_values": ((3, 64, 64), np.uint8),
        "template_boxes": ((num_templates, 4), np.float32),
        "search_boxes": ((4,), np.float32),
        "skipped": ((len(CAUSES),), np.int64),
    }
    assert pairs.keys() == expected.keys()
    for name, (shape, dtype) in expected.items():
        assert [(value.shape, value.dtype) for value in pairs[name]] == [(shape, dtype)] * 6


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
)
@settings(max_examples=25, deadline=None)
def test_labels_mapped_back_with_the_crop_window_are_the_true_box(box, seed, num_templates):
    config = SimpleNamespace(
        template_size=32, search_size=64, template_factor=2.0, search_factor=4.0, num_templates=num_templates
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        windows = spy_windows(monkeypatch)
        sampler = PairSampler(config, seed=seed, pairs_per_clip=1, augmentation=None)
        (pair,) = pair_list(sampler(clip(count=2, boxes=[list(box)] * 2)))
    assert len(windows) == num_templates + 1
    for (_, window), label in zip(windows, [*pair["template_boxes"], pair["search_boxes"]], strict=True):
        np.testing.assert_allclose(window.to_frame(label), box, atol=window.size / window.output_size + 1e-3)
    for source, window in windows[:-1]:
        np.testing.assert_allclose(source, box)
        assert window.output_size == 32
    assert windows[-1][1].output_size == 64


def test_label_lies_on_the_target_in_the_crop(config):
    """A white target on black is found in the crops where the labels say, also when mirrored."""
    frame = Image.new("RGB", (96, 72))
    frame.paste((255, 255, 255), (30, 20, 48, 44))
    buffer = io.BytesIO()
    frame.save(buffer, "PNG")
    frames = [{"bytes": buffer.getvalue(), "path": None}] * 5
    sampler = PairSampler(config, seed=1, pairs_per_clip=40)
    for pair in pair_list(sampler(clip(frames=frames, boxes=[[30, 20, 18, 24]] * 5))):
        crops = [(pair["template_pixel_values"][0], pair["template_boxes"][0])]
        crops.append((pair["search_pixel_values"], pair["search_boxes"]))
        for pixels, (cx, cy, width, height) in crops:
            side = pixels.shape[-1]
            edges = np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]) * side
            rows, columns = np.nonzero(pixels[0] > 100)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            inside = np.array([edges[0] > 1, edges[1] > 1, edges[2] < side - 1, edges[3] < side - 1])
            np.testing.assert_allclose(np.array(found)[inside], edges[inside], atol=1.5)


def test_template_is_centered_and_search_is_jittered(config):
    pairs = pair_list(PairSampler(config, seed=0, pairs_per_clip=400, augmentation=None)(clip()))
    templates = np.stack([pair["template_boxes"][0] for pair in pairs])
    labels = np.stack([pair["search_boxes"] for pair in pairs])
    np.testing.assert_allclose(templates[:, :2], 0.5, atol=0.02)
    np.testing.assert_allclose(np.sqrt(templates[:, 2] * templates[:, 3]), 0.5, atol=0.02)
    # The shift is uniform up to 1.5 target sides of a crop of 4 sides.
    assert np.abs(labels[:, :2] - 0.5).max() < 0.4 and np.abs(labels[:, :2] - 0.5).max() > 0.34
    np.testing.assert_allclose(labels[:, :2].std(axis=0), 0.75 / np.sqrt(12), rtol=0.12)
    # The log of the mean side is the mean of two normal draws.
    np.testing.assert_allclose(np.log(np.sqrt(labels[:, 2] * labels[:, 3]) * 4).std(), 0.25 / np.sqrt(2), rtol=0.15)


def test_jitter_can_be_turned_off(config):
    sampler = PairSampler(config, seed=0, augmentation=None, center_jitter=0, scale_jitter=0)
    np.testing.assert_allclose([box[:2] for box in sampler(clip())["search_boxes"]], 0.5, atol=0.02)


def test_search_is_later_than_templates_and_all_are_visible(config):
    config.num_templates = 2
    sampler = PairSampler(config, seed=0)
    rows = clip(count=6, visible=[True, False, True, True, False, True])
    row = sampling._Clip(**{name: value[0] for name, value in rows.items()})
    drawn = {tuple(sampler._choose(row, np.random.default_rng(seed))) for seed in range(300)}
    assert all(first <= second < search for first, second, search in drawn)
    assert {position for positions in drawn for position in positions} == {0, 2, 3, 5}
    assert {(0, 2, 3), (0, 0, 5), (2, 3, 5)} <= drawn


def test_each_frame_is_decoded_at_most_once_and_only_when_drawn(config, monkeypatch):
    decoded = []
    original = sampling.decode_frame
    monkeypatch.setattr(sampling, "decode_frame", lambda data, where: decoded.append(where) or original(data, where))
    PairSampler(config, seed=0, pairs_per_clip=50)(clip())
    assert len(decoded) == len(set(decoded)) == 5
    decoded.clear()
    PairSampler(config, seed=0, pairs_per_clip=1)(clip())
    assert len(decoded) == 2


def test_pairs_depend_on_seed_name_clip_and_number_alone(config, same):
    rows = {name: value * 2 for name, value in clip(3, frames=[{"bytes": jpeg(), "path": None}] * 5).items()}
    one = pair_list(PairSampler(config, seed=0)(clip(3)))
    both = pair_list(PairSampler(config, seed=0)(rows))
    assert same(both[:4], one) and same(both[4:], one), "whatever else is in the batch"
    assert same(pair_list(PairSampler(config, seed=0, pairs_per_clip=2)(clip(3))), one[:2])
    for other in (PairSampler(config, seed=1)(clip(3)), PairSampler(config, seed=0)(clip(4))):
        assert not same(pair_list(other), one)
    assert not same(pair_list(PairSampler(config, seed=0)(clip(3, name="other"))), one)
    assert zlib.crc32(b"plain") != zlib.crc32(b"other")


@pytest.mark.parametrize(
    ("cause", "columns"),
    [
        ("corrupt_image", {"frames": [{"bytes": jpeg()[:200], "path": None}] * 5}),
        ("corrupt_image", {"frames": [{"bytes": b"", "path": None}] * 5}),
        ("missing_frame", {"frames": [{"bytes": None, "path": "00000001.jpg"}] * 5}),
        ("bad_box", {"boxes": [[20.0, 15.0, 0.0, 24.0]] * 5}),
        ("bad_box", {"boxes": [[float("nan")] * 4] * 5}),
        ("bad_box", {"boxes": [[500.0, 15.0, 18.0, 24.0]] * 5}),
        ("frame_size", {"frames": [{"bytes": jpeg((96 + index, 72)), "path": None} for index in range(5)]}),
        ("too_few_visible", {"visible": [True] + [False] * 4}),
        ("length_mismatch", {"boxes": [[20.0, 15.0, 18.0, 24.0]] * 4}),
    ],
)
def test_bad_clips_are_skipped_and_counted_in_the_next_good_pair(config, cause, columns):
    sampler = PairSampler(config, seed=0, pairs_per_clip=3)
    for number in range(2):
        assert all(column == [] for column in sampler(clip(number, **columns)).values())
    first, *others = sampler(clip(2))["skipped"]
    assert counts(first) == {cause: 6}
    assert all(counts(skipped) == {} for skipped in others)
    assert counts(sampler(clip(3))["skipped"][0]) == {}, "nothing is counted twice"


def test_one_bad_frame_costs_only_its_pairs(config):
    frames = [{"bytes": jpeg(), "path": None}] * 4 + [{"bytes": b"nonsense", "path": None}]
    pairs = PairSampler(config, seed=0, pairs_per_clip=40)(clip(frames=frames))
    good = len(pairs["skipped"])
    assert 15 < good < 35, "a pair of 5 frames holds a given one in 2 of 5 cases"
    assert counts(np.sum(pairs["skipped"], axis=0)) == {"corrupt_image": 40 - good}


def test_counts_of_the_clips_are_passed_on(config):
    skipped = [0] * len(CAUSES)
    skipped[CAUSES.index("missing_ground_truth")] = 5
    pairs = PairSampler(config, seed=0)(clip(skipped=skipped))
    assert counts(np.sum(pairs["skipped"], axis=0)) == {"missing_ground_truth": 5}
    rows = clip()
    del rows["skipped"]
    assert len(PairSampler(config, seed=0)(rows)["skipped"]) == 4, "stored clips need no counts"


def test_nothing_readable_is_an_error_not_an_endless_loop(folder, pairs_of):
    for file in folder.glob("*.jpg"):
        file.write_bytes(file.read_bytes()[:100])
    pairs = pairs_of(stream_clips([FolderSequence(folder)], seed=0, clip_length=2), pairs_per_clip=1)
    with pytest.raises(SequenceError, match=r"1000 clips in a row.*corrupt_image: 1000.*last problem") as info:
        next(iter(pairs))
    assert info.value.cause == "corrupt_image"


def test_a_good_clip_forgives_bad_ones(config, monkeypatch):
    monkeypatch.setattr(sampling, "MAX_BAD_CLIPS", 3)
    sampler = PairSampler(config, seed=0)
    for number in range(5):
        sampler(clip(number, visible=[False] * 5))
        sampler(clip(number, visible=[False] * 5))
        sampler(clip(number))


def test_no_pairs_asked_for(config):
    with pytest.raises(ValueError, match="`pairs_per_clip` must be at least 1, got 0"):
        PairSampler(config, seed=0, pairs_per_clip=0)


def test_arrays_pass_through_the_stream_uncopied(pairs_of, take):
    for pair in take(pairs_of(stream_clips(WORLD, seed=0)), 6):
        assert all(isinstance(value, np.ndarray) for value in pair.values())
        assert pair["search_pixel_values"].dtype == np.uint8


def test_stream_is_repeatable_skippable_and_resumable(pairs_of, take, same):
    pairs = pairs_of(stream_clips(WORLD, seed=0))
    rows = take(pairs, 14)
    assert same(take(pairs, 14), rows)
    for count in (3, 4, 8):
        assert same(take(pairs.skip(count), 6), rows[count : count + 6])
        source = pairs_of(stream_clips(WORLD, seed=0))
        iterator = iter(source)
        take(iterator, count)
        resumed = pairs_of(stream_clips(WORLD, seed=0))
        resumed.load_state_dict(source.state_dict())
        assert same(take(resumed, 6), rows[count : count + 6])


def test_two_workers_read_each_shard_once(sequence, pairs_of):
    clips = stream_clips([sequence], seed=0, num_shards=4, num_clips=12)
    expected = list(pairs_of(clips, pairs_per_clip=2))
    loader = DataLoader(pairs_of(clips, pairs_per_clip=2), batch_size=4, num_workers=2, collate_fn=TrackingCollator())
    for _ in range(2):
        batches = list(loader)
        read = sorted(box.tobytes() for batch in batches for box in batch["search_boxes"].numpy())
        assert len(read) == 24
        assert read == sorted(pair["search_boxes"].tobytes() for pair in expected)


def test_counts_reach_the_batches_from_workers(folder, pairs_of):
    for name in ("00000002.jpg", "00000007.jpg"):
        (folder / name).write_bytes(b"nonsense")
    clips = stream_clips([FolderSequence(folder)], seed=0, clip_length=4, num_shards=4, num_clips=40)
    pairs = pairs_of(clips, pairs_per_clip=3)
    loader = DataLoader(pairs, batch_size=5, num_workers=2, collate_fn=TrackingCollator())
    good = bad = 0
    for batch in loader:
        good += len(batch["search_boxes"])
        bad += batch["skipped"][CAUSES.index("corrupt_image")].item()
    # What is skipped after the last good pair of a worker has no pair to travel with.
    assert 120 - 2 * 3 <= good + bad <= 120 and bad > 10


def test_real_sequences(real_root, pairs_of, take):
    pairs = take(pairs_of(stream_clips(read_sequences(real_root), seed=0)), 60)
    assert counts(np.sum([pair["skipped"] for pair in pairs], axis=0)) == {}
    centers = np.stack([pair["search_boxes"][:2] for pair in pairs])
    assert (centers > 0).all() and (centers < 1).all()
    assert np.std([pair["search_pixel_values"].mean() for pair in pairs]) > 5


def test_scale_jitter_of_a_stream(config):
    """Without it the target's size in the crop says nothing new: it is that of the box in the search region."""

    def spread(scale_jitter):
        pairs = stream_pairs(ProceduralWorld(), config, seed=0, scale_jitter=scale_jitter)
        sides = [np.sqrt(pair["search_boxes"][2:].prod()) for pair in islice(pairs, 24)]
        return np.std(np.log(sides))

    assert spread(0.0) < 0.05 < 0.2 < spread(0.5)
