"""Model cards of trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..evaluation.report import comparison_table, markdown_table, short_number
from ..models.cost import count_parameters
from .contents import MACHINE_PATH


if TYPE_CHECKING:
    from ..models.tracker import PreTrainedTracker


TAGS = ("visual-object-tracking", "single-object-tracking", "compresstracker", "ct_hf")
_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"


def _check_text(name: str, value: Any) -> str:
    text = "" if value is None else str(value).strip()
    if not text:
        raise ValueError(f"`{name}` is empty, expected what the card should say. Fill it in.")
    if found := MACHINE_PATH.search(text):
        raise ValueError(
            f"`{name}` holds the path {found.group()!r}, which means nothing on another machine. Name the data set, the "
            "repository or the file instead."
        )
    return text


def _check_repository(name: str, value: str) -> str:
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise ValueError(f"`{name}` must be a Hub repository such as 'user/tracker', got {value!r}.") from error
    return value


def write_card(
    directory: str | Path,
    *,
    model: PreTrainedTracker,
    name: str,
    base_model: str | None = None,
    results: Sequence[Mapping[str, Any]] | None,
    training: Mapping[str, Any],
    initialization: str | None = None,
    stages: str | None = None,
    data: str,
    limits: str,
    license: str = "apache-2.0",
) -> Path:
    """
    Write the model card of a tracker, the `README.md` of its repository.

    Args:
        directory (`str` or `Path`): folder that the card is written into, made if need be.
        model ([`~models.tracker.PreTrainedTracker`]): tracker that the card describes.
        name (`str`): Hub repository of the tracker, `user/tracker`.
        base_model (`str`, *optional*): Hub repository of the tracker that it was made from.
        results (sequence of mappings, *optional*): rows of [`~evaluation.comparison_table`], the teacher's first; `None`
            for a card without results.
        training (`Mapping[str, Any]`): how it was trained, a row of a table each.
        initialization (`str`, *optional*): where each tensor came from, line by line.
        stages (`str`, *optional*): how teacher and student were cut into stages; given, the card says that the tracker
            was compressed.
        data (`str`): what it was trained on, in Markdown.
        limits (`str`): what it is not good at or for, in Markdown.
        license (`str`, *optional*, defaults to `"apache-2.0"`): identifier of the licence, as the Hub spells it.

    Returns:
        `Path`: the card.

    Raises:
        ValueError: a field is empty or holds a path of the machine, or `name` or `base_model` is not a Hub repository.
    """
    if not training:
        raise ValueError("`training` is empty, expected how the tracker was trained, such as {'steps': 1000}.")
    rows = [
        (_check_text("training", key), _check_text(f"training[{key!r}]", value)) for key, value in training.items()
    ]
    if results is not None:
        results = _check_text("results", comparison_table(results))
    metadata = ModelCardData(
        license=_check_text("license", license),
        library_name="transformers",
        pipeline_tag="object-detection",
        tags=list(TAGS),
        base_model=None if base_model is None else _check_repository("base_model", base_model),
    )
    card = ModelCard.from_template(
        metadata,
        template_path=str(_TEMPLATE),
        name=_check_repository("name", name),
        base_model=base_model,
        layers=len(model.layers),
        parameters=short_number(count_parameters(model) / 1e6),
        model_type=model.config.model_type,
        template_size=model.config.template_size,
        search_size=model.config.search_size,
        results=results,
        training=markdown_table(("Setting", "Value"), rows, left=2),
        initialization=None if initialization is None else _check_text("initialization", initialization),
        stages=None if stages is None else _check_text("stages", stages),
        data=_check_text("data", data),
        limits=_check_text("limits", limits),
    )
    path = Path(directory) / "README.md"
    card.save(path)
    return path


__all__ = ["TAGS", "write_card"]
