"""The part of a configuration that every tracker shares."""

import copy
from typing import Any, Self

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig


_LARGEST = {
    "template_size": 4096,
    "search_size": 4096,
    "template_factor": 100,
    "search_factor": 100,
    "num_templates": 1024,
    "hidden_size": 65_536,
    "num_hidden_layers": 1024,
    "num_attention_heads": 4096,
    "intermediate_size": 262_144,
    "head_channels": 16_384,
    "task_head_channels": 16_384,
    "text_dim": 65_536,
    "num_tasks": 4096,
    "num_bins": 65_536,
    "stem_depth": 1024,
    "stem_mlp_ratio": 1024,
}
"""Far beyond any tracker: a field above is a mistake or an attack, and would fill the memory before anything is said."""
_MOST_PARAMETERS = 10**11
_MOST_VALUES = 10**9  # of the tokens of one pair


@strict
class TrackerConfig(PreTrainedConfig):
    r"""
    Fields that every tracker has, under these names. It is the one source of sizes, factors and normalisation: the image
    processor is built from it.

    Args:
        template_size (`int`, *optional*, defaults to 128):
            Side of the square template crop after resizing, in pixels.
        search_size (`int`, *optional*, defaults to 256):
            Side of the square search crop after resizing, in pixels.
        template_factor (`float`, *optional*, defaults to 2.0):
            Side of the template crop in the frame, in units of `sqrt(width * height)` of the target.
        search_factor (`float`, *optional*, defaults to 4.0):
            Side of the search crop in the frame, in the same units.
        num_templates (`int`, *optional*, defaults to 1):
            Number of template crops the tracker looks at.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the trunk's tokens.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of layers of the trunk, the ones that stages cut.
        image_mean (`list[float]`, *optional*, defaults to the ImageNet mean):
            Mean of each RGB channel, for values in [0, 1].
        image_std (`list[float]`, *optional*, defaults to the ImageNet deviation):
            Standard deviation of each RGB channel, for values in [0, 1].
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of randomly initialised weights.
        compression (`dict`, *optional*):
            How the tracker was compressed, as [`CompressionTrainer`] writes it into what it saves. Nothing reads it to compute.
    """

    keys_to_ignore_at_inference = ["loss_dict", "hidden_states", "memory"]

    template_size: int = 128
    search_size: int = 256
    template_factor: float | int = 2.0
    search_factor: float | int = 4.0
    num_templates: int = 1
    hidden_size: int = 768
    num_hidden_layers: int = 12
    image_mean: list[float] | tuple[float, ...] | None = None
    image_std: list[float] | tuple[float, ...] | None = None
    initializer_range: float = 0.02
    compression: dict[str, Any] | None = None

    def __post_init__(self, **kwargs):
        self.image_mean = list(self.image_mean) if self.image_mean is not None else [0.485, 0.456, 0.406]
        self.image_std = list(self.image_std) if self.image_std is not None else [0.229, 0.224, 0.225]
        super().__post_init__(**kwargs)

    def validate_sizes(self) -> None:
        """Refuse sizes that no tracker can have."""
        for name in ("image_mean", "image_std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"`{name}` must hold one value a channel (3), got {getattr(self, name)}.")
        if not all(value > 0 for value in self.image_std):
            raise ValueError(f"`image_std` must be positive, got {self.image_std}.")
        positive = ("template_size", "search_size", "template_factor", "search_factor", "num_templates", "hidden_size")
        for name in (*positive, "num_hidden_layers"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")

    def validate_extent(self) -> None:
        """Refuse what no machine could hold, before anything is allocated."""
        for name, largest in _LARGEST.items():
            value = getattr(self, name, None)
            if value is not None and value > largest:
                raise ValueError(
                    f"`{name}` is {value}, expected at most {largest}. Check where the configuration is from."
                )
        width = self.hidden_size
        parameters = self.num_hidden_layers * width * (4 * width + 2 * getattr(self, "intermediate_size", 4 * width))
        parameters += 2 * getattr(self, "stem_depth", 0) * getattr(self, "stem_mlp_ratio", 0) * width**2
        if parameters > _MOST_PARAMETERS:
            raise ValueError(
                f"{self.num_hidden_layers} layers of `hidden_size` {width} have {parameters:.1e} parameters, expected at most "
                f"{_MOST_PARAMETERS:.0e}. Check where the configuration is from."
            )
        patch = max(getattr(self, "patch_size", 16), 1)
        values = ((self.search_size // patch) ** 2 + self.num_templates * (self.template_size // patch) ** 2) * width
        if values > _MOST_VALUES:
            raise ValueError(
                f"crops of `search_size` {self.search_size} and `template_size` {self.template_size} in patches of {patch} have "
                f"tokens of {values:.1e} values, expected at most {_MOST_VALUES:.0e}. Check where the configuration is from."
            )

    @classmethod
    def from_fields(cls, **fields: Any) -> Self:
        """
        Build a configuration from fields that somebody typed.

        Raises:
            ValueError: a name is no field, or a value is not of its type or does not fit the others.
        """
        known = [name for name in cls.__dataclass_fields__ if name not in PreTrainedConfig.__dataclass_fields__]
        for name in fields:
            if name not in cls.__dataclass_fields__:
                raise ValueError(
                    f"`{name}` is not a field of {cls.__name__}; its fields are {', '.join(sorted(known))}."
                )
        try:
            return cls(**fields)
        except StrictDataclassError as error:
            raise ValueError(f"{cls.__name__} does not take these fields: {error.__cause__ or error}") from error

    def for_student(self, num_hidden_layers: int, **overrides: Any) -> Self:
        """
        Configuration of a student of this tracker, whose own `compression` is not handed on.

        Args:
            num_hidden_layers (`int`):
                Number of layers of the student.
            **overrides:
                Fields in which the student is unlike its teacher, such as `hidden_size`.

        Returns:
            `TrackerConfig`: a new configuration of the same family.

        Raises:
            ValueError: an override names no field of the configuration, or does not fit it.
        """
        own = {name: copy.deepcopy(getattr(self, name)) for name in type(self).__dataclass_fields__}
        of_others = {*PreTrainedConfig.__dataclass_fields__, "compression"}
        inherited = {name: value for name, value in own.items() if name not in of_others}
        return self.from_fields(**{**inherited, "num_hidden_layers": num_hidden_layers, **overrides})


__all__ = ["TrackerConfig"]
