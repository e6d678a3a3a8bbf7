import numpy as np
import pytest
from PIL import Image

from ct_hf.data import ProceduralSequence, ProceduralTextures, ProceduralWorld
from ct_hf.data.motion import Camera
from ct_hf.data.patches import Patch


@pytest.fixture(params=range(6))
def scene(request):
    rng = np.random.default_rng(request.param)
    background = ProceduralTextures().texture(rng, (420, 330))
    camera = Camera(rng, background.size, (320, 240))
    return background, camera, Patch(rng, background, camera, 60, (320, 240))


def test_box_stays_on_what_was_in_it(scene):
    """What the camera shows within the box later is what it showed there first."""
    background, camera, patch = scene

    def content(time):
        mask, (left, top) = patch.mask(time)
        x, y, right, bottom = mask.getbbox()
        box = (left + x, top + y, left + right, top + bottom)
        if box[0] < 0 or box[1] < 0 or box[2] > 320 or box[3] > 240:
            return None
        view = camera.view(background, time).crop(box).resize((24, 24), Image.Resampling.BILINEAR)
        return np.asarray(view.convert("L"), dtype=float)

    first, seen = content(0), 0
    for time in range(5, 30, 5):
        later = content(time)
        if later is not None and first is not None and first.std() > 10:
            assert np.corrcoef(first.ravel(), later.ravel())[0, 1] > 0.7
            seen += 1
    assert seen or first is None or first.std() <= 10


def test_lies_in_the_first_frame_and_draws_nothing(scene):
    _, _, patch = scene
    mask, (left, top) = patch.mask(0)
    assert left >= -1 and top >= -1 and left + mask.width <= 322 and top + mask.height <= 242
    frame = Image.new("RGB", (320, 240))
    patch.render(frame, 0)
    assert frame.getbbox() is None


def test_share_of_patches_in_a_world():
    def patches(share, count=40):
        world = ProceduralWorld(patches=share)
        return sum(isinstance(world.sequence(3, index).scene.target, Patch) for index in range(count))

    assert patches(0.0) == 0 and patches(1.0) == 40 and 5 < patches(0.5) < 35
    assert not isinstance(ProceduralSequence(3, 0).scene.target, Patch), "sequences to judge on have things alone"


def test_annotation_of_a_patch():
    sequence = ProceduralSequence(5, 1, patches=1.0)
    box, visible = sequence.annotation(0)
    assert visible and (box[2:] > 10).all()
