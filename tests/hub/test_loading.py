"""A pushed tracker loads anywhere: with ct_hf by its own classes, without it by the code that travelled with it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from transformers import AutoModel

from ct_hf.hub import push_folder, push_model
from ct_hf.models import TrackerImageProcessor

from ..models.contract_tools import perturb
from ..models.test_modeling_mixformerv2 import tiny as mixformerv2
from ..models.test_modeling_odtrack import tiny as odtrack
from ..models.test_modeling_ostrack import tiny as ostrack
from ..models.test_modeling_sutrack import tiny as sutrack
from .clean import differences, load, make_case, make_site, run
from .server import TOKEN, HubServer


ROOT = Path(__file__).parents[2]
FAMILIES = {"ostrack": ostrack, "sutrack": sutrack, "odtrack": odtrack, "mixformerv2": mixformerv2}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A random tracker of every family, pushed to a server, and what each makes of random inputs here."""
    root = tmp_path_factory.mktemp("published")
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        expected, folders = {}, {}
        for name, tiny in FAMILIES.items():
            torch.manual_seed(0)
            model = perturb(AutoModel.from_config(tiny())).eval()
            place = f"org/ct-{name}"
            folders[place] = root / name
            expected[place] = make_case(model, root / name, TrackerImageProcessor.from_config(model.config))
            push_model(model, place, token=TOKEN)
        push_model(model, "org/poison", token=TOKEN)
        code = f"open({str(root / 'mark')!r}, 'w').close()\n".encode()
        files = [CommitOperationAdd(f"{kind}_mixformerv2.py", code) for kind in ("modeling", "configuration")]
        HfApi(token=TOKEN).create_commit("org/poison", files, commit_message="poison")
        places = {"site": make_site(root / "site"), "home": root / "home", "mark": root / "mark"}
        yield SimpleNamespace(hub=hub, folders=folders, expected=expected, **places)


def assert_bits(published):
    for place, folder in published.folders.items():
        assert differences(published.expected[place], folder) == [], place
        (folder / "results.safetensors").unlink()


def test_every_family_loads_by_its_code_alone(published):
    """In an environment of torch, transformers, pillow, safetensors and numpy; then from the cache, with the server gone."""
    environment = published.hub.environment(published.home)
    load(published.folders, environment, published.site, after=WITHOUT_TRUST)
    assert_bits(published)
    assert not published.mark.exists(), "the code of a repository ran without trust"
    asked = len(published.hub.requests)
    load(published.folders, {**environment, "HF_HUB_OFFLINE": "1"}, published.site)
    assert_bits(published)
    assert len(published.hub.requests) == asked, "offline means that nothing is asked"


WITHOUT_TRUST = """
try:
    AutoModel.from_pretrained("org/poison")
except ValueError as error:
    assert "trust_remote_code=True" in str(error), error
else:
    raise AssertionError("a tracker was loaded by its code, which nobody trusts")
"""
AS_ANY_MODEL = """
from transformers import AutoConfig
place = job["place"]
main = AutoModel.from_pretrained(place)
old = AutoModel.from_pretrained(place, revision="v1")
first = next(iter(main.state_dict()))
assert not torch.equal(main.state_dict()[first], old.state_dict()[first]), "a revision is what it was"
assert torch.equal(AutoModel.from_pretrained(place, revision=job["commit"]).state_dict()[first], old.state_dict()[first])
assert main.config._attn_implementation == "sdpa" and main.dtype == torch.float32
half = AutoModel.from_pretrained(place, dtype=torch.bfloat16, attn_implementation="eager")
assert half.dtype == torch.bfloat16 and half.config._attn_implementation == "eager"
mapped = AutoModel.from_pretrained(place, device_map="cpu")
assert mapped.device.type == "cpu" and torch.equal(mapped.state_dict()[first], main.state_dict()[first])
assert AutoConfig.from_pretrained(place, revision="v1").model_type == "ostrack"
elsewhere = AutoModel.from_pretrained(place, cache_dir=job["cache"])
assert torch.equal(elsewhere.state_dict()[first], main.state_dict()[first])
again = AutoModel.from_pretrained(place, cache_dir=job["cache"], local_files_only=True)
assert torch.equal(again.state_dict()[first], main.state_dict()[first])

AutoModel.from_pretrained("org/poison")  # our own class, not the code that is there

def refused(place, *words, **options):
    try:
        AutoModel.from_pretrained(place, **options)
    except (OSError, ValueError) as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"{place} was loaded")

for local in ("org/pickled", job["pickled_folder"]):
    refused(local, "holds no model.safetensors", "pickles", "ct-hf convert")
refused(place, "`use_safetensors` is False", use_safetensors=False)
refused(place, "v9", revision="v9")
refused("org/nothing", "org/nothing")

from PIL import Image
shown = {"frame": Image.new("RGB", (96, 64)), "box": (20, 20, 20, 16)}
exec(job["page"], shown)
assert shown["track"].box.shape == (4,)
"""


