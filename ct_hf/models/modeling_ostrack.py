"""PyTorch OSTrack model."""

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_ostrack import OSTrackConfig
from .heads import CenterHead, CornerHead
from .layers import MLP, drop_path, eager_attention_forward
from .templates import TemplateMemory
from .tracker import Boundary, PreTrainedTracker, TrackerOutput, TrackerState


class OSTrackEmbeddings(nn.Module):
    """Patches of templates and search crop with their position tables, templates first."""

    any_number_of_templates = False

    def __init__(self, config: OSTrackConfig):
        super().__init__()
        self.config = config
        self.patch_projection = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        num_template = (config.template_size // config.patch_size) ** 2
        num_search = (config.search_size // config.patch_size) ** 2
        self.template_position_embeddings = nn.Parameter(torch.zeros(1, num_template, config.hidden_size))
        self.search_position_embeddings = nn.Parameter(torch.zeros(1, num_search, config.hidden_size))

    def forward(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        memory: TemplateMemory | None = None,
    ) -> torch.Tensor:
        self._check(template_pixel_values, search_pixel_values)
        search = self.patch_projection(search_pixel_values).flatten(2).transpose(1, 2)
        search = search + self.search_position_embeddings
        if memory is None:
            template = self.templates(template_pixel_values)
        else:
            num_template = template_pixel_values.shape[1] * self.template_position_embeddings.shape[1]
            template = memory.tokens((search.shape[0], num_template, search.shape[2]))
        return torch.cat([template, search], dim=1)

    def templates(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Tokens of all templates, one after the other, under one position table."""
        tokens = self.patch_projection(pixel_values.flatten(0, 1)).flatten(2).transpose(1, 2)
        tokens = tokens + self.template_position_embeddings
        return tokens.unflatten(0, pixel_values.shape[:2]).flatten(1, 2)

    def _check(self, template_pixel_values: torch.Tensor, search_pixel_values: torch.Tensor) -> None:
        """Refuse crops of another shape."""
        template_size, search_size = self.config.template_size, self.config.search_size
        number = self.config.num_templates
        if self.any_number_of_templates and template_pixel_values.ndim == 5:
            number = max(template_pixel_values.shape[1], 1)
        expected = {
            "template_pixel_values": (template_pixel_values, (number, 3, template_size, template_size)),
            "search_pixel_values": (search_pixel_values, (3, search_size, search_size)),
        }
        for name, (pixels, shape) in expected.items():
            if tuple(pixels.shape[1:]) != shape:
                raise ValueError(
                    f"`{name}` has shape {tuple(pixels.shape)}, expected (batch_size, {', '.join(map(str, shape))}). "
                    "Cut the crops with the tracker's own image processor."
                )
        if template_pixel_values.shape[0] != search_pixel_values.shape[0]:
            raise ValueError(
                f"`template_pixel_values` holds {template_pixel_values.shape[0]} samples but `search_pixel_values` "
                f"{search_pixel_values.shape[0]}; give as many of each."
            )


class OSTrackAttention(nn.Module):
    """Self-attention over template and search tokens together."""

    def __init__(self, config: OSTrackConfig):
        super().__init__()
        self.config = config
        self.num_attention_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.scaling = self.head_dim**-0.5
        self.is_causal = False

        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, importance_rows: list[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Attend.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): normed tokens.
            importance_rows (`list[int]`, *optional*): query tokens whose attention is wanted beside the result.

        Returns:
            `tuple` of `torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`, and the attention that the wanted
            rows pay to each token, mean over rows and heads, `(batch_size, num_tokens)`; `None` if none were wanted.
        """
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
        attended = self.o_proj(attended.reshape(*input_shape, -1).contiguous())

        importance = None
        if importance_rows is not None:
            rows = torch.matmul(query[:, :, importance_rows], key.transpose(2, 3)) * self.scaling
            importance = rows.softmax(dim=-1, dtype=torch.float32).mean(dim=2).mean(dim=1)
        return attended, importance


class OSTrackLayer(GradientCheckpointingLayer):
    """
    Pre-norm transformer block which may eliminate search candidates between attention and MLP. The state's layout says how
    many templates there are; search tokens are the last.
    """

    def __init__(self, config: OSTrackConfig, layer_index: int):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = OSTrackAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.drop_path_rate = config.drop_path_rate * layer_index / max(config.num_hidden_layers - 1, 1)
        self.keep_ratio = config.elimination_keep_ratio if layer_index in config.elimination_layers else 1.0
        self.num_template_tokens = (config.template_size // config.patch_size) ** 2
        self.importance_rows = self._importance_rows(config) if self.keep_ratio < 1 else None

    @staticmethod
    def _importance_rows(config: OSTrackConfig) -> list[int]:
        grid = config.template_size // config.patch_size
        low, high = {
            "center_point": ((grid - 1) // 2, (grid - 1) // 2 + 1),
            "center_rectangle": ((grid - 1) // 2, grid // 2 + 1),
            "all": (0, grid),
        }[config.elimination_template_region]
        return [row * grid + column for row in range(low, high) for column in range(low, high)]

    def forward(self, state: TrackerState) -> TrackerState:
        """Take the state before the layer and return the one after it."""
        eliminate = self.importance_rows is not None and not state.keep_all_tokens
        hidden_states = state.hidden_states
        attended, importance = self.attention(
            self.layernorm_before(hidden_states), self._ranking_tokens(state) if eliminate else None
        )
        hidden_states = hidden_states + drop_path(attended, self.drop_path_rate, self.training)
        if eliminate:
            state, hidden_states = self._eliminate(state, hidden_states, importance)
        mlp_output = self.mlp(self.layernorm_after(hidden_states))
        return state.replace(hidden_states=hidden_states + drop_path(mlp_output, self.drop_path_rate, self.training))

    def _ranking_tokens(self, state: TrackerState) -> list[int]:
        """Places in the sequence of the `importance_rows` of each template."""
        names = [name for name, _ in state.layout]
        numbers = [number for _, number in state.layout]
        start = sum(numbers[: names.index("template")])
        templates = range(start, start + numbers[names.index("template")], self.num_template_tokens)
        return [first + row for first in templates for row in self.importance_rows]

    def _eliminate(
        self, state: TrackerState, hidden_states: torch.Tensor, importance: torch.Tensor
    ) -> tuple[TrackerState, torch.Tensor]:
        num_context = sum(number for name, number in state.layout if name != "search")
        num_search = hidden_states.shape[1] - num_context
        kept = importance[:, num_context:].topk(math.ceil(self.keep_ratio * num_search), dim=1).indices
        search_index = state.search_index
        if search_index is None:
            search_index = torch.arange(num_search, device=kept.device).expand(kept.shape[0], -1)
        context, search = hidden_states.split([num_context, num_search], dim=1)
        search = search.gather(1, kept.unsqueeze(-1).expand(-1, -1, search.shape[2]))
        return state.replace(search_index=search_index.gather(1, kept)), torch.cat([context, search], dim=1)


class OSTrackPreTrainedModel(PreTrainedTracker):
    """Loading, saving and initialisation of OSTrack."""

    config: OSTrackConfig
    _no_split_modules = ["OSTrackEmbeddings", "OSTrackLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, OSTrackEmbeddings):
            init.trunc_normal_(module.template_position_embeddings, std=self.config.initializer_range)
            init.trunc_normal_(module.search_position_embeddings, std=self.config.initializer_range)
        elif isinstance(module, nn.Conv2d):
            # Behind batch norm the scale hardly matters, but the last convolutions of a head need a usable one.
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            # Few cells hold a centre: CenterNet's start, at which the focal loss is not swamped by empty cells.
            is_score = isinstance(self.head, CenterHead) and module is self.head.score.projection
            init.constant_(module.bias, -2.19 if is_score else 0.0)


class OSTrackModel(OSTrackPreTrainedModel):
    """
    OSTrack, a one-stream tracker (https://huggingface.co/papers/2203.11991): template and search tokens attend to each
    other in every layer, a convolutional head reads the search tokens.

    Args:
        config ([`OSTrackConfig`]): configuration.
    """

    def __init__(self, config: OSTrackConfig):
        super().__init__(config)
        self.embeddings = OSTrackEmbeddings(config)
        self.layers = nn.ModuleList(OSTrackLayer(config, index) for index in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        head = {"center": CenterHead, "corner": CornerHead}[config.head_type]
        self.head = head(config.hidden_size, config.head_channels, config.search_size // config.patch_size)
        self.post_init()

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """See [`~tracker.PreTrainedTracker.boundaries`]: OSTrack may be cut before and after any layer."""
        sizes = {"template": self.config.template_size, "search": self.config.search_size}
        layout = tuple((name, (size // self.config.patch_size) ** 2) for name, size in sizes.items())
        return tuple(Boundary(index, self.config.hidden_size, layout) for index in range(len(self.layers) + 1))

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
        See [`~tracker.PreTrainedTracker.embed`]; boxes and text are not used. In evaluation mode a `memory` stands in for
        the templates it was made of by [`OSTrackModel.remember_templates`].
        """
        memory = None if self.training else memory
        hidden_states = self.embeddings(template_pixel_values, search_pixel_values, memory)
        return TrackerState(hidden_states, layout=self.boundaries[0].layout, keep_all_tokens=keep_all_tokens)

    @torch.no_grad()
    def remember_templates(
        self,
        template_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        memory: TemplateMemory | None = None,
    ) -> TemplateMemory:
        """See [`~tracker.PreTrainedTracker.remember_templates`]: the tokens before the first layer."""
        return TemplateMemory(self.embeddings.templates(template_pixel_values.to(self.dtype)))

    def decode(self, state: TrackerState) -> TrackerOutput:
        """See [`~tracker.PreTrainedTracker.decode`]."""
        state = state.replace(hidden_states=self.layernorm(state.hidden_states))
        return self.head(state.groups()["search"])


__all__ = ["OSTrackModel", "OSTrackPreTrainedModel"]
