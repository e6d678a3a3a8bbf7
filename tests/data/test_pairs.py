import numpy as np
import pytest

from ct_hf.data import (
    FolderSequence,
    ProceduralWorld,
    SequenceClips,
    SequenceError,
    StoredClips,
    convert_dataset,
    open_source,
    read_sequences,
    stream_pairs,
)


@pytest.fixture
def root(make_folder):
    for number in range(4):
        folder = make_folder(f"walk{number}", count=30 + number)
    return folder.parent


def test_scale_jitter_of_a_stream(config, take):
    """Without it the target's size in the crop says nothing new: it is that of the box in the search region."""

    def spread(scale_jitter):
        pairs = stream_pairs(ProceduralWorld(), config, seed=0, scale_jitter=scale_jitter)
        return np.std([np.log(np.sqrt(pair["search_boxes"][2:].prod())) for pair in take(pairs, 24)])

    assert spread(0.0) < 0.05 < 0.2 < spread(0.5)


def test_chains_of_search_frames(config, root, take):
    (pair,) = take(stream_pairs(read_sequences(root), config, seed=0, num_search_frames=2), 1)
    assert pair["search_pixel_values"].shape == (2, 3, 64, 64) and pair["search_boxes"].shape == (2, 4)


def test_a_folder_and_what_was_stored_of_it_give_the_same_pairs(config, root, tmp_path, take, same):
    out = convert_dataset("folder", root, tmp_path / "clips").out
    stored = open_source(str(out))
    own = open_source(str(root), num_shards=stored.num_shards)
    assert isinstance(stored, StoredClips) and isinstance(own, SequenceClips)
    assert same(*(take(stream_pairs(source, config, seed=3), 200) for source in (stored, own)))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_drafts_are_the_same_wherever_they_come_from(config, make_folder, tmp_path, take, same, suffix):
    rows = [(100 + index, 120, 200, 160 + index / 2) for index in range(12)]
    folder = make_folder(size=(641, 480), rows=rows, suffix=suffix)
    out = convert_dataset("folder", folder.parent, tmp_path / "clips").out
    sources = open_source(str(out)), open_source(str(folder.parent), num_shards=1)
    one, other = (take(stream_pairs(source, config, seed=3, draft=True), 20) for source in sources)
    full = take(stream_pairs(sources[0], config, seed=3), 20)
    assert same(one, other)
    for draft, pair in zip(one, full, strict=True):
        assert draft["name"] == pair["name"]
        np.testing.assert_allclose(draft["search_boxes"], pair["search_boxes"], atol=0.03)
        assert (draft["search_pixel_values"] != pair["search_pixel_values"]).any()


def test_drafts_of_rendered_frames(config, take):
    world = ProceduralWorld(size=(640, 480))
    full, draft = (take(stream_pairs(world, config, seed=0, draft=draft), 12) for draft in (False, True))
    for one, other in zip(full, draft, strict=True):
        np.testing.assert_allclose(one["search_boxes"], other["search_boxes"], atol=0.05)
    assert any(
        (one["search_pixel_values"] != other["search_pixel_values"]).any()
        for one, other in zip(full, draft, strict=True)
    )


def test_data_sets_in_their_own_layout(root):
    assert {one.name for one in open_source(f"folder:{root}").sequences} == {f"walk{number}" for number in range(4)}
    assert open_source(str(root), num_shards=2).num_shards == 2
    with pytest.raises(SequenceError, match="training_set.txt"):
        open_source(f"lasot:{root}")


def test_as_many_may_be_broken_as_the_user_says(root):
    (root / "walk0" / "groundtruth.txt").write_text("no rows")
    with pytest.raises(SequenceError, match=r"1 of 4 sequences cannot be used .* where 1 % are allowed"):
        open_source(str(root))
    assert open_source(str(root), max_bad=0.3).left_out == {"bad_box": 1}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("pairs_per_clip", 0, "must be at least 1, got 0"),
        ("max_bad", 1.5, "must be a share from 0 to 1, got 1.5"),
        ("num_shards", 0, "must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range(config, folder, name, value, expected):
    with pytest.raises(ValueError, match=f"`{name}` {expected}"):
        stream_pairs([FolderSequence(folder)], config, seed=0, **{name: value})


def test_nothing_to_draw_from(config):
    with pytest.raises(SequenceError, match="`sequences` is empty"):
        stream_pairs([], config, seed=0)
    with pytest.raises(ValueError, match="`source` names no data set"):
        stream_pairs({}, config, seed=0)


@pytest.mark.parametrize(
    ("place", "word"),
    [("lasto:data/LaSOT", "lasto is no layout, expected one of lasot, "), ("videos", "not a folder")],
)
def test_places_that_are_nothing(place, word):
    with pytest.raises(SequenceError, match=word):
        open_source(place)
