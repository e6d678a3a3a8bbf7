import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ct_hf.data import ProceduralSequence, ProceduralTextures, ProceduralWorld, procedural_sequences
from ct_hf.evaluation import score_sequences


class Plain:
    """Textures of one colour, which count how often they are asked for."""

    def __init__(self, color="black"):
        self.color, self.calls = color, 0

    def texture(self, rng, size):
        self.calls += 1
        return Image.new("RGB", size, self.color)

    def cutout(self, rng, side):
        return None


def target_alone(index, size=(320, 240)):
    """White target on black, without neighbours, blur, noise and light."""
    sequence = ProceduralSequence(11, index, size=size, textures=Plain())
    scene = sequence.scene
    scene.behind, scene.ahead, scene.shutter, scene.softness, scene.noise = [], [], 0.0, 0.0, None
    scene.light, scene.tint = lambda time: (0.0, 0.0), np.ones(3)
    scene.target.shutter = 0.0
    scene.target.look.picture = Image.new("RGB", scene.target.look.picture.size, "white")
    return sequence


def test_box_is_the_tight_box_of_what_is_drawn():
    checked = 0
    for index in range(20):
        sequence = target_alone(index)
        for time in (0, 25, 59):
            # Half of the brightest value is where the mask is half transparent.
            pixels = np.asarray(sequence.frame(time).convert("L")).astype(float)
            (left, top, width, height), visible = sequence.annotation(time)
            if not visible:
                continue
            rows, columns = np.nonzero(pixels >= 0.5 * pixels.max())
            drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose([left, top, left + width, top + height], drawn, atol=1)
            checked += 1
    assert checked > 40


def test_box_is_clipped_to_the_frame_and_what_is_mostly_outside_is_not_visible():
    def shifted(shift):
        sequence = target_alone(0)
        target = sequence.scene.target
        target.camera, target.home, target.place = None, np.array([160.0, 120.0]), lambda time: [shift, 0]
        return sequence

    whole = (np.asarray(shifted(0).frame(0).convert("L")) > 100).sum()
    outcomes = set()
    for shift in range(100, 240, 3):
        sequence = shifted(shift)
        box, visible = sequence.annotation(0)
        share = (np.asarray(sequence.frame(0).convert("L")) > 100).sum() / whole
        if share > 0:
            assert box[0] >= 0 and box[0] + box[2] <= 320
        else:
            assert np.isnan(box).all()
        if abs(share - 0.5) > 0.05:
            assert visible == (share > 0.5), f"{share:.0%} of the target is in the frame"
            outcomes.add((visible, share > 0.25))
    assert outcomes == {(True, True), (False, True), (False, False)}


def test_occluder_changes_visibility_but_not_the_box():
    sequence = target_alone(0)
    box, visible = sequence.annotation(0)
    assert visible
    cover = Image.new("L", (400, 400), 255)
    away = SimpleNamespace(in_view=lambda *_: False)
    over = SimpleNamespace(in_view=lambda *_: True, mask=lambda time: (cover, (-10, -10)))
    sequence.scene.ahead = [away, over]
    covered_box, covered_visible = sequence.annotation(0)
    np.testing.assert_array_equal(box, covered_box)
    assert not covered_visible


def test_target_is_drawn_between_what_is_behind_and_what_is_ahead():
    drawn = []
    sequence = target_alone(0)
    scene = sequence.scene

    def thing(name):
        return SimpleNamespace(render=lambda frame, time: drawn.append(name), mask=None)

    scene.behind, scene.target, scene.ahead = [thing("behind")], thing("target"), [thing("ahead")]
    sequence.frame(0)
    assert drawn == ["behind", "target", "ahead"]


def test_most_targets_have_company_that_stays_with_them():
    """Else the one thing in a search region is the target, and a tracker need not know what it looks for."""
    beside = 0
    for index in range(60):
        scene = ProceduralSequence(12, index).scene
        things = [*scene.behind, *scene.ahead]
        distances = [
            max(np.linalg.norm(thing.center(time)[0] - scene.target.center(time)[0]) for time in range(0, 60, 10))
            for thing in things
        ]
        beside += any(distance < 2.2 * scene.extent for distance in distances)
    assert beside > 40


