"""OSTrack model configuration."""

from typing import Any, Literal, Self

from huggingface_hub.dataclasses import strict

from .configuration_tracker import TrackerConfig


@strict
class OSTrackConfig(TrackerConfig):
    r"""
    Configuration of an [`OSTrackModel`]. The defaults are those of OSTrack-256 without candidate elimination
    (https://huggingface.co/papers/2203.11991). Fields shared by all trackers are described in [`TrackerConfig`].

    Args:
        patch_size (`int`, *optional*, defaults to 16):
            Side of a patch, in pixels; template and search size are multiples of it.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads of each layer.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Width of the hidden layer of the MLP.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLP.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer normalisations.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values have a bias.
        attention_dropout (`float`, *optional*, defaults to 0.0):
            Dropout of attention probabilities in training.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last layer in training; it rises linearly from 0 at the first layer.
        head_type (`str`, *optional*, defaults to `"center"`):
            `"center"` (score, offset and size maps) or `"corner"` (a heat map for each of two corners).
        head_channels (`int`, *optional*, defaults to 256):
            Channels of the first convolution of each tower of the head; each further one has half as many.
        elimination_layers (`list[int]`, *optional*):
            Layers (from 0) in which candidate elimination drops search tokens (section 3.2 of the paper).
        elimination_keep_ratio (`float`, *optional*, defaults to 0.7):
            Share of the search tokens kept at each of these layers.
        elimination_template_region (`str`, *optional*, defaults to `"center_point"`):
            Template tokens whose attention ranks the candidates: `"center_point"` (one token), `"center_rectangle"`
            (the middle ones) or `"all"`.
    """

    model_type = "ostrack"

    patch_size: int = 16
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_dropout: float | int = 0.0
    drop_path_rate: float | int = 0.0
    head_type: Literal["center", "corner"] = "center"
    head_channels: int = 256
    elimination_layers: list[int] | tuple[int, ...] | None = None
    elimination_keep_ratio: float | int = 0.7
    elimination_template_region: Literal["center_point", "center_rectangle", "all"] = "center_point"

    def __post_init__(self, **kwargs):
        self.elimination_layers = sorted(self.elimination_layers or [])
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuse fields that do not fit each other."""
        for name in ("patch_size", "num_attention_heads", "intermediate_size", "layer_norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("drop_path_rate", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)}.")
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
        if not 0 < self.elimination_keep_ratio <= 1:
            raise ValueError(f"`elimination_keep_ratio` must be in (0, 1], got {self.elimination_keep_ratio}.")
        outside = [layer for layer in self.elimination_layers if not 0 <= layer < self.num_hidden_layers]
        if outside:
            raise ValueError(
                f"`elimination_layers` names layer {outside[0]}, but layers are 0 to {self.num_hidden_layers - 1}."
            )
        if self.head_channels < 8:
            raise ValueError(
                f"`head_channels` must be at least 8 (it is halved three times), got {self.head_channels}."
            )

    def validate_templates(self) -> None:
        """Refuse a number of templates that the tracker cannot look at."""
        if self.num_templates != 1:
            raise ValueError(f"`num_templates` of OSTrack must be 1, got {self.num_templates}.")

    def for_student(self, num_hidden_layers: int, **overrides: Any) -> Self:
        """See [`TrackerConfig.for_student`]; a student has no candidate elimination and no drop path unless asked for."""
        return super().for_student(num_hidden_layers, **{"elimination_layers": [], "drop_path_rate": 0.0, **overrides})


__all__ = ["OSTrackConfig"]
