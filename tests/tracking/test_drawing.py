import numpy as np
from PIL import Image

from ct_hf.models import Track
from ct_hf.tracking import draw_tracks
from ct_hf.tracking.drawing import TRACKER_COLORS


GREY = np.full((240, 320, 3), 128, dtype=np.uint8)


def track(x, y, w, h, score=0.83):
    return Track(np.array([x, y, w, h], dtype=float), score)


def share(picture, color):
    """Pixels of exactly a colour."""
    return int((picture == color).all(axis=2).sum())


def test_box_is_where_the_track_is():
    picture = draw_tracks(GREY, [track(100, 80, 60, 40)])
    for x, y in ((100, 100), (160, 100), (130, 80), (130, 120)):
        assert tuple(picture[y, x]) == TRACKER_COLORS[0]
    assert (picture[90:110, 110:150] == 128).all() and (picture[130:] == 128).all()


def test_one_colour_a_target():
    picture = draw_tracks(GREY, [track(100, 80, 60, 40), track(200, 150, 60, 40)])
    assert share(picture, TRACKER_COLORS[0]) > 100 and share(picture, TRACKER_COLORS[1]) > 100
    assert share(picture, TRACKER_COLORS[2]) == 0


def test_more_targets_than_colours():
    tracks = [track(10 + 30 * index, 100, 20, 20) for index in range(9)]
    assert share(draw_tracks(GREY, tracks), TRACKER_COLORS[1]) > share(
        draw_tracks(GREY, tracks[:7]), TRACKER_COLORS[1]
    )


def test_low_and_lost_targets_look_and_read_otherwise():
    one = [track(100, 80, 60, 40, 0.1)]
    sure, low, lost = draw_tracks(GREY, one), draw_tracks(GREY, one, low=[True]), draw_tracks(GREY, one, lost=[True])
    assert share(sure[82:, :], TRACKER_COLORS[0]) > 1.5 * share(low[82:, :], TRACKER_COLORS[0])
    assert np.array_equal(low[82:], lost[82:])
    assert not np.array_equal(low[:80], lost[:80]) and not np.array_equal(sure[:80], low[:80])


def test_score_is_written_within_the_frame():
    """Also of boxes at an edge, or as large as the frame."""
    for box in ((0, 0, 320, 240), (300, 0, 20, 20), (0, 200, 20, 40), (310, 230, 10, 10)):
        picture = draw_tracks(GREY, [track(*box)])
        other = draw_tracks(GREY, [track(*box, score=0.31)])
        changed = np.argwhere((picture != other).any(axis=2))
        assert len(changed) > 10, box
        assert changed.min(axis=0).min() >= 1 and (changed.max(axis=0) < (239, 319)).all(), box


def test_scores_of_targets_in_one_place_are_all_legible():
    tracks = [track(100, 80, 60, 40), track(102, 82, 60, 40, 0.5), track(0, 0, 320, 240), track(0, 0, 320, 240)]
    picture = draw_tracks(GREY, tracks)
    for index in range(4):
        in_row = (picture == TRACKER_COLORS[index]).all(axis=2).sum(axis=1)
        assert (in_row > 20).sum() >= 10, index  # a plate; the box's own lines make four such rows


def test_frame_stays_as_it_is_and_may_be_an_image():
    frame = GREY.copy()
    picture = draw_tracks(frame, [track(100, 80, 60, 40)])
    assert (frame == 128).all()
    image = Image.fromarray(GREY)
    assert np.array_equal(draw_tracks(image, [track(100, 80, 60, 40)]), picture)
    assert (np.asarray(image) == 128).all()