def test_same_identity_same_pixels_in_any_order():
    first, second = ProceduralSequence(3, 5), ProceduralSequence(3, 5)
    late_first = [first.frame_bytes(index) for index in (40, 2, 17)]
    early_first = [second.frame_bytes(index) for index in (2, 17, 40)]
    assert late_first == [early_first[2], early_first[0], early_first[1]]
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert ProceduralSequence(3, 6).frame_bytes(2) != early_first[0]
    assert ProceduralSequence(4, 5).frame_bytes(2) != early_first[0]
    assert first.name == "procedural-3-5"


def test_length_does_not_change_the_annotation_of_one_frame():
    sequence = ProceduralSequence(1, 2)
    box, visible = sequence.annotation(7)
    np.testing.assert_array_equal(box, sequence.boxes[7])
    assert visible == sequence.visible[7]


@pytest.mark.parametrize("size", [(320, 240), (96, 128)])
def test_shapes_and_types(size):
    sequence = ProceduralSequence(0, 0, length=4, size=size)
    assert len(sequence) == 4
    assert sequence.boxes.shape == (4, 4) and sequence.boxes.dtype == np.float32
    assert sequence.visible.shape == (4,) and sequence.visible.dtype == bool
    frame = sequence.frame(3)
    assert frame.size == size and frame.mode == "RGB"
    decoded = Image.open(io.BytesIO(sequence.frame_bytes(3)))
    assert decoded.format == "JPEG"
    difference = np.abs(np.asarray(decoded, dtype=int) - np.asarray(frame, dtype=int))
    assert difference.mean() < 12


@pytest.mark.parametrize("index", [-1, 60])
def test_frames_beyond_the_end(index):
    with pytest.raises(IndexError, match="60 frames"):
        ProceduralSequence(0, 0).frame(index)


def test_worlds_are_diverse_and_mostly_visible():
    sequences = procedural_sequences(8, 40)
    assert all(sequence.name == f"procedural-8-{sequence.index}" for sequence in sequences)
    boxes = np.stack([sequence.annotation(0)[0] for sequence in sequences])
    visible = [sequence.annotation(time)[1] for sequence in sequences for time in (0, 30, 59)]
    assert np.mean(visible) > 0.9
    side = np.sqrt(boxes[:, 2] * boxes[:, 3])
    aspect = boxes[:, 2] / boxes[:, 3]
    assert np.nanmax(side) > 2 * np.nanmin(side) and np.nanmin(side) > 8
    assert np.nanmax(aspect) > 1.5 and np.nanmin(aspect) < 0.7
    shades = [np.asarray(sequence.frame(0).resize((1, 1))).ravel() for sequence in sequences]
    assert np.std(shades, axis=0).min() > 15


def test_target_moves_and_changes_size():
    change = []
    for sequence in procedural_sequences(8, 12):
        boxes = sequence.boxes[sequence.visible]
        centers, areas = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2] * boxes[:, 3]
        steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
        assert np.median(steps) < 25, "motion is smooth"
        change.append((np.ptp(centers, axis=0).max(), areas.max() / areas.min()))
    assert np.median(change, axis=0)[0] > 30 and np.median(change, axis=0)[1] > 1.3


def test_targets_are_hard_enough_for_a_box_that_never_moves():
    sequences = procedural_sequences(10_042, 25)
    still = [np.repeat(sequence.boxes[:1], len(sequence), axis=0) for sequence in sequences]
    boxes, visible = zip(*[(sequence.boxes, sequence.visible) for sequence in sequences], strict=True)
    assert 10 < score_sequences(still, boxes, protocol="visible", visible=visible)["auc"] < 30


def test_own_textures_are_used():
    source = Plain()
    ProceduralWorld(length=5, size=(64, 48), textures=source).sequence(0, 0).frame(0)
    assert source.calls >= 2


def test_sequences_for_evaluation_start_with_a_visible_target():
    sequences = procedural_sequences(5, 60, length=3, size=(96, 72))
    assert all(sequence.annotation(0)[1] for sequence in sequences)
    indices = [sequence.index for sequence in sequences]
    assert len(set(indices)) == 60 and indices == sorted(indices)


def test_textures_are_random_images_of_the_asked_size():
    textures = ProceduralTextures()
    images = [np.asarray(textures.texture(np.random.default_rng(seed), (50, 40))) for seed in range(30)]
    assert all(image.shape == (40, 50, 3) for image in images)
    assert all(image.std() > 2 for image in images), "none is plain"
    again = np.asarray(textures.texture(np.random.default_rng(3), (50, 40)))
    np.testing.assert_array_equal(again, images[3])
