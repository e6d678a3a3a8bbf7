import re
from collections import Counter

import numpy as np
import pytest
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from ct_hf.data import (
    CAUSES,
    FolderSequence,
    ProceduralWorld,
    SequenceClips,
    SequenceError,
    TrackingCollator,
    read_sequences,
    stream_pairs,
)


WORLD = ProceduralWorld(length=20, size=(96, 72))


@pytest.fixture
def sequences(make_folder):
    return [FolderSequence(make_folder(f"walk{number}", count=30)) for number in range(6)]


@pytest.fixture
def stream(config):
    return lambda source=WORLD, seed=0, **options: stream_pairs(source, config, seed=seed, **options)


def counts(pairs):
    total = np.sum([pair["skipped"] for pair in pairs], axis=0)
    return {cause: int(count) for cause, count in zip(CAUSES, total, strict=True) if count}


def batches(stream, count, workers, before=0, batch_size=4):
    stream = stream.shared(max(1, workers), before, batch_size)
    loader = DataLoader(stream, batch_size=batch_size, num_workers=workers, collate_fn=TrackingCollator())
    return [batch["search_boxes"].numpy() for batch, _ in zip(loader, range(count), strict=False)]


def test_pairs_are_arrays_that_nothing_was_done_to(stream, take):
    for pair in take(stream(), 6):
        assert re.fullmatch(r"\S+, frames \d+, \d+", pair.pop("name"))
        assert {name: (value.shape, value.dtype) for name, value in pair.items()} == {
            "template_pixel_values": ((1, 3, 32, 32), np.uint8),
            "search_pixel_values": ((3, 64, 64), np.uint8),
            "template_boxes": ((1, 4), np.float32),
            "search_boxes": ((4,), np.float32),
            "skipped": ((len(CAUSES),), np.int64),
        }


def test_the_same_pairs_whoever_asks(stream, sequences, take, same):
    for source in (WORLD, sequences):
        pairs = take(stream(source), 30)
        assert same(take(stream(source), 30), pairs)
        assert not same(take(stream(source, seed=1), 30), pairs)
        assert len({pair["search_boxes"].tobytes() for pair in pairs}) == 30


def test_epochs_have_pairs_of_their_own(stream, sequences, take):
    """24 clips of 4 pairs each."""
    pairs = take(stream(sequences), 400)
    assert len({pair["search_boxes"].tobytes() for pair in pairs}) == 400


def test_each_clip_of_an_epoch_gives_its_pairs(stream, sequences, monkeypatch, take):
    drawn = []
    original = SequenceClips.read
    monkeypatch.setattr(SequenceClips, "read", lambda self, clip: drawn.append(clip) or original(self, clip))
    num_clips = len(SequenceClips(sequences))
    iterator = iter(stream(sequences, pairs_per_clip=3))
    epochs = 10
    take(iterator, epochs * 3 * num_clips)
    read = Counter(drawn)
    assert set(read) == set(range(num_clips))
    # Clips that are begun and not over are ahead of the others.
    assert max(read.values()) - min(read.values()) <= 3


def test_neighbours_are_of_different_clips(stream, monkeypatch, take):
    from ct_hf.data import PairSampler

    names = []
    original = PairSampler.draw
    monkeypatch.setattr(
        PairSampler, "draw", lambda self, clip, rng: names.append(clip.name) or original(self, clip, rng)
    )
    take(stream(pairs_per_clip=8, clip_length=2), 600)
    for start in range(300, 600 - 64, 8):  # before, few clips have been begun
        assert len(set(names[start : start + 64])) == 64
    assert max(Counter(names).values()) == 8


@pytest.mark.parametrize("seen", [0, 75, 151], ids=lambda seen: f"after {seen} batches")
def test_each_clip_is_read_once(stream, monkeypatch, take, seen):
    """Also where a run goes on in the midst of many clips: it once read one anew for every pair, for good."""
    from ct_hf.data import RenderedClips

    read = []
    original = RenderedClips.read
    monkeypatch.setattr(RenderedClips, "read", lambda self, clip: read.append(clip) or original(self, clip))
    take(stream(pairs_per_clip=8, clip_length=2).shared(1, seen, 4), 4 * seen + 300)
    assert read and len(set(read)) == len(read)


