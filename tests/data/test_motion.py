import numpy as np
import pytest
from PIL import Image

from ct_hf.data.motion import Camera, Wobble


def test_wobble_keeps_to_amplitude_and_rate():
    for seed in range(20):
        wobble = Wobble(np.random.default_rng(seed), [3.0, 50.0], fastest=5, fastest_rate=2.0)
        values = np.array([wobble(time / 4) for time in range(800)])
        assert (np.abs(values).max(axis=0) <= [3.0, 50.0]).all()
        assert np.abs(np.diff(values, axis=0)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("kind", ["pan", "zoom", "tilt"])
def test_camera_shows_what_it_projects_and_never_leaves_the_canvas(kind):
    canvas, frame = (300, 200), (200, 150)
    mark = (160, 90)
    image = Image.new("RGB", canvas, (90, 90, 90))
    image.paste("white", (mark[0] - 3, mark[1] - 3, mark[0] + 3, mark[1] + 3))
    shifts, found = [], 0
    for seed in range(40):
        camera = Camera(np.random.default_rng(seed), canvas, frame)
        camera.kind = kind
        for time in (0, 20, 40):
            pixels = np.asarray(camera.view(image, time).convert("L")).astype(float)
            assert pixels.shape == (150, 200)
            # Interpolation blends the outermost row with what is beyond the canvas, which is black.
            assert pixels[2:-2, 2:-2].min() > 80, "black from beyond the canvas"
            place, enlarged, turned = camera.project(np.array(mark, dtype=float), time)
            shifts.append(place)
            assert 0.5 < enlarged < 2.5 and abs(turned) < 0.5
            rows, columns = np.nonzero(pixels > 170)
            if (place > 8).all() and (place < np.array(frame) - 8).all():
                np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], place, atol=1)
                found += 1
    assert found > 60 and np.ptp(shifts, axis=0).min() > 20
