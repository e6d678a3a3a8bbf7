"""
Figures of visual object trackers, as a module of the `evaluate` library.

Works by class and by path, without the network; the configuration is the protocol:

    metric = evaluate.load("ct_hf/evaluation/tracking_metric.py", "lasot")
    metric = TrackingMetric("lasot")
"""

from typing import Any

import datasets
import evaluate

# Not relative: `evaluate.load` copies this file out of the package.
from ct_hf.evaluation.protocols import PROTOCOLS, score_sequences


_DESCRIPTION = """\
Success, precision and overlap of predicted boxes, as the benchmarks' own toolkits compute them. The configuration says
whose rules count: otb, lasot, uav, visible, got10k or trackingnet.
"""
_INPUTS = """\

One entry is one sequence:
    predictions: rows `x, y, w, h` in pixels, one a frame, the first that of the first frame.
    references: rows `x, y, w, h` in pixels; four NaN, or four None, where the target is absent.
    visible (optional): one bool a frame; `lasot` and `visible` use it.
    cover (optional): one number from 0 to 8 a frame; `got10k` uses it.
    image_sizes (needed by `got10k`): width and height of the frames in pixels.

Returns the figures in per cent, and the same of each sequence as `per_sequence`.

Example:
    >>> metric = TrackingMetric("otb")
    >>> metric.add_batch(predictions=[[[0, 0, 10, 10], [5, 0, 10, 10]]], references=[[[0, 0, 10, 10], [0, 0, 10, 10]]])
    >>> round(metric.compute()["auc"], 2)
    64.29
"""
_OPTIONAL = ("visible", "cover", "image_sizes")


class TrackingMetric(evaluate.Metric):
    """
    [`~evaluation.score_sequences`] as an `evaluate.Metric`, which gathers sequences in batches and over processes.

    `predictions` and `references` are its `predictions` and `ground_truths`, and are called so in its errors.

    Args:
        config_name (`str`): protocol, one of [`PROTOCOLS`].
        **kwargs: what `evaluate.Metric` takes, such as `cache_dir`, `num_process`, `process_id` and `experiment_id`.

    Raises:
        ValueError: `config_name` is missing or not a protocol.

    Example:
    ```python
    >>> metric = TrackingMetric("lasot")
    >>> for boxes, truth, visible in tracked:
    ...     metric.add(prediction=boxes, reference=truth, visible=visible)
    >>> metric.compute()["auc"]
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in PROTOCOLS:
            raise ValueError(
                f"`config_name` must be a protocol, one of {', '.join(PROTOCOLS)}, got {self.config_name!r}. Load as "
                '`evaluate.load(path, "lasot")`.'
            )
        rows = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        numbers = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": rows,
                    "references": rows,
                    "visible": numbers,
                    "cover": numbers,
                    "image_sizes": numbers,
                }
            ),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add some sequences; what is optional may be left out."""
        if predictions is None or references is None:
            raise ValueError("`predictions` and `references` are both needed, one entry a sequence; got None.")
        for name in _OPTIONAL:
            if kwargs.get(name) is None:
                kwargs[name] = [None] * len(predictions)
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one sequence; what is optional may be left out."""
        # The base class looks for the plural names, which it never fills.
        columns = {name: [kwargs.pop(name, None)] for name in _OPTIONAL}
        self.add_batch(predictions=[prediction], references=[reference], **columns, **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Score what was added, and what is given; `None` on processes other than the first."""
        if predictions is not None:
            kwargs = {**dict.fromkeys(_OPTIONAL), **kwargs}
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _compute(
        self,
        *,
        predictions: list[Any],
        references: list[Any],
        visible: list[Any],
        cover: list[Any],
        image_sizes: list[Any],
    ) -> dict[str, Any]:
        return score_sequences(
            predictions,
            references,
            protocol=self.config_name,
            visible=visible,
            cover=cover,
            image_sizes=image_sizes if any(size is not None for size in image_sizes) else None,
        )


__all__ = ["TrackingMetric"]
