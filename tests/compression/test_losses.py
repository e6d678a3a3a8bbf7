import pytest
import torch

from ct_hf.compression.losses import mimicking_loss
from ct_hf.models import TrackerState


LAYOUT = (("template", 1), ("search", 2))


def state_of(rows, layout=LAYOUT, dtype=torch.float32):
    return TrackerState(torch.tensor(rows, dtype=dtype), layout=layout)


def test_groups_weigh_the_same():
    """Values by hand: one template token differs by 2, one of two search tokens by 4 in one of two channels."""
    ours = state_of([[[2.0, 2.0], [4.0, 0.0], [0.0, 0.0]]])
    theirs = state_of([[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    template, search = (4 + 4) / 2, 16 / 4
    assert mimicking_loss(ours, theirs).tolist() == [(template + search) / 2]


def test_each_sample_has_its_own():
    ours, theirs = torch.randn(3, 3, 4), torch.randn(3, 3, 4)
    together = mimicking_loss(TrackerState(ours, layout=LAYOUT), TrackerState(theirs, layout=LAYOUT))
    assert together.shape == (3,)
    for row in range(3):
        alone = mimicking_loss(
            TrackerState(ours[row : row + 1], layout=LAYOUT), TrackerState(theirs[row : row + 1], layout=LAYOUT)
        )
        assert together[row].item() == pytest.approx(alone.item())


def test_special_tokens_are_a_group_of_their_own():
    layout = (*LAYOUT, ("special", 1))
    ours = state_of([[[0.0], [0.0], [0.0], [3.0]]], layout)
    assert mimicking_loss(ours, state_of([[[0.0]] * 4], layout)).item() == pytest.approx(9 / 3)


def test_zero_at_equality_with_zero_gradient():
    tokens = torch.randn(2, 3, 4, requires_grad=True)
    loss = mimicking_loss(TrackerState(tokens, layout=LAYOUT), TrackerState(tokens.detach().clone(), layout=LAYOUT))
    assert loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert tokens.grad.abs().max() == 0


def test_no_gradient_into_the_teacher():
    ours, theirs = torch.randn(1, 3, 4, requires_grad=True), torch.randn(1, 3, 4, requires_grad=True)
    mimicking_loss(TrackerState(ours, layout=LAYOUT), TrackerState(theirs, layout=LAYOUT)).sum().backward()
    assert theirs.grad is None and ours.grad.abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fp32_from_half_precision(dtype):
    """Squares of 300 overflow fp16, and small differences drown in bf16; autocast does not bring them back."""
    ours, theirs = state_of([[[300.0], [0.0], [0.0]]], dtype=dtype), state_of([[[0.0], [0.0], [0.0]]], dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mimicking_loss(ours, theirs)
    assert loss.dtype == torch.float32 and loss.item() == 45_000


def test_distances_by_hand():
    ours, theirs = state_of([[[3.0, 0.0], [0.0, 2.0], [0.0, 1.0]]]), state_of([[[0.0, 4.0], [0.0, 1.0], [1.0, 0.0]]])
    # Template: differences 3 and -4. Search: 0 and 1 in the first token, -1 and 1 in the second.
    assert mimicking_loss(ours, theirs).item() == pytest.approx(((9 + 16) / 2 + (1 + 1 + 1) / 4) / 2)
    smooth = ((2.5 + 3.5) / 2 + (0.5 + 0.5 + 0.5) / 4) / 2
    assert mimicking_loss(ours, theirs, "smooth_l1").item() == pytest.approx(smooth)
    assert mimicking_loss(ours, theirs, "cosine").item() == pytest.approx((1 + (0 + 1) / 2) / 2)
    # The search tokens are parallel in ours and at right angles in theirs; one token alone is like itself.
    assert mimicking_loss(ours, theirs, "gram").item() == pytest.approx((0 + (1 + 1) / 4) / 2)


@pytest.mark.parametrize("distance", ["smooth_l1", "cosine", "gram"])
def test_every_distance_is_zero_at_equality_and_has_a_gradient_elsewhere(distance):
    theirs = torch.randn(2, 3, 4)
    same = mimicking_loss(TrackerState(theirs, layout=LAYOUT), TrackerState(theirs, layout=LAYOUT), distance)
    assert same.abs().max() < 1e-6
    ours = torch.randn(2, 3, 4, requires_grad=True)
    mimicking_loss(TrackerState(ours, layout=LAYOUT), TrackerState(theirs, layout=LAYOUT), distance).sum().backward()
    assert ours.grad[:, 1:].abs().sum() > 0
