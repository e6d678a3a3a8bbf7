"""ODTrack model configuration."""

from huggingface_hub.dataclasses import strict

from .configuration_ostrack import OSTrackConfig


@strict
class ODTrackConfig(OSTrackConfig):
    r"""
    Configuration of an [`~modeling_odtrack.ODTrackModel`]. The defaults are those of ODTrack's `baseline` without
    candidate elimination (https://huggingface.co/papers/2401.01686). Fields of the trunk and the head are described in
    [`OSTrackConfig`], fields shared by all trackers in [`TrackerConfig`].

    Args:
        template_size (`int`, *optional*, defaults to 192):
            Side of the square template crops after resizing, in pixels.
        search_size (`int`, *optional*, defaults to 384):
            Side of the square search crop after resizing, in pixels.
        search_factor (`float`, *optional*, defaults to 5.0):
            Side of the search crop in the frame, in units of `sqrt(width * height)` of the target.
        num_templates (`int`, *optional*, defaults to 3):
            Number of templates in training, and of the segments of the video so far from which a session takes one each,
            beside the first frame's, see [`~modeling_odtrack.ODTrackTemplateBank`]. The model itself takes any number.
    """

    model_type = "odtrack"

    template_size: int = 192
    search_size: int = 384
    search_factor: float | int = 5.0
    num_templates: int = 3

    def validate_templates(self) -> None:
        """Any positive number of templates is fine, which all trackers check."""


__all__ = ["ODTrackConfig"]
