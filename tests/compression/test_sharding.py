"""What FSDP and DeepSpeed would do to a student and not to its teacher is refused; neither runs here."""

import pytest
from accelerate import Accelerator
from transformers import Trainer

from .training import make_trainer


@pytest.fixture
def sharded(monkeypatch):
    """As if `accelerate launch` had been told of FSDP."""
    make = Trainer.create_accelerator_and_postprocess

    def pretend(self):
        make(self)
        self.is_fsdp_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", pretend)


def test_half_precision_is_refused(tmp_path, sharded, monkeypatch):
    monkeypatch.setattr(Accelerator, "mixed_precision", property(lambda self: "bf16"))
    with pytest.raises(ValueError, match="FSDP in bf16 casts the student and not its teacher.*by DDP"):
        make_trainer(tmp_path)


def test_paths_of_samples_are_refused(tmp_path, sharded):
    with pytest.raises(ValueError, match="`path_granularity` is sample, but FSDP gathers each layer"):
        make_trainer(tmp_path, path_granularity="sample")


def test_what_remains_is_taken(tmp_path, sharded):
    assert make_trainer(tmp_path).is_fsdp_enabled
