"""Model cards of trackers."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..evaluation.report import comparison_table, markdown_table, short_number
from ..models.cost import count_parameters
from .contents import MACHINE_PATH


if TYPE_CHECKING:
    from ..models.tracker import PreTrainedTracker


TAGS = ("visual-object-tracking", "single-object-tracking", "compresstracker", "ct_hf")
UNNAMED = "your-name/ct-student"
"""What a card calls a tracker that has no repository yet."""

METRICS = {
    "auc": ("success_auc", "Success AUC (%)"),
    "precision": ("distance_precision", "Precision at 20 pixels (%)"),
    "norm_precision": ("normalized_precision", "Normalised precision at 0.20 (%)"),
}
"""Identifier and title of each figure of a row in a card's metadata."""

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"


@dataclass(frozen=True, kw_only=True)
class TrackerCard:
    """
    What a card says that its model does not know. Texts are Markdown; what is `None` is left out with its heading.

    Args:
        name (`str`): Hub repository of the tracker, `user/tracker`, or what it is called where there is none.
        place (`str`, *optional*): what `from_pretrained` takes; `None` where there are no weights.
        about (`str`, *optional*): what a reader must know first.
        recipe (`str`, *optional*): how it can be made.
        results (sequence of mappings, *optional*): rows of [`~evaluation.comparison_table`]: the teacher's, then this
            tracker's, then others'; or this tracker's alone.
        evaluated_on (`str`, *optional*): what the results are on, as the end of a sentence; needed with `results`.
        hardware (`str`, *optional*): what ran when the rows' speed was measured.
        reported (`str`, *optional*): figures that others measured, with their source.
        training (`Mapping[str, Any]`, *optional*): how it was trained, a row of a table each.
        command (`str`, *optional*): command that trained it.
        notes (`str`, *optional*): more on the training.
        pictures (`Sequence[Path]`, *optional*): `training.png` and `tracks.png`, copied beside the card.
        stages (`str`, *optional*): how teacher and student are cut into stages.
        initialization (`str`, *optional*): where each tensor came from, line by line; plain text.
        data (`str`): what it was trained on.
        limits (`str`): what it is not good at or for, and what it is biased to.
        licenses (`str`): under which licences weights and training data are.
        license (`str`): identifier of the weights' licence, as the Hub spells it; `"unknown"` where nobody knows.
    """

    name: str
    place: str | None = None
    about: str | None = None
    recipe: str | None = None
    results: Sequence[Mapping[str, Any]] | None = None
    evaluated_on: str | None = None
    hardware: str | None = None
    reported: str | None = None
    training: Mapping[str, Any] | None = None
    command: str | None = None
    notes: str | None = None
    pictures: Sequence[Path] = ()
    stages: str | None = None
    initialization: str | None = None
    data: str
    limits: str
    licenses: str
    license: str

    def check(self) -> None:
        """
        Refuse what would make a card that is wrong or says nothing.

        Raises:
            ValueError: a field is empty or holds a path of the machine, or one that it needs is missing.
        """
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, str):
                _check_text(name, value)
        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise ValueError(f"`name` must be a Hub repository such as 'user/tracker', got {self.name!r}.") from error
        if self.training is not None and not self.training:
            raise ValueError("`training` is empty, expected how the tracker was trained, such as {'steps': 1000}.")
        if self.results is not None and self.evaluated_on is None:
            raise ValueError("`evaluated_on` is missing, expected what the `results` are on, such as '40 sequences'.")
        if self.place is None and self.recipe is None:
            raise ValueError("`place` and `recipe` are missing: say where the weights are, or how they can be made.")


