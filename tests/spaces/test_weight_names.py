"""Laws of names: two networks of one space call one weight alike, whatever their repeats and depths are."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch

from mvnas.graph import Graph, Node
from mvnas.nn import module
from mvnas.ops import Op, Shape
from mvnas.spaces.reading import names
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published

SPACES = [name for name in names() if name not in published()]
DEPTHS = ("repeat", "layers", "expand", "branches")  # fields that say how much there is of what is there


def drawn(space: Space, seed: int) -> dict[str, Any]:
    generator = random.Random(seed)
    return {name: generator.choice(options) for name, options in space.choices.items()}


def weighted(graph: Graph) -> dict[str, Node]:
    """Nodes with weights by name."""
    return {node.name: node for node in graph.nodes if node.params}


@cache
def sizes(op: Op, shapes: tuple[Shape, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of an op."""
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in module(op, *shapes).state_dict().items()}


def in_block(names: Iterable[str], block: str) -> set[str]:
    return {name for name in names if name.startswith(f"{block}.")}


@cache
def graphs(name: str) -> list[Graph]:
    """Random points of a space."""
    space = Space.load(name)
    return [space.at(drawn(space, seed)).graph() for seed in range(3)]


@pytest.mark.parametrize("name", SPACES)
def test_every_op_with_weights_has_a_role_and_a_name_of_its_own(name: str) -> None:
    for graph in graphs(name):
        nodes = weighted(graph)
        for found, node in nodes.items():
            kind = type(node.op).__name__.lower()
            assert not re.fullmatch(rf"{kind}\d+", found.rpartition(".")[2]), f"{found} has no role"
        ordered = sorted(f"{found}." for found in nodes)
        assert not any(after.startswith(before) for before, after in pairwise(ordered))
        assert len(nodes) == sum(node.params > 0 for node in graph.nodes)


@pytest.mark.parametrize("name", SPACES)
def test_two_networks_name_the_same_weight_alike(name: str) -> None:
    for one, other in combinations(map(weighted, graphs(name)), 2):
        both = one.keys() & other.keys()
        assert both
        for found in both:
            ours, theirs = one[found], other[found]
            assert type(ours.op) is type(theirs.op)
            first, second = sizes(*ours.key), sizes(*theirs.key)
            assert all(len(first[weight]) == len(second[weight]) for weight in first.keys() & second.keys())


@pytest.mark.parametrize("name", SPACES)
def test_nothing_shifts_with_repeats_layers_expansions_and_branches(name: str) -> None:
    """Of networks that differ in one of them alone, each block's names are those of the other's and perhaps more."""
    space = Space.load(name)
    for depth in DEPTHS:
        picks, again = drawn(space, 0), drawn(space, 1)
        changed = {choice: again[choice] for choice in picks if choice.rpartition(".")[2] == depth}
        if changed:
            one, other = space.at(picks), space.at(picks | changed)
            first, second = weighted(one.graph()), weighted(other.graph())
            for block in {*one.names} & {*other.names}:
                ours, theirs = in_block(first, block), in_block(second, block)
                assert ours <= theirs or theirs <= ours
                for found in ours & theirs:
                    check_same(first[found], second[found])


def check_same(one: Node, other: Node) -> None:
    """Check that two ops do the same for as many channels as they have."""
    assert one.op.kind(*one.shapes) == other.op.kind(*other.shapes)
    first, second = sizes(*one.key), sizes(*other.key)
    assert first.keys() <= second.keys() or second.keys() <= first.keys()
    assert all(first[weight][2:] == second[weight][2:] for weight in first.keys() & second.keys())  # kernels
