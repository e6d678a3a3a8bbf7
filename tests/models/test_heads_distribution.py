import pytest
import torch

from ct_hf.models.heads_distribution import DistributionHead, ScoreBranch
from ct_hf.models.tracker import TrackerOutput


@pytest.fixture
def head():
    torch.manual_seed(0)
    return DistributionHead(8, 10).eval()


@pytest.fixture
def tokens():
    return torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))


def one_hot(bins, num_bins=10, size=50.0):
    """Logits `(1, 4, num_bins)` certain of one bin for each side, in the order left, top, right, bottom."""
    return size * torch.nn.functional.one_hot(torch.tensor([bins]), num_bins).float()


class TestForward:
    def test_tokens_are_left_right_top_bottom(self, head, tokens):
        """Outputs are left, top, right, bottom."""
        with torch.no_grad():
            logits = head(tokens).corner_logits
            for token, side in enumerate([0, 2, 1, 3]):
                alone = tokens[:, token : token + 1].expand(-1, 4, -1)
                torch.testing.assert_close(logits[:, side], head(alone).corner_logits[:, 0], atol=1e-6, rtol=0)

    def test_edges_are_expectations(self, head, tokens):
        with torch.no_grad():
            output = head(tokens)
        probabilities = output.corner_logits.softmax(dim=-1)
        left, top, right, bottom = ((probabilities * torch.arange(10) / 10).sum(-1)).unbind(1)
        torch.testing.assert_close(output.corner_probabilities, probabilities)
        box = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=1)
        torch.testing.assert_close(output.pred_boxes, box)

    def test_norms(self, head):
        """Both with the epsilon of torch, not the trunk's; the last is on the logits."""
        assert (head.dense_norm.eps, head.bins_norm.eps) == (1e-5, 1e-5)
        assert head.bins_norm.normalized_shape == (10,)

    def test_score_is_the_mean_over_the_tokens(self, tokens):
        branch = ScoreBranch(8)
        with torch.no_grad():
            each = torch.stack([branch(tokens[:, index : index + 1]) for index in range(4)])
            torch.testing.assert_close(branch(tokens), each.mean(dim=0))

    def test_locate_needs_no_window(self, head, tokens):
        output = head(tokens)
        boxes, score = head.locate(output)
        assert boxes is output.pred_boxes and score is output.score


class TestScoreWithoutBranch:
    def score(self, logits):
        head = DistributionHead(8, logits.shape[-1], score_branch=False)
        with torch.no_grad():
            head.bins.weight.zero_(), head.bins.bias.zero_()
            head.bins_norm = torch.nn.Identity()
            head.bins.register_forward_hook(lambda *_: logits[:, [0, 2, 1, 3]])
            return head(torch.zeros(1, 4, 8)).score.item()

    def test_certain_of_one_bin(self):
        assert self.score(one_hot([1, 2, 7, 8])) == pytest.approx(1)
        assert self.score(one_hot([0, 0, 9, 9])) == pytest.approx(1)

    def test_certain_between_two_bins(self):
        """Half and half is an edge between two bins, not doubt."""
        assert self.score(one_hot([1, 2, 6, 7]) + one_hot([2, 3, 7, 8])) == pytest.approx(1)

    def test_two_places_far_apart_are_doubt(self):
        assert self.score(one_hot([1, 2, 6, 7]) + one_hot([5, 6, 1, 2])) == pytest.approx(0.5)

    def test_knowing_nothing(self):
        assert self.score(torch.zeros(1, 4, 10)) == pytest.approx(0.3)

    def test_never_above_one(self):
        for seed in range(20):
            logits = 30 * torch.randn(1, 4, 10, generator=torch.Generator().manual_seed(seed))
            assert 0 <= self.score(logits) <= 1


def output_of(logits, boxes, score_logits=None):
    return TrackerOutput(pred_boxes=boxes, corner_logits=logits, score_logits=score_logits)


class TestLosses:
    BOXES = torch.tensor([[0.4, 0.4, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2]])

    def test_loss_is_of_the_box_alone(self, head):
        """The score has no label: nothing of it is in the loss."""
        terms = head.compute_loss(output_of(None, self.BOXES), self.BOXES)
        assert set(terms) == {"giou", "l1"}
        assert all(value.item() == pytest.approx(0, abs=1e-6) for value in terms.values())
        terms = head.compute_loss(output_of(None, self.BOXES + torch.tensor([0.1, 0, 0, 0])), self.BOXES)
        assert terms["l1"].item() == pytest.approx(5 * (2 * 0.1) / 4)
        assert terms["giou"] > 0.1

    def test_guidance_by_formula(self, head):
        generator = torch.Generator().manual_seed(0)
        ours, theirs = torch.randn(2, 2, 4, 10, generator=generator)
        scores = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5])
        terms = head.compute_guidance(output_of(ours, self.BOXES, scores[0]), output_of(theirs, self.BOXES, scores[1]))
        p, q = theirs.softmax(-1), ours.softmax(-1)
        sides = (p * (p / q).log()).sum(dim=(1, 2)).mean()
        assert terms["guidance_distribution"].item() == pytest.approx(sides.item(), rel=1e-5)
        p, q = scores[1].sigmoid(), scores[0].sigmoid()
        score = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
        assert terms["guidance_score"].item() == pytest.approx(score.item(), rel=1e-4)
        assert set(terms) == {"guidance_distribution", "guidance_score", "guidance_giou", "guidance_l1"}

    def test_guidance_is_zero_at_equality(self, head):
        """Value up to rounding, gradient exactly."""
        logits = (20 * torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(0))).requires_grad_()
        scores, boxes = torch.tensor([12.0, -3.0], requires_grad=True), self.BOXES.clone().requires_grad_()
        terms = head.compute_guidance(output_of(logits, boxes, scores), output_of(logits, boxes, scores))
        assert all(abs(value.item()) < 1e-6 for value in terms.values())
        sum(terms.values()).backward()
        assert not logits.grad.any() and not scores.grad.any() and not boxes.grad.any()

    def test_guidance_stays_finite_where_distributions_are_certain(self, head):
        ours = (2 * one_hot([1, 2, 7, 8])).requires_grad_()
        terms = head.compute_guidance(
            output_of(ours, self.BOXES[:1], torch.tensor([-200.0])),
            output_of(2 * one_hot([3, 4, 5, 6]), self.BOXES[:1], torch.tensor([200.0])),
        )
        sum(terms.values()).backward()
        assert all(value.isfinite() for value in terms.values()) and ours.grad.isfinite().all()

    def test_other_bins_are_refused(self, head):
        with pytest.raises(ValueError, match="`num_bins` of the student is 10 but the teacher's is 9"):
            head.compute_guidance(
                output_of(torch.zeros(2, 4, 10), self.BOXES), output_of(torch.zeros(2, 4, 9), self.BOXES)
            )

    def test_score_branch_without_a_teacher_is_refused(self, head):
        logits = torch.zeros(2, 4, 10)
        with pytest.raises(ValueError, match="`score_branch` of the student is set, but the teacher has none"):
            head.compute_guidance(output_of(logits, self.BOXES, torch.zeros(2)), output_of(logits, self.BOXES))
        terms = head.compute_guidance(output_of(logits, self.BOXES), output_of(logits, self.BOXES, torch.zeros(2)))
        assert "guidance_score" not in terms
