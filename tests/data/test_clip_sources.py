import numpy as np
import pytest

from ct_hf.data import FolderSequence, ProceduralWorld, RenderedClips, SequenceClips, SequenceError, read_sequences
from ct_hf.data.clips import cut_spans


WORLD = ProceduralWorld(length=20, size=(96, 72))


@pytest.fixture
def sequences(make_folder):
    """Three of 30, 12 and 250 frames."""
    return [
        FolderSequence(make_folder(f"walk{count}", count=count, rows=[(10, 12, 20, 16)] * count, size=(40, 32)))
        for count in (30, 12, 250)
    ]


def epochs(source, count, shards=None, seed=0):
    """Clips of the first epochs, by epoch."""
    found = {}
    for epoch, clip in source.order(shards or list(range(source.num_shards)), seed):
        if epoch == count:
            return [found[number] for number in range(count)]
        found.setdefault(epoch, []).append(clip)


def test_every_frame_is_in_one_clip(sequences):
    source = SequenceClips(sequences, num_shards=3)
    frames = [(clip.name, frame) for clip in map(source.read, range(len(source))) for frame in clip.frame_index]
    assert sorted(frames) == sorted((one.name, frame) for one in sequences for frame in range(len(one)))


def test_each_epoch_has_each_clip_once_in_another_order(sequences):
    source = SequenceClips(sequences, num_shards=3)
    first, second = epochs(source, 2)
    assert sorted(first) == sorted(second) == list(range(len(source))) and first != second
    assert epochs(source, 1)[0] == first != epochs(source, 1, seed=1)[0]


def test_shards_share_the_clips_out(sequences):
    source = SequenceClips(sequences, num_shards=3)
    parts = [epochs(source, 1, [shard])[0] for shard in range(3)]
    assert sorted(clip for part in parts for clip in part) == list(range(len(source)))
    assert min(map(len, parts)) > 0
    many = SequenceClips(sequences, num_shards=100)
    assert many.num_shards == sum(len(cut_spans(one.name, len(one), 8)) for one in sequences), "no shard is empty"


def test_frames_and_boxes_are_those_of_the_sequence(sequences):
    source = SequenceClips(sequences)
    clip = source.read(0)
    (sequence,) = [one for one in sequences if one.name == clip.name]
    assert clip.frame(1, 1).tobytes() == sequence.frame(clip.frame_index[1]).tobytes()
    np.testing.assert_array_equal(clip.boxes, sequence.boxes[list(clip.frame_index)])
    assert clip.visible.all() and clip.number == clip.frame_index[0]


def test_no_frame_is_opened_before_it_is_asked_for(sequences):
    for sequence in sequences:
        for file in sequence.path.glob("*.jpg"):
            file.write_bytes(b"")
    source = SequenceClips(sequences)
    clip = source.read(0)
    with pytest.raises(SequenceError, match="is not a readable image"):
        clip.frame(0, 1)


def test_clips_that_do_not_show_their_target_twice_are_left_out(make_folder):
    rows = [(10, 12, 20, 16)] * 5 + [("NaN",) * 4] * 7
    source = SequenceClips([FolderSequence(make_folder(rows=rows))], stride=100)
    assert len(source) == 1 and source.read(0).visible.tolist() == [True, True, False]


def test_images_are_clips_of_one_frame(make_folder):
    source = SequenceClips([FolderSequence(make_folder(f"image{n}", count=1)) for n in range(3)])
    assert len(source) == 3 and {len(source.read(clip).frame_index) for clip in range(3)} == {1}


def broken(make_folder, count):
    for number in range(10):
        folder = make_folder(f"walk{number}")
        if number < count:
            (folder / "groundtruth.txt").unlink()
    return read_sequences(folder.parent, check=False)


