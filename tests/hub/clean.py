"""Loading trackers in processes that know nothing of this one, with ct_hf or with nothing but transformers."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.requirements import Requirement
from safetensors.torch import load_file, save_file


NEEDED = ("torch", "transformers", "pillow", "safetensors", "numpy")
"""All that a tracker may need where ct_hf is not installed, beside what these need themselves."""

LOAD = """
import json, sys, time
job = json.loads(sys.argv[1])
if job["package"]:
    import ct_hf
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel

if not job["package"]:
    for name in ("ct_hf", "datasets", "accelerate", "evaluate", "av", "matplotlib", "pytest"):
        try:
            __import__(name)
        except ImportError:
            continue
        raise SystemExit(f"{name} can be imported, so that this environment is not clean")
trust = {} if job["package"] else {"trust_remote_code": True}
for place, folder in job["trackers"].items():
    started = time.perf_counter()
    model = AutoModel.from_pretrained(place, **trust).eval()
    print(json.dumps({"place": place, "seconds": time.perf_counter() - started}), flush=True)
    processor = AutoImageProcessor.from_pretrained(place, **trust)
    own = "ct_hf." if job["package"] else "transformers_modules."
    assert type(model).__module__.startswith(own) and type(processor).__module__.startswith(own), type(model)
    inputs = load_file(f"{folder}/inputs.safetensors")
    frames, box = inputs.pop("frames").numpy(), inputs.pop("box").tolist()
    with torch.no_grad():
        output = model(**inputs)
    results = {name: value.contiguous() for name, value in output.items() if isinstance(value, torch.Tensor)}
    results["crop"] = processor(frames[1], boxes=[box])["search_pixel_values"].contiguous()
    session = model.start(frames[0], box)
    tracks = [session.update(frame) for frame in frames[1:]]
    results["tracks"] = torch.tensor([[*track.box.tolist(), track.score] for track in tracks], dtype=torch.float64)
    save_file(results, f"{folder}/results.safetensors")
"""
"""Loads trackers, predicts and tracks with each, and saves what came out."""


def make_site(folder: Path) -> Path:
    """Make a folder of links to what [`NEEDED`] and its requirements installed: a `site-packages` without anything else."""
    folder.mkdir(parents=True)
    waiting, seen = list(NEEDED), set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        wanted = map(Requirement, found.requires or ())
        waiting += [each.name for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    return folder


def run(code: str, *arguments: str, environment: dict[str, str], site: Path | None = None) -> Any:
    """Run code in a process of its own; with a `site`, that and Python's own library is all that it can import."""
    if site is not None:
        code = f"import sys; sys.path.append({str(site)!r})\n{code}"
    switches = ["-I", "-S"] if site is not None else []
    return subprocess.run(
        [sys.executable, *switches, "-c", code, *arguments],
        cwd=site or "/",
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def load(
    trackers: dict[str, Path],
    environment: dict[str, str],
    site: Path | None = None,
    after: str = "",
    facts: dict[str, str] | None = None,
) -> dict[str, float]:
    """
    Load trackers elsewhere, by the package or, given a `site`, by the code that travelled with them.

    Args:
        trackers (`dict[str, Path]`): folder of inputs, and of results, for each repository or folder.
        environment (`dict[str, str]`): of the process.
        site (`Path`, *optional*): see [`make_site`].
        after (`str`): code that runs then, in the same process.
        facts (`dict[str, str]`, *optional*): what it finds in `job`.

    Returns:
        `dict[str, float]`: seconds that loading took.
    """
    job = {"trackers": {place: str(folder) for place, folder in trackers.items()}, "package": site is None}
    job |= facts or {}
    if site is None:
        environment = {**environment, "PYTHONPATH": os.fspath(Path(__file__).parents[2])}
    done = run(LOAD + after, json.dumps(job), environment=environment, site=site)
    if done.returncode:
        raise RuntimeError(f"{done.stdout}\n{done.stderr[-4000:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["place"]: row["seconds"] for row in rows}


def make_case(model: Any, folder: Path, processor: Any) -> dict[str, torch.Tensor]:
    """Write random inputs for a tracker to a folder, and return what it makes of them here, as [`LOAD`] saves it."""
    folder.mkdir(parents=True, exist_ok=True)
    config, generator = model.config, torch.Generator().manual_seed(0)
    template = (2, config.num_templates, 3, config.template_size, config.template_size)
    inputs = {
        "template_pixel_values": torch.randn(template, generator=generator),
        "search_pixel_values": torch.randn(2, 3, config.search_size, config.search_size, generator=generator),
        "template_boxes": torch.tensor([0.5, 0.5, 0.4, 0.5]).expand(2, config.num_templates, 4).contiguous(),
    }
    frames = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), dtype=np.uint8)
    box = [40.0, 30.0, 24.0, 18.0]
    save_file({**inputs, "frames": torch.from_numpy(frames), "box": torch.tensor(box)}, folder / "inputs.safetensors")
    with torch.no_grad():
        output = model.eval()(**inputs)
    results = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
    results["crop"] = processor(frames[1], boxes=[box])["search_pixel_values"]
    session = model.start(frames[0], box)
    tracks = [session.update(frame) for frame in frames[1:]]
    results["tracks"] = torch.tensor([[*track.box.tolist(), track.score] for track in tracks], dtype=torch.float64)
    return results


def differences(expected: dict[str, torch.Tensor], folder: Path) -> list[str]:
    """Names of what came out elsewhere with another bit, or not at all."""
    results = load_file(folder / "results.safetensors")
    return [name for name in expected if name not in results or not torch.equal(results[name], expected[name])]
