"""What a tracker costs: parameters and multiply-accumulates."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_utils import PreTrainedModel


def count_parameters(model: PreTrainedModel) -> int:
    """Number of parameters of a model, trained or not; buffers are not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gmacs(model: PreTrainedModel, batch_size: int = 1, attention: bool = True) -> float:
    """
    Count the multiply-accumulates of one forward pass: embedding, trunk and head, products of attention included.

    Counted by running the model on zeros in evaluation mode, with templates encoded anew as they are in each frame. Matrix
    products and convolutions count, sums and activations do not.

    Args:
        model (`PreTrainedModel`): tracker.
        batch_size (`int`, *optional*, defaults to 1): number of search crops in the pass.
        attention (`bool`, *optional*, defaults to `True`):
            Whether products of tokens with tokens count, as those of queries, keys and values; many papers leave them out.

    Returns:
        `float`: 10^9 multiply-accumulates (half the floating point operations), for the whole batch.
    """
    config = model.config
    like = {"dtype": model.dtype, "device": model.device}
    template = torch.zeros(batch_size, config.num_templates, 3, config.template_size, config.template_size, **like)
    search = torch.zeros(batch_size, 3, config.search_size, config.search_size, **like)
    boxes = torch.full((batch_size, config.num_templates, 4), 0.5, **like)
    training = model.training
    model.eval()
    try:
        # The fused kernels for CPU are unknown to the counter, which would leave attention out without a word.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(template_pixel_values=template, search_pixel_values=search, template_boxes=boxes)
    finally:
        model.train(training)
    flops = counter.get_flop_counts()["Global"]
    of_tokens = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)
    return sum(count for operation, count in flops.items() if attention or operation not in of_tokens) / 2e9


__all__ = ["count_gmacs", "count_parameters"]
