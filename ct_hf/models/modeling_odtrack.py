"""PyTorch ODTrack model."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_odtrack import ODTrackConfig
from .heads import CenterHead, CornerHead
from .image_processing_tracker import normalize_pixels
from .modeling_ostrack import OSTrackEmbeddings, OSTrackLayer, OSTrackPreTrainedModel
from .templates import TemplateBank, TemplateCrop
from .tracker import Boundary, TrackerOutput, TrackerState


@dataclass
class ODTrackMemory(ModelOutput):
    """
    What ODTrack carries from frame to frame.

    Args:
        temporal_token (`torch.Tensor` of shape `(batch_size, 1, hidden_size)`):
            The last frame's temporal token after the final norm, detached.
    """

    temporal_token: torch.Tensor | None = None


class ODTrackEmbeddings(OSTrackEmbeddings):
    """A temporal token, then patches of any number of templates under one position table, then those of the search crop."""

    any_number_of_templates = True

    def __init__(self, config: ODTrackConfig):
        super().__init__(config)
        self.temporal_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.temporal_position_embeddings = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    def forward(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        memory: ODTrackMemory | None = None,
    ) -> torch.Tensor:
        tokens = super().forward(template_pixel_values, search_pixel_values)
        temporal = self.temporal_token.expand(tokens.shape[0], -1, -1)
        if memory is not None:
            expected = (tokens.shape[0], 1, tokens.shape[2])
            carried = getattr(memory, "temporal_token", None)
            if carried is None or tuple(carried.shape) != expected:
                got = f"a {type(memory).__name__} without one" if carried is None else f"shape {tuple(carried.shape)}"
                raise ValueError(
                    f"`memory` must hold a temporal token of shape {expected}, got {got}. Give the memory that this "
                    "tracker returned for the last frame of the same targets, or none for their first frame."
                )
            temporal = carried + temporal
        return torch.cat([temporal + self.temporal_position_embeddings, tokens], dim=1)


class ODTrackTemplateBank(TemplateBank):
    """
    Templates of one session, cut around the box found in each frame, by the rule of the original at test time.

    While at most `num_templates` frames are behind it, a frame sees all of them. Later, the past is parted into
    `num_templates` segments of equal length and the frame sees the middle of each, beside the first frame: one template
    more than `num_templates`, unless they coincide.

    The original keeps every crop of the video. Here up to `capacity` frames are kept, so that the first 1,000 frames are
    searched with exactly the original's templates. Whenever one more would be kept, every second frame is let go: those
    that stay are evenly spaced over the whole video, by 2, 4, 8 ... frames, and the last one kept at or before the frame
    that is wanted takes its place. At least half of `capacity` stays, so that what is seen is never further away than one
    500th of the video. Crops wait as 8-bit pixels on the CPU, which normalise to what they were.

    Args:
        config ([`ODTrackConfig`]): configuration of the tracker.
        first ([`~templates.TemplateCrop`]): template of the first frame.
    """

    capacity = 1000

    def __init__(self, config: ODTrackConfig, first: TemplateCrop):
        super().__init__(config, first)
        self.spacing = 1
        self.kept: dict[int, TemplateCrop] = {0: self._pack(first)}

    def frames(self, frame_number: int) -> list[int]:
        """Numbers of the frames whose templates [`ODTrackTemplateBank.select`] gives for a frame, in their order."""
        segments = self.config.num_templates
        if frame_number <= segments:
            wanted = range(frame_number)
        elif segments == 1:
            wanted = [0]
        else:
            length = frame_number // segments
            wanted = [0, *(segment * length + length // 2 for segment in range(segments))]
        return sorted({frame - frame % self.spacing for frame in wanted})

    def select(self, frame_number: int) -> list[TemplateCrop]:
        """See [`~templates.TemplateBank.select`]; in the order of the video."""
        return [self._unpack(self.kept[frame]) for frame in self.frames(frame_number)]

    def update(self, frame_number: int, score: float, cut: Callable[[], TemplateCrop]) -> None:
        """See [`~templates.TemplateBank.update`]; the score does not matter."""
        if self.config.num_templates > 1 and frame_number % self.spacing == 0:
            self.kept[frame_number] = self._pack(cut())
        if len(self.kept) > self.capacity:
            self.spacing *= 2
            self.kept = {frame: crop for frame, crop in self.kept.items() if frame % self.spacing == 0}

    def state(self) -> dict[str, TemplateCrop | float]:
        """See [`~templates.TemplateBank.state`]."""
        kept = {f"kept.{frame}": crop for frame, crop in self.kept.items()}
        return {**super().state(), "spacing": self.spacing, **kept}

    def restore(self, state: Mapping[str, TemplateCrop | float]) -> None:
        """See [`~templates.TemplateBank.restore`]."""
        super().restore(state)
        self.spacing = state["spacing"]
        self.kept = {
            int(name.removeprefix("kept.")): TemplateCrop(crop.pixel_values.cpu(), crop.box)
            for name, crop in state.items()
            if name.startswith("kept.")
        }

    def _pack(self, crop: TemplateCrop) -> TemplateCrop:
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.config.image_mean, self.config.image_std))
        pixels = (crop.pixel_values.float().cpu() * std + mean) * 255
        # Rounding of the model's type is at most half a grey level, bfloat16 included: the 8-bit pixels come back.
        return TemplateCrop(pixels.round().to(torch.uint8), crop.box)

    def _unpack(self, crop: TemplateCrop) -> TemplateCrop:
        like = self.first.pixel_values
        pixels = normalize_pixels(crop.pixel_values.to(like.device), self.config.image_mean, self.config.image_std)
        return TemplateCrop(pixels.to(like.dtype), crop.box)


class ODTrackPreTrainedModel(OSTrackPreTrainedModel):
    """Loading, saving and initialisation of ODTrack."""

    config: ODTrackConfig
    _no_split_modules = ["ODTrackEmbeddings", "OSTrackLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ODTrackEmbeddings):
            init.trunc_normal_(module.temporal_token, std=self.config.initializer_range)
            init.trunc_normal_(module.temporal_position_embeddings, std=self.config.initializer_range)


class ODTrackModel(ODTrackPreTrainedModel):
    """
    ODTrack (https://huggingface.co/papers/2401.01686): OSTrack's trunk over several templates, with a temporal token in
    front that carries what was seen from frame to frame and weighs the search tokens for the head.

    Args:
        config ([`ODTrackConfig`]): configuration.
    """

    carries_memory = True
    memory_class = ODTrackMemory
    template_bank_class = ODTrackTemplateBank

    def __init__(self, config: ODTrackConfig):
        super().__init__(config)
        self.embeddings = ODTrackEmbeddings(config)
        self.layers = nn.ModuleList(OSTrackLayer(config, index) for index in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        head = {"center": CenterHead, "corner": CornerHead}[config.head_type]
        self.head = head(config.hidden_size, config.head_channels, config.search_size // config.patch_size)
        self.post_init()

    def _layout(self, num_templates: int) -> tuple[tuple[str, int], ...]:
        template, search = (
            (size // self.config.patch_size) ** 2 for size in (self.config.template_size, self.config.search_size)
        )
        return (("special", 1), ("template", num_templates * template), ("search", search))

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """
        See [`~tracker.PreTrainedTracker.boundaries`]: ODTrack may be cut before and after any layer. The layout is that of
        `num_templates` templates; a state's own tells how many were given.
        """
        layout = self._layout(self.config.num_templates)
        return tuple(Boundary(index, self.config.hidden_size, layout) for index in range(len(self.layers) + 1))

    def embed(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        memory: ODTrackMemory | None = None,
        keep_all_tokens: bool = False,
    ) -> TrackerState:
        """See [`~tracker.PreTrainedTracker.embed`]; takes any number of templates, boxes and text are not used."""
        hidden_states = self.embeddings(template_pixel_values, search_pixel_values, memory)
        layout = self._layout(template_pixel_values.shape[1])
        return TrackerState(hidden_states, layout=layout, keep_all_tokens=keep_all_tokens)

    def decode(self, state: TrackerState) -> TrackerOutput:
        """See [`~tracker.PreTrainedTracker.decode`]; each search token is weighed by its product with the temporal token."""
        groups = state.replace(hidden_states=self.layernorm(state.hidden_states)).groups()
        temporal, search = groups["special"], groups["search"]
        output = self.head(search * torch.matmul(search, temporal.transpose(1, 2)))
        # A copy, so that the memory does not hold on to all tokens of its frame.
        return dataclasses.replace(output, memory=ODTrackMemory(temporal.detach().clone()))


__all__ = ["ODTrackMemory", "ODTrackModel", "ODTrackPreTrainedModel", "ODTrackTemplateBank"]
