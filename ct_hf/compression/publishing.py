"""A Trainer whose pushes are whole trackers with an honest card, and nothing of the run."""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import (
    CONFIG_NAME,
    IMAGE_PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    PushInProgress,
    logging,
)

from ..hub.errors import reaching
from ..hub.push import CARD, push_folder, write_plain_card
from ..models.tracker import PreTrainedTracker


logger = logging.get_logger(__name__)

_OF_A_TRACKER = (CONFIG_NAME, IMAGE_PROCESSOR_NAME, "model*.safetensors", SAFE_WEIGHTS_INDEX_NAME)


class PublishingTrainer(Trainer):
    """
    [`~transformers.Trainer`] that pushes by [`~hub.push_folder`]: the tracker alone, in one commit, private unless
    `hub_private_repo` is `False`, with the card that is in the output folder or one that claims nothing.

    A push while training goes on beside it; one that fails is told in the log, and the next one sends all there is.
    `hub_strategy` may be `end` and `every_save`. `checkpoint` and `all_checkpoints` are refused, since what a training goes on
    from is pickled.
    """

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """
        Make the repository, private by default, see [`~transformers.Trainer`].

        Raises:
            ValueError: `hub_strategy` is one that pushes pickles.
            ConnectionError, PermissionError: see [`~hub.push_folder`].
        """
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise ValueError(
                f"`hub_strategy` is {self.args.hub_strategy.value}, but checkpoints hold pickles, which are not pushed. Take "
                "every_save, which pushes the tracker of each checkpoint, or end."
            )
        with reaching(self.args.hub_model_id or Path(self.args.output_dir).absolute().name):
            super().init_hf_repo(token, self._is_private(private))

    def create_model_card(self, **fields: Any) -> None:
        """
        Write the card of the tracker into the output folder, from where it is pushed.

        Args:
            fields: what is known of the tracker, fields of [`~hub.TrackerCard`] such as `data`, `limits`, `results` and
                `license`. Without any, a card that is there is left as it is.
        """
        if self.is_world_process_zero() and (fields or not Path(self.args.output_dir, CARD).is_file()):
            self._write_card(self.args.output_dir, fields)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **fields: Any,
    ) -> CommitInfo | Future | None:
        """
        Push the tracker as it is now.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`): message of the commit.
            blocking (`bool`, *optional*, defaults to `True`): whether to return once it is pushed.
            token (`str`, *optional*): access token, `args.hub_token` or the saved one by default.
            revision (`str`, *optional*): branch, `args.hub_revision` by default.
            private (`bool`, *optional*): whether only its owner may see it, by default what `args.hub_private_repo` says, and
                yes if that says nothing.
            fields: see [`PublishingTrainer.create_model_card`].

        Returns:
            `CommitInfo`, or its `Future` if not `blocking`; `None` in other processes than the first.

        Raises:
            ValueError, ConnectionError, PermissionError: see [`~hub.push_folder`].
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        folder = TemporaryDirectory()
        self.save_model(folder.name, _internal_call=True)
        if not self.is_world_process_zero():
            folder.cleanup()
            return None
        Path(folder.name, TRAINING_ARGS_NAME).unlink(missing_ok=True)
        api = self._hub if token is None else HfApi(token=token)
        push = self._prepare_push(
            folder, api, fields, message=commit_message, revision=revision, private=self._is_private(private)
        )
        self._finish_current_push()
        return push() if blocking else api.run_as_future(push)

    def push_run(self, folder: str | Path) -> CommitInfo:
        """
        Push what a run left in a folder: its tracker with the card beside it, and its figures.

        Args:
            folder (`str` or `Path`): see [`~hub.push_folder`].

        Returns:
            `CommitInfo`

        Raises:
            ValueError, ConnectionError, PermissionError: see [`~hub.push_folder`].
        """
        return push_folder(
            folder, self.hub_model_id, private=self._is_private(), revision=self.args.hub_revision, api=self._hub
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        folder = TemporaryDirectory()  # a checkpoint may be removed before it is sent
        for pattern in _OF_A_TRACKER:
            for file in Path(checkpoint_folder).glob(pattern):
                shutil.copy(file, folder.name)
        by_steps = self.args.save_strategy != SaveStrategy.EPOCH
        reached = f"step {self.state.global_step}" if by_steps else f"epoch {int(self.state.epoch)}"
        message = f"Training in progress, {reached}"
        push = self._prepare_push(folder, self._hub, {}, message=message, revision=None, private=self._is_private())
        job = self._hub.run_as_future(push)
        job.add_done_callback(partial(_tell, reached))
        if busy:
            self.push_in_progress.jobs.append(job)
        else:
            self.push_in_progress = PushInProgress([job])

    def _prepare_push(
        self, folder: TemporaryDirectory, api: HfApi, fields: dict[str, Any], revision: str | None, **options: Any
    ) -> Callable[[], CommitInfo]:
        """Put the card of this moment beside a tracker; return what pushes both and removes the folder."""
        own = Path(self.args.output_dir, CARD)
        if own.is_file() and not fields:
            shutil.copy(own, folder.name)
        else:
            self._write_card(folder.name, fields)
        repository, revision = self.hub_model_id, revision or self.args.hub_revision

        def push() -> CommitInfo:
            with folder:
                return push_folder(folder.name, repository, api=api, revision=revision, **options)

        return push

    def _write_card(self, folder: str, fields: dict[str, Any]) -> None:
        name = self.hub_model_id or Path(self.args.output_dir).absolute().name
        write_plain_card(folder, self._deployed(), name, **{**self._card_fields(), **fields})

    def _card_fields(self) -> dict[str, Any]:
        """Return what is known of the training, as fields of [`~hub.TrackerCard`]."""
        training = {
            "Steps": self.state.global_step,
            "Pairs a step": self._pairs_per_step,
            "Learning rate": self.args.learning_rate,
            "Seed": self.args.seed,
        }
        return {"training": training}

    @property
    def _pairs_per_step(self) -> int:
        """Pairs of an optimizer step, over all processes and micro-batches."""
        return self._train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes

    def _deployed(self) -> PreTrainedTracker:
        """Return the tracker that training is for, out of all wrappers."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def _is_private(self, asked: bool | None = None) -> bool:
        asked = self.args.hub_private_repo if asked is None else asked
        return asked is not False

    @cached_property
    def _hub(self) -> HfApi:
        return HfApi(token=self.args.hub_token)


def _tell(reached: str, job: Future) -> None:
    if not job.cancelled() and (error := job.exception()):
        logger.warning(
            f"The tracker of {reached} was not pushed, and training goes on; the next push sends all there is then. {error}"
        )


__all__ = ["PublishingTrainer"]
