"""Short, deterministic training of a candidate network."""

from mvnas.training.fit import Trained, fit
from mvnas.training.judging import computed, evaluate, evaluate_file, tallied_file
from mvnas.training.loop import Checkpoint, Loop, OnStep
from mvnas.training.sampler import Sampler, factor_for, trained_size
from mvnas.training.schedule import Schedule
from mvnas.training.technique import Artifact, Preparation, Sizes, Step, Technique, Training
from mvnas.training.weights import initialise

__all__ = [
    "Artifact",
    "Checkpoint",
    "Loop",
    "OnStep",
    "Preparation",
    "Sampler",
    "Schedule",
    "Sizes",
    "Step",
    "Technique",
    "Trained",
    "Training",
    "computed",
    "evaluate",
    "evaluate_file",
    "factor_for",
    "fit",
    "initialise",
    "tallied_file",
    "trained_size",
]
