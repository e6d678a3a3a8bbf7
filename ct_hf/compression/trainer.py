"""The Trainer that compresses."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset, IterableDataset
from transformers import TrainerCallback, set_seed
from transformers.image_processing_utils import BaseImageProcessor
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import TrainOutput
from transformers.utils import SAFE_WEIGHTS_NAME

from ..data.sequences import Sequence
from ..models.tracker import PreTrainedTracker
from .arguments import CompressionArguments
from .mixed import MixedTracker
from .record import data_lines, describe_data, describe_teacher, record_compression, stage_sizes, training_rows
from .replacement import draw_path
from .stages import StagePlan
from .tracker_trainer import TrackerTrainer


PROJECTIONS_NAME = "projections.safetensors"


def plan_from_arguments(args: CompressionArguments, teacher: PreTrainedTracker, num_stages: int) -> StagePlan:
    """
    Read the stage plan from the arguments.

    Args:
        args ([`CompressionArguments`]): `stage_sizes` or `num_stages`.
        teacher ([`PreTrainedTracker`]): tracker to cut.
        num_stages (`int`): number of stages where the arguments name none.

    Raises:
        ValueError: `stage_sizes` is not a list of numbers, or both arguments disagree.
    """
    if args.stage_sizes is None:
        return StagePlan.even(len(teacher.layers), num_stages if args.num_stages is None else args.num_stages)
    try:
        plan = StagePlan.from_sizes([int(size) for size in args.stage_sizes.split("-")])
    except ValueError as error:
        raise ValueError(f"`stage_sizes` must look like 3-3-3-3, got {args.stage_sizes!r}: {error}") from error
    if args.num_stages not in (None, plan.num_stages):
        raise ValueError(
            f"`stage_sizes` {args.stage_sizes!r} has {plan.num_stages} stages, `num_stages` says {args.num_stages}."
        )
    return plan


class CompressionTrainer(TrackerTrainer):
    """
    Trains a student beside its frozen teacher by random replacement, prediction guidance and feature mimicking
    (https://huggingface.co/papers/2409.17564).

    Evaluation, checkpoints and `save_model` are of the student alone; a checkpoint resumes exactly. The configuration of what
    is saved keeps a record of the compression, `compression`.

    Args:
        model ([`PreTrainedTracker`]):
            Student, such as [`build_student`] makes it.
        teacher_model ([`PreTrainedTracker`]):
            Teacher; frozen and put into evaluation mode.
        args ([`CompressionArguments`], *optional*):
            Arguments; the paper's by default.
        data_collator, train_dataset, eval_dataset, processing_class, compute_metrics, callbacks, optimizers:
            See [`TrackerTrainer`].
        plan ([`StagePlan`], *optional*):
            How teacher and student are cut, as it was given to [`build_student`]. By default what the arguments say.
        tracking_dataset (iterable of [`~data.sequences.Sequence`], *optional*):
            Sequences that the student tracks in `evaluate`, see [`TrackerTrainer`].

    Example:

    ```python
    >>> teacher = AutoModel.from_pretrained("org/teacher")
    >>> plan = StagePlan.even(len(teacher.layers), 4)
    >>> student, report = build_student(teacher, plan)
    >>> trainer = CompressionTrainer(model=student, teacher_model=teacher, args=args, train_dataset=pairs, plan=plan)
    >>> trainer.train()
    >>> trainer.save_model("student")
    ```
    """

    def __init__(
        self,
        model: PreTrainedTracker,
        teacher_model: PreTrainedTracker,
        args: CompressionArguments | None = None,
        data_collator: Callable | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset] | None = None,
        processing_class: BaseImageProcessor | None = None,
        compute_metrics: Callable | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, LRScheduler | None] = (None, None),
        plan: StagePlan | None = None,
        tracking_dataset: Iterable[Sequence] | None = None,
    ):
        args = args if args is not None else CompressionArguments()
        if not isinstance(args, CompressionArguments):
            raise TypeError(f"`args` must be CompressionArguments, got {type(args).__name__}.")
        for name, tracker in (("model", model), ("teacher_model", teacher_model)):
            if not isinstance(tracker, PreTrainedTracker):
                raise TypeError(
                    f"`{name}` must be a tracker, got a {type(tracker).__name__}. Load it by AutoModel.from_pretrained first."
                )
        self.student = model
        asked = args.stage_sizes is not None or args.num_stages is not None
        self.plan = plan
        if plan is None or asked:
            self.plan = plan_from_arguments(args, teacher_model, len(model.layers))
        if plan not in (None, self.plan):
            raise ValueError(f"`plan` is {plan} but the arguments say {self.plan}. Leave one of them out.")
        set_seed(args.seed)  # of the projections, where there are any
        mixed = MixedTracker(
            model,
            teacher_model,
            self.plan,
            track_weight=args.track_weight,
            guidance_weight=args.guidance_weight,
            mimicking_weight=args.mimicking_weight,
            train_batch_norm=args.train_batch_norm,
            mimicking=args.mimicking,
            mimicking_stages=args.mimicking_stages,
            term_weights=args.term_weights,
            frozen=[name for name in ("embeddings", "head") if not getattr(args, f"train_{name}")],
        )
        super().__init__(
            model=mixed,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            tracking_dataset=tracking_dataset,
        )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            self._check_sharding()
        teacher_model.to(self.args.device)
        self._teacher_description = describe_teacher(teacher_model)
        self._micro_batch = (-1, 0)  # optimizer step, and which of its micro-batches comes next

    def _check_sharding(self) -> None:
        """Refuse what FSDP and DeepSpeed do to the student's tensors and not to the teacher's, which they do not know."""
        kind = "FSDP" if self.is_fsdp_enabled else "DeepSpeed"
        if self.accelerator.mixed_precision != "no":
            raise ValueError(
                f"{kind} in {self.accelerator.mixed_precision} casts the student and not its teacher. Train in fp32 (`mixed_precision: "
                '"no"`, without `--bf16` and `--fp16`), or by DDP, where both are cast.'
            )
        if self.args.path_granularity == "sample" and (self.is_fsdp_enabled or is_deepspeed_zero3_enabled()):
            raise ValueError(
                f"`path_granularity` is sample, but {kind} gathers each layer in all processes at once, and paths of samples take other "
                "layers in each. Let a batch draw a path."
            )

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, see [`ResumableTrainer.train`]; parts that stay as they are initialised are frozen for as long alone."""
        with self.accelerator.unwrap_model(self.model).freezing():
            output = super().train(*args, **kwargs)
        self.student.config.compression = self._record()  # however it is saved
        return output

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Number the micro-batches of a step, on which per-sample draws depend."""
        step, index = self._micro_batch
        if step != self.state.global_step:
            step, index = self.state.global_step, 0
            start = self.args.schedule.finetune_start(self.state.max_steps)
            if self.args.train_batch_norm and step >= start:
                self._average_batch_norm(restart=step == start)
        self._micro_batch = (step, index)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._micro_batch = (step, index + 1)
        return loss

    def _compile_layers(self, *trackers: PreTrainedTracker) -> None:
        mixed = self.accelerator.unwrap_model(self.model)
        super()._compile_layers(mixed.student, mixed.teacher)

    def _deployed(self) -> PreTrainedTracker:
        return super()._deployed().student

    def _path_inputs(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        """Draw the paths of a training step; they depend on seed, step and place in the global batch alone."""
        if not model.training:
            return {}
        step, micro_batch = self._micro_batch
        rate = self.args.schedule.rate(step, self.state.max_steps)
        size = inputs["search_pixel_values"].shape[0]
        if self.args.path_granularity == "batch":
            paths = [draw_path(rate, self.plan.num_stages, self.args.seed, step)] * size
        else:
            per_device = self.args.per_device_train_batch_size
            first = (micro_batch * self.accelerator.num_processes + self.accelerator.process_index) * per_device
            paths = [draw_path(rate, self.plan.num_stages, self.args.seed, step, first + row) for row in range(size)]
        share = sum(map(sum, paths)) / (size * self.plan.num_stages)
        figures = {"replacement_rate": rate, "student_share": share}
        self._note("train", {name: torch.tensor(value, device=self.args.device) for name, value in figures.items()})
        return {"paths": paths}

    def _average_batch_norm(self, restart: bool) -> None:
        """Once the student runs alone, forget statistics of mixed paths; they become the mean over what follows."""
        frozen = self.accelerator.unwrap_model(self.model).frozen
        for name, module in self.student.named_modules():
            if isinstance(module, _BatchNorm) and name.partition(".")[0] not in frozen:
                module.momentum = None  # each batch weighs the same; a resumed run needs it anew
                if restart:
                    module.reset_running_stats()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        output_dir = output_dir if output_dir is not None else self.args.output_dir
        mixed = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        state_dict = mixed.state_dict() if state_dict is None else state_dict
        student = {
            name.removeprefix("student."): value for name, value in state_dict.items() if name.startswith("student.")
        }
        projections = {name: value for name, value in state_dict.items() if not name.startswith("student.")}
        mixed.student.config.compression = self._record()
        mixed.student.save_pretrained(output_dir, state_dict=student)
        self.processing_class.save_pretrained(output_dir)
        # Projections and pickled arguments end with training: checkpoints need them, users of the student do not.
        if os.path.basename(output_dir).startswith("checkpoint-"):
            torch.save(self.args, os.path.join(output_dir, TRAINING_ARGS_NAME))
            if projections:
                save_file(projections, os.path.join(output_dir, PROJECTIONS_NAME))

    def _record(self) -> dict[str, Any]:
        """Write down how the student became what it is now."""
        # Once a training is over, the best checkpoint is what it has left behind.
        best = (
            self.args.load_best_model_at_end and not self.is_in_train and self.state.best_model_checkpoint is not None
        )
        weights = {torch.float32: "fp32"}.get(
            self.student.dtype, f"weights of {str(self.student.dtype).partition('.')[2]}"
        )
        mixed = self.accelerator.mixed_precision
        record = record_compression(
            self.args,
            self.plan,
            teacher=self._teacher_description,
            data=describe_data(self.train_dataset),
            pairs_per_step=self._pairs_per_step,
            precision=weights if mixed == "no" else mixed,
            max_steps=self.state.max_steps,
            step=self.state.best_global_step if best else self.state.global_step,
            is_best=best,
        )
        if not self._makes_optimizer and self.optimizer is not None:
            own = getattr(self.optimizer, "optimizer", self.optimizer)  # out of Accelerate's
            group = own.param_groups[0]
            rate, decay = group.get("initial_lr", group["lr"]), group.get("weight_decay", 0.0)
            record["optimizer"] |= {"optim": type(own).__name__, "learning_rate": float(rate), "weight_decay": decay}
        return record

    def _go_on(self) -> None:
        super()._go_on()
        self._micro_batch = (-1, 0)  # of an attempt with too large a batch

    def _card_fields(self) -> dict[str, Any]:
        record = self._record()
        return {"training": training_rows(record), **({"data": data_lines(record)} if record["data"] else {})}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        mixed = self.accelerator.unwrap_model(self.model if model is None else model, keep_torch_compile=False)
        weights_file = os.path.join(resume_from_checkpoint, SAFE_WEIGHTS_NAME)
        if not os.path.isfile(weights_file):
            raise FileNotFoundError(f"`resume_from_checkpoint` {resume_from_checkpoint} holds no {SAFE_WEIGHTS_NAME}.")
        kept = mixed.student.config.from_pretrained(resume_from_checkpoint).compression
        stages = stage_sizes(self.plan)
        if kept and kept["stages"] != stages:
            raise ValueError(
                f"`resume_from_checkpoint` {resume_from_checkpoint} is of a compression in stages {kept['stages']}, this one is "
                f"in {stages}. Give the same plan, or begin anew."
            )
        weights = {f"student.{name}": value for name, value in load_file(weights_file).items()}
        projections_file = os.path.join(resume_from_checkpoint, PROJECTIONS_NAME)
        if os.path.isfile(projections_file):
            weights.update(load_file(projections_file))
        mixed.load_state_dict(weights, strict=True)

    def _needed_files(self) -> list[str]:
        names = super()._needed_files()
        mixed = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if self.is_fsdp_enabled or all(name.startswith("student.") for name, _ in mixed.named_parameters()):
            return names
        return [*names, PROJECTIONS_NAME]

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


__all__ = ["CompressionTrainer", "plan_from_arguments"]
