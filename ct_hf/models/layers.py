"""What the transformer blocks of several families share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out; query, key and value are `(batch_size, num_heads, num_tokens, head_dim)`."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def drop_path(hidden_states: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Drop a residual branch of whole samples with probability `rate` in training (stochastic depth)."""
    if rate == 0.0 or not training:
        return hidden_states
    shape = (hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1)
    return hidden_states * hidden_states.new_empty(shape).bernoulli_(1 - rate).div_(1 - rate)


def contract(mlp: nn.Module, function: Callable[..., torch.Tensor], *neurons: torch.Tensor) -> torch.Tensor:
    """
    Run the second half of an MLP, which ends in its last linear layer, with less to keep for backward.

    What lies between the neurons and that layer are the widest tensors of a tracker's layer. In training, backward computes them
    anew; no matrix product is computed twice, since a checkpoint stops once it has what was not kept.

    Args:
        mlp (`nn.Module`): the MLP, which is in training or not.
        function (`Callable`): its second half; what it draws at random is drawn the same again.
        neurons (`torch.Tensor` of shape `(batch_size, num_tokens, intermediate_size)`): one or more.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`.
    """
    if mlp.training and torch.is_grad_enabled():
        return checkpoint(function, *neurons, use_reentrant=False)
    return function(*neurons)


class MLP(nn.Module):
    """
    Two linear layers with an activation between.

    Args:
        hidden_size (`int`): width of the tokens.
        intermediate_size (`int`): width between.
        hidden_act (`str`): name of the activation.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str):
        super().__init__()
        self.activation_fn = ACT2FN[hidden_act]
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """In and out `(batch_size, num_tokens, hidden_size)`."""
        return contract(self, self._contract, self.fc1(hidden_states))

    def _contract(self, neurons: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(neurons))


__all__ = ["MLP", "contract", "drop_path", "eager_attention_forward"]
