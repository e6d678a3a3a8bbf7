"""Which template crops a tracker looks at as a video goes on."""

from collections.abc import Callable
from typing import NamedTuple

import torch

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


__all__ = ["TemplateBank", "TemplateCrop"]
