from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ct_hf.models.cost import count_gmacs, count_parameters


class Attention(nn.Module):
    """One product with weights and one attention over the tokens of both crops."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(template_size=4, search_size=8, num_templates=2)
        self.project = nn.Linear(3, 6)
        self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)
        self.register_buffer("table", torch.zeros(100))
        self.modes = []

    def forward(self, template_pixel_values, search_pixel_values, template_boxes=None):
        self.modes.append((self.training, torch.is_grad_enabled()))
        tokens = [template_pixel_values.permute(0, 1, 3, 4, 2).flatten(1, 3), search_pixel_values.flatten(2).mT]
        hidden = self.project(torch.cat(tokens, dim=1)).unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(hidden, hidden, hidden)


def test_products_of_weights_and_of_attention_are_counted():
    # 2 * 16 + 64 = 96 tokens: 96 * 3 * 6 for the projection, 96 * 96 * 6 for scores and as many for the mix.
    expected = (96 * 3 * 6 + 2 * 96 * 96 * 6) / 1e9
    assert count_gmacs(Attention()) == pytest.approx(expected)
    assert count_gmacs(Attention(), batch_size=3) == pytest.approx(3 * expected)
    assert count_gmacs(Attention(), attention=False) == pytest.approx(96 * 3 * 6 / 1e9)


@pytest.mark.parametrize("training", [True, False])
def test_counting_runs_in_evaluation_mode_and_puts_the_mode_back(training):
    model = Attention().train(training)
    count_gmacs(model)
    assert model.modes == [(False, False)]
    assert model.training is training


def test_parameters_count_whether_trained_or_not():
    assert count_parameters(Attention()) == 3 * 6 + 6 + 7