def test_no_clip_is_kept_after_its_last_pair(stream, take):
    pairs = stream(pairs_per_clip=8, clip_length=2)
    take(pairs, 1000)
    assert 0 < len(pairs._reader._kept[0]) <= 64


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("seen", [1, 5, 8])
def test_what_was_seen_is_passed_over_unread(stream, sequences, workers, seen):
    whole = batches(stream(sequences), seen + 4, workers)
    rest = batches(stream(sequences), seen + 4, workers, before=seen)
    assert all(batch.shape == (4, 0) for batch in rest[:seen])
    np.testing.assert_array_equal(np.stack(rest[seen:]), np.stack(whole[seen:]))


def test_passing_over_reads_nothing(stream, sequences, monkeypatch, take):
    def refuse(self, clip):
        raise AssertionError("a clip was read")

    monkeypatch.setattr(SequenceClips, "read", refuse)
    assert len(take(stream(sequences).shared(1, 100, 4), 400)) == 400


def test_workers_and_processes_draw_from_clips_of_their_own(stream, sequences, config, monkeypatch, take):
    pairs = stream(sequences, num_shards=5, pairs_per_clip=1)
    shared = pairs.shared(4)
    assert (pairs.num_shards, shared.num_shards) == (1, 4)
    num_clips = len(SequenceClips(sequences))
    parts = []
    for rank in range(2):
        loader = DataLoader(shared.shard(2, rank), batch_size=1, num_workers=2, collate_fn=TrackingCollator())
        parts.append({batch["search_boxes"].numpy().tobytes() for batch, _ in zip(loader, range(200), strict=False)})
    assert not parts[0] & parts[1], "no pair is seen by two"
    everything = {pair["search_boxes"].tobytes() for pair in take(pairs, num_clips)}
    assert everything <= parts[0] | parts[1], "and each by one"


def test_more_readers_than_shards(stream, sequences):
    with pytest.raises(ValueError, match=r"SequenceClips\(<6 sequences>\) has 2 shards for 3 readers"):
        stream(sequences, num_shards=2, num_readers=3)


def test_data_sets_are_mixed_by_their_ratios(stream, sequences, take):
    flat = [sequences[0]]
    names = {"world": WORLD, "walks": flat}
    templates = {pair["template_pixel_values"].tobytes() for pair in take(stream(flat, augmentation=None), 400)}
    drawn = {
        share: np.mean([pair["template_pixel_values"].tobytes() in templates for pair in pairs])
        for share, pairs in (
            (0.75, take(stream(names, ratios={"world": 1, "walks": 3}, augmentation=None), 300)),
            (0.5, take(stream(names, augmentation=None), 300)),
        )
    }
    assert all(abs(found - share) < 0.08 for share, found in drawn.items()), drawn


def test_mixed_streams_pass_over_too(stream, sequences):
    names = {"one": sequences[:3], "two": sequences[3:]}
    for workers in (0, 2):
        whole = batches(stream(names), 8, workers)
        rest = batches(stream(names), 8, workers, before=5)
        np.testing.assert_array_equal(np.stack(rest[5:]), np.stack(whole[5:]))


@pytest.mark.parametrize("ratios", [{"one": 1}, {"one": 1, "two": 0}, {"one": 1, "two": 1, "three": 1}])
def test_ratios_that_do_not_fit(stream, sequences, ratios):
    with pytest.raises(ValueError, match="`ratios` must have a positive number for each of one, two"):
        stream({"one": sequences[:3], "two": sequences[3:]}, ratios=ratios)


def test_broken_frames_are_left_out_and_counted(stream, make_folder, take):
    folder = make_folder(count=30)
    for name in ("00000002.jpg", "00000007.jpg"):
        (folder / name).write_bytes(b"nonsense")
    pairs = take(stream([FolderSequence(folder)], max_bad=1.0), 200)
    assert len(pairs) == 200 and set(counts(pairs)) >= {"corrupt_image"}
    assert all(pair["search_pixel_values"].shape == (3, 64, 64) for pair in pairs)


def test_counts_reach_the_batches_from_workers(stream, sequences):
    for sequence in sequences[:2]:
        (sequence.path / "00000003.jpg").write_bytes(b"nonsense")
    loader = DataLoader(
        stream(sequences, max_bad=1.0, num_readers=2), batch_size=5, num_workers=2, collate_fn=TrackingCollator()
    )
    bad = sum(
        batch["skipped"][CAUSES.index("corrupt_image")].item() for batch, _ in zip(loader, range(40), strict=False)
    )
    assert bad > 2


