"""Trainer of any tracker against ground truth; compression builds on it."""

import inspect
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import TrainerCallback
from transformers.image_processing_utils import BaseImageProcessor
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import ModelOutput, logging

from ..data.collator import TrackingCollator
from ..data.errors import CAUSES
from ..data.sequences import Sequence
from ..data.streaming import PairStream
from ..models.box_ops import box_overlaps, cxcywh_to_xyxy, full_precision
from ..models.image_processing_tracker import TrackerImageProcessor
from ..models.tracker import PreTrainedTracker
from .arguments import TrackerTrainingArguments
from .guarded_trainer import COUNTED, GuardedTrainer
from .products import fast_products
from .true_tracking import check_tracking_dataset, preserved_randomness, track_sequences


logger = logging.get_logger(__name__)


class TrackerTrainer(GuardedTrainer):
    """
    Trains a tracker on pairs of template and search crops with ground truth.

    Logs every term of the loss and the mean IoU, normalises uint8 crops on the device, and counts what the stream skipped.
    Whole sequences are tracked whenever the pairs are evaluated, so the best checkpoint may be the one that tracks best:

    ```python
    >>> args = TrackerTrainingArguments(
    ...     output_dir, eval_strategy="steps", eval_steps=500, load_best_model_at_end=True, metric_for_best_model="tracking_auc"
    ... )
    >>> trainer = TrackerTrainer(model, args, train_dataset=pairs, tracking_dataset=read_sequences("videos/val"))
    ```

    Args:
        model ([`PreTrainedTracker`]):
            Tracker to train.
        args ([`TrackerTrainingArguments`]):
            Arguments.
        data_collator (`Callable`, *optional*, defaults to [`TrackingCollator`]):
            Makes a batch of a list of pairs.
        train_dataset (`Dataset` or `IterableDataset`, *optional*):
            Pairs, such as [`~data.stream_pairs`] gives.
        eval_dataset (`Dataset` or `IterableDataset`, *optional*):
            Pairs to evaluate on.
        processing_class ([`TrackerImageProcessor`], *optional*):
            Saved beside the model; built from its configuration by default.
        compute_metrics (`Callable`, *optional*):
            See [`~transformers.Trainer`].
        callbacks (`list[TrainerCallback]`, *optional*):
            See [`~transformers.Trainer`].
        optimizers (`tuple`, *optional*, defaults to `(None, None)`):
            See [`~transformers.Trainer`].
        tracking_dataset (iterable of [`~data.sequences.Sequence`], *optional*):
            Annotated sequences to track in [`TrackerTrainer.evaluate`], with or without an `eval_dataset`; the same in
            every process. Not under FSDP and ZeRO-3, where no process has a whole tracker.
    """

    # The loss is the mean of a micro-batch, not normalised over the accumulated batch.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: nn.Module,
        args: TrackerTrainingArguments,
        data_collator: Callable | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset] | None = None,
        processing_class: BaseImageProcessor | None = None,
        compute_metrics: Callable | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, LRScheduler | None] = (None, None),
        tracking_dataset: Iterable[Sequence] | None = None,
    ):
        _check(model, args)
        self.tracking_dataset = None if tracking_dataset is None else check_tracking_dataset(tracking_dataset)
        evaluated = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        if any(isinstance(pairs, PairStream) for pairs in evaluated):
            raise ValueError("`eval_dataset` is a stream without end. End it by `take`, as in `pairs.take(1000)`.")
        if tracking_dataset is not None and eval_dataset is None:
            eval_dataset = {}  # no pairs, and yet something to evaluate
        self._tracked: dict[str, float] = {}
        # Sum and number of what the next log takes the mean of.
        self._sums: dict[str, dict[str, torch.Tensor]] = {"train": {}, "eval": {}}
        self._last_log = (0, 0.0)  # step and time
        self.skipped: Counter[str] = Counter()
        self._pending_skips = torch.zeros(len(COUNTED), dtype=torch.int64)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator or TrackingCollator(),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class or TrackerImageProcessor.from_config(model.config),
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.model_accepts_loss_kwargs = False
        if self.tracking_dataset and (self.is_fsdp_enabled or is_deepspeed_zero3_enabled()):
            raise ValueError(
                "`tracking_dataset` was given, but FSDP or ZeRO-3 spreads the tracker over processes, so that none can track. "
                "Leave it out, or train by DDP."
            )
        if args.compile_layers:
            self._compile_layers(model)

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of training; a stream of pairs leaves unread those that a resumed run has seen."""
        stream = self.train_dataset
        if not isinstance(stream, PairStream):
            return super().get_train_dataloader()
        if self.args.accelerator_config.dispatch_batches:
            raise ValueError(
                "`dispatch_batches` of `accelerator_config` is True, but a stream of pairs is shared out among processes, not "
                "read by one of them. Leave it out."
            )
        readers = self.accelerator.num_processes * max(1, self.args.dataloader_num_workers)
        self.train_dataset = stream.shared(readers, self._num_seen_batches(), self._train_batch_size)
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset = stream

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Build the schedule of the learning rate; a constant one drops once (section 4.1 of the paper)."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == "constant":
            drop = self.args.learning_rate_drop * num_training_steps
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, partial(_dropped, drop))
            self._created_lr_scheduler = True
            return self.lr_scheduler
        return super().create_scheduler(num_training_steps, optimizer)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Leave position tables out of weight decay too, beside norms and biases."""
        norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
        spared = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, norms)}
        names = super().get_decay_parameter_names(model)
        return [name for name in names if name not in spared and "position_embeddings" not in name]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, torch.Tensor | int | None]:
        """Read the batches of a step; what is trained is saved if any process cannot read its own."""
        samples = failure = None
        try:
            samples = super().get_batch_samples(*args, **kwargs)
        except Exception as error:  # whatever it is: it is raised below, once all processes know of it
            failure = error
        with self._saved_on_error("Reading of data"):
            if self._anywhere(failure is not None):
                raise failure or RuntimeError("another process could not read its data; its own error says why.")
        return samples

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Run a step; where memory does not suffice, say what can be done about it."""
        try:
            with fast_products(self.args.device):
                return super().training_step(model, inputs, num_items_in_batch)
        except RuntimeError as error:
            if should_reduce_batch_size(error):
                error.add_note(
                    f"{self._train_batch_size} pairs on a device are too many. Give `per_device_train_batch_size` less and "
                    "`gradient_accumulation_steps` as much more, let `auto_find_batch_size` do it, train with `bf16`, or set "
                    "`activation_checkpointing`, which keeps less and computes more."
                )
            raise

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """Run the model and keep every term of its loss for the log."""
        output = model(**inputs, **self._path_inputs(model, inputs))
        mode = "train" if model.training else "eval"
        iou, _ = box_overlaps(
            cxcywh_to_xyxy(output.pred_boxes), cxcywh_to_xyxy(full_precision(inputs["search_boxes"]))
        )
        figures = {**output.loss_dict, "iou": iou.mean()}
        if mode == "train" and not self._check_loss(output):
            figures = dict.fromkeys(figures, torch.full_like(output.loss, torch.nan))  # the log leaves it out
        # As the Trainer averages its loss: over samples when evaluating, over micro-batches when training.
        weight = len(iou) if mode == "eval" else 1
        self._note(mode, figures, weight)
        return (output.loss, output) if return_outputs else output.loss

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """
        Evaluate the tracker alone, on pairs and on whole sequences; training goes on as if nothing had happened.

        Terms of the loss are among the metrics. Where the trainer has a `tracking_dataset`, and no other pairs are given
        here, so are `eval_tracking_auc`, `eval_tracking_precision`, `eval_tracking_norm_precision` (in per cent, see
        [`~evaluation.evaluate_trackers`]) and `eval_tracking_runtime` (in seconds, which `eval_runtime` leaves out). The
        tracker runs in the type of its weights, as it would be deployed, and each process tracks its share of the sequences.

        A tracker that answers with NaN has figures that are NaN, with a warning, and is never the best. Any other error of
        tracking, such as a broken sequence, is raised; the Trainer evaluates before it saves, so a training that is running
        saves a checkpoint of its step first. `eval_on_start=True` finds it before the first step.

        Args:
            eval_dataset (`Dataset`, `dict[str, Dataset]` or `str`, *optional*):
                Other pairs than the trainer's. With named sets of pairs, tracking is logged by itself, once.
            ignore_keys (`list[str]`, *optional*):
                See [`~transformers.Trainer`].
            metric_key_prefix (`str`, *optional*, defaults to `"eval"`):
                What the names of the metrics begin with.

        Returns:
            `dict[str, float]`: the metrics, the same in every process.
        """
        self._sums["eval"].clear()  # `predict` never logs what it gathers
        tracks = eval_dataset is None and self.tracking_dataset is not None
        tracked = self._track(metric_key_prefix) if tracks else {}
        apart = tracks and isinstance(self.eval_dataset, dict)
        self._tracked = {} if apart else tracked
        outer, self._evaluating = self._evaluating, f"{metric_key_prefix}_"  # sets of pairs are evaluated one by one
        try:
            with preserved_randomness(self.args.device):  # loaders of data draw a seed
                metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            if apart:
                self.log(tracked)
        finally:
            self._evaluating = outer
        if apart:
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, tracked)
            metrics.update(tracked)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each term since the last log, over all processes; evaluation returns them too."""
        if self._evaluating:
            means = self._means("eval")
            logs.update({self._evaluating + name: value for name, value in means.items()})
            logs.update(self._tracked)
        # All processes log these two; what a callback logs, it may log in one of them.
        elif "loss" in logs or "train_loss" in logs:
            means = self._means("train")
            logs.update({name: value for name, value in means.items() if not math.isnan(value)})
            if "loss" in logs:
                logs["pairs_per_second"] = self._pairs_per_second()
            self._count_skipped()
            logs.update({f"skipped_{cause}": count for cause, count in self.skipped.items()})
        super().log(logs, start_time)

    def _note(self, mode: Literal["train", "eval"], figures: Mapping[str, torch.Tensor], weight: int = 1) -> None:
        """Add figures to what the next log takes the means of; in training it leaves out what is NaN."""
        for name, value in figures.items():
            value = value.detach().float()
            added = weight * torch.stack([value, torch.ones_like(value)])
            if mode == "train":
                added = added.where(~value.isnan(), 0)
            self._sums[mode][name] = self._sums[mode].get(name, 0) + added

    def _means(self, mode: Literal["train", "eval"]) -> dict[str, float]:
        """Mean of each term since the last log, over all processes; samples that fill up their last batch count again."""
        sums, self._sums[mode] = self._sums[mode], {}
        if not sums:
            return {}
        total, number = torch.stack(list(sums.values()), dim=1)
        mean = torch.nanmean if mode == "train" else torch.mean
        means = mean(self.accelerator.gather((total / number).unsqueeze(0)), dim=0).tolist()
        return dict(zip(sums, means, strict=True))

    def end_training(self) -> None:
        """
        Leave the group of processes, as the last use of this trainer, so that a script of several can exit.

        `Accelerator.end_training` alone leaves gloo's threads running while the wrapped model lives; the interpreter's
        exit now and then aborts in one of them.
        """
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        self.accelerator.end_training()

    def _track(self, prefix: str) -> dict[str, float]:
        """Track the sequences; return the metrics."""
        started = time.perf_counter()
        training = self.model.training
        self.model.eval()
        if callable(getattr(self.optimizer, "eval", None)):
            self.optimizer.eval()  # of schedule-free optimizers, as the Trainer does before it evaluates
        try:
            with self._saved_on_error("Tracking"), preserved_randomness(self.args.device):
                figures = track_sequences(self._deployed(), self.tracking_dataset, self.accelerator)
        finally:
            self.model.train(training)
        figures["runtime"] = round(time.perf_counter() - started, 4)
        return {f"{prefix}_tracking_{name}": value for name, value in figures.items()}

    def _go_on(self) -> None:
        self._sums["train"] = {}  # of an attempt with too large a batch
        super()._go_on()
        self._last_log = (self.state.global_step, time.perf_counter())

    def _log_state(self) -> dict[str, Any]:
        own = {"sums": self._sums["train"], "skipped": dict(self.skipped), "pending_skips": self._pending_skips}
        return {**super()._log_state(), **own}

    def _load_log_state(self, state: dict[str, Any]) -> None:
        super()._load_log_state(state)
        sums = state.get("sums", {})  # older checkpoints kept each value; their next log begins here
        self._sums["train"] = {name: value.to(self.args.device) for name, value in sums.items()}
        self.skipped, self._pending_skips = Counter(state["skipped"]), state["pending_skips"]

    def _set_signature_columns_if_needed(self) -> None:
        """Columns are those of the tracker, also where something is around it."""
        if self._signature_columns is None:
            self._signature_columns = [*inspect.signature(self._deployed().forward).parameters, "name", "skipped"]

    def _path_inputs(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return further arguments of the model for a step."""
        return {}

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self._set_signature_columns_if_needed()
        known = {name: value for name, value in inputs.items() if name in self._signature_columns}
        inputs = super()._prepare_inputs(known)
        self._names = inputs.pop("name", None)
        skipped = inputs.pop("skipped", None)
        if skipped is not None and self.model.training:
            self._pending_skips[: len(CAUSES)] += skipped.cpu()
        for name in ("template_pixel_values", "search_pixel_values"):
            # Grey levels are of a wider type than uint8 where a `datasets.Dataset` kept them.
            if not inputs[name].is_floating_point():
                inputs[name] = self.processing_class.normalize(inputs[name])
        return inputs

    def _pairs_per_second(self) -> float:
        """Pairs of all processes in a second since the last log."""
        step, now = self.state.global_step, time.perf_counter()
        last_step, last = self._last_log
        self._last_log = (step, now)
        return round((step - last_step) * self._pairs_per_step / (now - last), 1)

    def _count_skipped(self) -> None:
        """Add what all processes skipped since the last log."""
        pending, self._pending_skips = self._pending_skips, torch.zeros_like(self._pending_skips)
        if self.accelerator.num_processes > 1:
            pending = self.accelerator.reduce(pending.to(self.args.device))
        causes = zip(COUNTED, pending.tolist(), strict=True)
        self.skipped.update({cause: count for cause, count in causes if count})
        if pending[: len(CAUSES)].any():
            logger.warning_once("The stream skips bad clips or pairs; the log counts them by cause.")

    def _compile_layers(self, *trackers: PreTrainedTracker) -> None:
        for tracker in trackers:
            for layer in tracker.layers:
                layer.compile(backend=self.args.layer_compile_backend, mode=self.args.layer_compile_mode)


def _check(model: nn.Module, args: TrackerTrainingArguments) -> None:
    if not isinstance(args, TrackerTrainingArguments):
        raise TypeError(f"`args` must be TrackerTrainingArguments, got {type(args).__name__}.")
    if not isinstance(getattr(model, "student", model), PreTrainedTracker):
        raise TypeError(
            f"`model` must be a tracker, got a {type(model).__name__}. Load it by AutoModel.from_pretrained first."
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"one process sees {args.n_gpu} GPUs, which it cannot train on together. Start one process a GPU: `accelerate launch` "
            "or `torchrun`."
        )


def _dropped(drop: float, step: int) -> float:
    """Factor of the learning rate: 1, and 0.1 from a step on. What a schedule saves of an object of a class it restores."""
    return 1.0 if step < drop else 0.1


__all__ = ["TrackerTrainer"]