def write_card(directory: str | Path, model: PreTrainedTracker, card: TrackerCard) -> Path:
    """
    Write the model card of a tracker, the `README.md` of its repository, and its pictures.

    Where the model's configuration keeps the record of its compression, the card names its teacher, and data sets on the
    Hub. A student is a `finetune` of its teacher, of the relations that the Hub knows: its weights begin as the teacher's.

    Args:
        directory (`str` or `Path`): folder that the card is written into, made if need be.
        model ([`~models.tracker.PreTrainedTracker`]): tracker that the card describes; may be on the meta device.
        card ([`TrackerCard`]): what it says.

    Returns:
        `Path`: the card.

    Raises:
        ValueError: a field is empty or holds a path of the machine, or one that it needs is missing.
    """
    card.check()
    record = model.config.compression or {}
    results = None if card.results is None else _check_text("results", comparison_table(card.results))
    rows = [
        (_check_text("training", key), _check_text(f"training[{key!r}]", value))
        for key, value in (card.training or {}).items()
    ]
    count = model.config.num_templates
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # Markdown
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=_metadata(card, record).to_yaml(),
        card=card,
        config=model.config,
        layers=len(model.layers),
        parameters=short_number(count_parameters(model) / 1e6),
        templates="a template crop" if count == 1 else f"{count} template crops",
        teacher=_teacher(record),
        path=record.get("path", ""),
        results=results,
        speed=_speed(card),
        training=markdown_table(("Setting", "Value"), rows, left=2) if rows else None,
        pictures=[picture.name for picture in card.pictures],
    )
    path = Path(directory) / "README.md"
    ModelCard(text + "\n").save(path)
    for picture in card.pictures:
        beside = path.parent / picture.name
        if not (beside.exists() and beside.samefile(picture)):
            shutil.copyfile(picture, beside)
    return path


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


def _metadata(card: TrackerCard, record: Mapping[str, Any]) -> ModelCardData:
    """Head of the card, in the Hub's words."""
    base_model = record.get("teacher", {}).get("repository")
    datasets = [source["repository"] for source in record.get("data", ()) if source.get("repository")]
    evaluations = _evaluations(card)
    return ModelCardData(
        license=card.license,
        library_name="transformers",
        pipeline_tag="object-detection",
        tags=list(TAGS),
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        datasets=list(dict.fromkeys(datasets)) or None,
        metrics=[evaluation.metric_type for evaluation in evaluations] or None,
        model_name=card.name.rpartition("/")[2] if evaluations else None,
        eval_results=evaluations or None,
    )


def _evaluations(card: TrackerCard) -> list[EvalResult]:
    """Figures of the tracker itself, which are nobody else's."""
    if not card.results:
        return []
    row = card.results[min(1, len(card.results) - 1)]
    return [
        EvalResult(
            task_type="visual-object-tracking",
            task_name="Visual object tracking",
            dataset_type=re.sub(r"\W+", "-", card.evaluated_on.lower()).strip("-"),
            dataset_name=card.evaluated_on,
            metric_type=identifier,
            metric_name=title,
            metric_value=round(float(row[key]), 1),
        )
        for key, (identifier, title) in METRICS.items()
        if row.get(key) is not None and not math.isnan(row[key])
    ]


def _teacher(record: Mapping[str, Any]) -> str | None:
    teacher = record.get("teacher")
    if teacher is None:
        return None
    if repository := teacher.get("repository"):
        commit = f" (commit `{teacher['revision'][:12]}`)" if teacher.get("revision") else ""
        return f"[{repository}](https://huggingface.co/{repository}){commit}"
    return f"the tracker `{teacher['name']}`" if teacher.get("name") else "a teacher without a name"


def _speed(card: TrackerCard) -> str | None:
    """Under which conditions the rows' speed was measured, on which hardware."""
    timed = [row for row in card.results or () if row.get("fps") is not None and not math.isnan(row["fps"])]
    if not timed:
        return None
    kinds = list(dict.fromkeys(row.get("conditions") or "conditions that are not known" for row in timed))
    if len(kinds) > 1:
        said = "; ".join(f"{row['name']}: {row.get('conditions')}" for row in timed)
        return f"They were not measured under the same conditions: {said}."
    hardware = f" Hardware: {card.hardware}." if card.hardware else ""
    return f"Measured under: {kinds[0]}.{hardware}"


__all__ = ["METRICS", "TAGS", "UNNAMED", "TrackerCard", "write_card"]
