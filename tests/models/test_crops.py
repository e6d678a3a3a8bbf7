"""Crops of the original code that always run: inside the frame, and over each of its edges."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ct_hf.models import CropWindow


FOLDER = Path(__file__).parents[1] / "parity"
SPEC = json.loads((FOLDER / "crops.json").read_text())


@pytest.mark.parametrize("name", SPEC["crops"])
def test_crop_is_the_originals(name):
    """Bit for bit, from arrays and images; the last column and row count as outside where the window reaches them."""
    generator = torch.Generator().manual_seed(SPEC["image"]["seed"])
    shape = (SPEC["image"]["height"], SPEC["image"]["width"], 3)
    frame = torch.randint(0, 256, shape, generator=generator, dtype=torch.int64).to(torch.uint8).numpy()
    case = SPEC["crops"][name]
    window = CropWindow.around(case["box_xywh"], case["factor"], case["output_sz"])
    expected = load_file(FOLDER / "crops.safetensors")[name].numpy()
    assert window.size == case["crop_sz"]
    np.testing.assert_array_equal(window.extract(frame), expected)
    np.testing.assert_array_equal(window.extract(Image.fromarray(frame)), expected)
