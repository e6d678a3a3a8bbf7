import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ct_hf.models.heads import (
    CenterHead,
    ConvTower,
    CornerHead,
    box_losses,
    clip_to_crop,
    focal_loss,
    gaussian_map,
    hann_window,
    tokens_to_map,
)
from ct_hf.models.tracker import TrackerOutput

from ..parity import FOLDER


BOXES = torch.tensor(
    [
        [0.5, 0.5, 0.3, 0.2],
        [0.12, 0.88, 0.4, 0.5],
        [0.33, 0.61, 0.05, 0.04],
        [0.98, 0.02, 0.2, 0.9],
        [0.5, 0.5, 1.0, 1.0],
    ]
)


@pytest.fixture(scope="module")
def recorded():
    """Labels and losses of the original OSTrack for six boxes."""
    return load_file(FOLDER / "ostrack_losses.safetensors")


def slow_gaussian_map(box, grid, min_overlap=0.7):
    """The label by its definition, cell by cell."""
    center_x, center_y, width, height = (float(number) * grid for number in box)
    # CornerNet's three cases: both corners inside, both outside, one each; each "root" in the form that OSTrack uses.
    cases = [
        (1, height + width, width * height * (1 - min_overlap) / (1 + min_overlap)),
        (4, 2 * (height + width), (1 - min_overlap) * width * height),
        (4 * min_overlap, -2 * min_overlap * (height + width), (min_overlap - 1) * width * height),
    ]
    radius = max(0, int(min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in cases)))
    column, row = (min(max(round(center), 0), grid - 1) for center in (center_x, center_y))
    label = torch.zeros(grid, grid)
    for y in range(grid):
        for x in range(grid):
            if abs(x - column) <= radius and abs(y - row) <= radius:
                sigma = (2 * radius + 1) / 6
                label[y, x] = math.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * sigma**2))
    return label


def slow_focal_loss(probability, label):
    """Eq. 1 of CenterNet, cell by cell, in double precision."""
    total, targets = 0.0, 0
    for p, y in zip(probability.double().flatten().tolist(), label.double().flatten().tolist(), strict=True):
        if y == 1:
            total -= (1 - p) ** 2 * math.log(p)
            targets += 1
        else:
            total -= (1 - y) ** 4 * p**2 * math.log(1 - p)
    return total / max(targets, 1)


def center_output(logits, size=None, offset=None, requires_grad=False):
    """Output of a center head of `logits`, as its forward makes it, with the logits as leaves."""
    batch, _, grid, _ = logits.shape
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(batch, 2, grid, grid, generator=generator) * 0.5 + 0.1 if size is None else size
    offset = torch.rand(batch, 2, grid, grid, generator=generator) if offset is None else offset
    leaves = [value.clone().requires_grad_(requires_grad) for value in (logits, size, offset)]
    score_map = leaves[0].sigmoid().clamp(1e-4, 1 - 1e-4)
    boxes, score = CenterHead(4, 8, grid).read_boxes(score_map, leaves[1], leaves[2])
    output = TrackerOutput(
        pred_boxes=boxes,
        score=score,
        score_map=score_map,
        score_logits=leaves[0],
        size_map=leaves[1],
        offset_map=leaves[2],
    )
    return output, leaves


class TestGaussianMap:
    @pytest.mark.parametrize("grid", [8, 16, 5])
    def test_by_definition(self, grid):
        expected = torch.stack([slow_gaussian_map(box, grid) for box in BOXES])
        torch.testing.assert_close(gaussian_map(BOXES, grid)[:, 0], expected, atol=1e-6, rtol=0)

    @given(st.tuples(*[st.floats(0, 1, width=32)] * 2, *[st.floats(1 / 64, 1, width=32)] * 2))
    def test_one_cell_is_the_centre(self, box):
        label = gaussian_map(torch.tensor([box]), 16)
        assert label.shape == (1, 1, 16, 16)
        assert (label == 1).sum() == 1
        assert ((label >= 0) & (label <= 1)).all()

    def test_as_the_original(self, recorded):
        label = gaussian_map(recorded["search_boxes"], 16)
        torch.testing.assert_close(label, recorded["gaussian"], atol=1e-6, rtol=0)

    def test_box_without_area(self):
        label = gaussian_map(torch.tensor([[0.5, 0.5, 0.0, 0.0]]), 4)
        assert label.sum() == 1 and label[0, 0, 2, 2] == 1