def test_with_the_package_loading_is_that_of_any_model(published, tmp_path):
    """Bit for bit; revisions, cache, types, attention, devices; and refusals."""
    hub, place = published.hub, "org/revised"
    api = HfApi(hub.endpoint, token=TOKEN)
    model = AutoModel.from_config(ostrack())
    folder, pickled = tmp_path / "model", tmp_path / "pickled"
    model.save_pretrained(folder)
    old = push_folder(folder, place, api=api)
    api.create_tag(place, tag="v1")
    perturb(model).save_pretrained(folder)
    push_folder(folder, place, api=api)
    model.config.save_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    api.create_repo("org/pickled")
    api.upload_folder(repo_id="org/pickled", folder_path=pickled)
    before = len(hub.requests)
    facts = {"place": place, "commit": old.oid, "cache": str(tmp_path / "cache"), "pickled_folder": str(pickled)}
    text = (ROOT / "docs" / "hub.md").read_text()
    (page,) = re.findall(r"```python\n(import ct_hf.*?)```", text, flags=re.DOTALL)
    facts["page"] = page.replace("user/ct-sutrack-4", "org/ct-sutrack")
    load(published.folders, hub.environment(tmp_path / "home"), after=AS_ANY_MODEL, facts=facts)
    assert_bits(published)
    asked = [request for request in hub.requests[before:] if "org/pickled" in request]
    assert asked and not any("discussions" in request or "pytorch_model.bin" in request for request in asked)
    assert not published.mark.exists(), "the code of a repository ran"


def test_nobody_without_a_token_loads_a_private_tracker(published, tmp_path):
    environment = published.hub.environment(tmp_path, token=None)
    code = "from huggingface_hub import snapshot_download; snapshot_download('org/ct-ostrack')"
    done = run(code, environment=environment, site=published.site)
    assert done.returncode == 1 and "RepositoryNotFoundError: 401" in done.stderr
    assert TOKEN not in done.stderr and not list(tmp_path.rglob("*.safetensors"))


def test_what_travels_imports_nothing_else(published):
    """Each family with the files that it needs, and no others."""
    for name in FAMILIES:
        files = published.hub.repositories["models", f"org/ct-{name}"].head.files
        code = {file for file in files if file.endswith(".py")}
        assert {f"modeling_{name}.py", f"configuration_{name}.py", "session.py", "templates.py", "tracker.py"} <= code
        assert {"heads.py", "box_ops.py", "image_processing_tracker.py"} <= code and "__init__.py" not in code
        for file in code:
            imported = re.findall(r"^from \.(\w+) import", files[file].data.decode(), flags=re.MULTILINE)
            assert {f"{module}.py" for module in imported} <= code
            assert not re.findall(r"^\s*(?:from|import) +ct_hf", files[file].data.decode(), flags=re.MULTILINE)
        assert code < {path.name for path in (ROOT / "ct_hf" / "models").glob("*.py")}
