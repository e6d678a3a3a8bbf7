"""MixFormerV2 model configuration."""

from typing import Any, Self

from huggingface_hub.dataclasses import strict

from .configuration_tracker import TrackerConfig


@strict
class MixFormerV2Config(TrackerConfig):
    r"""
    Configuration of a [`MixFormerV2Model`]. The defaults are those of MixFormerV2-B
    (https://huggingface.co/papers/2305.15896). Fields shared by all trackers are described in [`TrackerConfig`].

    Args:
        search_size (`int`, *optional*, defaults to 288):
            Side of the square search crop after resizing, in pixels.
        search_factor (`float`, *optional*, defaults to 5.0):
            Side of the search crop in the frame, in units of `sqrt(width * height)` of the target.
        num_templates (`int`, *optional*, defaults to 2):
            The first frame's template and the one that is renewed: always 2.
        num_hidden_layers (`int`, *optional*, defaults to 8):
            Number of layers of the trunk.
        patch_size (`int`, *optional*, defaults to 16):
            Side of a patch, in pixels; template and search size are multiples of it.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads of each layer.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Width of the hidden layer of the MLP.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLP.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer normalisations of the trunk; those of the head have 1e-5.
        attention_dropout (`float`, *optional*, defaults to 0.0):
            Dropout of attention probabilities in training.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last layer in training; it rises linearly from 0 at the first layer.
        num_bins (`int`, *optional*, defaults to 96):
            Bins of the distribution of each side of the box.
        score_branch (`bool`, *optional*, defaults to `True`):
            Whether a branch of its own predicts the score; without one it is read from the distributions, and the second
            template is never renewed.
        update_interval (`int`, *optional*, defaults to 200):
            Frames between two renewals of the second template while tracking (section 3.4 of the paper).
        update_threshold (`float`, *optional*, defaults to 0.5):
            Score above which a frame can give the next template.
    """

    model_type = "mixformerv2"

    search_size: int = 288
    search_factor: float | int = 5.0
    num_templates: int = 2
    num_hidden_layers: int = 8
    patch_size: int = 16
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    drop_path_rate: float | int = 0.0
    num_bins: int = 96
    score_branch: bool = True
    update_interval: int = 200
    update_threshold: float | int = 0.5

    def validate_architecture(self) -> None:
        """Refuse fields that do not fit each other."""
        for name in ("patch_size", "num_attention_heads", "intermediate_size", "layer_norm_eps", "update_interval"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("drop_path_rate", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)}.")
        if not 0 <= self.update_threshold <= 1:
            raise ValueError(f"`update_threshold` must be in [0, 1], got {self.update_threshold}.")
        for name in ("template_size", "search_size"):
            if getattr(self, name) % self.patch_size:
                raise ValueError(
                    f"`{name}` ({getattr(self, name)}) must be a multiple of `patch_size` ({self.patch_size})."
                )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )
        if self.hidden_size % 4:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of 4: the position tables hold sine and cosine of "
                "columns and rows."
            )
        if self.num_templates != 2:
            raise ValueError(f"`num_templates` of MixFormerV2 must be 2, got {self.num_templates}.")
        if self.num_bins < 3:
            raise ValueError(f"`num_bins` must be at least 3, got {self.num_bins}.")

    def for_student(self, num_hidden_layers: int, **overrides: Any) -> Self:
        """See [`TrackerConfig.for_student`]; a student has no drop path unless asked for."""
        return super().for_student(num_hidden_layers, **{"drop_path_rate": 0.0, **overrides})


__all__ = ["MixFormerV2Config"]
