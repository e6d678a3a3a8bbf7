"""The Hub: what is published with a tracker."""

from .card import write_card


__all__ = ["write_card"]
