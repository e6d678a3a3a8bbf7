"""What tests of several folders share."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ct_hf.models import OSTrackConfig, OSTrackModel

from .scripts import FreshPython


if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # there is a worker for each core


@pytest.fixture(scope="session")
def tiny_config() -> OSTrackConfig:
    return OSTrackConfig(
        template_size=32,
        search_size=64,
        patch_size=8,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        num_hidden_layers=2,
        head_channels=16,
    )


@pytest.fixture(scope="session")
def tiny_tracker(tiny_config) -> OSTrackModel:
    """Untrained tracker in evaluation mode; shared, so leave it as it is."""
    torch.manual_seed(0)
    return OSTrackModel(tiny_config).eval()


@pytest.fixture(scope="session")
def noise_frames() -> np.ndarray:
    """Four RGB frames of 100 x 80 pixels of noise."""
    return np.random.default_rng(0).integers(0, 256, (4, 80, 100, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def fresh_python(tmp_path_factory) -> Iterator[FreshPython]:
    """Runs code in an interpreter that has not imported ct_hf."""
    python = FreshPython(tmp_path_factory.mktemp("fresh") / "home")
    yield python
    python.close()
