"""The contract of every tracker: embed, layers, decode."""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_tracker import TrackerConfig
from .session import TrackingSession
from .templates import TemplateBank
from .weights import require_safetensors


@dataclass
class TrackerState(ModelOutput):
    """
    What flows through a trunk. Never changed in place: [`TrackerState.replace`] makes the next one.

    Every tensor has the batch as its first dimension, so that the samples of a batch can take different paths. A family
    that carries more along adds fields.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`):
            Tokens, in the order of `layout`.
        search_index (`torch.LongTensor` of shape `(batch_size, num_kept)`, *optional*):
            Raster position of each search token where some were eliminated; `None` while all are there in raster order.
        layout (`tuple[tuple[str, int], ...]`):
            Token groups in order, with their full number of tokens: `"template"`, `"search"` and `"special"`.
        keep_all_tokens (`bool`, *optional*):
            Whether layers must not eliminate tokens, as while compressing.
    """

    hidden_states: torch.Tensor | None = None
    search_index: torch.LongTensor | None = None
    layout: tuple[tuple[str, int], ...] | None = None
    keep_all_tokens: bool | None = None

    def replace(self, **changes: Any) -> Self:
        """Copy of the state with some fields changed."""
        return dataclasses.replace(self, **changes)

    def groups(self) -> dict[str, torch.Tensor]:
        """
        Token groups that are present, each `(batch_size, num_tokens, hidden_size)`.

        The search group is in raster order and complete: eliminated tokens are zeros.
        """
        lengths = dict(self.layout)
        kept = dict(lengths)
        if self.search_index is not None:
            kept["search"] = self.search_index.shape[1]
        groups = dict(zip(kept, self.hidden_states.split(list(kept.values()), dim=1), strict=True))
        if self.search_index is not None:
            search = groups["search"]
            full = search.new_zeros(search.shape[0], lengths["search"], search.shape[2])
            groups["search"] = full.scatter(1, self.search_index.unsqueeze(-1).expand_as(search), search)
        return groups

    def select(self, rows: list[int]) -> Self:
        """State of some samples of the batch, in the order of `rows`."""
        if rows == list(range(self.hidden_states.shape[0])):
            return self
        changes = {name: value[rows] for name, value in self.items() if isinstance(value, torch.Tensor)}
        return self.replace(**changes)

    @classmethod
    def concatenate(cls, states: list[Self]) -> Self:
        """Join the samples of several states of the same layout into one batch."""
        if len(states) == 1:
            return states[0]
        names = [name for name, value in states[0].items() if isinstance(value, torch.Tensor)]
        return states[0].replace(**{name: torch.cat([state[name] for state in states]) for name in names})


@dataclass
class TrackerOutput(ModelOutput):
    """
    Prediction of a tracker.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*, returned when `search_boxes` is given):
            Sum of `loss_dict`.
        loss_dict (`dict[str, torch.Tensor]`, *optional*):
            Terms of the loss, their weights included.
        pred_boxes (`torch.Tensor` of shape `(batch_size, 4)`):
            `cx, cy, w, h` in [0, 1] of the search crop, before any window.
        score (`torch.Tensor` of shape `(batch_size,)`):
            Confidence in [0, 1].
        score_map (`torch.Tensor` of shape `(batch_size, 1, grid, grid)`, *optional*):
            Probability that the target's centre is in a cell (center heads).
        score_logits (`torch.Tensor` of shape `(batch_size, 1, grid, grid)` or, of a score branch, `(batch_size,)`, *optional*):
            The same before the sigmoid, for losses that must not saturate.
        size_map (`torch.Tensor` of shape `(batch_size, 2, grid, grid)`, *optional*):
            Width and height in [0, 1] of the search crop (center heads).
        offset_map (`torch.Tensor` of shape `(batch_size, 2, grid, grid)`, *optional*):
            Centre within a cell, in cells (center heads).
        corner_logits (`torch.Tensor` of shape `(batch_size, 2, grid, grid)` or `(batch_size, 4, bins)`, *optional*):
            Heat maps of the upper left and lower right corner (corner heads), or distributions of left, top, right and
            bottom edge (distribution heads), before the softmax.
        corner_probabilities (`torch.Tensor` of shape `(batch_size, 4, bins)`, *optional*):
            Distribution of left, top, right and bottom edge (distribution heads).
        auxiliary_logits (`torch.Tensor`, *optional*):
            What further heads of a family predict.
        hidden_states (`tuple[torch.Tensor]`, *optional*, returned when `output_hidden_states` is set):
            Hidden states at the boundaries asked for, each `(batch_size, num_tokens, hidden_size)`.
        memory (`ModelOutput`, *optional*):
            What the family carries to the next frame, detached.
    """

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    pred_boxes: torch.Tensor | None = None
    score: torch.Tensor | None = None
    score_map: torch.Tensor | None = None
    score_logits: torch.Tensor | None = None
    size_map: torch.Tensor | None = None
    offset_map: torch.Tensor | None = None
    corner_logits: torch.Tensor | None = None
    corner_probabilities: torch.Tensor | None = None
    auxiliary_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    memory: ModelOutput | None = None

    @classmethod
    def chain(cls, outputs: list[Self]) -> Self:
        """
        Join the outputs of chained frames: tensors get the frames as their second dimension, losses are means over the
        frames, the memory is the last frame's.
        """
        joined: dict[str, Any] = {"memory": outputs[-1].memory}
        for name, value in outputs[0].items():
            values = [output[name] for output in outputs]
            if name == "loss":
                joined[name] = torch.stack(values).mean()
            elif name == "loss_dict":
                joined[name] = {term: torch.stack([each[term] for each in values]).mean() for term in value}
            elif name == "hidden_states":
                joined[name] = tuple(torch.stack(states, dim=1) for states in zip(*values, strict=True))
            elif name != "memory":
                joined[name] = torch.stack(values, dim=1)
        return cls(**joined)


