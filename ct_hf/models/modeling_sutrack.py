"""PyTorch SUTrack model."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .box_ops import full_precision
from .configuration_sutrack import SUTrackConfig
from .heads import CenterHead, categorical_divergence
from .layers import contract, drop_path, eager_attention_forward
from .templates import TemplateBank, TemplateCrop, TemplateMemory
from .tracker import Boundary, PreTrainedTracker, TrackerOutput, TrackerState


def foreground_share(boxes: torch.Tensor, size: int, patch_size: int) -> torch.Tensor:
    """
    Share of each patch's pixels that lie in a box.

    Args:
        boxes (`torch.Tensor` of shape `(number, 4)`): `cx, cy, w, h` in [0, 1] of the crop.
        size (`int`): side of the crop in pixels.
        patch_size (`int`): side of a patch in pixels.

    Returns:
        `torch.Tensor` of shape `(number, patches)`, in raster order, fp32.
    """
    # The original divides pixels by `size - 1` and later multiplies by `size`: its boxes are wider by that.
    boxes = full_precision(boxes)
    extent = boxes[:, 2:] * (size / (size - 1))
    low = (0.5 + (boxes[:, :2] - 0.5) * (size / (size - 1)) - extent / 2) * size
    pixels = torch.arange(size, device=boxes.device)
    inside = (pixels >= low.unsqueeze(-1)) & (pixels < (low + extent * size).unsqueeze(-1))
    columns, rows = inside.to(boxes.dtype).unflatten(-1, (-1, patch_size)).mean(-1).unbind(1)
    return (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten(1)


class SUTrackStemBlock(nn.Module):
    """Residual MLP of every position for itself; in and out `(number, height, width, channels)`."""

    def __init__(self, width: int, config: SUTrackConfig):
        super().__init__()
        hidden = config.stem_mlp_ratio * width
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(width, hidden)
        self.activation_fn = ACT2FN[config.stem_act]
        self.fc1_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.activation_fn(self.fc1(self.layernorm(features)))
        return features + self.fc2(self.fc1_norm(hidden))


class SUTrackMerge(nn.Module):
    """Merges 2x2 positions and doubles the channels; in and out `(number, height, width, channels)`."""

    def __init__(self, width: int, config: SUTrackConfig):
        super().__init__()
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.reduction = nn.Conv2d(width, 2 * width, 2, stride=2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.reduction(self.layernorm(features).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SUTrackStem(nn.Module):
    """Patches of a crop: the stages of Fast-iTPN that have no attention and see nothing beyond their own patch."""

    def __init__(self, config: SUTrackConfig):
        super().__init__()
        width, side = config.hidden_size // 4, config.patch_size // 4
        self.patch_projection = nn.Conv2d(6, width, side, stride=side)
        self.blocks = nn.ModuleList()
        for scale in (width, 2 * width):
            self.blocks.extend(SUTrackStemBlock(scale, config) for _ in range(config.stem_depth))
            self.blocks.append(SUTrackMerge(scale, config))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Turn crops `(number, 3 or 6, size, size)` into tokens `(number, patches, hidden_size)`."""
        if pixel_values.shape[1] == 3:
            pixel_values = torch.cat([pixel_values, pixel_values], dim=1)
        features = self.patch_projection(pixel_values).permute(0, 2, 3, 1)
        for block in self.blocks:
            features = block(features)
        return features.flatten(1, 2)


