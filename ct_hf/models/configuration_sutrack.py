"""SUTrack model configuration."""

from typing import Any, Self

from huggingface_hub.dataclasses import strict

from .configuration_tracker import TrackerConfig


@strict
class SUTrackConfig(TrackerConfig):
    r"""
    Configuration of a [`SUTrackModel`]. The defaults are those of SUTrack-B224 (https://huggingface.co/papers/2412.19138),
    whose encoder is Fast-iTPN. Fields shared by all trackers are described in [`TrackerConfig`].

    Args:
        patch_size (`int`, *optional*, defaults to 16):
            Side of what one token sees of a crop, in pixels: a convolution by a quarter of it, then two merges of 2x2.
        crop_channels (`list[int]`, *optional*, defaults to `[3, 6]`):
            Numbers of channels that a crop may have. RGB crops (3) are duplicated by the model, as the original does; in
            crops of 6 the last three are a second modality (depth, thermal, event) in the form of an image.
        stem_depth (`int`, *optional*, defaults to 3):
            Position-wise blocks at each of the two scales before the trunk.
        stem_mlp_ratio (`int`, *optional*, defaults to 3):
            Width of the hidden layer of these blocks, in units of their width.
        num_attention_heads (`int`, *optional*, defaults to 8):
            Number of attention heads of each layer.
        intermediate_size (`int`, *optional*, defaults to 1536):
            Width of the hidden layer of the gated MLP.
        stem_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the blocks before the trunk.
        hidden_act (`str`, *optional*, defaults to `"silu"`):
            Activation of the gate of the MLP.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer normalisations.
        layer_scale_init_value (`float`, *optional*, defaults to 0.1):
            What the learnt factors of each channel start with, by which attention and MLP are added.
        attention_dropout (`float`, *optional*, defaults to 0.0):
            Dropout of attention probabilities in training.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last layer in training; it rises linearly from 0 at the first layer.
        use_text (`bool`, *optional*, defaults to `True`):
            Whether there is a text token; the original has one also where nothing is said of the target.
        text_dim (`int`, *optional*, defaults to 768):
            Width of a sentence feature (CLIP ViT-L/14).
        head_channels (`int`, *optional*, defaults to 256):
            Channels of the first convolution of each tower of the head; each further one has half as many.
        num_tasks (`int`, *optional*, defaults to 5):
            Tasks that the task head tells apart: RGB, language, depth, thermal, event.
        task_head_channels (`int`, *optional*, defaults to 256):
            Width of the hidden layers of the task head.
        template_update_interval (`int`, *optional*, defaults to 25):
            Frames between chances to replace the newest template; the first frame's is always kept.
        template_update_threshold (`float`, *optional*, defaults to 0.7):
            Windowed score above which a frame becomes a template.
    """

    model_type = "sutrack"

    template_size: int = 112
    search_size: int = 224
    num_templates: int = 2
    hidden_size: int = 512
    num_hidden_layers: int = 24
    patch_size: int = 16
    crop_channels: list[int] | tuple[int, ...] | None = None
    stem_depth: int = 3
    stem_mlp_ratio: int = 3
    num_attention_heads: int = 8
    intermediate_size: int = 1536
    stem_act: str = "gelu"
    hidden_act: str = "silu"
    layer_norm_eps: float = 1e-6
    layer_scale_init_value: float | int = 0.1
    attention_dropout: float | int = 0.0
    drop_path_rate: float | int = 0.0
    use_text: bool = True
    text_dim: int = 768
    head_channels: int = 256
    num_tasks: int = 5
    task_head_channels: int = 256
    template_update_interval: int = 25
    template_update_threshold: float | int = 0.7

    def __post_init__(self, **kwargs):
        self.crop_channels = sorted(set(self.crop_channels)) if self.crop_channels is not None else [3, 6]
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuse fields that do not fit each other."""
        positive = (
            "patch_size",
            "stem_depth",
            "stem_mlp_ratio",
            "num_attention_heads",
            "intermediate_size",
            "text_dim",
        )
        for name in (*positive, "layer_norm_eps", "num_tasks", "task_head_channels", "template_update_interval"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("drop_path_rate", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)}.")
        if not 0 <= self.template_update_threshold <= 1:
            raise ValueError(f"`template_update_threshold` must be in [0, 1], got {self.template_update_threshold}.")
        if not self.crop_channels or not set(self.crop_channels) <= {3, 6}:
            raise ValueError(f"`crop_channels` must be some of 3 and 6, got {self.crop_channels}.")
        for name, divisor, called in (
            ("patch_size", 4, "4"),
            ("hidden_size", 4, "4"),
            ("hidden_size", self.num_attention_heads, f"`num_attention_heads` ({self.num_attention_heads})"),
            ("template_size", self.patch_size, f"`patch_size` ({self.patch_size})"),
            ("search_size", self.patch_size, f"`patch_size` ({self.patch_size})"),
        ):
            if getattr(self, name) % divisor:
                raise ValueError(f"`{name}` ({getattr(self, name)}) must be a multiple of {called}.")
        if self.head_channels < 8:
            raise ValueError(
                f"`head_channels` must be at least 8 (it is halved three times), got {self.head_channels}."
            )

    def for_student(self, num_hidden_layers: int, **overrides: Any) -> Self:
        """See [`TrackerConfig.for_student`]; a student has no drop path unless asked for."""
        return super().for_student(num_hidden_layers, **{"drop_path_rate": 0.0, **overrides})


__all__ = ["SUTrackConfig"]
