import os

import numpy as np
import pytest

from ct_hf.data import (
    FolderSequence,
    PairSampler,
    SequenceClips,
    SequenceError,
    StoredClips,
    convert_dataset,
    draw_pairs,
)
from ct_hf.data.contact_sheet import _BOX, _fitted, _with_box


@pytest.fixture
def clips(make_folder):
    sequences = [FolderSequence(make_folder(name)) for name in ("walk", "run")]
    return SequenceClips(sequences, stride=100)


def test_a_sheet_has_a_tile_for_each_pair(clips, config):
    sheets = {number: draw_pairs(clips, PairSampler(config), seed=0, num_pairs=number)[0] for number in (1, 4, 5)}
    tile = sheets[1].size
    assert sheets[4].height == tile[1] and sheets[4].width > 3 * tile[0]
    assert sheets[5].width == sheets[4].width and sheets[5].height > tile[1] * 1.9
    assert (np.asarray(sheets[4]) == _BOX).all(axis=2).any()


def test_crops_are_those_that_are_drawn(clips, config, monkeypatch):
    """Without their boxes: search crops and template crop stand in the sheet pixel by pixel."""
    sampler, drawn = PairSampler(config, num_search_frames=2), []
    draw = sampler.draw
    monkeypatch.setattr(sampler, "draw", lambda clip, rng: drawn.append(draw(clip, rng)) or drawn[-1])
    sheet = np.asarray(draw_pairs(clips, sampler, seed=0, num_pairs=1)[0]).astype(int)
    (pair,) = drawn
    for number, search in enumerate(pair["search_pixel_values"][::-1]):
        right = sheet.shape[1] - 6 - number * 70
        found = sheet[-6 - 64 : -6, right - 64 : right]
        assert (found != search.transpose(1, 2, 0)).any(axis=2).mean() < 0.3, "all but the drawn lines"
    template = pair["template_pixel_values"][0].transpose(1, 2, 0)
    found = sheet[-6 - 64 : -6 - 32, 6 : 6 + 32]
    assert (found != template).any(axis=2).mean() < 0.5


def test_boxes_are_drawn_around_their_pixels():
    pixels = np.zeros((3, 32, 32), dtype=np.uint8)
    pixels[:, 8:16, 4:24] = 255
    picture = np.asarray(_with_box(pixels, np.array([14 / 32, 12 / 32, 20 / 32, 8 / 32])))
    assert (picture[8:16, 4:24] == 255).all(), "the target itself is not drawn over"
    line = (picture == _BOX).all(axis=2)
    rows, columns = np.flatnonzero(line.any(axis=1)), np.flatnonzero(line.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (7, 16, 3, 24)


def test_boxes_that_leave_the_crop():
    picture = _with_box(np.zeros((3, 32, 32), dtype=np.uint8), np.array([1.4, -0.2, 0.001, 0.001]))
    assert picture.size == (32, 32)


def test_stored_clips_are_drawn_too(make_folder, config, tmp_path):
    out = convert_dataset("folder", make_folder(), tmp_path / "out", stride=100).out
    assert draw_pairs(StoredClips(out), PairSampler(config), seed=0, num_pairs=2)[0].width > 200


def test_what_is_broken_is_left_out_and_counted(make_folder, config):
    folder = make_folder()
    (folder / "00000003.jpg").write_bytes(b"no image")
    clips = SequenceClips([FolderSequence(folder)], stride=100)
    _, skipped = draw_pairs(clips, PairSampler(config), seed=0, num_pairs=12)
    assert skipped["corrupt_image"] > 0
    for file in folder.glob("*.jpg"):
        file.write_bytes(b"no image")
    with pytest.raises(SequenceError, match="is not a readable image"):
        draw_pairs(clips, PairSampler(config), seed=0)


def test_a_name_of_other_bytes_is_drawn(make_folder, config):
    folder = make_folder()
    named = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    assert draw_pairs(SequenceClips([FolderSequence(named)], stride=100), PairSampler(config), seed=0, num_pairs=1)


def test_nothing_to_draw(clips, config):
    with pytest.raises(ValueError, match="`num_pairs` must be at least 1, got 0"):
        draw_pairs(clips, PairSampler(config), seed=0, num_pairs=0)


def test_long_names_keep_both_ends():
    from PIL import ImageFont

    font = ImageFont.load_default(size=14)
    assert _fitted("short", 200, font) == "short"
    text = _fitted("a_very_long_name_of_a_sequence_0017", 100, font)
    assert font.getlength(text) <= 100 and text.startswith("a_v") and text.endswith("17") and "..." in text
