"""Where each weight of a smaller network lies in a larger one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvnas.errors import SpaceError
from mvnas.graph import Graph, Node
from mvnas.ops import Attention, LinearAttention
from mvnas.sharing.forms import Axis, Held, Pair, Sizes, axes, channels, lead, sizes, wishes

HEADED = Attention | LinearAttention  # ops that are paired though they may have no weights


@dataclass(frozen=True)
class Slice:
    """A part of the weight `source` of a larger network: these places of each of its axes, -1 where it has none."""

    source: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Plan:
    """The slices of a smaller network by the names of its weights and buffers, and why some ops have none, by name."""

    slices: Mapping[str, Slice]
    refused: Mapping[str, str]


def plan(large: Graph | Sequence[Graph], small: Graph, *, strict: bool = True) -> Plan:
    """For every weight and buffer of `small` the part of a weight of `large` that it is.

    Where `large` are several networks, an op is that of the first of them that has its name. With `strict` all of
    `small` must be part of it; otherwise ops that are not have no slices, and slices may lack places (-1), such as the
    channels of a wider network: what has no source keeps the weights that it has (`filled`).

    Raises:
        SpaceError: an op cannot be shared; the message names it.
    """
    graphs = [large] if isinstance(large, Graph) else large
    return _Planning(graphs, small, strict).plan()


class _Planning:
    """Goes through the values of a smaller network, and knows which channels of the larger one's each has."""

    def __init__(self, large: Sequence[Graph], small: Graph, strict: bool) -> None:
        self.small, self.strict = small, strict
        self.nodes: dict[str, Node] = {}
        self.ends: dict[str, int] = {}  # channels that each block of the larger network yields
        for graph in reversed(large):
            self.nodes |= {node.name: node for node in graph.nodes}
            self.ends |= {block: node.shape.c for block, node in _ends(graph).items()}
        self.last = {id(node): block for block, node in _ends(small).items()}
        self.held: list[Held] = []
        self.slices: dict[str, Slice] = {}
        self.refused: dict[str, str] = {}

    def plan(self) -> Plan:
        pairs = [self._paired(node) for node in self.small.nodes]
        wanted = _wanted(pairs)
        for pair, wish in zip(pairs, wanted, strict=True):
            try:
                self.held.append(self._taken(pair, wish))
            except SpaceError as error:
                told = f"{pair.small.name} cannot share weights: {error}"
                if self.strict:
                    raise SpaceError(told) from None
                self.refused[pair.small.name] = told
                self.held.append(Held(range(pair.small.shape.c), None))
        return Plan(self.slices, self.refused)

    def _paired(self, node: Node) -> Pair:
        other = self.nodes.get(node.name) if node.params or isinstance(node.op, HEADED) else None
        return Pair(node, other if other and type(other.op) is type(node.op) else None)

    def _taken(self, pair: Pair, wish: Axis | None) -> Held:
        """Take the slices of an op; which channels its value has.

        Raises:
            SpaceError: it cannot be shared.
        """
        node, other = pair
        inputs = [self.held[i] for i in node.inputs]
        if other is None and (node.params or isinstance(node.op, HEADED)):
            raise SpaceError("each op must be in the larger network too, but it is not")
        if other:
            inputs = [_read(pair, i, held) for i, held in enumerate(inputs)]
        held = channels(node.op, pair, inputs, wish)
        block = self.last.get(id(node))
        if block in self.ends and held.of not in (None, self.ends[block]):
            raise SpaceError(
                f"a block must end as it does in the larger network, but this one ends with an op of {held.of} channels"
                f" there, not {self.ends[block]}"
            )
        if other and node.params:
            self._slice(pair, held, inputs)
        return held

    def _slice(self, pair: Pair, held: Held, inputs: Sequence[Held]) -> None:
        """Take the slices of an op's weights."""
        node, other = pair
        assert other
        there = sizes(*other.key)
        made: dict[str, Slice] = {}
        for name, shape in sizes(*node.key).items():
            if name not in there or len(there[name]) != len(shape):
                if self.strict:
                    raise SpaceError(f"each weight must be in the larger network too, but {name} is not")
                continue
            found = axes(node.op, pair, name, Sizes(shape, there[name]), held.axis, [one.axis for one in inputs])
            assert [len(axis) for axis in found] == list(shape), (node.name, name)
            if self.strict and any(-1 in axis for axis in found if isinstance(axis, tuple)):
                raise SpaceError(f"{name} must be within the larger network's, but is {shape} of {there[name]}")
            made[f"{node.name}.{name}"] = Slice(f"{node.name}.{name}", found)
        self.slices |= made


def _ends(graph: Graph) -> dict[str, Node]:
    """The last node of each block by the block's name."""
    found: dict[str, Node] = {}
    names = {node.block: node.name for node in graph.nodes if node.inputs}
    for node in graph.nodes:
        if node.inputs:
            found[".".join(names[node.block].split(".")[:3])] = node
    return found


def _wanted(pairs: Sequence[Pair]) -> list[Axis | None]:
    """What those that read each value need of it."""
    found: list[Axis | None] = [None] * len(pairs)
    for place in reversed(range(len(pairs))):
        pair = pairs[place]
        for i, wish in zip(pair.small.inputs, wishes(pair.small.op, pair, found[place]), strict=False):
            found[i] = wish if found[i] is None else found[i]
    return found


def _read(pair: Pair, place: int, held: Held) -> Held:
    """Which channels of what the larger network's op reads an op reads.

    Where a depthwise convolution reads another value there, since the smaller network has no expansion before it, its
    channels are the first.

    Raises:
        SpaceError: the op reads another value there.
    """
    node, other = pair
    assert other
    of = other.shapes[place].c
    if held.of == of or (held.of is None and isinstance(held.axis, tuple)):
        return held
    depthwise = getattr(node.op, "groups", 1) == node.shapes[0].c
    if held.of is None or (depthwise and held.axis == range(len(held.axis))):
        return Held(lead(len(held.axis), of), of)
    raise SpaceError(f"an op must read the same value in both networks, but reads one of {held.of} channels, not {of}")