class SUTrackEmbeddings(nn.Module):
    """Tokens of templates, search crop, class and text, in this order."""

    def __init__(self, config: SUTrackConfig):
        super().__init__()
        self.config = config
        self.stem = SUTrackStem(config)
        self.num_search = (config.search_size // config.patch_size) ** 2
        num_positions = self.num_search + (config.template_size // config.patch_size) ** 2
        # Rows of the search crop first; all templates share the rows behind.
        self.position_embeddings = nn.Parameter(torch.zeros(1, num_positions, config.hidden_size))
        self.foreground_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.background_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.search_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        if config.use_text:
            self.text_proj = nn.Linear(config.text_dim, config.hidden_size)
            # What CLIP says of no sentence at all; the original trained most of its data with it.
            self.register_buffer("null_text_features", torch.zeros(config.text_dim))

    def forward(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None,
        text_features: torch.Tensor | None,
        memory: TemplateMemory | None = None,
    ) -> torch.Tensor:
        self._check(template_pixel_values, search_pixel_values, template_boxes, text_features)
        search = (
            self.stem(search_pixel_values) + self.position_embeddings[:, : self.num_search] + self.search_embedding
        )
        if memory is None:
            template = self.templates(template_pixel_values, template_boxes)
        else:
            num_template = self.position_embeddings.shape[1] - self.num_search
            template = memory.tokens((search.shape[0], self.config.num_templates * num_template, search.shape[2]))

        special = [self.class_token.expand(search.shape[0], -1, -1)]
        if self.config.use_text:
            if text_features is None:
                text_features = self.null_text_features.expand(search.shape[0], -1)
            special.append(self.text_proj(text_features).unsqueeze(1))
        return torch.cat([template, search, *special], dim=1)

    def templates(self, pixel_values: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Tokens of all templates, one after the other, that tell target and background apart by the boxes."""
        tokens = self.stem(pixel_values.flatten(0, 1)) + self.position_embeddings[:, self.num_search :]
        share = foreground_share(boxes.flatten(0, 1), self.config.template_size, self.config.patch_size)
        share = share.to(tokens.dtype).unsqueeze(-1)
        tokens = tokens + (share * self.foreground_embedding + (1 - share) * self.background_embedding)
        return tokens.unflatten(0, pixel_values.shape[:2]).flatten(1, 2)

    def _check(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None,
        text_features: torch.Tensor | None,
    ) -> None:
        config = self.config
        for name, pixels, size, lead in (
            ("template_pixel_values", template_pixel_values, config.template_size, (config.num_templates,)),
            ("search_pixel_values", search_pixel_values, config.search_size, ()),
        ):
            if tuple(pixels.shape[1:]) not in [(*lead, channels, size, size) for channels in config.crop_channels]:
                channels = " or ".join(map(str, config.crop_channels))
                shape = ", ".join(["batch_size", *map(str, lead), channels, str(size), str(size)])
                raise ValueError(
                    f"`{name}` has shape {tuple(pixels.shape)}, expected ({shape}). Cut the crops with the tracker's own "
                    "image processor; `crop_channels` of the configuration tells which numbers of channels it takes."
                )
        if template_boxes is None:
            raise ValueError(
                "`template_boxes` is missing, expected the target's `cx, cy, w, h` in [0, 1] of each template crop, shape "
                f"(batch_size, {config.num_templates}, 4): SUTrack tells target and background of a template apart by it."
            )
        batch_size = search_pixel_values.shape[0]
        if tuple(template_boxes.shape) != (batch_size, config.num_templates, 4):
            raise ValueError(
                f"`template_boxes` has shape {tuple(template_boxes.shape)}, expected one box for each template: "
                f"{(batch_size, config.num_templates, 4)}."
            )
        if text_features is not None and not config.use_text:
            raise ValueError(
                "`text_features` was given, but `use_text` of the configuration is False: expected `None`."
            )
        if text_features is not None and tuple(text_features.shape) != (batch_size, config.text_dim):
            raise ValueError(
                f"`text_features` has shape {tuple(text_features.shape)}, expected {(batch_size, config.text_dim)}: one "
                "feature of CLIP's text tower for each sample."
            )


class SUTrackAttention(nn.Module):
    """Self-attention over all tokens; keys have no bias."""

    def __init__(self, config: SUTrackConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.scaling = self.head_dim**-0.5
        self.is_causal = False

        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Attend; in and out `(batch_size, num_tokens, hidden_size)`."""
        input_shape = hidden_states.shape[:-1]
        hidden_shape = (*input_shape, -1, self.head_dim)
        query = self.q_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(hidden_shape).transpose(1, 2)

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        attended, _ = attention_interface(self, query, key, value, None, dropout=dropout, scaling=self.scaling)
        return self.o_proj(attended.reshape(*input_shape, -1).contiguous())


class SUTrackMLP(nn.Module):
    """Gated MLP with a norm before its last layer."""

    def __init__(self, config: SUTrackConfig):
        super().__init__()
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc1_gate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc1_norm = nn.LayerNorm(config.intermediate_size, eps=config.layer_norm_eps)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return contract(self, self._contract, self.fc1_gate(hidden_states), self.fc1(hidden_states))

    def _contract(self, gate: torch.Tensor, neurons: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1_norm(self.activation_fn(gate) * neurons))


class SUTrackLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block whose branches are added by a learnt factor of each channel."""

    def __init__(self, config: SUTrackConfig, layer_index: int):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = SUTrackAttention(config)
        self.attention_scale = nn.Parameter(torch.ones(config.hidden_size))
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SUTrackMLP(config)
        self.mlp_scale = nn.Parameter(torch.ones(config.hidden_size))
        self.drop_path_rate = config.drop_path_rate * layer_index / max(config.num_hidden_layers - 1, 1)

    def forward(self, state: TrackerState) -> TrackerState:
        """Take the state before the layer and return the one after it."""
        hidden_states = state.hidden_states
        attended = self.attention_scale * self.attention(self.layernorm_before(hidden_states))
        hidden_states = hidden_states + drop_path(attended, self.drop_path_rate, self.training)
        mlp_output = self.mlp_scale * self.mlp(self.layernorm_after(hidden_states))
        return state.replace(hidden_states=hidden_states + drop_path(mlp_output, self.drop_path_rate, self.training))


class SUTrackTaskHead(nn.Module):
    """Tells from the mean of all tokens which task it is; in training only, it never moves the box."""

    def __init__(self, config: SUTrackConfig):
        super().__init__()
        widths = [config.hidden_size, config.task_head_channels, config.task_head_channels, config.num_tasks]
        self.projections = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Turn tokens `(batch_size, num_tokens, hidden_size)` into logits `(batch_size, num_tasks)` in fp32."""
        hidden = tokens.mean(dim=1)
        for projection in self.projections[:-1]:
            hidden = projection(hidden).relu()
        return full_precision(self.projections[-1](hidden))


class SUTrackTemplateBank(TemplateBank):
    """
    The first frame's template and the newest sure ones. Every `template_update_interval` frames, a score above
    `template_update_threshold` makes a template of the frame; until then the first stands in.
    """

    def __init__(self, config: SUTrackConfig, first: TemplateCrop):
        super().__init__(config, first)
        self.newest: deque[TemplateCrop] = deque(maxlen=config.num_templates - 1)

    def select(self, frame_number: int) -> list[TemplateCrop]:
        """See [`~templates.TemplateBank.select`]: the first one, then from the oldest to the newest."""
        return [self.first] * (self.config.num_templates - len(self.newest)) + list(self.newest)

    def update(self, frame_number: int, score: float, cut: Callable[[], TemplateCrop]) -> None:
        """See [`~templates.TemplateBank.update`]."""
        due = frame_number % self.config.template_update_interval == 0
        if self.newest.maxlen and due and score > self.config.template_update_threshold:
            self.newest.append(cut())

    def state(self) -> dict[str, TemplateCrop | float]:
        """See [`~templates.TemplateBank.state`]."""
        return {**super().state(), **{f"newest.{index}": crop for index, crop in enumerate(self.newest)}}

    def restore(self, state: Mapping[str, TemplateCrop | float]) -> None:
        """See [`~templates.TemplateBank.restore`]."""
        super().restore(state)
        self.newest.extend(state[f"newest.{index}"] for index in range(len(state) - 1))


class SUTrackPreTrainedModel(PreTrainedTracker):
    """Loading, saving and initialisation of SUTrack."""

    config: SUTrackConfig
    template_bank_class = SUTrackTemplateBank
    _no_split_modules = ["SUTrackEmbeddings", "SUTrackLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @property
    def text_dim(self) -> int | None:
        """Length of the sentence features that it reads; `None` without a language token."""
        return self.config.text_dim if self.config.use_text else None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SUTrackEmbeddings):
            for parameter in module.parameters(recurse=False):  # positions, kinds of token and the class token
                init.trunc_normal_(parameter, std=self.config.initializer_range)
            if self.config.use_text:
                init.zeros_(module.null_text_features)
        elif isinstance(module, SUTrackLayer):
            init.constant_(module.attention_scale, self.config.layer_scale_init_value)
            init.constant_(module.mlp_scale, self.config.layer_scale_init_value)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            # Few cells hold a centre: CenterNet's start, at which the focal loss is not swamped by empty cells.
            init.constant_(module.bias, -2.19 if module is self.head.score.projection else 0.0)


class SUTrackModel(SUTrackPreTrainedModel):
    """
    SUTrack, one tracker for RGB, a second modality and language (https://huggingface.co/papers/2412.19138): tokens of two
    templates, search crop, class and text attend to each other in every layer, a convolutional head reads the search
    tokens, a task head all of them.

    Args:
        config ([`SUTrackConfig`]): configuration.
    """

    def __init__(self, config: SUTrackConfig):
        super().__init__(config)
        self.embeddings = SUTrackEmbeddings(config)
        self.layers = nn.ModuleList(SUTrackLayer(config, index) for index in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = CenterHead(config.hidden_size, config.head_channels, config.search_size // config.patch_size)
        self.task_head = SUTrackTaskHead(config)
        self.post_init()

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """See [`~tracker.PreTrainedTracker.boundaries`]: SUTrack may be cut before and after any layer."""
        config = self.config
        layout = (
            ("template", config.num_templates * (config.template_size // config.patch_size) ** 2),
            ("search", (config.search_size // config.patch_size) ** 2),
            ("special", 1 + config.use_text),
        )
        return tuple(Boundary(index, config.hidden_size, layout) for index in range(len(self.layers) + 1))

    def embed(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        memory: TemplateMemory | None = None,
        keep_all_tokens: bool = False,
    ) -> TrackerState:
        """
        See [`~tracker.PreTrainedTracker.embed`]. Crops have 3 or 6 channels (`crop_channels`). In evaluation mode a `memory`
        stands in for the templates it was made of by [`SUTrackModel.remember_templates`].

        Raises:
            ValueError: a shape is not the configuration's, or `template_boxes` is missing.
        """
        memory = None if self.training else memory
        hidden_states = self.embeddings(
            template_pixel_values, search_pixel_values, template_boxes, text_features, memory
        )
        return TrackerState(hidden_states, layout=self.boundaries[0].layout, keep_all_tokens=keep_all_tokens)

    @torch.no_grad()
    def remember_templates(
        self,
        template_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        memory: TemplateMemory | None = None,
    ) -> TemplateMemory:
        """See [`~tracker.PreTrainedTracker.remember_templates`]: the tokens, of which the stem is the dear part."""
        return TemplateMemory(self.embeddings.templates(template_pixel_values.to(self.dtype), template_boxes))

    def decode(self, state: TrackerState) -> TrackerOutput:
        """See [`~tracker.PreTrainedTracker.decode`]; `auxiliary_logits` `(batch_size, num_tasks)` are the task head's."""
        state = state.replace(hidden_states=self.layernorm(state.hidden_states))
        output = self.head(state.groups()["search"])
        return replace(output, auxiliary_logits=self.task_head(state.hidden_states))

    def compute_guidance(self, output: TrackerOutput, teacher_output: TrackerOutput) -> dict[str, torch.Tensor]:
        """See [`~tracker.PreTrainedTracker.compute_guidance`]; the task head has no label and learns here alone."""
        terms = super().compute_guidance(output, teacher_output)
        with torch.autocast(output.auxiliary_logits.device.type, enabled=False):
            task = categorical_divergence(output.auxiliary_logits, teacher_output.auxiliary_logits.detach())
        return {**terms, "guidance_task": task / output.auxiliary_logits.shape[0]}


__all__ = ["SUTrackModel", "SUTrackPreTrainedModel"]
