"""Evaluation: scores, speed and cost of trackers, and how to show them."""

from .metrics import (
    SequenceScore,
    iou,
    mean_score,
    norm_precision_curve,
    precision_curve,
    score_sequence,
    success_curve,
)
from .one_pass import EvaluationResult, TrackerResult, evaluate_trackers
from .picture import draw_animation, draw_strip
from .report import comparison_table


__all__ = [
    "EvaluationResult",
    "SequenceScore",
    "TrackerResult",
    "comparison_table",
    "draw_animation",
    "draw_strip",
    "evaluate_trackers",
    "iou",
    "mean_score",
    "norm_precision_curve",
    "precision_curve",
    "score_sequence",
    "success_curve",
]
