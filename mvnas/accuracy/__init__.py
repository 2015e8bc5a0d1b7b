"""Accuracy as a modelled quantity: what is expected of a network by its choices, its costs, and its trainings if it has
any, with an interval.
"""

from mvnas.accuracy.features import Features, Groups
from mvnas.accuracy.model import LEAST, MOST, PATIENCE, AccuracyModel, Expected, Validation, explained, logits

__all__ = [
    "LEAST",
    "MOST",
    "PATIENCE",
    "AccuracyModel",
    "Expected",
    "Features",
    "Groups",
    "Validation",
    "explained",
    "logits",
]
