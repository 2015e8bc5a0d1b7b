"""Trained starts: every candidate begins with the slices of trained weights that fit it.

A candidate has the first layers of the network that was trained, of its channels and heads the most important ones, and
the centre of its kernels (Once-for-All, arXiv:1908.09791, sec. 3.2; FNA, arXiv:2001.02525).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mvnas import training
from mvnas.errors import TrainingError, unknown
from mvnas.graph import Graph
from mvnas.ops import Add, State
from mvnas.pretrained import read_weights, recognised
from mvnas.sharing import Slice, filled, ordered, plan
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import placed, published
from mvnas.system.marks import file_mark
from mvnas.training import Artifact, Preparation, Training
from mvnas.training.probe import solve_classifier

ARCH = "arch"  # in the artifact, beside weights by their names: the network that they are of, as JSON in bytes
ARCH_FILE = ".json"


@dataclass
class Technique(training.Technique):
    """Candidates begin with the slices of a trained network's weights that fit them.

    `weights` is a file of weights as `mvnas export --weights` takes it, of the `network`: a published one's name or an
    Arch's .json file; by default the published network that the weights fit. Their channels are sorted by importance
    once a study. A classifier of other classes is solved on some training images, and what that network lacks is fresh;
    where that is added to something, it begins by adding nothing.
    """

    weights: str = ""
    network: str = ""

    defaults: ClassVar[Mapping[str, float]] = MappingProxyType({"lr": 1e-3})

    def contents(self) -> Mapping[str, str]:
        if not self.weights:
            raise TrainingError("the technique start must be told whose weights to begin with; give start:weights=FILE")
        files = {"weights": self.weights}
        if self.network.endswith(ARCH_FILE):
            files["network"] = self.network
        elif self.network and self.network not in published():
            raise TrainingError(unknown("network to start from", self.network, published()))
        try:
            return {setting: file_mark(path) for setting, path in files.items()}
        except OSError as error:
            raise TrainingError(f"weights to start from must be in a file, but it cannot be read: {error}") from None

    def check(self, space: Space) -> None:
        arch, _ = source(self.weights, self.network, *self.contents().values())
        _check(plan(arch.graph(), space.at(space.ends[1]).graph(), strict=False).slices)

    def prepare(self, study: Preparation) -> Artifact:
        arch, state = source(self.weights, self.network, *self.contents().values())
        weights = ordered(arch.graph(), state)
        told = np.frombuffer(json.dumps(arch.to_json()).encode(), np.uint8)
        return {ARCH: told.copy(), **{name: weight.numpy() for name, weight in weights.items() if weight.ndim}}

    def begin(self, training: Training) -> None:
        if training.arch is None:
            raise TrainingError("the technique start must be told the architecture that is trained, but was not")
        large = _graph(self.artifact[ARCH].tobytes())
        weights = {name: torch.from_numpy(array) for name, array in self.artifact.items() if name != ARCH}
        small = training.arch.graph()
        training.module.load_state_dict(begun(large, weights, small, training.module.state_dict()))
        if large.output.shape != small.output.shape:
            solve_classifier(training, small.output.name)


@lru_cache(1)
def source(weights: str, network: str, *marks: str) -> tuple[Arch, State]:
    """A network that was trained, a published one as a point of its system's space, and its weights.

    It is remembered while the `marks` of its files are the same.

    Raises:
        ExportError: the weights cannot be read, or are not of the network.
        SpaceError: the network cannot be read.
    """
    if network.endswith(ARCH_FILE):
        return read_weights(Arch.load(network), weights)
    name = network or recognised(weights)
    if name not in published():
        raise TrainingError(unknown("network to start from", name, published()))
    return read_weights(placed(name), weights)


def begun(large: Graph, weights: Mapping[str, Tensor], small: Graph, fresh: Mapping[str, Tensor]) -> State:
    """Weights of `small` to begin with: slices of those of `large`, and `fresh` ones where it has none.

    A channel of `large` reads nothing that it did not read there. What `large` lacks and is added to something begins
    with a norm's scale of 0.

    Raises:
        TrainingError: nothing of `large` is in `small`.
    """
    slices = {name: part for name, part in plan(large, small, strict=False).slices.items() if part.axes}
    if large.output.shape != small.output.shape:
        slices = {name: part for name, part in slices.items() if not name.startswith(f"{small.output.name}.")}
    _check(slices)
    made = {name: weight.detach().clone() for name, weight in fresh.items()}
    for name, part in slices.items():
        known = [i for i, place in enumerate(part.axes[0]) if place >= 0]
        made[name][known] = 0
    for node in small.nodes:
        if isinstance(node.op, Add):
            scale = f"{small.nodes[max(node.inputs)].name}.norm.weight"
            if scale in made and scale not in slices:
                made[scale].zero_()
    return filled(slices, weights, made)


def _check(slices: Mapping[str, Slice]) -> None:
    """Check that something of a network is in a candidate.

    Raises:
        TrainingError: nothing is.
    """
    if not slices:
        raise TrainingError(
            "a network to start from must have ops of the candidates by name, but has none; is it of their space?"
        )


@lru_cache(2)
def _graph(arch: bytes) -> Graph:
    return Arch.from_json(json.loads(arch)).graph()