def test_a_replacement_is_the_same_for_whoever_draws_it(stream, sequences, take, same):
    (sequences[0].path / "00000003.jpg").write_bytes(b"nonsense")
    pairs = take(stream(sequences, max_bad=1.0), 120)
    assert counts(pairs) and same(take(stream(sequences, max_bad=1.0), 120), pairs)


def test_too_many_broken_draws_end_the_stream(stream, sequences, take):
    for sequence in sequences[:3]:
        for file in sequence.path.glob("*.jpg"):
            file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(
        SequenceError, match=r"11 of \d+ draws hit something broken \(corrupt_image: 11\).*1 % are"
    ) as info:
        take(stream(sequences), 400)
    assert info.value.cause == "corrupt_image"
    assert len(take(stream(sequences, max_bad=0.6), 100)) == 100


def test_nothing_readable_is_an_error_not_an_endless_loop(stream, folder, take):
    for file in folder.glob("*.jpg"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(SequenceError, match=r"1000 draws in a row.*corrupt_image: 1000"):
        take(stream([FolderSequence(folder)], max_bad=1.0), 1)


def test_real_sequences(stream, real_root, take):
    pairs = take(stream(read_sequences(real_root)), 60)
    assert counts(pairs) == {}
    centers = np.stack([pair["search_boxes"][:2] for pair in pairs])
    assert (centers > 0).all() and (centers < 1).all()
    assert np.std([pair["search_pixel_values"].mean() for pair in pairs]) > 5


def test_opening_a_stream_does_not_go_through_its_sequences(stream, sequences, take):
    class Heavy(SequenceClips):
        def __reduce__(self):
            raise AssertionError("a hash was taken of all sequences")

    pairs = stream(Heavy(sequences)).shared(2)
    assert take(stream(Heavy(sequences)), 3) and pairs.num_shards == 2


def test_an_error_in_a_worker_stays_one_of_the_data(stream, make_folder):
    folder = make_folder()
    for frame in folder.glob("*.jpg"):
        frame.write_bytes(b"nonsense")
    loader = DataLoader(stream([FolderSequence(folder)]), num_workers=1, collate_fn=TrackingCollator())
    with pytest.raises(SequenceError, match="corrupt_image"):
        next(iter(loader))


def test_readers_draw_sources_of_their_own(stream, sequences, config, take):
    """Or the mixture of a batch of all processes would vary as that of one."""
    shared = stream({"one": sequences, "two": WORLD}, num_shards=2).shared(2)
    drawn = [
        ["procedural" in pair["name"] for pair in take(split_dataset_by_node(shared, rank, 2), 40)] for rank in (0, 1)
    ]
    assert drawn[0] != drawn[1] and all(10 < sum(one) < 30 for one in drawn)


def test_readers_that_do_not_divide_the_shards_are_told(stream, sequences, caplog):
    stream(sequences, num_shards=4).shared(2)
    assert not caplog.messages
    stream(sequences, num_shards=4).shared(3)
    assert "has 4 shards for 3 readers" in caplog.text and "2 times as often" in caplog.text


def test_readers_that_are_not_there_are_missed(stream, sequences, take):
    """Clips of the second of two readers would never come."""
    for source in (sequences, WORLD):
        with pytest.raises(ValueError, match="`num_readers` is 2, but 1 read this stream"):
            take(stream(source, num_readers=2), 1)


def test_a_broken_first_frame_costs_no_other(stream, make_folder, take):
    for number in range(4):
        folder = make_folder(f"walk{number}", count=30)
    (folder / "00000001.jpg").write_text("<html>")
    pairs = take(stream(read_sequences(folder.parent, check=False)), 300)
    assert Counter(pair["name"].partition(",")[0] for pair in pairs)["walk3"] > 40
    assert 0 < counts(pairs)["corrupt_image"] < 15


def test_an_annotation_that_became_shorter_is_a_broken_sequence(make_folder, fails):
    folder = make_folder(count=30)
    clips = SequenceClips([FolderSequence(folder)])
    rows = (folder / "groundtruth.txt").read_text().splitlines(keepends=True)
    (folder / "groundtruth.txt").write_text("".join(rows[:5]))
    clips.sequences = [FolderSequence(folder)]  # as in a worker, which reads anew
    with fails("length_mismatch", "walk: its annotation has 5 rows"):
        clips.read(0)
