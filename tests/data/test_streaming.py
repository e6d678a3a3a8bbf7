import io

import numpy as np
import pytest
from PIL import Image

from ct_hf.data import (
    CAUSES,
    CLIP_FEATURES,
    FolderSequence,
    ProceduralSequence,
    ProceduralWorld,
    SequenceError,
    read_sequences,
    stream_clips,
    streaming,
)


WORLD = ProceduralWorld(length=20, size=(96, 72))


def skipped_of(rows):
    total = np.sum([row["skipped"] for row in rows], axis=0)
    return {cause: int(count) for cause, count in zip(CAUSES, total, strict=True) if count}


def test_rows_are_clips_of_a_folder(sequence, take):
    clips = stream_clips([sequence], seed=0, clip_length=5, max_gap=6)
    assert clips.features == CLIP_FEATURES
    for row in take(clips, 20):
        assert row.keys() == CLIP_FEATURES.keys()
        index = row["frame_index"]
        assert row["name"] == "walk"
        assert 2 <= len(index) == len(row["frames"]) == len(row["boxes"]) == len(row["visible"]) == 5
        assert index == sorted(set(index)) and index[-1] - index[0] <= 6
        assert all(row["visible"])
        np.testing.assert_allclose(row["boxes"], sequence.boxes[index])
        assert [frame["bytes"] for frame in row["frames"]] == [sequence.frame_bytes(position) for position in index]


def test_rows_are_clips_of_a_world(take):
    rows = take(stream_clips(WORLD, seed=4, clip_length=6), 5)
    assert len({row["name"] for row in rows}) == 5, "every clip has a sequence of its own"
    for row in rows:
        index = int(row["name"].split("-")[-1])
        assert index % 2**40 == row["clip"], "a sequence that hides its target gives way to another"
        rendered = WORLD.sequence(4, index)
        assert row["name"] == rendered.name
        assert row["frames"][1]["bytes"] == rendered.frame_bytes(row["frame_index"][1])
        np.testing.assert_allclose(row["boxes"], rendered.boxes[row["frame_index"]])
        assert Image.open(io.BytesIO(row["frames"][0]["bytes"])).size == (96, 72)


def test_short_sequences_give_short_clips(make_folder, take):
    sequence = FolderSequence(make_folder(count=3))
    assert [len(row["frames"]) for row in take(stream_clips([sequence], seed=0), 4)] == [3] * 4


def test_absent_frames_are_not_drawn(make_folder, take):
    rows = [(1, 2, 30, 30), ("NaN",) * 4] * 6
    sequence = FolderSequence(make_folder(count=12, rows=rows))
    drawn = {
        index for row in take(stream_clips([sequence], seed=0, clip_length=3), 30) for index in row["frame_index"]
    }
    assert drawn == {0, 2, 4, 6, 8, 10}


def test_every_sequence_and_every_frame_comes_up(make_folder, take):
    sequences = [FolderSequence(make_folder(name, count=9)) for name in ("a", "b", "c")]
    rows = take(stream_clips(sequences, seed=0, clip_length=2, max_gap=3), 300)
    names, counts = np.unique([row["name"] for row in rows], return_counts=True)
    assert names.tolist() == ["a", "b", "c"] and counts.min() > 70
    assert {index for row in rows for index in row["frame_index"]} == set(range(9))


def test_same_seed_same_clips_and_another_seed_others(sequence, take, same):
    first = take(stream_clips([sequence], seed=0), 6)
    clips = stream_clips([sequence], seed=0)
    assert same(first, take(clips, 6)) and same(first, take(clips, 6)), "also when iterated twice"
    assert not same(first, take(stream_clips([sequence], seed=1), 6))


def test_length_is_endless_or_as_asked(sequence, take):
    assert len(take(stream_clips([sequence], seed=0), 500)) == 500
    for count in (0, 1, 13):
        rows = list(stream_clips([sequence], seed=0, num_shards=4, num_clips=count))
        assert sorted(row["clip"] for row in rows) == list(range(count))