class TestFocalLoss:
    def test_by_formula(self):
        logits = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2
        label = gaussian_map(BOXES, 8)
        assert focal_loss(logits, label).item() == pytest.approx(slow_focal_loss(logits.sigmoid(), label), rel=1e-5)

    def test_as_the_original(self, recorded):
        torch.testing.assert_close(focal_loss(recorded["score_logits"], recorded["gaussian"]), recorded["focal"])

    def test_smallest_for_the_right_answer(self):
        label = gaussian_map(BOXES[:1], 8)
        assert focal_loss(torch.where(label == 1, 20.0, -20.0), label) < 1e-6


def test_box_losses_as_the_original(recorded):
    losses = box_losses(recorded["pred_boxes"], clip_to_crop(recorded["search_boxes"]))
    torch.testing.assert_close(losses["giou"], 2 * recorded["giou"])
    torch.testing.assert_close(losses["l1"], 5 * recorded["l1"])


def test_box_losses_by_hand():
    """Boxes 0..0.4 and 0.2..0.6 on both axes: IoU 0.04/0.28, hull 0.36; every edge is off by 0.2."""
    losses = box_losses(torch.tensor([[0.2, 0.2, 0.4, 0.4]]), torch.tensor([[0.4, 0.4, 0.4, 0.4]]), prefix="some_")
    assert losses["some_giou"].item() == pytest.approx(2 * (1 - (0.04 / 0.28 - 0.08 / 0.36)), rel=1e-5)
    assert losses["some_l1"].item() == pytest.approx(5 * 0.2, rel=1e-5)


