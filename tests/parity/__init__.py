"""
Outputs recorded from the original trackers in tiny configurations, and the rule that fills weights and inputs.

Each `<name>.json` tells configuration, original keys with shape and scale, and inputs; `<name>.safetensors` what the
original made of them. `ostrack_losses.safetensors` holds labels and losses of the original for boxes written in it.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


FOLDER = Path(__file__).parent


def load_case(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Specification and recorded outputs of one case."""
    return json.loads((FOLDER / f"{name}.json").read_text()), load_file(FOLDER / f"{name}.safetensors")


def fill_weights(spec: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights by original key: Gaussian noise seeded by the key, times its scale, plus its offset."""
    weights = {}
    for key, entry in spec["state_dict"].items():
        if entry["dtype"] == "int64":
            weights[key] = torch.zeros(entry["shape"], dtype=torch.int64)
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        weights[key] = torch.randn(entry["shape"], generator=generator) * entry["scale"]
        if entry["offset"] != 0:
            weights[key] = weights[key] + entry["offset"]
        if entry.get("abs"):
            weights[key] = weights[key].abs()
    return weights


def fill_inputs(spec: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Input tensors by name, drawn in their order from one generator."""
    generator = torch.Generator().manual_seed(spec["inputs"]["seed"])
    return {entry["name"]: torch.randn(entry["shape"], generator=generator) for entry in spec["inputs"]["tensors"]}


def assert_maps_close(actual: torch.Tensor, recorded: torch.Tensor) -> None:
    """Maps agree to 1e-5, or 1e-5 of the largest value where that is above 1, as raw offsets have it.

    Both are rounded to fp32 on the way, by what processor they were made on: the recorded offsets, up to 6.6, are 1.2e-5 off
    what the same network gives in fp64.
    """
    torch.testing.assert_close(actual, recorded, atol=1e-5 * max(1.0, recorded.abs().max().item()), rtol=0)
