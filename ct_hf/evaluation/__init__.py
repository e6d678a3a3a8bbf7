"""Evaluation: scores, speed and cost of trackers, and how to show them."""

from .dataset import DatasetEvaluation
from .metrics import iou
from .one_pass import EvaluationResult, TrackerResult, evaluate_trackers
from .picture import draw_animation, draw_strip
from .protocols import PROTOCOLS, Protocol, score_sequences
from .report import comparison_table


__all__ = [
    "PROTOCOLS",
    "DatasetEvaluation",
    "EvaluationResult",
    "Protocol",
    "TrackerResult",
    "comparison_table",
    "draw_animation",
    "draw_strip",
    "evaluate_trackers",
    "iou",
    "score_sequences",
]
