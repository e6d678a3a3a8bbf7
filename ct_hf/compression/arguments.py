"""Arguments of training and compression."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

import torch
from transformers import TrainingArguments
from transformers.utils import logging

from .losses import Mimicking, MimickingStages
from .replacement import ReplacementSchedule, Shape


logger = logging.get_logger(__name__)


_LOSS_TERMS = ("focal", "giou", "l1")
"""Terms of the heads' losses, in which less is better."""


@dataclass
class TrackerTrainingArguments(TrainingArguments):
    r"""
    Arguments of any training of a tracker: [`~transformers.TrainingArguments`] with the defaults of the field.

    > Parameters that control the recipe

    Args:
        learning_rate_drop (`float`, *optional*, defaults to `0.8`):
            Share of the training after which a constant learning rate is multiplied by 0.1. `1.0` turns it off.
        nan_loss (`str`, *optional*, defaults to `"stop"`):
            What a loss that is not finite does: `"stop"` saves the step before and says which term and which pairs, `"skip"`
            leaves the step out and counts it.

    > [!NOTE]
    > Defaults that differ from [`~transformers.TrainingArguments`]: `learning_rate` 4e-5, `weight_decay` 1e-4,
    > `max_grad_norm` 0.1, `lr_scheduler_type` "constant", `per_device_train_batch_size` 32, `logging_steps` 10,
    > `remove_unused_columns` False, `label_names` ["search_boxes"], `ddp_find_unused_parameters` True,
    > `logging_nan_inf_filter` False, `report_to` "none", and batches are not dispatched from rank 0.
    """

    learning_rate: float = field(
        default=4e-5,
        metadata={
            "help": "Learning rate of AdamW at the start. The paper's 4e-5 belongs to 256 pairs a step (8 devices x 32 in its released code); for "
            "other sizes multiply it by the square root of their ratio and keep the number of pairs. A user's run of 128 a "
            "step at that rate reached 64.8 on LaSOT, where the paper has 66.1."
        },
    )
    weight_decay: float = field(
        default=1e-4, metadata={"help": "Weight decay, not applied to norms, biases and position tables."}
    )
    max_grad_norm: float = field(default=0.1, metadata={"help": "Norm that gradients are clipped to."})
    lr_scheduler_type: str = field(
        default="constant", metadata={"help": "Schedule of the learning rate; `constant` drops once, see below."}
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Pairs on one device in a forward pass."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many optimizer steps."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Whether to hide losses that are not finite. They should be seen."}
    )
    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "Whether to drop columns that the forward does not name. Boxes would be lost."},
    )
    label_names: list[str] | None = field(
        default_factory=lambda: ["search_boxes"], metadata={"help": "Names of the labels in a batch."}
    )
    report_to: None | str | list[str] = field(
        default="none", metadata={"help": "Where to log: `none`, `tensorboard`, `wandb`, `trackio` and others."}
    )
    hub_private_repo: bool | None = field(
        default=None,
        metadata={"help": "Whether its owner alone may see what is pushed. It is so unless this is False."},
    )
    # Parameters that control the recipe
    learning_rate_drop: float = field(
        default=0.8,
        metadata={
            "help": "Share of the training after which a constant learning rate is multiplied by 0.1; 1 turns it off."
        },
    )
    nan_loss: Literal["stop", "skip"] = field(
        default="stop",
        metadata={
            "help": "Whether a loss that is not finite stops the training, or has its step left out and counted."
        },
    )

    def __post_init__(self):
        # Compiled as a whole, every mixed path is a graph of its own; the trainer compiles layer by layer instead.
        self.compile_layers = bool(self.torch_compile or self.torch_compile_backend or self.torch_compile_mode)
        self.layer_compile_backend = self.torch_compile_backend or "inductor"
        self.layer_compile_mode = self.torch_compile_mode
        self.torch_compile, self.torch_compile_backend, self.torch_compile_mode = False, None, None
        # Stages that a path skips get no gradient, so DDP must look for them, also under activation checkpointing.
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = True
        if self.use_cpu or not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # it would only warn
        if self.greater_is_better is None and (self.metric_for_best_model or "").removeprefix("eval_") in _LOSS_TERMS:
            self.greater_is_better = False
        if self.resume_from_checkpoint in ("True", "true"):  # on a command line everything is text
            self.resume_from_checkpoint = True
        super().__post_init__()
        if self.accelerator_config.dispatch_batches is None:
            self.accelerator_config.dispatch_batches = False
        for name, off in (("label_smoothing_factor", 0.0), ("neftune_noise_alpha", None)):
            if getattr(self, name) != off:
                raise ValueError(f"`{name}` is for models of language, got {getattr(self, name)}. Leave it out.")
        if self.layer_compile_mode in ("reduce-overhead", "max-autotune"):
            raise ValueError(
                f"`torch_compile_mode` {self.layer_compile_mode} records CUDA graphs, which keep no layer's output beyond the next "
                "layer. Give max-autotune-no-cudagraphs or none."
            )
        if not 0 < self.learning_rate_drop <= 1:
            raise ValueError(f"`learning_rate_drop` must be in (0, 1], got {self.learning_rate_drop}.")
        if self.nan_loss not in ("stop", "skip"):
            raise ValueError(f"`nan_loss` must be one of stop, skip, got {self.nan_loss!r}.")
        if self.nan_loss == "skip":
            self.logging_nan_inf_filter = True  # what is left out does not count


