"""Evaluation: scores, speed and cost of trackers, and how to show them."""

from .curves import score_curves
from .dataset import DatasetEvaluation
from .difference import draw_difference, most_different
from .metrics import iou
from .one_pass import EvaluationResult, TrackerResult, evaluate_trackers
from .picture import draw_animation, draw_strip
from .plots import plot_curves, plot_sequences, plot_speed, speed_groups
from .protocols import PROTOCOLS, Protocol, score_sequences
from .report import comparison_table
from .results import Results, read_results
from .theme import save_plot


__all__ = [
    "PROTOCOLS",
    "DatasetEvaluation",
    "EvaluationResult",
    "Protocol",
    "Results",
    "TrackerResult",
    "comparison_table",
    "draw_animation",
    "draw_difference",
    "draw_strip",
    "evaluate_trackers",
    "iou",
    "most_different",
    "plot_curves",
    "plot_sequences",
    "plot_speed",
    "read_results",
    "save_plot",
    "score_curves",
    "score_sequences",
    "speed_groups",
]
