"""PyTorch MixFormerV2 model."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

from .configuration_mixformerv2 import MixFormerV2Config
from .heads_distribution import SIDES, DistributionHead
from .layers import MLP, drop_path, eager_attention_forward
from .templates import TemplateBank, TemplateCrop
from .tracker import Boundary, PreTrainedTracker, TrackerOutput, TrackerState


@dataclass
class MixFormerV2Memory(ModelOutput):
    """
    What every layer keeps of the templates, which never look at a search crop. It saves work and changes no prediction.

    Args:
        template_keys (`torch.Tensor` of shape `(batch_size, num_hidden_layers, num_heads, num_template_tokens, head_dim)`):
            Keys of the template tokens in each layer.
        template_values (`torch.Tensor` of the same shape):
            Their values.
    """

    template_keys: torch.Tensor | None = None
    template_values: torch.Tensor | None = None


@dataclass
class MixFormerV2State(TrackerState):
    """
    State of a frame. Where the templates are remembered, their keys and values ride along and their tokens are not there.

    Args:
        template_keys (`torch.Tensor`, *optional*): see [`MixFormerV2Memory`].
        template_values (`torch.Tensor`, *optional*): see [`MixFormerV2Memory`].
    """

    template_keys: torch.Tensor | None = None
    template_values: torch.Tensor | None = None


def sincos_table(grid: int, channels: int) -> torch.Tensor:
    """
    Position table of sines and cosines, the first half of the channels for the column, the second for the row (MAE's,
    https://huggingface.co/papers/2111.06377).

    Args:
        grid (`int`): patches along a side.
        channels (`int`): width of the tokens, a multiple of 4.

    Returns:
        `torch.Tensor` of shape `(1, grid * grid, channels)`, in raster order.
    """
    frequencies = 1 / 10000 ** (torch.arange(channels // 4, dtype=torch.float32) / (channels / 4))
    angles = torch.outer(torch.arange(grid, dtype=torch.float32), frequencies)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = line.expand(grid, -1, -1), line.unsqueeze(1).expand(-1, grid, -1)
    return torch.cat([columns, rows], dim=2).reshape(1, grid * grid, channels)


class MixFormerV2Embeddings(nn.Module):
    """Patches of templates and search crop with their fixed position tables, and the four prediction tokens."""

    def __init__(self, config: MixFormerV2Config):
        super().__init__()
        self.config = config
        self.patch_projection = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        # Not trained, but part of a checkpoint: the original reads them from there.
        for name, size in (("template", config.template_size), ("search", config.search_size)):
            table = sincos_table(size // config.patch_size, config.hidden_size)
            self.register_buffer(f"{name}_position_embeddings", table)
        self.prediction_tokens = nn.Parameter(torch.zeros(1, len(SIDES), config.hidden_size))
        self.prediction_position_embeddings = nn.Parameter(torch.zeros(1, len(SIDES), config.hidden_size))

    def templates(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Tokens of all templates, one after the other, under one position table."""
        size, number = self.config.template_size, self.config.num_templates
        self._check("template_pixel_values", pixel_values, (number, 3, size, size))
        tokens = self.patch_projection(pixel_values.flatten(0, 1)).flatten(2).transpose(1, 2)
        tokens = tokens + self._in_type_of_weights(self.template_position_embeddings)
        return tokens.reshape(pixel_values.shape[0], -1, tokens.shape[2])

    def search(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Tokens of the search crop and the prediction tokens behind them."""
        size = self.config.search_size
        self._check("search_pixel_values", pixel_values, (3, size, size))
        tokens = self.patch_projection(pixel_values).flatten(2).transpose(1, 2)
        tokens = tokens + self._in_type_of_weights(self.search_position_embeddings)
        prediction = self.prediction_tokens + self.prediction_position_embeddings
        return torch.cat([tokens, prediction.expand(tokens.shape[0], -1, -1)], dim=1)

    def _in_type_of_weights(self, table: torch.Tensor) -> torch.Tensor:
        """Buffers stay in fp32 when weights are loaded in another type."""
        return table.to(self.patch_projection.weight.dtype)

    @staticmethod
    def _check(name: str, pixel_values: torch.Tensor, shape: tuple[int, ...]) -> None:
        if tuple(pixel_values.shape[1:]) != shape:
            raise ValueError(
                f"`{name}` has shape {tuple(pixel_values.shape)}, expected (batch_size, {', '.join(map(str, shape))}). "
                "Cut the crops with the tracker's own image processor."
            )


class MixFormerV2Attention(nn.Module):
    """Asymmetric attention: templates attend to templates only, search and prediction tokens to all."""

    def __init__(self, config: MixFormerV2Config):
        super().__init__()
        self.config = config
        self.num_attention_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.scaling = self.head_dim**-0.5
        self.is_causal = False

        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        num_template: int,
        remembered: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """
        Attend.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): normed tokens.
            num_template (`int`): how many of them, at the beginning, are the templates'.
            remembered (`tuple` of two `torch.Tensor`, *optional*): keys and values of templates that are not among them.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`.
        """
        query = self._heads(self.q_proj(hidden_states))
        key, value = self.keys_and_values(hidden_states)
        if remembered is not None:
            key, value = (torch.cat(pair, dim=2) for pair in zip(remembered, (key, value), strict=True))
        # Two calls without a mask are faster than one with: no product is computed in vain, and every kernel takes them.
        parts = []
        if num_template:
            parts.append(self._attend(*(part[:, :, :num_template] for part in (query, key, value))))
        if num_template < hidden_states.shape[1]:
            parts.append(self._attend(query[:, :, num_template:], key, value))
        return self.o_proj(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])

    def keys_and_values(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of normed tokens, each `(batch_size, num_heads, num_tokens, head_dim)`."""
        return self._heads(self.k_proj(hidden_states)), self._heads(self.v_proj(hidden_states))

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.view(*projected.shape[:2], -1, self.head_dim).transpose(1, 2)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        attended, _ = attention_interface(self, query, key, value, None, dropout=dropout, scaling=self.scaling)
        return attended.flatten(2)


class MixFormerV2Layer(GradientCheckpointingLayer):
    """Pre-norm transformer block with asymmetric attention."""

    def __init__(self, config: MixFormerV2Config, layer_index: int):
        super().__init__()
        self.layer_index = layer_index
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = MixFormerV2Attention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.drop_path_rate = config.drop_path_rate * layer_index / max(config.num_hidden_layers - 1, 1)

    def forward(self, state: MixFormerV2State) -> MixFormerV2State:
        """Take the state before the layer and return the one after it."""
        hidden_states, remembered = state.hidden_states, None
        if state.template_keys is not None:
            remembered = state.template_keys[:, self.layer_index], state.template_values[:, self.layer_index]
        num_template = dict(state.layout).get("template", 0)
        attended = self.attention(self.layernorm_before(hidden_states), num_template, remembered)
        hidden_states = hidden_states + drop_path(attended, self.drop_path_rate, self.training)
        mlp_output = self.mlp(self.layernorm_after(hidden_states))
        return state.replace(hidden_states=hidden_states + drop_path(mlp_output, self.drop_path_rate, self.training))

    def keys_and_values(self, state: MixFormerV2State) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values that the layer's attention makes of the tokens before it."""
        return self.attention.keys_and_values(self.layernorm_before(state.hidden_states))


class MixFormerV2TemplateBank(TemplateBank):
    """
    First template, and one that is renewed every `update_interval` frames by the best candidate since the last renewal:
    the crop with the highest score above `update_threshold`, or the first template again where there was none. At most
    three templates are kept. Without a score branch nothing is renewed.
    """

    def __init__(self, config: MixFormerV2Config, first: TemplateCrop):
        super().__init__(config, first)
        self.online = self.candidate = first
        self.best_score = config.update_threshold

    def select(self, frame_number: int) -> list[TemplateCrop]:
        """See [`~templates.TemplateBank.select`]."""
        return [self.first, self.online]

    def update(self, frame_number: int, score: float, cut: Callable[[], TemplateCrop]) -> None:
        """See [`~templates.TemplateBank.update`]."""
        if not self.config.score_branch:
            return
        if score > self.best_score:
            self.candidate, self.best_score = cut(), score
        if frame_number % self.config.update_interval == 0:
            self.online = self.candidate
            self.candidate, self.best_score = self.first, self.config.update_threshold

    def state(self) -> dict[str, TemplateCrop | float]:
        """See [`~templates.TemplateBank.state`]."""
        return {
            **super().state(),
            "online": self.online,
            "candidate": self.candidate,
            "best_score": self.best_score,
        }

    def restore(self, state: Mapping[str, TemplateCrop | float]) -> None:
        """See [`~templates.TemplateBank.restore`]."""
        super().restore(state)
        self.online, self.candidate, self.best_score = state["online"], state["candidate"], state["best_score"]


class MixFormerV2PreTrainedModel(PreTrainedTracker):
    """Loading, saving and initialisation of MixFormerV2."""

    config: MixFormerV2Config
    _no_split_modules = ["MixFormerV2Embeddings", "MixFormerV2Layer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MixFormerV2Embeddings):
            init.trunc_normal_(module.prediction_tokens, std=self.config.initializer_range)
            init.zeros_(module.prediction_position_embeddings)
            for table in (module.template_position_embeddings, module.search_position_embeddings):
                init.copy_(table, sincos_table(round(table.shape[1] ** 0.5), table.shape[2]))


class MixFormerV2Model(MixFormerV2PreTrainedModel):
    """
    MixFormerV2, a tracker without convolutions behind its patches (https://huggingface.co/papers/2305.15896): four
    prediction tokens gather the target's position from two templates and the search crop, and each becomes the
    distribution of one side of the box.

    Args:
        config ([`MixFormerV2Config`]): configuration.
    """

    template_bank_class = MixFormerV2TemplateBank

    def __init__(self, config: MixFormerV2Config):
        super().__init__(config)
        self.embeddings = MixFormerV2Embeddings(config)
        self.layers = nn.ModuleList(MixFormerV2Layer(config, index) for index in range(config.num_hidden_layers))
        self.head = DistributionHead(config.hidden_size, config.num_bins, config.score_branch)
        self.post_init()

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """See [`~tracker.PreTrainedTracker.boundaries`]: MixFormerV2 may be cut before and after any layer."""
        config = self.config
        template, search = ((size // config.patch_size) ** 2 for size in (config.template_size, config.search_size))
        layout = (("template", config.num_templates * template), ("search", search), ("special", len(SIDES)))
        return tuple(Boundary(index, config.hidden_size, layout) for index in range(len(self.layers) + 1))

    def embed(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        memory: MixFormerV2Memory | None = None,
        keep_all_tokens: bool = False,
    ) -> MixFormerV2State:
        """
        See [`~tracker.PreTrainedTracker.embed`]; boxes and text are not used. In evaluation mode a `memory` stands in for
        the templates it was made of by [`MixFormerV2Model.remember_templates`]; they are then not looked at.
        """
        search = self.embeddings.search(search_pixel_values)
        layout = self.boundaries[0].layout
        if memory is None or self.training or keep_all_tokens:
            hidden_states = torch.cat([self.embeddings.templates(template_pixel_values), search], dim=1)
            return MixFormerV2State(hidden_states, layout=layout, keep_all_tokens=keep_all_tokens)
        heads = self.config.num_attention_heads
        shape = (search.shape[0], len(self.layers), heads, dict(layout)["template"], self.config.hidden_size // heads)
        for name, tensor in memory.items():
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"`memory` holds `{name}` of shape {tuple(tensor.shape)}, expected {shape}. It is of another tracker or "
                    "batch: make it by `remember_templates`."
                )
        return MixFormerV2State(
            search,
            layout=layout[1:],
            keep_all_tokens=keep_all_tokens,
            template_keys=memory.template_keys,
            template_values=memory.template_values,
        )

    @torch.no_grad()
    def remember_templates(
        self,
        template_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        memory: MixFormerV2Memory | None = None,
    ) -> MixFormerV2Memory:
        """See [`~tracker.PreTrainedTracker.remember_templates`]: keys and values of the templates in every layer."""
        tokens = self.embeddings.templates(template_pixel_values.to(self.dtype))
        state = MixFormerV2State(tokens, layout=(("template", tokens.shape[1]),))
        pairs = []
        for layer in self.layers:
            pairs.append(layer.keys_and_values(state))
            state = layer(state)
        keys, values = (torch.stack(tensors, dim=1) for tensors in zip(*pairs, strict=True))
        return MixFormerV2Memory(keys, values)

    def decode(self, state: MixFormerV2State) -> TrackerOutput:
        """See [`~tracker.PreTrainedTracker.decode`]; there is no final norm."""
        output = self.head(state.groups()["special"])
        if state.template_keys is None:
            return output
        return dataclasses.replace(output, memory=MixFormerV2Memory(state.template_keys, state.template_values))


__all__ = ["MixFormerV2Model", "MixFormerV2PreTrainedModel"]