@dataclass
class CompressionArguments(TrackerTrainingArguments):
    r"""
    Arguments of [`CompressionTrainer`]. The defaults are the paper's (https://huggingface.co/papers/2409.17564, 4.1).

    > Parameters that control the stages

    Args:
        num_stages (`int`, *optional*):
            Number of stages, each a layer of the student. By default the student's number of layers.
        stage_sizes (`str`, *optional*):
            Teacher layers of each stage, such as `"2-2-6-2"`. By default the teacher is cut as evenly as possible.
        initialization (`str`, *optional*, defaults to `"skip"`):
            Teacher layers that the student starts as: `"skip"` (the last of each stage), `"leading"` or `"random"`. For
            [`build_student`], as the scripts call it; a trainer takes the student as it is.

    > Parameters that control the replacement

        p_init (`float`, *optional*, defaults to `0.5`):
            Probability at the start that a stage runs in the student, in (0, 1].
        warmup_share (`float`, *optional*, defaults to `0.1`):
            Share of the training before this probability rises (the paper's alpha 1).
        finetune_share (`float`, *optional*, defaults to `0.1`):
            Share of the training at the end during which the student runs alone (the paper's alpha 2).
        replacement_schedule (`str`, *optional*, defaults to `"progressive"`):
            How the probability gets to 1 between the two: in a straight line (`"progressive"`, the paper's), along half a
            `"cosine"`, or in one step at the end (`"constant"`). `"linear"` rises from the first step to the last.
        path_granularity (`str`, *optional*, defaults to `"batch"`):
            Whether each `"batch"` or each `"sample"` draws a path.

    > Parameters that control the losses

        track_weight (`float`, *optional*, defaults to `1.0`):
            Weight of the loss against ground truth.
        guidance_weight (`float`, *optional*, defaults to `1.0`):
            Weight of the loss against the teacher's prediction.
        mimicking_weight (`float`, *optional*, defaults to `0.2`):
            Weight of the distance to the teacher's hidden states.
        term_weights (`dict`, *optional*):
            Factors of single terms of the losses by their names in the log, as JSON such as `{"giou": 0.5}`. With
            `{"guidance_map": 0}` the teacher guides boxes alone, as in the released code.
        mimicking (`str`, *optional*, defaults to `"mse"`):
            Distance of hidden states: `"mse"` (the paper's), `"smooth_l1"`, `"cosine"` of each token, or `"gram"`, of the
            cosines between tokens.
        mimicking_stages (`str`, *optional*, defaults to `"all"`):
            Stages of a path after which it counts: `"all"`, those that ran in the `"student"`, or the `"last"`.

    > Parameters that control what is trained

        train_embeddings (`bool`, *optional*, defaults to `True`):
            Whether the student's embeddings are trained, or stay those of its initialisation.
        train_head (`bool`, *optional*, defaults to `True`):
            Whether the student's head is trained (Table 6 of the paper).
        train_batch_norm (`bool`, *optional*, defaults to `False`):
            Whether the student's batch norms gather statistics of mixed paths; they start anew when the student runs
            alone.
        drop_path_rate (`float`, *optional*, defaults to `0.0`):
            Largest probability that a residual branch of the student is left out for a sample, in [0, 1). For
            [`build_student`], as the scripts call it.
    """

    _VALID_DICT_FIELDS = [*TrackerTrainingArguments._VALID_DICT_FIELDS, "term_weights"]

    # Parameters that control the stages
    num_stages: int | None = field(
        default=None,
        metadata={
            "help": "Number of stages, each a layer of the student. Default: the student's layers or, where there is none yet, a "
            "third of the teacher's."
        },
    )
    stage_sizes: str | None = field(
        default=None, metadata={"help": "Teacher layers of each stage, such as 2-2-6-2. Default: an even cut."}
    )
    initialization: Literal["skip", "leading", "random"] = field(
        default="skip",
        metadata={
            "help": "Teacher layers that the student starts as: the last of each stage, the leading ones, none."
        },
    )
    # Parameters that control the replacement
    p_init: float = field(
        default=0.5, metadata={"help": "Probability at the start that a stage runs in the student, in (0, 1]."}
    )
    warmup_share: float = field(
        default=0.1, metadata={"help": "Share of the training before this probability rises (paper: alpha 1)."}
    )
    finetune_share: float = field(
        default=0.1, metadata={"help": "Share of the training in which the student runs alone (paper: alpha 2)."}
    )
    replacement_schedule: Shape = field(
        default="progressive",
        metadata={
            "help": "How this probability rises: in a straight line between the two shares, along a cosine, in one step at "
            "the end, or in a straight line over the whole training."
        },
    )
    path_granularity: Literal["batch", "sample"] = field(
        default="batch", metadata={"help": "Whether each batch or each sample draws which stages run in the student."}
    )
    # Parameters that control the losses
    track_weight: float = field(default=1.0, metadata={"help": "Weight of the loss against ground truth."})
    guidance_weight: float = field(
        default=1.0, metadata={"help": "Weight of the loss against the teacher's prediction."}
    )
    mimicking_weight: float = field(
        default=0.2, metadata={"help": "Weight of the distance to the teacher's hidden states."}
    )
    term_weights: dict[str, float] | str | None = field(
        default=None,
        metadata={
            "help": 'Factors of single terms of the losses by their names in the log, such as {"giou": 0.5, "guidance_map": 0}.'
        },
    )
    mimicking: Mimicking = field(
        default="mse", metadata={"help": "Distance of hidden states; gram compares the cosines between tokens."}
    )
    mimicking_stages: MimickingStages = field(
        default="all",
        metadata={"help": "Stages of a path after which it counts: all, those that ran in the student, the last."},
    )
    # Parameters that control what is trained
    train_embeddings: bool = field(default=True, metadata={"help": "Whether the student's embeddings are trained."})
    train_head: bool = field(default=True, metadata={"help": "Whether the student's head is trained."})
    train_batch_norm: bool = field(
        default=False,
        metadata={"help": "Whether the student's batch norms gather statistics; anew once the student runs alone."},
    )
    drop_path_rate: float = field(
        default=0.0,
        metadata={"help": "Largest probability that a residual branch of the student is left out, in [0, 1)."},
    )

    def __post_init__(self):
        super().__post_init__()
        self.schedule = ReplacementSchedule(
            self.p_init, self.warmup_share, self.finetune_share, self.replacement_schedule
        )
        for name in ("path_granularity", "initialization", "mimicking", "mimicking_stages"):
            choices, got = get_args(get_type_hints(type(self))[name]), getattr(self, name)
            if got not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {got!r}.")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"`drop_path_rate` must be in [0, 1), got {self.drop_path_rate}.")
        if isinstance(self.term_weights, str):
            raise ValueError(f'`term_weights` must be JSON such as {{"giou": 0.5}}, got {self.term_weights!r}.')
        for name, weight in (self.term_weights or {}).items():
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"`term_weights` must hold finite numbers from 0 up, got {name}: {weight!r}.")
        weights = {name: getattr(self, f"{name}_weight") for name in ("track", "guidance", "mimicking")}
        if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
            raise ValueError(f"loss weights must be finite, not negative, and one of them positive, got {weights}.")
        if idle := self._without_effect():
            logger.warning(f"Settings that have no effect together: {'; '.join(idle)}.")

    def _without_effect(self) -> list[str]:
        """Settings that others make void."""

        def changed(*names: str) -> list[str]:
            defaults = type(self).__dataclass_fields__
            return [f"`{name}`" for name in names if getattr(self, name) != defaults[name].default]

        reasons = {
            "`mimicking_weight` is 0": (self.mimicking_weight == 0, ("mimicking", "mimicking_stages")),
            "`p_init` is 1": (self.p_init == 1, ("replacement_schedule", "warmup_share", "path_granularity")),
            "`replacement_schedule` is constant": (self.replacement_schedule == "constant", ("warmup_share",)),
            "`replacement_schedule` is linear": (
                self.replacement_schedule == "linear",
                ("warmup_share", "finetune_share"),
            ),
            "`lr_scheduler_type` is not constant": (self.lr_scheduler_type != "constant", ("learning_rate_drop",)),
            "`lr_scheduler_type` is constant (constant_with_warmup is another)": (
                self.lr_scheduler_type == "constant",
                ("warmup_steps", "lr_scheduler_kwargs"),
            ),
        }
        return [
            f"{', '.join(idle)}, since {why}"
            for why, (void, names) in reasons.items()
            if void and (idle := changed(*names))
        ]


__all__ = ["CompressionArguments", "TrackerTrainingArguments"]
