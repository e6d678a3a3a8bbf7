"""The mixed path: student and frozen teacher stages in one forward pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from ..models.tracker import PreTrainedTracker, TrackerOutput, TrackerState
from .losses import Mimicking, MimickingStages, mimicking_loss
from .replacement import Path
from .stages import StagePlan


EMBED_INPUTS = ("template_pixel_values", "search_pixel_values", "template_boxes", "text_features")


@dataclass
class _Samples:
    """Samples of the batch that stand at the same boundary in the same trunk."""

    rows: list[int]
    state: TrackerState

    def take(self, wanted: set[int]) -> "_Samples | None":
        kept = [index for index, row in enumerate(self.rows) if row in wanted]
        return _Samples([self.rows[index] for index in kept], self.state.select(kept)) if kept else None


def _join(parts: Iterable[_Samples | None]) -> _Samples | None:
    present = [part for part in parts if part is not None]
    if not present:
        return None
    rows = [row for part in present for row in part.rows]
    return _Samples(rows, TrackerState.concatenate([part.state for part in present]))


def _rows(value: Any, rows: list[int]) -> Any:
    """Some samples of an input: a tensor, a memory or `None`."""
    if isinstance(value, ModelOutput):
        return type(value)(**{name: _rows(part, rows) for name, part in value.items()})
    return value[rows] if isinstance(value, torch.Tensor) else value


class MixedTracker(nn.Module):
    """
    Student beside its frozen teacher; what the Trainer wraps. In evaluation mode it is exactly its student.

    ```text
    teacher:  embed ─▶ T1 ─▶ T2 ─▶ T3 ─▶ T4 ─▶ decode ──▶ prediction ───────────┐ guidance
                        │     │     │     │  hidden states ────────────────────┐ │
    student:  embed ─▶ S1    S2    S3    S4 ─▶ decode ──▶ prediction ─▶ loss ◀─┴─┘
    one path, for example:  T1 ─▶ S2 ─▶ T3 ─▶ S4 ─▶ student decode
    ```

    The teacher is held unregistered: it is in no state dict, no optimizer and no bucket of DDP. A path that begins with
    teacher stages starts from the teacher's own hidden states, which the guidance pass has computed anyway.

    Args:
        student ([`PreTrainedTracker`]): tracker to train.
        teacher ([`PreTrainedTracker`]): frozen tracker; put into evaluation mode, its gradients turned off, cast to the
            student's type.
        plan ([`StagePlan`]): how both are cut.
        track_weight (`float`, *optional*, defaults to 1.0): weight of the loss against ground truth.
        guidance_weight (`float`, *optional*, defaults to 1.0): weight of the loss against the teacher's prediction.
        mimicking_weight (`float`, *optional*, defaults to 0.2): weight of the distance of hidden states.
        train_batch_norm (`bool`, *optional*, defaults to `False`): whether the student's batch norms gather statistics;
            otherwise they run on those they were initialised with, since mixed paths would blur them.
        mimicking (`str`, *optional*, defaults to `"mse"`): distance of hidden states, see [`mimicking_loss`].
        mimicking_stages (`str`, *optional*, defaults to `"all"`): after which stages of a path it counts: `"all"`, those that
            ran in the `"student"`, or the `"last"`.
        term_weights (`dict[str, float]`, *optional*): factors of single terms of the losses by their names in the log, such
            as `{"giou": 0.5, "guidance_map": 0}`.
        frozen (sequence of `str`, *optional*): parts of the student that are not trained: `"embeddings"`, `"head"`. Their
            batch norms stay in evaluation mode, their gradients are off while [`MixedTracker.freezing`].

    Raises:
        TypeError: one of them is no tracker.
        ValueError: the plan does not fit the trackers, they are one object, guidance is asked of another kind of head, or
            `mimicking` or `mimicking_stages` is unknown.
    """

    def __init__(
        self,
        student: PreTrainedTracker,
        teacher: PreTrainedTracker,
        plan: StagePlan,
        track_weight: float = 1.0,
        guidance_weight: float = 1.0,
        mimicking_weight: float = 0.2,
        train_batch_norm: bool = False,
        mimicking: Mimicking = "mse",
        mimicking_stages: MimickingStages = "all",
        term_weights: Mapping[str, float] | None = None,
        frozen: Sequence[str] = (),
    ):
        super().__init__()
        for name, tracker in (("student", student), ("teacher", teacher)):
            if not isinstance(tracker, PreTrainedTracker):
                raise TypeError(f"`{name}` must be a PreTrainedTracker, got {type(tracker).__name__}.")
        if student is teacher:
            raise ValueError("`student` and `teacher` are one object; a frozen tracker cannot learn. Copy it.")
        plan.check(teacher, student)
        theirs = {id(parameter) for parameter in teacher.parameters()}
        shared = [name for name, parameter in student.named_parameters() if id(parameter) in theirs]
        if shared:
            raise ValueError(
                f"`student` and `teacher` share {len(shared)} tensors, such as {shared[0]}, which a frozen teacher keeps from "
                "learning. Copy them by `copy.deepcopy`, or let `build_student` do it."
            )
        # By name: classes that came with a repository differ from the package's own.
        heads = type(student.head).__name__, type(teacher.head).__name__
        if guidance_weight and heads[0] != heads[1]:
            raise ValueError(
                f"a {heads[1]} cannot guide a {heads[0]}: their predictions differ in kind. Give both the same head, or set "
                "`guidance_weight` to 0."
            )
        for name, got, known in (
            ("mimicking", mimicking, get_args(Mimicking)),
            ("mimicking_stages", mimicking_stages, get_args(MimickingStages)),
        ):
            if got not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {got!r}.")
        self.student = student
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False).to(student.dtype))
        self.plan = plan
        self.track_weight = track_weight
        self.guidance_weight = guidance_weight
        self.mimicking_weight = mimicking_weight
        self.train_batch_norm = train_batch_norm
        self.mimicking = mimicking
        self.mimicking_stages = mimicking_stages
        self.term_weights = dict(term_weights or {})
        self.frozen = tuple(frozen)
        self.to_student, self.to_teacher = nn.ModuleList(), nn.ModuleList()
        theirs = {boundary.index: boundary.width for boundary in teacher.boundaries}
        ours = {boundary.index: boundary.width for boundary in student.boundaries}
        # One pair of projections for the end of each stage; they exist only where widths differ and go away at p = 1.
        for teacher_cut, student_cut in zip(plan.teacher_cuts[1:], plan.student_cuts[1:], strict=True):
            widths = theirs[teacher_cut], ours[student_cut]
            same = widths[0] == widths[1]
            self.to_student.append(nn.Identity() if same else nn.Linear(widths[0], widths[1], dtype=student.dtype))
            self.to_teacher.append(nn.Identity() if same else nn.Linear(widths[1], widths[0], dtype=student.dtype))

    @property
    def config(self):
        """Configuration of the student."""
        return self.student.config

    @property
    def main_input_name(self) -> str:
        """What the Trainer takes for the input where it looks for one."""
        return self.student.main_input_name

    def train(self, mode: bool = True) -> "MixedTracker":
        """Set the student's mode; the teacher stays in evaluation mode, batch norms too unless they are trained."""
        super().train(mode)
        if mode and not self.train_batch_norm:
            for module in self.student.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        for name in self.frozen:
            getattr(self.student, name).eval()
        return self

    @contextmanager
    def freezing(self) -> Iterator[None]:
        """Turn off the gradients of the frozen parts, and leave the student as it was."""
        parameters = [
            parameter
            for name in self.frozen
            for parameter in getattr(self.student, name).parameters()
            if parameter.requires_grad
        ]
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)

    def _apply(self, fn: Callable, recurse: bool = True) -> "MixedTracker":
        """Move or cast the teacher along."""
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Turn on activation checkpointing of the student's layers, and of teacher layers that carry gradient."""
        self.student.activation_checkpointing_enable(*args, **kwargs)

    def forward(self, paths: Sequence[Path] | None = None, **inputs: Any) -> TrackerOutput:
        """
        Run a mixed path and compare it with the teacher; without `paths` or in evaluation mode, run the student alone.

        Args:
            paths (sequence of `tuple[bool, ...]`, *optional*):
                For each sample which stages run in the student; at least one must.
            **inputs:
                Inputs of the trackers' forward; `search_boxes` is needed for the loss.

        Returns:
            [`TrackerOutput`] of the student's `decode`; `loss_dict` holds the terms of all losses with their weights.
        """
        if paths is None or not self.training:
            return self.student(**inputs)
        search = inputs["search_pixel_values"]
        self._check_paths(paths, search.shape[0])
        if search.ndim == 4:
            return self._mixed_frame(paths, inputs, inputs.get("memory"), None)[0]
        # Teacher and mixed path each carry a memory of their own, as each would when it tracks alone.
        outputs, memory, teacher_memory = [], inputs.get("memory"), None
        for frame, boxes in self.student.chained_frames(search, inputs["search_boxes"]):
            frame_inputs = {**inputs, "search_pixel_values": frame, "search_boxes": boxes}
            output, teacher_memory = self._mixed_frame(paths, frame_inputs, memory, teacher_memory, chained=True)
            outputs.append(output)
            memory = output.memory
        return TrackerOutput.chain(outputs)

    def _mixed_frame(
        self,
        paths: Sequence[Path],
        inputs: dict[str, Any],
        memory: ModelOutput | None,
        teacher_memory: ModelOutput | None,
        chained: bool = False,
    ) -> tuple[TrackerOutput, ModelOutput | None]:
        """Run the mixed path on one frame; return its output with the loss, and the teacher's memory of the frame."""
        embed_inputs = self.student.cast_inputs({name: inputs.get(name) for name in EMBED_INPUTS})
        teacher_states, teacher_output = self._guide({**embed_inputs, "memory": teacher_memory}, paths, chained)
        state, mimicking = self._mix({**embed_inputs, "memory": memory}, teacher_states, paths)
        output = self.student.decode(state)

        terms: dict[str, torch.Tensor] = {}
        if self.track_weight:
            for name, value in self.student.compute_loss(output, inputs["search_boxes"]).items():
                terms[name] = self.track_weight * value
        if self.guidance_weight:
            for name, value in self.student.compute_guidance(output, teacher_output).items():
                terms[name] = self.guidance_weight * value
        if self.mimicking_weight:
            terms["mimicking"] = self.mimicking_weight * mimicking
        if unknown := self.term_weights.keys() - terms.keys():
            raise ValueError(
                f"`term_weights` names {', '.join(sorted(unknown))}, but the terms of this loss are {', '.join(terms)}."
            )
        if not any(self.term_weights.get(name, 1) for name in terms):
            raise ValueError(f"`term_weights` has 0 for all terms of this loss: {', '.join(terms)}. Leave one.")
        for name, factor in self.term_weights.items():
            terms[name] = factor * terms[name] if factor else torch.zeros_like(terms[name])
        return replace(output, loss=sum(terms.values()), loss_dict=terms), teacher_output and teacher_output.memory

    def _check_paths(self, paths: Sequence[Path], batch_size: int) -> None:
        if len(paths) != batch_size or any(len(path) != self.plan.num_stages for path in paths):
            raise ValueError(
                f"`paths` must hold one path of {self.plan.num_stages} stages for each of {batch_size} samples, got "
                f"{len(paths)} of {sorted({len(path) for path in paths})}."
            )
        if not all(any(path) for path in paths):
            raise ValueError("`paths` holds a path without any student stage, from which nothing could be learnt.")

    @torch.no_grad()
    def _guide(
        self, embed_inputs: dict[str, Any], paths: Sequence[Path], chained: bool
    ) -> tuple[list[TrackerState], TrackerOutput | None]:
        """Run the teacher: its state at each cut, and its prediction; only as far as anything needs it."""
        compared = bool(self.guidance_weight or self.mimicking_weight or chained)
        needed = self.plan.num_stages if compared else max(list(path).index(True) for path in paths)
        if not compared and needed == 0:
            return [], None
        states = [self.teacher.embed(**embed_inputs, keep_all_tokens=True)]
        for stage in range(needed):
            states.append(self._run(self.teacher, self.plan.teacher_stage(stage), states[-1]))
        return states, self.teacher.decode(states[-1]) if self.guidance_weight or chained else None

    def _mix(
        self, embed_inputs: dict[str, Any], teacher_states: list[TrackerState], paths: Sequence[Path]
    ) -> tuple[TrackerState, torch.Tensor]:
        """Run the paths; return the state before decoding in the batch's order, and the mimicking loss."""
        mimicking, compared = torch.zeros((), device=embed_inputs["search_pixel_values"].device), 0
        in_student: _Samples | None = None
        in_teacher: _Samples | None = None
        for stage in range(self.plan.num_stages):
            starting = {row for row, path in enumerate(paths) if list(path).index(True) == stage}
            student_rows = {row for row, path in enumerate(paths) if path[stage]}
            teacher_rows = {row for row, path in enumerate(paths) if any(path[:stage]) and not path[stage]}
            start = self._start(embed_inputs, teacher_states, stage, sorted(starting)) if starting else None
            stay = (in_student and in_student.take(student_rows), in_teacher and in_teacher.take(teacher_rows))
            cross_to_student = self._project(in_teacher and in_teacher.take(student_rows), self.to_student, stage - 1)
            cross_to_teacher = self._project(in_student and in_student.take(teacher_rows), self.to_teacher, stage - 1)
            in_student = _join([start, stay[0], cross_to_student])
            in_teacher = _join([stay[1], cross_to_teacher])
            if in_student is not None:
                in_student.state = self._run(self.student, self.plan.student_stage(stage), in_student.state)
            if in_teacher is not None:
                in_teacher.state = self._run(self.teacher, self.plan.teacher_stage(stage), in_teacher.state)
            if self.mimicking_weight and (self.mimicking_stages != "last" or stage == self.plan.num_stages - 1):
                by_teacher = None if self.mimicking_stages == "student" else in_teacher
                for samples in (self._project(in_student, self.to_teacher, stage), by_teacher):
                    if samples is not None:
                        target = teacher_states[stage + 1].select(samples.rows)
                        mimicking = mimicking + mimicking_loss(samples.state, target, self.mimicking).sum()
                        compared += len(samples.rows)
        end = _join([in_student, self._project(in_teacher, self.to_student, self.plan.num_stages - 1)])
        order = sorted(range(len(paths)), key=end.rows.__getitem__)
        # Before its first student stage a path is the teacher itself, at a distance of zero.
        count = len(paths) * self.plan.num_stages if self.mimicking_stages == "all" else max(compared, 1)
        return end.state.select(order), mimicking / count

    def _start(
        self,
        embed_inputs: dict[str, Any],
        teacher_states: list[TrackerState],
        stage: int,
        rows: list[int],
    ) -> _Samples:
        """Samples whose first student stage is this one: from the student's embeddings, or the teacher's own states."""
        if stage > 0:
            return self._project(_Samples(rows, teacher_states[stage].select(rows)), self.to_student, stage - 1)
        if len(rows) < embed_inputs["search_pixel_values"].shape[0]:
            embed_inputs = {name: _rows(value, rows) for name, value in embed_inputs.items()}
        return _Samples(rows, self.student.embed(**embed_inputs, keep_all_tokens=True))

    @staticmethod
    def _project(samples: _Samples | None, projections: nn.ModuleList, stage: int) -> _Samples | None:
        """Bring samples after a stage into the other trunk's width."""
        if samples is None or isinstance(projections[stage], nn.Identity):
            return samples
        hidden_states = samples.state.hidden_states
        # Autocast would leave the residual stream in half precision behind a projection, and only there.
        projected = projections[stage](hidden_states).to(hidden_states.dtype)
        return _Samples(samples.rows, samples.state.replace(hidden_states=projected))

    def _run(self, tracker: PreTrainedTracker, layers: range, state: TrackerState) -> TrackerState:
        # The layers' own checkpointing needs training mode, which the frozen teacher is never in.
        recompute = (
            tracker is self.teacher
            and self.student.is_activation_checkpointing
            and torch.is_grad_enabled()
            and state.hidden_states.requires_grad
        )
        for index in layers:
            layer = tracker.layers[index]
            state = checkpoint(layer, state, use_reentrant=False) if recompute else layer(state)
        return state


__all__ = ["MixedTracker"]