def test_some_sequences_may_be_broken(make_folder, caplog):
    source = SequenceClips(broken(make_folder, 1), max_bad=0.1)
    assert source.left_out == {"missing_ground_truth": 1}
    assert "1 of 10 sequences are left out (missing_ground_truth: 1)" in caplog.text
    assert {source.read(clip).name for clip in range(len(source))} == {f"walk{n}" for n in range(1, 10)}


def test_too_many_broken_sequences_are_an_error_that_names_one(make_folder):
    sequences = broken(make_folder, 2)
    with pytest.raises(SequenceError, match=r"2 of 10.*missing_ground_truth: 2.*10 % are allowed.*walk0") as info:
        SequenceClips(sequences, max_bad=0.1)
    assert info.value.cause == "missing_ground_truth"
    with pytest.raises(SequenceError, match="2 of 2"):
        SequenceClips(sequences[:2], max_bad=1.0)


def test_arguments_out_of_range(sequences):
    with pytest.raises(SequenceError, match="`sequences` is empty"):
        SequenceClips([])
    with pytest.raises(ValueError, match="`num_shards` must be at least 1, got 0"):
        SequenceClips(sequences, num_shards=0)
    with pytest.raises(ValueError, match="`stride` must be from 1 to 100, got 0"):
        SequenceClips(sequences, stride=0)
    with pytest.raises(ValueError, match="`clip_length` must be at least 2, got 1"):
        RenderedClips(WORLD, seed=0, clip_length=1)


def test_rendered_clips_are_functions_of_their_number():
    source = RenderedClips(WORLD, seed=4, clip_length=6)
    for number in (0, 1, 70):
        clip, again = source.read(number), RenderedClips(WORLD, seed=4, clip_length=6).read(number)
        assert clip.frame(1, 1).tobytes() == again.frame(1, 1).tobytes() and clip.frame(1, 1).size == (96, 72)
        np.testing.assert_array_equal(clip.boxes, again.boxes)
        assert (
            2 <= len(clip.frame_index) <= 6
            and clip.visible.all()
            and len(set(clip.frame_index)) == len(clip.frame_index)
        )
        assert (
            clip.frame(0, 1).tobytes()
            != RenderedClips(WORLD, seed=5, clip_length=6).read(number).frame(0, 1).tobytes()
        )


def test_rendered_clips_never_come_twice(take):
    source = RenderedClips(WORLD, seed=0)
    parts = [take(source.order([shard], 0), 50) for shard in (0, 1, 63)]
    assert len({clip for part in parts for clip in part}) == 150


def test_a_world_that_shows_nothing_is_an_error_not_an_endless_loop(monkeypatch):
    monkeypatch.setattr("ct_hf.data.clip_sources.MAX_BAD_DRAWS", 5)
    monkeypatch.setattr(
        "ct_hf.data.procedural.ProceduralSequence.annotation", lambda self, index: (np.zeros(4), False)
    )
    with pytest.raises(SequenceError, match="5 rendered sequences in a row"):
        RenderedClips(WORLD, seed=0).read(0)


def test_a_shard_without_clips_is_passed_over(make_folder):
    """A clip is drawn anew anywhere when one is broken."""
    rows = [(10, 12, 20, 16)] + [("nan",) * 4] * 298 + [(10, 12, 20, 16)]
    torn = FolderSequence(make_folder("torn", count=300, rows=rows, size=(40, 32)))
    whole = FolderSequence(make_folder("whole", count=12, rows=[(10, 12, 20, 16)] * 12, size=(40, 32)))
    source = SequenceClips([torn, whole], num_shards=3)
    assert [] in [source.groups(shard) for shard in range(source.num_shards)]
    rng = np.random.default_rng(0)
    assert {source.read(source.any_clip(rng)).name for _ in range(50)} == {"whole"}


def test_an_empty_annotation_is_left_out(sequences, make_folder):
    (folder := make_folder("bare", count=3)).joinpath("groundtruth.txt").write_text("")
    source = SequenceClips([*sequences, FolderSequence(folder)], max_bad=0.5)
    assert source.left_out == {"empty": 1}
