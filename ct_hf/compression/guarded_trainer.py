"""A Trainer that loses nothing: what is trained is saved before an error ends it, and what is not finite is no step."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.utils import ModelOutput, logging

from ..data.errors import CAUSES
from .resumable_trainer import ResumableTrainer


logger = logging.get_logger(__name__)

COUNTED = (*CAUSES, "nan_loss")
"""What is left out and counted: clips and pairs by cause, and steps whose loss or gradient is not finite."""


class GuardedTrainer(ResumableTrainer):
    """
    [`ResumableTrainer`] that stops, in all its processes, at what goes wrong in one of them, and saves its step first.

    Attributes:
        _names: Names of the pairs of the micro-batch, where they are known.
        _pending_skips: Numbers of what was left out in this process since the last log, by the places in [`COUNTED`].
        _statistics: Buffers of batch norms, and what they held before the step.
    """

    _names: list[str] | None = None
    _pending_skips: torch.Tensor
    _skipped_step = -1  # whose loss was not finite in this process
    _statistics: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, torch.Tensor | int | None]:
        """Draw the micro-batches of a step, see [`~transformers.Trainer`]."""
        norms = (module for module in self.model.modules() if isinstance(module, _BatchNorm))
        self._statistics = [(buffer, buffer.clone()) for module in norms for buffer in module.buffers()]
        return super().get_batch_samples(*args, **kwargs)

    def _restore_statistics(self) -> None:
        """Take back what batch norms gathered in this step. They do in the forward, before its loss can be looked at."""
        for buffer, kept in self._statistics:
            buffer.copy_(kept)

    @contextmanager
    def _saved_on_error(self, what: str) -> Iterator[None]:
        """Save the step that was reached if something goes wrong."""
        try:
            yield
        except Exception:  # whatever it is: it is raised again, and no training done so far may be lost
            if self.is_in_train and self.state.global_step:
                step = f"step {self.state.global_step}"
                broken = any(not weights.isfinite().all() for weights in self.model.parameters())
                if self._anywhere(broken):  # older checkpoints are better than these
                    logger.error(f"{what} failed; {step} has weights that are not finite, and is not saved.")
                else:
                    self._save_checkpoint(self.model, trial=None)
                    logger.error(f"{what} failed; {step} was saved in {self.args.output_dir}.")
            raise

    def _anywhere(self, here: bool) -> bool:
        """Whether something is so in any process. What stops one has to stop all, or they wait for each other for ever."""
        if self.accelerator.num_processes == 1:
            return here
        return bool(self.accelerator.reduce(torch.tensor(float(here), device=self.args.device)))

    def _check_loss(self, output: ModelOutput) -> bool:
        """Whether the loss is finite; if not, say which term and which pairs are behind it, and stop, or count it."""
        finite = bool(torch.isfinite(output.loss))
        stop = self.args.nan_loss == "stop" and self._anywhere(not finite)
        if finite and not stop:
            return True
        broken = [name for name, value in output.loss_dict.items() if not torch.isfinite(value).all()]
        text = (
            f"the loss of step {self.state.global_step + 1} is not finite: {', '.join(broken) or 'in another process'}"
        )
        text += f". Its pairs: {'; '.join(self._names)}" if self._names and not finite else ""
        if stop:
            self._stop(text)
        logger.warning(f"{text}. The step is left out.")
        self._pending_skips[COUNTED.index("nan_loss")] += 1
        self._skipped_step = self.state.global_step
        return False

    def _stop(self, text: str) -> NoReturn:
        self._restore_statistics()
        with self._saved_on_error("Training"):
            raise FloatingPointError(
                f"{text}. Look at these, lower `learning_rate`, or let such steps be left out by `nan_loss='skip'`."
            )

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor | float | None:
        """Stop at a gradient that is not finite, or leave its step out: in all processes, as it is the same in all."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        if math.isfinite(grad_norm):
            return grad_norm
        self._restore_statistics()
        # A scaler, of fp16, leaves such steps out by itself and counts on them.
        if self.accelerator.scaler is None:
            if self.args.nan_loss == "stop":
                names = f". Its last pairs: {'; '.join(self._names)}" if self._names else ""
                self._stop(f"the gradient of step {self.state.global_step + 1} is not finite{names}")
            self.optimizer.zero_grad()
            # It is the same in all processes, whose counts are added, and may be that of a loss which one has counted.
            counted = self._anywhere(self._skipped_step == self.state.global_step)
            self._pending_skips[COUNTED.index("nan_loss")] += self.accelerator.is_main_process and not counted
        return grad_norm


__all__ = ["COUNTED", "GuardedTrainer"]
