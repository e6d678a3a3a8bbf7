"""The Hub: what is published with a tracker, and converted data sets."""

from .card import TrackerCard, write_card
from .dataset_repository import push_dataset, write_dataset_card


__all__ = ["TrackerCard", "push_dataset", "write_card", "write_dataset_card"]
