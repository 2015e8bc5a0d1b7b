"""Channels of a trained network by their importance, so that its first ones are those worth sharing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mvnas.graph import Graph, Node
from mvnas.ops import (
    Act,
    Add,
    Affine,
    Attention,
    BatchNorm,
    Branched,
    Conv,
    Fold,
    LayerNorm,
    Linear,
    LinearAttention,
    Mul,
    Normalise,
    Pool,
    Position,
    Resize,
    SeparableAttention,
    Spread,
    State,
    Sub,
    Unfold,
)
from mvnas.sharing.forms import Axis, Pair, Sizes, axes, sizes
from mvnas.sharing.plan import Slice
from mvnas.sharing.slices import filled

KEPT = Act | Affine | BatchNorm | Fold | LayerNorm | Normalise | Pool | Position | Resize | Spread | Unfold
HEADED = Attention | LinearAttention


def ordered(graph: Graph, weights: Mapping[str, Tensor]) -> State:
    """Weights of `graph` with which it computes what it does with `weights`, its channels in another order: the most
    important ones come first.

    How important a channel is, is the sum of the absolute weights that read it (arXiv:1908.09791, sec. 3.2), each times
    the scale of the batch norm that makes the channel. Values that are added or multiplied have one order; heads move
    as wholes, all those of an attention alike. What is joined, cut, or in groups stays where it is, and so do inputs
    and outputs.
    """
    tied = _Tied(graph)
    weighed = _importance(graph, weights)
    orders = tied.orders(weighed)
    slices: dict[str, Slice] = {}
    for node, order in zip(graph.nodes, orders, strict=True):
        read = [orders[i] for i in node.inputs]
        for name, shape in sizes(*node.key).items() if node.params else ():
            key = f"{node.name}.{name}"
            slices[key] = Slice(key, axes(node.op, Pair(node, node), name, Sizes(shape, shape), order, read))
    return filled(slices, weights, weights)


class _Tied:
    """Which values of a graph must have their channels in one order; a class of them is called by its least place."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = graph.nodes
        self.least = list(range(len(graph.nodes)))
        self.fixed = set(graph.outputs)
        self.heads: list[tuple[int, tuple[int, ...]]] = []  # how many, of which values
        for place, node in enumerate(graph.nodes):
            self._look(place, node)

    def root(self, place: int) -> int:
        while self.least[place] != place:
            place = self.least[place]
        return place

    def _tie(self, *places: int) -> None:
        roots = [self.root(place) for place in places]
        for root in roots:
            self.least[root] = min(roots)

    def _look(self, place: int, node: Node) -> None:
        """Note what an op asks of the order of its own channels and those that it reads."""
        op = node.op
        if isinstance(op, KEPT):
            self._tie(place, node.inputs[0])
        elif isinstance(op, Add | Sub | Mul):
            self._tie(place, *node.inputs)
        elif isinstance(op, HEADED):
            self._tie(place, node.inputs[2])
            self.heads.append((op.heads, node.inputs))
        elif isinstance(op, SeparableAttention):
            self._tie(place, *node.inputs[1:])
        elif isinstance(op, Conv | Branched):
            groups = _groups(op)
            if groups == {node.shapes[0].c} and node.shape.c == node.shapes[0].c > 1:
                self._tie(place, node.inputs[0])
            elif groups != {1}:
                self.fixed |= {place, *node.inputs}
            elif isinstance(op, Branched) and _keeps(op):
                self._tie(place, node.inputs[0])
        elif not isinstance(op, Linear):
            self.fixed |= {place, *node.inputs}

    def orders(self, weighed: Mapping[int, Tensor]) -> list[Axis]:
        """The order of each value's channels: places of these channels before."""
        fixed = {self.root(place) for place in self.fixed}
        classes: dict[int, list[int]] = {}
        for place in range(len(self.nodes)):
            classes.setdefault(self.root(place), []).append(place)
        worth = {
            root: _total(weighed[place] for place in places if place in weighed) for root, places in classes.items()
        }
        made: dict[int, Axis] = {}
        headed = {self.root(place) for _, places in self.heads for place in places}
        for heads, roots in _together([(heads, [self.root(i) for i in places]) for heads, places in self.heads]):
            if heads and not fixed.intersection(roots):
                made |= self._by_heads(heads, roots, worth)
        for root in classes.keys() - fixed - headed:
            found = worth[root]
            if found is not None:
                made[root] = tuple(found.argsort(descending=True, stable=True).tolist())
        return [made.get(self.root(place), range(node.shape.c)) for place, node in enumerate(self.nodes)]

    def _by_heads(self, heads: int, roots: Iterable[int], worth: Mapping[int, Tensor | None]) -> dict[int, Axis]:
        """Orders of classes that are so many heads each, alike in all of them."""
        sums = [found.view(heads, -1).sum(1) for root in roots if (found := worth[root]) is not None]
        order = (
            torch.stack([one / one.sum().clamp_min(1e-30) for one in sums]).sum(0).argsort(descending=True, stable=True)
        )
        made: dict[int, Axis] = {}
        for root in roots:
            width = self.nodes[root].shape.c // heads
            made[root] = tuple([int(head) * width + i for head in order for i in range(width)])
        return made


def _groups(op: Conv | Branched) -> set[int]:
    """In how many groups the convolutions of an op have their channels."""
    if isinstance(op, Conv):
        return {op.groups}
    return set().union(*[_groups(one) for one in op.branches if isinstance(one, Conv | Branched)])


def _keeps(op: Branched) -> bool:
    """Whether a branch yields the channels that it reads."""
    return any(not isinstance(one, Conv) and (not isinstance(one, Branched) or _keeps(one)) for one in op.branches)


def _importance(graph: Graph, weights: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """The worth of the channels of values that ops with weights read, by the values' places."""
    found: dict[int, Tensor] = {}
    for node in graph.nodes:
        if not isinstance(node.op, Conv | Linear | Branched):
            continue
        read = node.inputs[0]
        channels, made = node.shapes[0].c, graph.nodes[read].name
        scale = weights.get(f"{made}.norm.weight", torch.ones(channels)).abs().double()
        for name, shape in sizes(*node.key).items():
            if name.endswith("weight") and len(shape) > 1 and shape[1] == channels:
                weight = weights[f"{node.name}.{name}"].abs().double()
                worth = weight.transpose(0, 1).flatten(1).sum(1) * scale
                found[read] = found.get(read, torch.zeros(channels, dtype=torch.float64)) + worth
    return found


def _total(found: Iterable[Tensor]) -> Tensor | None:
    kept = list(found)
    return torch.stack(kept).sum(0) if kept else None


def _together(rows: Sequence[tuple[int, list[int]]]) -> list[tuple[int, set[int]]]:
    """Classes of heads, joined where they share one; of a number of heads, 0 where they have several."""
    joined: list[tuple[set[int], set[int]]] = []
    for heads, roots in rows:
        numbers, members = {heads}, set(roots)
        for row in [row for row in joined if row[1] & members]:
            joined.remove(row)
            numbers |= row[0]
            members |= row[1]
        joined.append((numbers, members))
    return [(next(iter(numbers)) if len(numbers) == 1 else 0, members) for numbers, members in joined]
