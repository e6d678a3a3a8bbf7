"""What the contract's suite compares and changes trackers with."""

from typing import Any

import torch
from transformers.utils import ModelOutput

from ct_hf.models import PreTrainedTracker


LOAD_WITHOUT_THE_PACKAGE = """
import sys
sys.modules["ct_hf"] = None  # any import of the package fails from here on
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel

folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
assert type(processor).__module__.startswith("transformers_modules."), type(processor).__module__
inputs = load_file(f"{folder}/inputs.safetensors")
frames = inputs.pop("frames").numpy()
box = inputs.pop("box").tolist()
with torch.no_grad():
    results = {"pred_boxes": model(**inputs).pred_boxes}
results["crop"] = processor(frames[1], boxes=[box], target="search")["search_pixel_values"].contiguous()
track = model.start(frames[0], box).update(frames[1])
results["track"] = torch.from_numpy(np.append(track.box, track.score))
save_file(results, f"{folder}/results.safetensors")
"""


def tensors_of(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors of an output or state by name, also those within tuples, dictionaries and memory."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if isinstance(value, dict | ModelOutput):
        items = value.items()
    elif isinstance(value, tuple | list):
        items = enumerate(value)
    else:
        return {}
    return {key: tensor for part, item in items for key, tensor in tensors_of(item, f"{name}.{part}").items()}


def assert_equal(actual: Any, expected: Any, atol: float = 0.0) -> None:
    """Every tensor of two outputs or states is equal, bit for bit by default."""
    actual, expected = tensors_of(actual), tensors_of(expected)
    assert actual and actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            actual[name], tensor, atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def perturb(model: PreTrainedTracker, seed: int = 0) -> PreTrainedTracker:
    """Move every weight and statistic well off its initial value, so that a lost, swapped or unused one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1
                tensor.add_(scale * torch.randn(tensor.shape, generator=generator))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model


class Exported(torch.nn.Module):
    """A tracker with its inputs in their order, returning a tuple of tensors."""

    def __init__(self, model: PreTrainedTracker, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=True)
        return tuple(tensors_of(output).values())
