"""Compression: stages, student, mixed path, replacement, losses, trainer."""

from .arguments import CompressionArguments, TrackerTrainingArguments
from .curves import plot_training
from .hybrid import build_hybrid
from .mixed import MixedTracker
from .replacement import ReplacementSchedule, draw_path
from .stages import StagePlan
from .student import InitializationReport, build_student, initialize_student
from .summary import describe_compression, stage_table
from .tracker_trainer import TrackerTrainer
from .trainer import CompressionTrainer, plan_from_arguments


__all__ = [
    "CompressionArguments",
    "CompressionTrainer",
    "InitializationReport",
    "MixedTracker",
    "ReplacementSchedule",
    "StagePlan",
    "TrackerTrainer",
    "TrackerTrainingArguments",
    "build_hybrid",
    "build_student",
    "describe_compression",
    "draw_path",
    "initialize_student",
    "plan_from_arguments",
    "plot_training",
    "stage_table",
]