def test_shards_are_independent_of_who_reads_them(sequence):
    clips = stream_clips([sequence], seed=0, num_shards=4, num_clips=12)
    whole = {row["clip"]: row for row in clips}
    assert clips.num_shards == 4
    parts = [row for index in range(2) for row in clips.shard(num_shards=2, index=index)]
    assert sorted(row["clip"] for row in parts) == list(range(12))
    assert all(row == whole[row["clip"]] for row in parts)


def test_skipping_and_resuming_give_the_same_rows(sequence, take, same):
    clips = stream_clips([sequence], seed=0)
    rows = take(clips, 9)
    assert same(take(clips.skip(4), 5), rows[4:])
    iterator = iter(clips)
    take(iterator, 4)
    state = clips.state_dict()
    resumed = stream_clips([sequence], seed=0)
    resumed.load_state_dict(state)
    assert same(take(resumed, 5), rows[4:])


def test_resuming_does_not_render_again(take, monkeypatch):
    clips = stream_clips(WORLD, seed=0)
    iterator = iter(clips)
    take(iterator, 3)
    state = clips.state_dict()
    rendered = []
    original = ProceduralSequence.frame
    monkeypatch.setattr(
        ProceduralSequence, "frame", lambda self, index: rendered.append(self.name) or original(self, index)
    )
    resumed = stream_clips(WORLD, seed=0)
    resumed.load_state_dict(state)
    (row,) = take(resumed, 1)
    assert set(rendered) == {row["name"]}


def test_broken_sequences_are_skipped_and_counted(make_folder, take):
    make_folder("good")
    (make_folder("untold") / "groundtruth.txt").unlink()
    make_folder("long", rows=[(1, 2, 3, 4)] * 13)
    root = make_folder("hidden", rows=[(1, 2, 3, 4)] + [("NaN",) * 4] * 11).parent
    rows = take(stream_clips(read_sequences(root, check=False), seed=0), 60)
    assert {row["name"] for row in rows} == {"good"}
    counts = skipped_of(rows)
    assert counts.keys() == {"missing_ground_truth", "length_mismatch", "too_few_visible"}
    assert 100 < sum(counts.values()) < 300, "three of four draws fail"


def test_vanished_frames_are_skipped_and_counted(folder, sequence, take):
    clips = stream_clips([sequence], seed=0, clip_length=2)
    before = take(clips, 40)
    assert skipped_of(before) == {}
    (folder / "00000005.jpg").unlink()
    rows = take(clips, 40)
    assert skipped_of(rows).keys() == {"missing_frame"}
    for row, old in zip(rows, before, strict=True):
        assert 4 not in row["frame_index"]
        assert row == old or 4 in old["frame_index"], "the other clips stay as they are"


def test_nothing_readable_is_an_error_not_an_endless_loop(folder, take):
    (folder / "groundtruth.txt").unlink()
    clips = stream_clips(read_sequences(folder, check=False), seed=0)
    with pytest.raises(SequenceError, match=r"1000 clips in a row.*missing_ground_truth: 1000") as info:
        take(clips, 1)
    assert info.value.cause == "missing_ground_truth"


def test_no_sequences():
    with pytest.raises(SequenceError, match="`sequences` is empty") as info:
        stream_clips([], seed=0)
    assert info.value.cause == "empty"


@pytest.mark.parametrize("name", ["clip_length", "max_gap", "num_shards"])
def test_arguments_out_of_range(sequence, name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least"):
        stream_clips([sequence], seed=0, **{name: 0})


def test_counts_in_words():
    assert streaming.describe_skipped([0] * len(CAUSES)) == "none"
    assert streaming.describe_skipped(np.eye(len(CAUSES), dtype=int)[1] * 3) == f"{CAUSES[1]}: 3"
