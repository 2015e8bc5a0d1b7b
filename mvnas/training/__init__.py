"""Short, deterministic, multi-scale training of a candidate network."""

from mvnas.training.fit import Checkpoint, Trained, evaluate, fit
from mvnas.training.sampler import MultiScaleSampler, factor_for, pixels, scales
from mvnas.training.schedule import Schedule
from mvnas.training.weights import initialise

__all__ = [
    "Checkpoint",
    "MultiScaleSampler",
    "Schedule",
    "Trained",
    "evaluate",
    "factor_for",
    "fit",
    "initialise",
    "pixels",
    "scales",
]
