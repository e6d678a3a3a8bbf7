import numpy as np
import pytest

from ct_hf.evaluation import draw_animation, draw_strip
from ct_hf.evaluation.picture import GROUND_TRUTH_COLOR
from ct_hf.tracking.drawing import TRACKER_COLORS


def mask(picture, color):
    return (np.asarray(picture) == np.array(color)).all(axis=-1)


def frames(picture, height):
    """The part of the picture above the legend."""
    return picture.crop((0, 0, picture.width, height))


def test_size_and_number_of_frames(make_sequence):
    # Frames of 96x64 are 144x96 at this height; four gaps of 4 pixels lie between five frames.
    picture = draw_strip(make_sequence(num_frames=20), {}, height=96)
    assert picture.mode == "RGB"
    assert picture.width == 5 * 144 + 4 * 4
    assert picture.height > 96
    assert draw_strip(make_sequence(num_frames=20), {}, num_frames=3, height=96).width == 3 * 144 + 2 * 4
    # A sequence of two frames is drawn whole.
    assert draw_strip(make_sequence(num_frames=2), {}, height=96).width == 2 * 144 + 4


def test_frames_are_evenly_spaced_from_first_to_last_or_those_asked_for(make_sequence):
    asked = []

    class Recorded(type(make_sequence())):
        def frame(self, index):
            asked.append(index)
            return super().frame(index)

    draw_strip(Recorded(num_frames=9), {})
    assert asked == [0, 2, 4, 6, 8]
    asked.clear()
    draw_strip(Recorded(num_frames=9), {}, frames=[0, 7])
    assert asked == [0, 7]


def test_boxes_are_drawn_where_they_are(make_sequence):
    # At twice the size: the box of frame 0 is 20, 40, 32, 24 and the tracker's lies 40 pixels below.
    sequence = make_sequence(num_frames=2)
    moved = sequence.boxes + np.array([0, 20, 0, 0])
    picture = frames(draw_strip(sequence, {"moved": moved}, num_frames=1, height=128), 128)
    truth = mask(picture, GROUND_TRUTH_COLOR)
    assert truth[40, 22:50].all()
    assert truth[64, 22:50].all()
    assert truth[42:62, 20].all()
    assert not truth[46:58, 26:46].any()
    predicted = mask(picture, TRACKER_COLORS[0])
    assert predicted[80, 22:50].all()
    assert np.argwhere(predicted).min(axis=0).tolist() == [80, 20]
    assert np.argwhere(predicted).max(axis=0).tolist() == [104, 52]


def test_each_tracker_has_its_colour_in_frames_and_legend(make_sequence):
    sequence = make_sequence(num_frames=3, size=(192, 128))
    predictions = {f"tracker {k}": sequence.boxes + np.array([20 * k, 5 * k, 0, 0]) for k in range(1, 8)}
    picture = draw_strip(sequence, predictions, height=128)
    legend = picture.crop((0, 128, picture.width, picture.height))
    for color in (GROUND_TRUTH_COLOR, *TRACKER_COLORS):
        assert mask(frames(picture, 128), color).any()
        assert mask(legend, color).sum() >= 100


def test_absent_target_has_no_box(make_sequence):
    def count(sequence):
        return mask(frames(draw_strip(sequence, {}, num_frames=1, height=128), 128), GROUND_TRUTH_COLOR).sum()

    hidden = make_sequence(visible=[False] * 6)
    unknown = make_sequence()
    unknown.boxes[0] = np.nan
    # White text is all that stays, the box alone has more than 200 pixels.
    assert count(hidden) == count(unknown) < count(make_sequence()) - 200


def test_long_names_get_their_room(make_sequence):
    sequence = make_sequence(num_frames=2)
    short = draw_strip(sequence, {"a": sequence.boxes})
    many = draw_strip(sequence, {"a name of some length " + letter: sequence.boxes for letter in "abcd"})
    assert many.height > short.height
    wide = draw_strip(sequence, {"w" * 200: sequence.boxes})
    assert wide.width > short.width


def test_what_cannot_be_drawn_is_refused(make_sequence):
    sequence = make_sequence()
    with pytest.raises(ValueError, match=r"`predictions\['a'\]` must have shape \(6, 4\).*got \(5, 4\)"):
        draw_strip(sequence, {"a": sequence.boxes[:5]})
    with pytest.raises(ValueError, match="holds 8 trackers"):
        draw_strip(sequence, {str(k): sequence.boxes for k in range(8)})
    with pytest.raises(ValueError, match="`num_frames` must be at least 1, got 0"):
        draw_strip(sequence, {}, num_frames=0)
    with pytest.raises(ValueError, match="`height` must be at least 60"):
        draw_strip(sequence, {}, height=20)


def test_animation_shows_every_frame_of_each_sequence_with_its_own_boxes(make_sequence):
    first, second = make_sequence(num_frames=4), make_sequence(num_frames=4)
    first.name, second.name = "first", "second"
    boxes = np.tile([30.0, 20.0, 20.0, 16.0], (4, 1))
    moved = boxes + np.arange(4)[:, None] * [6, 0, 0, 0]
    images = draw_animation([first, second], {"tracker": {"first": boxes, "second": moved}}, height=96)
    assert len(images) == 4 and {image.size for image in images} == {images[0].size}
    assert images[0].width == 2 * 144 + 4
    columns = [np.nonzero(mask(frames(image, 96), TRACKER_COLORS[0]).any(axis=0))[0] for image in images]
    assert columns[0].min() == columns[3].min(), "the first sequence's box stays"
    assert columns[3].max() - columns[0].max() == pytest.approx(18 * 1.5, abs=1), "the second one's moves"
    some = draw_animation([first, second], {"tracker": {"first": boxes, "second": moved}}, frames=[1, 3], height=96)
    assert some == [images[1], images[3]]


def test_animation_needs_equal_lengths(make_sequence):
    with pytest.raises(ValueError, match=r"lengths \[3, 5\]"):
        draw_animation([make_sequence(num_frames=3), make_sequence(num_frames=5)], {})
    with pytest.raises(ValueError, match="at least one"):
        draw_animation([], {})