class Boundary(NamedTuple):
    """
    Place where a trunk may be cut.

    Args:
        index (`int`): number of layers before it.
        width (`int`): width of the tokens there.
        layout (`tuple[tuple[str, int], ...]`): token groups there, see [`TrackerState`].
    """

    index: int
    width: int
    layout: tuple[tuple[str, int], ...]


class PreTrainedTracker(PreTrainedModel):
    """
    Base of every tracker. A family sets `embeddings`, `layers` and `head` and writes `embed`, `decode` and `boundaries`;
    compression, training, data, tracking and evaluation know nothing else of it.

    Attributes:
        embeddings (`nn.Module`): what pixels go through before the trunk.
        layers (`nn.ModuleList`): the trunk; each layer takes a state and returns the next.
        head (`nn.Module`): one of the heads of `heads.py`.
        carries_memory (`bool`): whether a frame's output holds a memory that the next frame's prediction depends on, so that
            frames can be chained; not set for what is only remembered of the templates to save work.
        memory_class (`type`, *optional*): class of that memory, for a session that is restored from a file. The batch is the
            first dimension of each of its tensors.
        text_dim (`int`, *optional*): length of the sentence features that it reads; `None` if it has no language token.
        template_bank_class (`type`): how a session of the family chooses its templates.
        loaded_commit (`str`, *optional*): commit of the repository on the Hub that `AutoModel` loaded the weights from.
    """

    config: TrackerConfig
    base_model_prefix = "model"
    main_input_name = "search_pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    carries_memory: bool = False
    memory_class: type[ModelOutput] | None = None
    text_dim: int | None = None
    template_bank_class: type[TemplateBank] = TemplateBank
    loaded_commit: str | None = None

    embeddings: nn.Module
    layers: nn.ModuleList
    head: nn.Module

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """
        Load a tracker, see [`~transformers.PreTrainedModel.from_pretrained`], from safetensors alone; it knows its commit.

        Raises:
            ValueError: `use_safetensors` is `False`.
            OSError: there are no safetensors, or no such folder or repository.
        """
        require_safetensors(pretrained_model_name_or_path, **kwargs)
        revision = kwargs.get("revision")  # which `AutoModel` has resolved
        loaded = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, **{**kwargs, "use_safetensors": True}
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.loaded_commit = getattr(revision, "resolved", None)
        return loaded

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """
        Keep less for the backward pass and compute more, see [`~transformers.PreTrainedModel`].

        Raises:
            ValueError: `use_reentrant` is set. Reentrant checkpoints look for tensors among the arguments of a layer, which are
                states here, and would train the head alone.
        """
        settings = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        if settings["use_reentrant"]:
            raise ValueError("`use_reentrant` is True, by which layers of trackers get no gradient. Leave it out.")
        super().activation_checkpointing_enable(settings, **kwargs)

    def embed(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        memory: ModelOutput | None = None,
        keep_all_tokens: bool = False,
    ) -> TrackerState:
        """Turn pixels into tokens; the arguments are those of [`PreTrainedTracker.forward`]."""
        raise NotImplementedError

    def remember_templates(
        self,
        template_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        memory: ModelOutput | None = None,
    ) -> ModelOutput | None:
        """
        Take templates into the memory, so that a family whose templates never look at a search crop need not encode them in
        each frame. A session calls it before the first frame and whenever its templates have changed, and gives what it
        returns to every frame until then; families that encode their templates with each search crop leave the memory as it
        is.

        Args:
            template_pixel_values (`torch.Tensor` of shape `(batch_size, num_templates, 3, template_size, template_size)`):
                Normalised template crops.
            template_boxes (`torch.Tensor` of shape `(batch_size, num_templates, 4)`, *optional*):
                `cx, cy, w, h` in [0, 1] of each template crop.
            memory (`ModelOutput`, *optional*):
                What the family carried from the last frame.

        Returns:
            `ModelOutput`, *optional*: memory for the next frame.
        """
        return memory

    def decode(self, state: TrackerState) -> TrackerOutput:
        """Turn the tokens after the last layer into a prediction: final norm and head, in fp32 from the logits on."""
        raise NotImplementedError

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """Places where the trunk may be cut, from before the first layer to after the last."""
        raise NotImplementedError

    def compute_loss(self, output: TrackerOutput, search_boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Loss against ground truth.

        Args:
            output ([`TrackerOutput`]): prediction.
            search_boxes (`torch.Tensor` of shape `(batch_size, 4)`): `cx, cy, w, h` in [0, 1] of the search crop.

        Returns:
            `dict[str, torch.Tensor]`: terms of the loss with their weights, means over the batch.
        """
        return self.head.compute_loss(output, search_boxes)

    def compute_guidance(self, output: TrackerOutput, teacher_output: TrackerOutput) -> dict[str, torch.Tensor]:
        """Loss against a teacher's prediction, in the form of `compute_loss`; its gradient is zero where both are equal."""
        return self.head.compute_guidance(output, teacher_output)

    def locate(self, output: TrackerOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Boxes and scores for tracking, with the window penalty (Hann) where the head has a map.

        Returns:
            `tuple` of `torch.Tensor` of shape `(batch_size, 4)`, `cx, cy, w, h` in [0, 1] of the search crop, and
            `torch.Tensor` of shape `(batch_size,)`.
        """
        if output.pred_boxes is not None and output.pred_boxes.ndim != 2:
            frames = output.pred_boxes.shape[1]
            raise ValueError(f"`output` is of {frames} chained frames, expected one: run each alone to locate it.")
        return self.head.locate(output)

    def forward(
        self,
        template_pixel_values: torch.Tensor,
        search_pixel_values: torch.Tensor,
        template_boxes: torch.Tensor | None = None,
        search_boxes: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        memory: ModelOutput | None = None,
        output_hidden_states: bool | list[int] | None = None,
        return_dict: bool | None = None,
    ) -> TrackerOutput | tuple:
        """
        Predict the target's box in a search crop.

        Args:
            template_pixel_values (`torch.Tensor` of shape `(batch_size, num_templates, 3, template_size, template_size)`):
                Normalised template crops.
            search_pixel_values (`torch.Tensor` of shape `(batch_size, 3, search_size, search_size)`):
                Normalised search crops; or `(batch_size, frames, 3, search_size, search_size)` for frames that are chained
                by the family's memory. Outputs then have the frames as their second dimension.
            template_boxes (`torch.Tensor` of shape `(batch_size, num_templates, 4)`, *optional*):
                `cx, cy, w, h` in [0, 1] of each template crop, where a family uses them.
            search_boxes (`torch.Tensor` of shape `(batch_size, 4)` or `(batch_size, frames, 4)`, *optional*):
                `cx, cy, w, h` in [0, 1] of the search crop: the label.
            text_features (`torch.Tensor` of shape `(batch_size, dim)`, *optional*):
                Sentence feature, for families with a language token.
            memory (`ModelOutput`, *optional*):
                What the family carried from the last frame, or made of the templates by `remember_templates`.
            output_hidden_states (`bool` or `list[int]`, *optional*):
                Whether to return the hidden states of all boundaries, or which.
            return_dict (`bool`, *optional*):
                Whether to return a [`TrackerOutput`] instead of a tuple.

        Returns:
            [`TrackerOutput`], or a tuple of its fields that are set.
        """
        if text_features is not None and self.text_dim is None:
            raise ValueError(f"`text_features` was given, but {type(self).__name__} reads no text. Leave it out.")
        wanted = output_hidden_states if output_hidden_states is not None else self.config.output_hidden_states
        places = range(len(self.layers) + 1)
        wanted = list(places) if wanted is True else list(wanted or ())
        if not set(wanted) <= set(places):
            raise ValueError(f"`output_hidden_states` must be boundaries from 0 to {places[-1]}, got {wanted}.")
        inputs = {
            "template_pixel_values": template_pixel_values,
            "template_boxes": template_boxes,
            "text_features": text_features,
        }
        if search_pixel_values.ndim == 5:
            outputs = []
            for frame, boxes in self.chained_frames(search_pixel_values, search_boxes):
                outputs.append(self._predict(frame, boxes, memory, wanted, **inputs))
                memory = outputs[-1].memory
            output = TrackerOutput.chain(outputs)
        else:
            output = self._predict(search_pixel_values, search_boxes, memory, wanted, **inputs)
        return_dict = return_dict if return_dict is not None else self.config.return_dict
        return output if return_dict else output.to_tuple()

    def chained_frames(
        self, search_pixel_values: torch.Tensor, search_boxes: torch.Tensor | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """
        Part chained search crops into frames.

        Args:
            search_pixel_values (`torch.Tensor` of shape `(batch_size, frames, 3, search_size, search_size)`): crops.
            search_boxes (`torch.Tensor` of shape `(batch_size, frames, 4)`, *optional*): labels.

        Returns:
            `list[tuple]`: crops and labels of each frame.

        Raises:
            ValueError: the family carries no memory, or the labels are not of these frames.
        """
        if not self.carries_memory:
            raise ValueError(
                f"`search_pixel_values` has {search_pixel_values.shape[1]} chained frames, but {type(self).__name__} carries "
                "no memory from frame to frame. Give one frame: (batch_size, 3, search_size, search_size)."
            )
        frames = search_pixel_values.unbind(1)
        if search_boxes is None:
            return [(frame, None) for frame in frames]
        if tuple(search_boxes.shape) != (*search_pixel_values.shape[:2], 4):
            raise ValueError(
                f"`search_boxes` has shape {tuple(search_boxes.shape)}, expected one box for each of {len(frames)} chained "
                f"frames: {(*search_pixel_values.shape[:2], 4)}."
            )
        return list(zip(frames, search_boxes.unbind(1), strict=True))

    def _predict(
        self,
        search_pixel_values: torch.Tensor,
        search_boxes: torch.Tensor | None,
        memory: ModelOutput | None,
        wanted: list[int],
        **inputs: torch.Tensor | None,
    ) -> TrackerOutput:
        """Predict the box of one frame, with its loss where there is a label."""
        size = search_pixel_values.shape[0]
        if search_boxes is not None and tuple(search_boxes.shape) != (size, 4):
            raise ValueError(
                f"`search_boxes` has shape {tuple(search_boxes.shape)}, expected one box cx, cy, w, h for each of {size} search "
                f"crops: {(size, 4)}."
            )
        inputs = self.cast_inputs({"search_pixel_values": search_pixel_values, **inputs})
        state = self.embed(memory=memory, **inputs)
        hidden_states = {0: state.hidden_states} if 0 in wanted else {}
        for index, layer in enumerate(self.layers, start=1):
            state = layer(state)
            if index in wanted:
                hidden_states[index] = state.hidden_states
        output = self.decode(state)
        if len(wanted):
            output = dataclasses.replace(output, hidden_states=tuple(hidden_states[index] for index in wanted))
        if search_boxes is not None:
            terms = self.compute_loss(output, search_boxes)
            output = dataclasses.replace(output, loss=sum(terms.values()), loss_dict=terms)
        return output

    def cast_inputs(self, inputs: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
        """Inputs of `embed` that are there, pixels and text in the type of the weights, whatever type they came in."""
        types = dict.fromkeys(("template_pixel_values", "search_pixel_values", "text_features"), self.dtype)
        return {name: value.to(types.get(name, value.dtype)) for name, value in inputs.items() if value is not None}

    def start(self, frame: Any, box: Any, text_features: torch.Tensor | None = None) -> TrackingSession:
        """
        Start to track a target.

        Args:
            frame (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
                First frame, RGB, see [`~image_processing_tracker.as_frame`].
            box (sequence of 4 floats):
                The target's `x, y, w, h` in pixels of the frame, from 0.
            text_features (`torch.Tensor` of shape `(dim,)`, *optional*):
                What a sentence says of the target, see [`~language.encode_sentences`], for families with a language token.

        Returns:
            [`TrackingSession`], whose `update(frame)` tracks the target through the frames that follow.
        """
        return TrackingSession(self, frame, box, text_features)


__all__ = ["Boundary", "PreTrainedTracker", "TrackerOutput", "TrackerState"]
