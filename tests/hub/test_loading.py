"""A pushed tracker loads anywhere: with ct_hf by its own classes, without it by the code that travelled with it."""

import json
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import snapshot_download
from transformers import AutoModel

from ct_hf.hub import push_model
from ct_hf.models import TrackerImageProcessor

from ..models.contract_tools import perturb
from ..models.test_modeling_mixformerv2 import tiny as mixformerv2
from ..models.test_modeling_odtrack import tiny as odtrack
from ..models.test_modeling_ostrack import tiny as ostrack
from ..models.test_modeling_sutrack import tiny as sutrack
from .clean import differences, load, make_case, make_site, run
from .server import TOKEN, HubServer


FAMILIES = {"ostrack": ostrack, "sutrack": sutrack, "odtrack": odtrack, "mixformerv2": mixformerv2}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A random tracker of every family, pushed to a server, and what each makes of random inputs here."""
    root = tmp_path_factory.mktemp("published")
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        expected, folders = {}, {}
        for name, tiny in FAMILIES.items():
            torch.manual_seed(0)
            model = perturb(AutoModel.from_config(tiny())).eval()
            place = f"org/ct-{name}"
            folders[place] = root / name
            expected[place] = make_case(model, root / name, TrackerImageProcessor.from_config(model.config))
            push_model(model, place, token=TOKEN)
        yield SimpleNamespace(
            hub=hub, folders=folders, expected=expected, site=make_site(root / "site"), home=root / "home"
        )


def assert_bits(published):
    for place, folder in published.folders.items():
        assert differences(published.expected[place], folder) == [], place
        (folder / "results.safetensors").unlink()


def test_every_family_loads_by_its_code_alone(published):
    """In an environment of torch, transformers, pillow, safetensors and numpy; then from the cache, with the server gone."""
    environment = published.hub.environment(published.home)
    load(published.folders, environment, published.site)
    assert_bits(published)
    asked = len(published.hub.requests)
    load(published.folders, {**environment, "HF_HUB_OFFLINE": "1"}, published.site)
    assert_bits(published)
    assert len(published.hub.requests) == asked, "offline means that nothing is asked"
