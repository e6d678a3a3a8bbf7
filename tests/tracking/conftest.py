"""Tiny trackers of every family and drawn videos."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from ct_hf.models import MixFormerV2Config, ODTrackConfig, OSTrackConfig, SUTrackConfig
from ct_hf.tracking import VideoWriter

from ..models.contract_tools import perturb


BOX = [40.0, 30.0, 20.0, 16.0]
SIZES = {
    "template_size": 32,
    "search_size": 64,
    "patch_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
}
HEAD = {"head_channels": 16}
# Templates are renewed often, so that some are within a few frames.
CONFIGS = {
    "ostrack": lambda: OSTrackConfig(**SIZES, **HEAD),
    "ostrack_elimination": lambda: OSTrackConfig(**SIZES, **HEAD, elimination_layers=[0], elimination_keep_ratio=0.7),
    "sutrack": lambda: SUTrackConfig(
        **SIZES,
        **HEAD,
        stem_depth=1,
        text_dim=12,
        task_head_channels=8,
        template_update_interval=2,
        template_update_threshold=0.0,
    ),
    "odtrack": lambda: ODTrackConfig(**SIZES, **HEAD, num_templates=2),
    "mixformerv2": lambda: MixFormerV2Config(**SIZES, num_bins=12, update_interval=2, update_threshold=0.0),
}


@pytest.fixture(scope="session")
def models():
    built = {}

    def build(name):
        if name not in built:
            torch.manual_seed(0)
            built[name] = perturb(AutoModel.from_config(CONFIGS[name]())).eval()
        return built[name]

    return build


@pytest.fixture(scope="session", params=CONFIGS)
def model(request, models):
    """One tracker of each family after the other; shared, so leave it as it is."""
    return models(request.param)


@pytest.fixture(scope="session")
def frames():
    """Eight frames of 100 x 80 pixels: squares that move over noise."""
    rng = np.random.default_rng(0)
    background = rng.integers(0, 120, (80, 100, 3), dtype=np.uint8)
    result = []
    for step in range(8):
        frame = background.copy()
        frame[30:46, 40 + 3 * step : 60 + 3 * step] = rng.integers(180, 256, (16, 20, 3), dtype=np.uint8)
        result.append(frame)
    return result


@pytest.fixture
def make_video(tmp_path):
    """Writes numbered frames."""

    def make(number=10, size=(64, 48), name="video.mp4", rate=25):
        with VideoWriter(tmp_path / name, rate) as writer:
            for index in range(number):
                writer.write(numbered(index, size))
        return tmp_path / name

    return make


def numbered(index, size=(64, 48)):
    """A grey frame that tells its number, up to 58."""
    return np.full((size[1], size[0], 3), 20 + 4 * index, dtype=np.uint8)


def numbers(frames):
    """The numbers that [`numbered`] frames tell."""
    return [round((float(np.mean(frame)) - 20) / 4) for frame in frames]
