"""A Trainer that may be killed: its checkpoints are complete or absent, and a resumed run equals one that was never killed."""

import os
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import nn
from transformers import TrainerCallback, TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from transformers.utils import logging

from .checkpoints import ASIDE, clean_up, find_faults, finish_checkpoint, list_checkpoints, name_newest, rotate
from .publishing import PublishingTrainer


logger = logging.get_logger(__name__)


class ResumableTrainer(PublishingTrainer):
    """
    [`~transformers.Trainer`] whose checkpoints are complete or absent, whenever its processes end.

    A checkpoint is made in the folder `_unfinished` of the output folder, and gets its name once all processes have written
    their part and all of it is on the disk. Beside the files of [`~transformers.Trainer`] it holds, for each process, what the
    next log is made of, and a list of its files.
    """

    _aside = False  # whether a checkpoint is being made
    _evaluating: str | None = None  # what the names of the metrics of the evaluation that is running begin with
    _resumed_from: str | None = None
    _loss_start = 0  # step from which on losses add up to the `train_loss`

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._makes_optimizer = self.optimizer is None
        self.add_callback(_OnceBegun(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        Train, see [`~transformers.Trainer`]; a run that goes on equals, on CPU in fp32, one that was never stopped.

        Weights, optimizer, schedule, order of the data and logs are then equal bit for bit, but for times, given the same
        arguments, data and number of processes; the data are a [`~data.streaming.PairStream`] or have a length. Another
        learning rate or weight decay counts from the checkpoint on. States of callbacks are as `restore_callback_states_from_checkpoint` says.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                Checkpoint to go on from. `True` takes the newest complete one in the output folder, and warns of newer
                ones that are not complete.
            args, kwargs:
                See [`~transformers.Trainer`].

        Raises:
            ValueError: The checkpoint is not complete, or there is none.
        """
        self._resumed_from = self.find_checkpoint(resume_from_checkpoint)
        output = super().train(self._resumed_from, *args, **kwargs)
        return output._replace(training_loss=output.metrics["train_loss"])

    def find_checkpoint(self, asked: str | bool | None) -> str | None:
        """
        Find the checkpoint to go on from, the same in every process.

        Args:
            asked (`str` or `bool`, *optional*): `resume_from_checkpoint` of [`ResumableTrainer.train`].

        Returns:
            `str`, *optional*: its folder; `None` for a run that begins anew.

        Raises:
            ValueError: The checkpoint is not complete, or there is none.
        """
        if not asked:
            return None
        folder, needed = Path(self.args.output_dir), self._needed_files()
        if self.args.should_save:
            clean_up(folder)
        self.accelerator.wait_for_everyone()
        if asked is not True:
            faults = find_faults(Path(asked), needed)
            if faults:
                raise ValueError(
                    f"`resume_from_checkpoint` {asked} is not a complete checkpoint: {'; '.join(faults)}. "
                    f"{name_newest(list_checkpoints(Path(asked).parent), needed)}"
                )
            return str(asked)
        faults = {path: find_faults(path, needed) for path in list_checkpoints(folder)}
        complete = gather_object([[path.name for path in faults if not faults[path]]])
        common = [path for path in faults if all(path.name in names for names in complete)]
        passed_over = list(faults)[list(faults).index(common[-1]) + 1 :] if common else list(faults)
        told = "; ".join(f"{path} ({', '.join(faults[path]) or 'in another process'})" for path in passed_over)
        if not common:
            raise ValueError(
                f"`resume_from_checkpoint` is True, but {folder} holds no complete checkpoint"
                + (f"; not complete: {told}. " if told else ". ")
                + "Leave it out to begin anew."
            )
        if passed_over and self.is_world_process_zero():
            logger.warning(f"Not complete, and passed over: {told}. The training goes on from {common[-1]}.")
        return str(common[-1])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, see [`~transformers.Trainer`]; the mean loss at the end is that of all steps, before a resumption too."""
        if "train_loss" in logs and not self._evaluating:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step - self._loss_start, 0.001)
        super().log(logs, start_time)

    def _init_training_state(
        self, max_steps: int, steps_of_epoch: int, num_epochs: int, *args: Any
    ) -> tuple[int, int]:
        epochs, batches = super()._init_training_state(max_steps, steps_of_epoch, num_epochs, *args)
        # A run that was killed after its last step would otherwise take another one.
        return (epochs if self.state.global_step < max_steps else num_epochs), batches

    def _finalize_training(self, trial: Any, *args: Any) -> TrainOutput:
        best, limit = self.state.best_model_checkpoint, self.args.save_total_limit
        if best and limit == 1 and self.args.should_save:  # the Trainer would remove the last one file by file
            rotate(Path(self._get_output_dir(trial)), limit, [Path(best)], self._needed_files())
        return super()._finalize_training(trial, *args)

    def _evaluate(self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False) -> dict:
        recorded = len(self.state.log_history)
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
        if skip_scheduler and self.state.global_step:
            del self.state.log_history[recorded:]  # of `eval_on_start` in the middle of a run
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best = super()._determine_best_metric(metrics, trial)
        # Also between two saves, or another one would be loaded.
        if best and self.args.load_best_model_at_end and self.is_in_train:
            self.control.should_save = True
        return best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder, name = Path(self._get_output_dir(trial)), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            clean_up(folder)
        self.accelerator.wait_for_everyone()
        before, best = self.state.best_model_checkpoint, self._best_checkpoint(folder)
        self._aside = True
        try:
            super()._save_checkpoint(model, trial)
            if self.state.best_model_checkpoint != best:  # the Trainer looked for it in the folder aside
                self.state.best_model_checkpoint = best
                if self.args.should_save:
                    self.state.save_to_json(str(folder / ASIDE / name / TRAINER_STATE_NAME))
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                finish_checkpoint(folder, name)
        except BaseException as error:
            self.state.best_model_checkpoint = before
            if self.args.should_save:
                with suppress(OSError):  # of a process that still writes: the next save removes it
                    clean_up(folder)
            # What a full disk is to Python, to torch and to safetensors.
            if isinstance(error, OSError | RuntimeError | SafetensorError):
                raise OSError(self._failure(folder / name, error)) from error
            raise
        finally:
            self._aside = False
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder / name))
        if self.args.should_save:
            keep = [Path(path) for path in (folder / name, best) if path]
            rotate(folder, self.args.save_total_limit, keep, self._needed_files())

    def _failure(self, checkpoint: Path, error: Exception) -> str:
        """Say what became of a checkpoint that could not be saved, and what to do."""
        folder = checkpoint.parent
        free = shutil.disk_usage(next(place for place in [folder, *folder.parents] if place.exists())).free / 1e6
        return (
            f"{checkpoint} could not be saved: {error}. No part of it is kept. "
            f"{name_newest(list_checkpoints(folder), self._needed_files())} {free:,.0f} MB are free there now: if that is too "
            "little, make room or lower `save_total_limit`; then go on with `resume_from_checkpoint=True`."
        )

    def _best_checkpoint(self, folder: Path) -> str | None:
        """Return the best checkpoint once that of this step has its name."""
        step = self.state.best_global_step
        best = folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        if step and (step == self.state.global_step or not find_faults(best, self._needed_files())):
            return str(best)
        return self.state.best_model_checkpoint

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, ASIDE) if self._aside else folder

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._aside:  # it is pushed once it has its name
            super()._push_from_checkpoint(checkpoint_folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        if not folder.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-"):  # pickled arguments end with training
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        torch.save(self._log_state(), os.path.join(output_dir, self._log_state_name()))

    def _log_state(self) -> dict[str, Any]:
        """Return what the next logs are made of, in this process."""
        return {
            "loss": self._tr_loss.cpu(),
            "total_loss": self._total_loss_scalar,
            "loss_start": self._loss_start,
            "last_logged": self._globalstep_last_logged,
        }

    def _load_log_state(self, state: dict[str, Any]) -> None:
        self._tr_loss = state["loss"].to(self.args.device)
        self._total_loss_scalar = state["total_loss"]
        self._loss_start = state["loss_start"]
        self._globalstep_last_logged = state["last_logged"]

    def _log_state_name(self) -> str:
        return "log_state.pt" if self.args.world_size <= 1 else f"log_state_{self.args.process_index}.pt"

    def _go_on(self) -> None:
        """Take up what the Trainer does not, once it has begun its own logs."""
        self._loss_start = self._initial_global_step
        if not self._resumed_from:
            return
        if not Path(self._resumed_from, SCHEDULER_NAME).is_file():
            self._catch_up()
        self._apply_rates()
        file = Path(self._resumed_from, self._log_state_name())
        if file.is_file():
            self._load_log_state(torch.load(file, map_location="cpu", weights_only=True))
        elif not self.args.save_only_model:
            logger.warning(
                f"{self._resumed_from} holds no {file.name}, as an older version or another number of processes saved it: "
                "the next log is the mean of the steps from here on, and counts anew what is skipped."
            )
        best = self.state.best_model_checkpoint
        faults = find_faults(Path(best), self._needed_files()) if best else []
        if faults:
            logger.warning(f"{best}, the best checkpoint so far, is not complete and left out: {'; '.join(faults)}.")
            self.state.best_model_checkpoint = None

    def _catch_up(self) -> None:
        """Take the schedule to the step of a checkpoint that kept the model alone."""
        if not self._makes_optimizer or not hasattr(self.lr_scheduler, "base_lrs") or self.is_deepspeed_enabled:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps of the schedule before any of the optimizer
            for _ in range(self.state.global_step):
                self.lr_scheduler.step()
        logger.warning(
            f"{self._resumed_from} keeps no optimizer, as `save_only_model` was set: its moments begin anew, the learning rate "
            "goes on where it was."
        )

    def _apply_rates(self) -> None:
        """Let a new learning rate or weight decay count; the states of optimizer and schedule brought back the old ones."""
        if not self._makes_optimizer or self.is_deepspeed_enabled:
            return
        groups, (old, *_) = self.optimizer.param_groups, getattr(self.lr_scheduler, "base_lrs", [0.0])
        if old not in (0.0, self.args.learning_rate):
            factor = self.args.learning_rate / old
            self.lr_scheduler.base_lrs = [rate * factor for rate in self.lr_scheduler.base_lrs]
            for group in groups:
                group.update({name: group[name] * factor for name in ("lr", "initial_lr") if name in group})
            self.lr_scheduler._last_lr = [group["lr"] for group in groups]
            logger.warning(f"`learning_rate` was {old:g} up to here, and is {self.args.learning_rate:g} from here on.")
        decay = groups[0].get("weight_decay", self.args.weight_decay)  # the group that decays
        if decay != self.args.weight_decay:
            groups[0]["weight_decay"] = self.args.weight_decay
            logger.warning(f"`weight_decay` was {decay:g} up to here, and is {self.args.weight_decay:g} from here on.")

    def _needed_files(self) -> list[str]:
        """Return patterns of the files that a checkpoint must hold if it does not list its own."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return [TRAINER_STATE_NAME]
        names = [TRAINER_STATE_NAME, "model*.safetensors"]
        return names if self.args.save_only_model else [*names, OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state*.pth"]

    def _num_seen_batches(self) -> int:
        """Return how many batches of a process came before the step that training goes on from."""
        if self._resumed_from is None or self.args.ignore_data_skip:
            return 0
        state = TrainerState.load_from_json(os.path.join(self._resumed_from, TRAINER_STATE_NAME))
        return state.global_step * self.args.gradient_accumulation_steps


class _OnceBegun(TrainerCallback):
    """Tells a trainer that its training has begun."""

    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer._go_on()


__all__ = ["ResumableTrainer"]
