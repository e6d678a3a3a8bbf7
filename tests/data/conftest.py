import io
import re
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ct_hf.data import CAUSES, FolderSequence, SequenceError
from ct_hf.data.clip_sources import Clip
from ct_hf.data.frames import decode_frame


@pytest.fixture
def config():
    return SimpleNamespace(template_size=32, search_size=64, template_factor=2.0, search_factor=4.0, num_templates=1)


@pytest.fixture
def make_folder(tmp_path):
    """Writes a sequence folder of noise frames and returns its path."""

    def make(name="walk", count=12, size=(80, 60), rows=None, suffix=".jpg", separator=","):
        folder = tmp_path / "sequences" / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for index in range(count):
            pixels = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size).save(folder / f"{index + 1:08d}{suffix}")
        if rows is None:
            rows = [(10 + index, 12, 20, 16 + index / 2) for index in range(count)]
        (folder / "groundtruth.txt").write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
        return folder

    return make


@pytest.fixture
def folder(make_folder):
    return make_folder()


@pytest.fixture
def sequence(folder):
    return FolderSequence(folder)


@pytest.fixture
def fails():
    """Expects a SequenceError of a cause whose message has all words."""

    @contextmanager
    def fails(cause, *words):
        with pytest.raises(SequenceError) as caught:
            yield
        assert caught.value.cause == cause and cause in CAUSES
        for word in words:
            assert re.search(re.escape(str(word)), str(caught.value)), (word, str(caught.value))

    return fails


@pytest.fixture(scope="session")
def real_root():
    root = Path(__file__).parents[2].parent / "shared" / "data" / "sequences"
    if not root.is_dir():
        pytest.skip(f"no real sequences in {root}; they are not part of the repository")
    return root


@pytest.fixture
def make_clip():
    """Builds a clip of its arguments; a frame is the content of an image file, by default of a plain image."""
    buffer = io.BytesIO()
    Image.new("RGB", (96, 72), (90, 120, 30)).save(buffer, "JPEG")

    def make(number=0, count=5, frames=None, boxes=None, visible=None, name="plain"):
        frames = [buffer.getvalue()] * count if frames is None else frames
        boxes = [[20.0 + index, 15.0, 18.0, 24.0] for index in range(count)] if boxes is None else boxes
        visible = [True] * count if visible is None else visible
        return Clip(
            name,
            number,
            list(range(0, 10 * count, 10)),
            np.array(boxes, dtype=np.float32),
            np.array(visible),
            lambda position, reduction: decode_frame(frames[position], f"{name}, frame {10 * position}", reduction),
        )

    return make


@pytest.fixture
def take():
    return lambda stream, count: list(islice(stream, count))


@pytest.fixture
def same():
    """Whether two lists of rows of arrays or plain values are equal."""

    def same(first, second, but=()):
        return len(first) == len(second) and all(
            a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a if name not in but)
            for a, b in zip(first, second, strict=True)
        )

    return same
