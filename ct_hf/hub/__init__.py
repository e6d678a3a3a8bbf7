"""The Hub: trackers with their cards, and converted data sets."""

from .card import TrackerCard, write_card
from .dataset_repository import push_dataset, write_dataset_card
from .push import push_folder, push_model


__all__ = ["TrackerCard", "push_dataset", "push_folder", "push_model", "write_card", "write_dataset_card"]
