"""An MLP keeps less for backward than it would by itself, and computes the same."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ct_hf.models import SUTrackConfig
from ct_hf.models.layers import MLP
from ct_hf.models.modeling_sutrack import SUTrackMLP


MLPS = {
    "plain": lambda: MLP(8, 32, "gelu"),
    "gated": lambda: SUTrackMLP(SUTrackConfig(hidden_size=8, intermediate_size=32, num_attention_heads=2)),
}


def build(kind: str) -> tuple[nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mlp = MLPS[kind]()
    for parameter in mlp.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return mlp, torch.randn(2, 5, 8, generator=generator)


def gradients(mlp: nn.Module, tokens: torch.Tensor) -> list[torch.Tensor]:
    tokens = tokens.clone().requires_grad_()
    mlp(tokens).square().sum().backward()
    found = [tokens.grad, *(parameter.grad for parameter in mlp.parameters())]
    mlp.zero_grad()
    return found


@pytest.mark.parametrize("kind", MLPS)
def test_gradients_in_training_are_those_without_recomputation(kind):
    mlp, tokens = build(kind)
    for trained, plain in zip(gradients(mlp.train(), tokens), gradients(mlp.eval(), tokens), strict=True):
        assert torch.equal(trained, plain)


@pytest.mark.parametrize(("kind", "wide_tensors"), [("plain", {True: 1, False: 2}), ("gated", {True: 2, False: 5})])
def test_neurons_alone_are_kept_and_no_product_is_repeated(kind, wide_tensors):
    mlp, tokens = build(kind)
    kept, products = {}, {}
    for mode in (True, False):
        mlp.train(mode)
        wide = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, wide=wide: wide.append(tensor.shape[-1] == 32 and tensor.numel() == 320) or tensor,
            lambda tensor: tensor,
        ):
            output = mlp(tokens.clone().requires_grad_())
        kept[mode] = sum(wide)
        with FlopCounterMode(display=False) as counter:
            mlp(tokens.clone().requires_grad_()).sum().backward()
        products[mode] = counter.get_total_flops()
        assert output.requires_grad
    assert kept == wide_tensors
    assert products[True] == products[False]


def test_gradients_are_right_where_the_last_layer_draws():
    """As one does that was wrapped for LoRA: backward has to see the mask of forward."""
    mlp, tokens = build("plain")
    mlp.fc2 = nn.Sequential(nn.Dropout(0.5), mlp.fc2)
    found = []
    for function in (mlp.train(), lambda states: mlp.fc2(mlp.activation_fn(mlp.fc1(states)))):
        torch.manual_seed(0)
        leaf = tokens.clone().requires_grad_()
        function(leaf).square().sum().backward()
        found.append(leaf.grad)
    assert torch.equal(*found)
