"""Which template crops a tracker looks at as a video goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers.utils import ModelOutput

from .configuration_tracker import TrackerConfig


class TemplateCrop(NamedTuple):
    """
    One template.

    Args:
        pixel_values (`torch.Tensor` of shape `(1, 3, template_size, template_size)`): normalised crop.
        box (`torch.Tensor` of shape `(1, 4)`): `cx, cy, w, h` in [0, 1] of the target in the crop.
    """

    pixel_values: torch.Tensor
    box: torch.Tensor


@dataclass
class TemplateMemory(ModelOutput):
    """
    Tokens of templates that were embedded once, for families whose embedding of a template sees nothing else. It saves work
    and changes no prediction.

    Args:
        template_tokens (`torch.Tensor` of shape `(batch_size, num_template_tokens, hidden_size)`):
            Tokens of all templates before the first layer.
    """

    template_tokens: torch.Tensor | None = None

    def tokens(self, shape: tuple[int, int, int]) -> torch.Tensor:
        """
        The tokens, checked.

        Args:
            shape (`tuple[int, int, int]`): the shape that they must have.

        Raises:
            ValueError: they have another.
        """
        if tuple(self.template_tokens.shape) != shape:
            raise ValueError(
                f"`memory` holds `template_tokens` of shape {tuple(self.template_tokens.shape)}, expected {shape}. It is of "
                "another tracker or batch: make it by `remember_templates`."
            )
        return self.template_tokens


class TemplateBank:
    """
    Templates of one session: the first frame's, as often as the tracker wants templates. Families that update theirs
    inherit it; what they keep must not grow with the video without bound.

    Args:
        config ([`TrackerConfig`]): configuration of the tracker.
        first ([`TemplateCrop`]): template of the first frame.
    """

    def __init__(self, config: TrackerConfig, first: TemplateCrop):
        self.config = config
        self.first = first

    def select(self, frame_number: int) -> list[TemplateCrop]:
        """
        Templates for a frame.

        Args:
            frame_number (`int`): number of the frame to be searched; the session started with frame 0.

        Returns:
            `list[TemplateCrop]`: in the order in which the tracker wants them.
        """
        return [self.first] * self.config.num_templates

    def update(self, frame_number: int, score: float, cut: Callable[[], TemplateCrop]) -> None:
        """
        Take note of a tracked frame.

        Args:
            frame_number (`int`): its number.
            score (`float`): the tracker's confidence.
            cut (`Callable`): cuts a template around the box that was found in it.
        """

    def state(self) -> dict[str, TemplateCrop | float]:
        """What a saved session needs to go on: crops and numbers by name. A bank that keeps more than the first adds it."""
        return {"first": self.first}

    def restore(self, state: Mapping[str, TemplateCrop | float]) -> None:
        """Go on from what [`TemplateBank.state`] gave; crops come on the device of the model."""
        self.first = state["first"]


__all__ = ["TemplateBank", "TemplateCrop", "TemplateMemory"]
