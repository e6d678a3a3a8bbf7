import io
from functools import lru_cache
from pathlib import Path

import pytest
from PIL import Image


SAMPLES = Path(__file__).parents[3].parent / "shared" / "data" / "layouts"


@pytest.fixture(scope="session")
def samples():
    if not SAMPLES.is_dir():
        pytest.skip(f"no samples of layouts in {SAMPLES}; they are not part of the repository")
    return SAMPLES


@pytest.fixture
def frames():
    """Writes frames of one grey each, by number."""

    def write(folder, numbers, form="{:08d}.jpg", size=(64, 48)):
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            file = folder / form.format(number)
            file.write_bytes(_image(size, number % 256, "PNG" if file.suffix == ".png" else "JPEG"))
        return folder

    return write


@lru_cache
def _image(size, grey, form):
    buffer = io.BytesIO()
    Image.new("L", size, grey).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def write():
    """Writes a text file, rows of numbers between commas if it is given rows."""

    def write(path, content, separator=","):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, str):
            content = "".join(separator.join(map(str, row)) + "\n" for row in content)
        path.write_text(content)
        return path

    return write
