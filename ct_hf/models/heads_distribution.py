"""A head that predicts a distribution of each side of the box from a token of its own."""

import torch
import torch.nn.functional as F
from torch import nn

from .box_ops import full_precision, xyxy_to_cxcywh
from .heads import box_losses, clip_to_crop
from .tracker import TrackerOutput


SIDES = ("left", "right", "top", "bottom")  # order of the tokens; outputs are in the order left, top, right, bottom
PEAK_BINS = 3  # an edge between two bins shares its probability among them


class ScoreBranch(nn.Module):
    """Two linear layers on each token, mean over the tokens."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.fc1 = nn.Linear(in_channels, in_channels)
        self.fc2 = nn.Linear(in_channels, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Score logits `(batch_size,)`, fp32, of tokens `(batch_size, num_tokens, in_channels)`."""
        return full_precision(self.fc2(F.relu(self.fc1(tokens)))).mean(dim=(1, 2))


class DistributionHead(nn.Module):
    """
    Four tokens (left, right, top, bottom), each mapped to a distribution over positions along its axis; an edge is the
    expectation (MixFormerV2's head, https://huggingface.co/papers/2305.15896, section 3.2).

    Bins start at 0 and are `1 / num_bins` of the crop apart, so the largest edge is `1 - 1 / num_bins`; nothing keeps right
    from being left of left. Without a score branch the score is the mean over the sides of the largest probability that
    three neighbouring bins hold together: 1 where every edge is certain to within a bin.

    Args:
        in_channels (`int`): width of the tokens.
        num_bins (`int`): bins of each distribution, at least 3.
        score_branch (`bool`, *optional*, defaults to `True`): whether a branch predicts the score. It has no label of its
            own and learns from a teacher only.
    """

    def __init__(self, in_channels: int, num_bins: int, score_branch: bool = True):
        super().__init__()
        self.num_bins = num_bins
        # Not `fc1` and `fc2`: a narrower student must cut this norm at the same channels as the layer before it.
        self.dense = nn.Linear(in_channels, in_channels)
        self.dense_norm = nn.LayerNorm(in_channels, eps=1e-5)
        self.bins = nn.Linear(in_channels, num_bins)
        self.bins_norm = nn.LayerNorm(num_bins, eps=1e-5)
        self.score = ScoreBranch(in_channels) if score_branch else None

    def forward(self, tokens: torch.Tensor) -> TrackerOutput:
        """Predict from tokens `(batch_size, 4, in_channels)` in the order of [`SIDES`]."""
        logits = self.bins_norm(self.bins(F.relu(self.dense_norm(self.dense(tokens)))))
        logits = full_precision(logits)[:, [SIDES.index(side) for side in ("left", "top", "right", "bottom")]]
        probabilities = logits.softmax(dim=-1)
        positions = torch.arange(self.num_bins, device=logits.device, dtype=logits.dtype) / self.num_bins
        edges = (probabilities * positions).sum(dim=-1)
        if self.score is None:
            score_logits = None
            score = probabilities.unfold(2, PEAK_BINS, 1).sum(dim=-1).amax(dim=-1).mean(dim=-1).clamp(max=1)
        else:
            score_logits = self.score(tokens)
            score = score_logits.sigmoid()
        return TrackerOutput(
            pred_boxes=xyxy_to_cxcywh(edges),
            score=score,
            score_logits=score_logits,
            corner_logits=logits,
            corner_probabilities=probabilities,
        )

    def locate(self, output: TrackerOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """See [`~tracker.PreTrainedTracker.locate`]: expectations need no window."""
        return output.pred_boxes, output.score

    def compute_loss(self, output: TrackerOutput, search_boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """See [`~tracker.PreTrainedTracker.compute_loss`]: 2 GIoU + 5 L1; a score branch has no label."""
        with torch.autocast(search_boxes.device.type, enabled=False):
            return box_losses(output.pred_boxes, clip_to_crop(search_boxes))

    def compute_guidance(self, output: TrackerOutput, teacher_output: TrackerOutput) -> dict[str, torch.Tensor]:
        """
        See [`~tracker.PreTrainedTracker.compute_guidance`]: 2 GIoU + 5 L1, the divergence of each side's distribution,
        summed over the sides, and that of the score branch where there is one.

        Raises:
            ValueError: numbers of bins differ, or the teacher has no score branch that the student's could learn from.
        """
        ours, theirs = output.corner_logits.shape[2], teacher_output.corner_logits.shape[2]
        if ours != theirs:
            raise ValueError(
                f"`num_bins` of the student is {ours} but the teacher's is {theirs}; guidance compares them."
            )
        if output.score_logits is not None and teacher_output.score_logits is None:
            raise ValueError(
                "`score_branch` of the student is set, but the teacher has none and there is no label that it could learn "
                "from. Build the student with `score_branch=False`."
            )
        with torch.autocast(output.pred_boxes.device.type, enabled=False):
            target = teacher_output.corner_logits.detach().log_softmax(dim=2)
            logits = output.corner_logits.log_softmax(dim=2)
            # The last two terms sum to zero; with them every bin's gradient is exactly zero at equality.
            divergence = (target.exp() * (target - logits) + logits.exp() - target.exp()).sum() / target.shape[0]
            terms = {"guidance_distribution": divergence}
            if output.score_logits is not None:
                target = teacher_output.score_logits.detach()
                probability = target.sigmoid()
                cross_entropy = F.binary_cross_entropy_with_logits(output.score_logits, probability)
                entropy = F.binary_cross_entropy_with_logits(target, probability)
                terms["guidance_score"] = cross_entropy - entropy
            return {**terms, **box_losses(output.pred_boxes, teacher_output.pred_boxes.detach(), prefix="guidance_")}


__all__ = ["DistributionHead"]
