"""The MLP keeps less for backward than it would by itself, and computes the same."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from ct_hf.models.layers import MLP


def build() -> tuple[MLP, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mlp = MLP(8, 32, "gelu")
    for parameter in mlp.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return mlp, torch.randn(2, 5, 8, generator=generator)


def gradients(mlp: MLP, tokens: torch.Tensor) -> list[torch.Tensor]:
    tokens = tokens.clone().requires_grad_()
    mlp(tokens).square().sum().backward()
    found = [tokens.grad, *(parameter.grad for parameter in mlp.parameters())]
    mlp.zero_grad()
    return found


def test_gradients_in_training_are_those_without_recomputation():
    mlp, tokens = build()
    for trained, plain in zip(gradients(mlp.train(), tokens), gradients(mlp.eval(), tokens), strict=True):
        assert torch.equal(trained, plain)


def test_one_wide_tensor_is_kept_and_no_product_is_repeated():
    mlp, tokens = build()
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
    assert kept == {True: 1, False: 2}
    assert products[True] == products[False]
