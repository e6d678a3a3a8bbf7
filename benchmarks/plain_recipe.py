"""The plain recipe that `train_step.py` compares with: a compression step in fp32 in which nothing is shared or saved."""

from contextlib import nullcontext

import torch
from common import Clock
from torch.nn.modules.batchnorm import _BatchNorm

from ct_hf.compression import CompressionArguments, StagePlan
from ct_hf.models import PreTrainedTracker, TrackerImageProcessor, TrackerOutput
from ct_hf.models.layers import MLP


Groups = dict[str, torch.Tensor]


class PlainRecipe:
    """
    A step as one would write it down from the paper: the teacher runs alone and whole, then the path runs layer by layer from
    the pixels on, with every attention map laid out in memory and nothing computed anew for backward. Its losses are those of
    [`~compression.MixedTracker`].

    Args:
        teacher ([`PreTrainedTracker`]): frozen.
        student ([`PreTrainedTracker`]): trained; as wide as its teacher, since there are no projections here.
        plan ([`StagePlan`]): how both are cut.
        args ([`CompressionArguments`]): weights of the losses, optimizer and clipping.
        clock ([`Clock`]): what the parts are timed by.
    """

    def __init__(
        self,
        teacher: PreTrainedTracker,
        student: PreTrainedTracker,
        plan: StagePlan,
        args: CompressionArguments,
        clock: Clock,
    ):
        self.teacher = teacher.eval().requires_grad_(False)
        self.student = student.train()
        for module in student.modules():
            if isinstance(module, _BatchNorm | MLP):  # an MLP keeps all of its tensors then
                module.eval()
        for tracker in (teacher, student):
            tracker.set_attn_implementation("eager")
        self.plan, self.args, self.clock = plan, args, clock
        self.normalize = TrackerImageProcessor.from_config(teacher.config).normalize
        self.optimizer = torch.optim.AdamW(student.parameters(), args.learning_rate, weight_decay=args.weight_decay)

    @torch.no_grad()
    def guide(self, pixels: dict[str, torch.Tensor]) -> tuple[list[Groups], TrackerOutput]:
        """Run the teacher: token groups after each stage, and its prediction."""
        state = self.teacher.embed(**pixels, keep_all_tokens=True)
        targets = []
        for stage in range(self.plan.num_stages):
            for index in self.plan.teacher_stage(stage):
                state = self.teacher.layers[index](state)
            targets.append(state.groups())
        return targets, self.teacher.decode(state)

    def walk(self, pixels: dict[str, torch.Tensor], path: tuple[bool, ...]) -> tuple[list[Groups], TrackerOutput]:
        """Run the path from the pixels on: token groups after each stage, and the student's prediction."""
        with nullcontext() if path[0] else torch.no_grad():
            state = (self.student if path[0] else self.teacher).embed(**pixels, keep_all_tokens=True)
        hidden = []
        for stage, in_student in enumerate(path):
            tracker = self.student if in_student else self.teacher
            for index in self.plan.student_stage(stage) if in_student else self.plan.teacher_stage(stage):
                state = tracker.layers[index](state)
            hidden.append(state.groups())
        return hidden, self.student.decode(state)

    def losses(
        self,
        output: TrackerOutput,
        hidden: list[Groups],
        teacher_output: TrackerOutput,
        targets: list[Groups],
        boxes: torch.Tensor,
    ) -> torch.Tensor:
        """Weighted sum of the losses against ground truth `(batch_size, 4)`, prediction and hidden states."""
        track = sum(self.student.compute_loss(output, boxes).values())
        guidance = sum(self.student.compute_guidance(output, teacher_output).values())
        distances = [
            torch.nn.functional.mse_loss(tokens, target[name])
            for groups, target in zip(hidden, targets, strict=True)
            for name, tokens in groups.items()
        ]
        args = self.args
        return (
            args.track_weight * track
            + args.guidance_weight * guidance
            + args.mimicking_weight * torch.stack(distances).mean()
        )

    def backward(self, batch: dict[str, torch.Tensor], paths: list[tuple[bool, ...]]) -> float:
        """Run forward and backward of a batch as it was collated, all of it along one path; return the loss."""
        pixels = {name: self.normalize(value) for name, value in batch.items() if name.endswith("pixel_values")}
        with self.clock.part("guidance"):
            targets, teacher_output = self.guide(pixels)
        with self.clock.part("mixed path"):
            hidden, output = self.walk(pixels, paths[0])
        with self.clock.part("losses"):
            loss = self.losses(output, hidden, teacher_output, targets, batch["search_boxes"])
        with self.clock.part("backward"):
            loss.backward()
        return loss.item()

    def update(self) -> None:
        """Clip and take the optimizer's step."""
        with self.clock.part("clipping"):
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.args.max_grad_norm)
        with self.clock.part("AdamW"):
            self.optimizer.step()
        self.optimizer.zero_grad()