def test_clip_to_crop():
    clipped = clip_to_crop(torch.tensor([[0.0, 0.5, 0.4, 0.2], [1.1, 0.5, 0.4, 0.2], [3.0, 3.0, 1.0, 1.0]]))
    expected = torch.tensor([[0.1, 0.5, 0.2, 0.2], [0.95, 0.5, 0.1, 0.2], [1.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(clipped, expected)


def test_hann_window():
    """No zeros at the ends, symmetric, the outer product of 0.5 (1 - cos(2 pi i / (n + 1)))."""
    window = hann_window(5)
    edge = [0.5 * (1 - math.cos(2 * math.pi * index / 6)) for index in range(1, 6)]
    torch.testing.assert_close(window, torch.tensor([[a * b for a in edge] for b in edge]))
    assert window.min() > 0 and window.argmax() == 12


def test_tokens_to_map_is_raster_order():
    tokens = torch.arange(2 * 9 * 3).view(2, 9, 3)
    features = tokens_to_map(tokens, 3)
    assert features.shape == (2, 3, 3, 3)
    assert torch.equal(features[1, :, 2, 1], tokens[1, 2 * 3 + 1])


def test_conv_tower_halves_its_channels():
    tower = ConvTower(12, 32, 2)
    assert [layer.out_channels for layer in tower.convolutions] == [32, 16, 8, 4]
    assert tower(torch.randn(2, 12, 5, 5)).shape == (2, 2, 5, 5)
    assert tower.to(torch.bfloat16)(torch.randn(2, 12, 5, 5).bfloat16()).dtype == torch.float32


class TestCenterHead:
    def test_box_is_read_at_the_peak(self):
        """Peak in row 1, column 3 of 4: offset and size of that cell, no other."""
        logits = torch.zeros(1, 1, 4, 4)
        logits[0, 0, 1, 3] = 1
        size, offset = torch.full((1, 2, 4, 4), 0.9), torch.zeros(1, 2, 4, 4)
        size[0, :, 1, 3] = torch.tensor([0.3, 0.2])
        offset[0, :, 1, 3] = torch.tensor([0.25, 0.75])
        output, _ = center_output(logits, size, offset)
        torch.testing.assert_close(output.pred_boxes, torch.tensor([[3.25 / 4, 1.75 / 4, 0.3, 0.2]]))
        assert output.score.item() == pytest.approx(1 / (1 + math.exp(-1)))

    def test_locate_fears_large_steps(self):
        """Under the window a lower score at the centre beats a higher one in the corner; `pred_boxes` ignores it."""
        logits = torch.full((1, 1, 8, 8), -5.0)
        logits[0, 0, 0, 0], logits[0, 0, 4, 4] = 3.0, 0.0
        output, _ = center_output(logits)
        boxes, score = CenterHead(4, 8, 8).locate(output)
        assert (output.pred_boxes[0, :2] < 1 / 4).all()
        assert ((boxes[0, :2] >= 1 / 2) & (boxes[0, :2] <= 5 / 8)).all()
        assert score.item() == pytest.approx(0.5 * hann_window(8)[4, 4].item())

    def test_maps_are_clamped(self):
        head = CenterHead(4, 8, 4).eval()
        with torch.no_grad():
            head.score.projection.bias.fill_(60)
            head.size.projection.bias.fill_(-60)
            output = head(torch.randn(1, 16, 4))
        assert output.score_map.max() == pytest.approx(1 - 1e-4) and output.size_map.min() == pytest.approx(1e-4)

    @pytest.mark.parametrize("logit", [60.0, -60.0, 200.0, -200.0])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_saturated_scores_keep_loss_and_gradient_finite(self, logit, autocast):
        head = CenterHead(4, 8, 8)
        output, leaves = center_output(torch.full((5, 1, 8, 8), logit), requires_grad=True)
        target, _ = center_output(torch.full((5, 1, 8, 8), -logit))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            terms = {**head.compute_loss(output, BOXES), **head.compute_guidance(output, target)}
        assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
        sum(terms.values()).backward()
        assert all(leaf.grad.isfinite().all() for leaf in leaves)
        assert leaves[0].grad.abs().max() > 0.3  # and a hopelessly wrong map is still pulled back

    def test_loss_has_the_paper_s_weights(self):
        """focal + 2 GIoU + 5 L1, the label's box clipped to the crop."""
        output, _ = center_output(torch.randn(5, 1, 8, 8))
        terms = CenterHead(4, 8, 8).compute_loss(output, BOXES)
        assert list(terms) == ["focal", "giou", "l1"]
        torch.testing.assert_close(terms["focal"], focal_loss(output.score_logits, gaussian_map(BOXES, 8)))
        expected = box_losses(output.pred_boxes, clip_to_crop(BOXES))
        assert (terms["giou"], terms["l1"]) == (expected["giou"], expected["l1"])

    def test_guidance_is_nothing_at_equality(self):
        output, leaves = center_output(torch.randn(3, 1, 8, 8) * 4, requires_grad=True)
        terms = CenterHead(4, 8, 8).compute_guidance(output, output)
        assert list(terms) == ["guidance_map", "guidance_giou", "guidance_l1"]
        assert terms["guidance_map"] == 0 and terms["guidance_l1"] == 0
        assert terms["guidance_giou"].abs() < 1e-6
        sum(terms.values()).backward()
        assert all((leaf.grad == 0).all() for leaf in leaves)

    @settings(max_examples=30)
    @given(st.integers(0, 10_000), st.floats(0.1, 5), st.sampled_from([0.3, 3.0, 10.0]))
    def test_guidance_map_is_smallest_at_equality(self, seed, step, scale):
        """Any other map costs more, also an empty one, which the focal loss would reward."""
        generator = torch.Generator().manual_seed(seed)
        target, _ = center_output(torch.randn(2, 1, 4, 4, generator=generator) * scale)
        other, _ = center_output(target.score_logits + step * torch.randn(2, 1, 4, 4, generator=generator))
        empty, _ = center_output(target.score_logits - 30)
        head = CenterHead(4, 8, 4)
        for output in (other, empty):
            assert head.compute_guidance(output, target)["guidance_map"] > 0

    def test_guidance_map_by_hand(self):
        """One cell, teacher 0.75 and student 0.5: 0.75 log(0.75/0.5) + 0.25 log(0.25/0.5)."""
        target, _ = center_output(torch.full((1, 1, 1, 1), math.log(3)))
        student, _ = center_output(torch.zeros(1, 1, 1, 1))
        divergence = CenterHead(4, 8, 1).compute_guidance(student, target)["guidance_map"]
        assert divergence.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)

    def test_guidance_leaves_the_teacher_alone(self):
        target, leaves = center_output(torch.randn(1, 1, 4, 4), requires_grad=True)
        student, _ = center_output(torch.randn(1, 1, 4, 4), requires_grad=True)
        sum(CenterHead(4, 8, 4).compute_guidance(student, target).values()).backward()
        assert all(leaf.grad is None for leaf in leaves)


class TestCornerHead:
    def output(self, logits):
        """Output of a corner head whose towers give these logits."""
        head = CornerHead(4, 8, logits.shape[-1])
        head.top_left.forward = lambda features: logits[:, :1]
        head.bottom_right.forward = lambda features: logits[:, 1:]
        return head, head(torch.zeros(logits.shape[0], logits.shape[-1] ** 2, 4))

    def test_box_is_the_expectation_of_the_corners(self):
        """Upper left certain in row 1, column 0; lower right half in (2, 3) and half in (3, 1); cells count from 0."""
        logits = torch.full((1, 2, 4, 4), -100.0)
        logits[0, 0, 1, 0] = logits[0, 1, 2, 3] = logits[0, 1, 3, 1] = 0
        head, output = self.output(logits)
        left, top, right, bottom = 0, 1 / 4, 2 / 4, 2.5 / 4
        expected = torch.tensor([[(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]])
        torch.testing.assert_close(output.pred_boxes, expected)
        assert output.score.item() == pytest.approx((1 + 0.5) / 2)
        assert head.locate(output)[0] is output.pred_boxes

    def test_loss(self):
        head, output = self.output(torch.randn(5, 2, 4, 4))
        terms = head.compute_loss(output, BOXES)
        assert list(terms) == ["giou", "l1"]
        assert terms == box_losses(output.pred_boxes, clip_to_crop(BOXES))

    def test_guidance_is_nothing_at_equality(self):
        logits = (torch.randn(3, 2, 4, 4) * 4).requires_grad_()
        head, output = self.output(logits)
        terms = head.compute_guidance(output, self.output(logits.detach())[1])
        assert list(terms) == ["guidance_map", "guidance_giou", "guidance_l1"]
        assert terms["guidance_map"] == 0 and terms["guidance_l1"] == 0
        sum(terms.values()).backward()
        assert (logits.grad == 0).all()

    def test_guidance_map_is_the_divergence_of_both_corners(self):
        head, output = self.output(torch.randn(3, 2, 4, 4))
        _, target = self.output(torch.randn(3, 2, 4, 4))
        p, q = (o.corner_logits.double().flatten(2).softmax(dim=2) for o in (target, output))
        expected = (p * (p / q).log()).sum() / 3
        assert head.compute_guidance(output, target)["guidance_map"].item() == pytest.approx(expected.item(), rel=1e-5)

    @pytest.mark.parametrize("logit", [60.0, -60.0, 200.0, -200.0])
    def test_saturated_maps_keep_loss_and_gradient_finite(self, logit):
        logits = torch.zeros(5, 2, 4, 4)
        logits[:, :, 0, 0] = logit
        logits.requires_grad_()
        head, output = self.output(logits)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = {
                **head.compute_loss(output, BOXES),
                **head.compute_guidance(output, self.output(-logits.detach())[1]),
            }
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values()) and logits.grad.isfinite().all()
