import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ct_hf.models.box_ops import box_overlaps, cxcywh_to_xyxy, xyxy_to_cxcywh


unit = st.floats(0, 1, width=32)
box = st.tuples(unit, unit, unit, unit)


def xyxy(*numbers):
    return torch.tensor([numbers], dtype=torch.float32)


def test_forms():
    assert cxcywh_to_xyxy(torch.tensor([4.0, 6.0, 2.0, 8.0])).tolist() == [3, 2, 5, 10]
    assert xyxy_to_cxcywh(torch.tensor([3.0, 2.0, 5.0, 10.0])).tolist() == [4, 6, 2, 8]


@given(box)
def test_forms_are_inverse(numbers):
    boxes = torch.tensor(numbers)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("first", "second", "iou", "giou"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1, 1),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, 1 / 7 - 2 / 9),
        ((0, 0, 1, 1), (2, 0, 3, 1), 0, -1 / 3),  # apart: a third of the hull is empty
        ((0, 0, 1, 1), (1, 0, 2, 1), 0, 0),  # touching: the hull is full
        ((0, 0, 4, 4), (1, 1, 3, 3), 1 / 4, 1 / 4),  # one within the other
        ((0, 0, 0, 0), (0, 0, 2, 2), 0, 0),  # a point in a corner
        ((0, 0, 0, 0), (3, 4, 5, 6), 0, -26 / 30),
        ((2, 2, 1, 1), (0, 0, 2, 2), 0, 0),  # inverted: no area
    ],
)
def test_overlaps_by_hand(first, second, iou, giou):
    for boxes in ((first, second), (second, first)):
        actual = box_overlaps(xyxy(*boxes[0]), xyxy(*boxes[1]))
        assert [value.item() for value in actual] == pytest.approx([iou, giou], abs=1e-6)


@given(box, box)
def test_overlaps_are_in_range_with_finite_gradients(first, second):
    boxes = torch.tensor(first, requires_grad=True)
    iou, giou = box_overlaps(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(torch.tensor(second)))
    assert -1e-6 <= iou <= 1 + 1e-5
    assert -1 - 1e-5 <= giou <= iou + 1e-5
    (iou + giou).backward()
    assert boxes.grad.isfinite().all()


def test_gradient_is_zero_at_equality():
    """Exactly zero, whatever factor the loss puts before it."""
    boxes = (torch.rand(1000, 4, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.01).requires_grad_()
    factors = torch.linspace(0.1, 3, 1000)
    for overlap in box_overlaps(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(boxes.detach())):
        boxes.grad = None
        (factors * overlap).sum().backward(retain_graph=True)
        assert (boxes.grad == 0).all()


def test_leading_dimensions_are_kept():
    boxes = torch.rand(3, 2, 4)
    assert [value.shape for value in box_overlaps(boxes, boxes)] == [(3, 2), (3, 2)]
