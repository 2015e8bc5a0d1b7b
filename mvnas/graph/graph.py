"""A network as plain data, and every cost that follows from it by arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from math import prod
from typing import NamedTuple

from mvnas.errors import SpaceError, quoted
from mvnas.graph.costing import Layer
from mvnas.graph.memory import FLOAT_BYTES, Use, alive
from mvnas.ops import Input, Op, Shape, Value


class Node(NamedTuple):
    """One op in place. `inputs` are indices of earlier nodes of the graph; `block` is -1 for an input."""

    name: str
    op: Op
    inputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    shape: Shape
    block: int

    @property
    def key(self) -> tuple[Op, tuple[Shape, ...]]:
        """What a latency table is indexed by."""
        return self.op, self.shapes

    @property
    def params(self) -> int:
        return self.op.params(*self.shapes)

    @property
    def macs(self) -> int:
        return self.op.macs(*self.shapes)

    @property
    def scratch_bytes(self) -> int:
        return FLOAT_BYTES * self.op.scratch(*self.shapes)

    @property
    def traffic_bytes(self) -> int:
        """Bytes read and written: inputs, parameters and output, each once."""
        return FLOAT_BYTES * (sum(map(prod, self.shapes)) + self.params + prod(self.shape))


@dataclass(frozen=True)
class Costs:
    """What a network, or a block of it, costs on any device."""

    params: int
    macs: int
    traffic_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order, and which of them are outputs: the last, or where `outputs` names indices, these.

    >>> from mvnas.ops import Conv, Input, Map
    >>> x = Input(Map(3, 32, 32))()
    >>> graph = Graph.of(Conv(8, kernel=3, stride=2)(x))
    >>> [node.name for node in graph.nodes], graph.params, graph.macs
    (['x0', 'block0.conv0'], 232, 55296)
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.outputs:
            object.__setattr__(self, "outputs", (len(self.nodes) - 1,))

    @classmethod
    def of(cls, *values: Value, outputs: Sequence[Value] = (), blocks: Sequence[str] = ()) -> Graph:
        """Graph that computes the last of `values`, or `outputs`; each value closes one block, named by `blocks`.

        A node is named after its block, the layers that it is in, and its role: `stage3.0.mobilevit.layers.1.query`.
        One that was given none (`Op.__call__`) is called by its kind and how many of them without a role came before it
        there: `add0`.

        Raises:
            SpaceError: two ops have one name, or a role is none.
        """
        names = _Names(blocks or [f"block{i}" for i in range(len(values))])
        return cls._made(values, outputs or values[-1:], names)

    @classmethod
    def _made(cls, values: Sequence[Value], outputs: Sequence[Value], names: _Names | Mapping[Value, str]) -> Graph:
        """The graph of `values` whose nodes `names` names."""
        index: dict[Value, int] = {}
        nodes: list[Node] = []

        def visit(value: Value, block: int, scope: str) -> None:
            for x in value.inputs:
                if x not in index:
                    visit(x, block, scope)
            if isinstance(names, _Names):
                name = names.of(value, block, scope, len(nodes))
            else:
                name = names[value]
            if isinstance(value.op, Layer):
                inner = value.op.block(*value.inputs)
                visit(inner, block, name)
                index[value] = index[inner]
                return
            index[value] = len(nodes)
            inputs = tuple([index[x] for x in value.inputs])
            nodes.append(Node(name, value.op, inputs, value.shapes, value.shape, block if inputs else -1))

        for block, value in enumerate([*values, *outputs]):
            if value not in index:
                visit(value, block, "")
        return cls(tuple(nodes), tuple([index[value] for value in outputs]))

    @classmethod
    def single(cls, op: Op, shapes: Sequence[Shape]) -> Graph:
        """The microbenchmark of one table entry: `op` alone, fed from inputs."""
        return cls.of(op(*(Input(shape)() for shape in shapes)))

    def deployed(self) -> Graph:
        """The graph that ships: shapes fixed, norms and gains folded, resizes that do nothing removed.

        A node has the name of the node of this graph that it was made of.
        """
        values: list[Value] = []
        names: dict[Value, str] = {}
        for node in self.nodes:
            values.append(node.op.deploy(*[values[i] for i in node.inputs]) if node.inputs else Value(node.op))
            _claim(values[-1], node.name, names)
        return self._again(values, names)

    def on(self, *inputs: Shape) -> Graph:
        """The same ops on inputs of other sizes, which blocks are not asked about."""
        sizes = iter(inputs)
        values: list[Value] = []
        for node in self.nodes:
            values.append(node.op(*[values[i] for i in node.inputs]) if node.inputs else Input(next(sizes))())
        return self._again(values, dict(zip(values, [node.name for node in self.nodes], strict=True)))

    def _again(self, values: Sequence[Value], names: Mapping[Value, str]) -> Graph:
        """The graph of what became of each node."""
        ends = {node.block: value for node, value in zip(self.nodes, values, strict=True) if node.inputs}
        return self._made([ends[block] for block in sorted(ends)], [values[i] for i in self.outputs], names)

    def __getitem__(self, name: str) -> Node:
        """The node of a name."""
        return next(node for node in self.nodes if node.name == name)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes that the network is fed through."""
        return tuple(node for node in self.nodes if not node.inputs)

    @property
    def work(self) -> tuple[Node, ...]:
        """The nodes a device spends time on."""
        return tuple(node for node in self.nodes if node.inputs)

    @property
    def output(self) -> Node:
        """The last output, which is the only one of most networks."""
        return self.nodes[self.outputs[-1]]

    @cached_property
    def params(self) -> int:
        return sum([node.op.params(*node.shapes) for node in self.nodes])

    @cached_property
    def macs(self) -> int:
        return sum([node.op.macs(*node.shapes) for node in self.nodes])

    @property
    def traffic_bytes(self) -> int:
        return sum(node.traffic_bytes for node in self.work)

    @cached_property
    def alive_bytes(self) -> tuple[int, ...]:
        """For each node, the most bytes of activations alive while it runs.

        First its inputs and its output; then, its inputs freed if nobody needs them any more, its output and its
        scratch.
        """
        held = {*self.outputs, *[i for i, node in enumerate(self.nodes) if not node.inputs]}
        uses = [Use(node.inputs, FLOAT_BYTES * prod(node.shape), node.scratch_bytes) for node in self.nodes]
        return tuple(alive(uses, held))

    @property
    def peak_bytes(self) -> int:
        """Most bytes of activations alive at once when nodes run in order and each frees its inputs as early as it can.

        What an op makes and drops within itself counts, such as the scores of an attention (`Op.scratch`). The graph's
        inputs belong to the caller and are never freed, nor are its outputs.
        """
        return max(self.alive_bytes)

    @property
    def costs(self) -> Costs:
        return Costs(self.params, self.macs, self.traffic_bytes, self.peak_bytes)

    def block_costs(self) -> tuple[Costs, ...]:
        """Costs of each block; what a block keeps alive includes what later blocks still need."""
        work = [(node, alive) for node, alive in zip(self.nodes, self.alive_bytes, strict=True) if node.inputs]
        return tuple(
            Costs(
                sum(node.params for node, _ in rows),
                sum(node.macs for node, _ in rows),
                sum(node.traffic_bytes for node, _ in rows),
                max(alive for _, alive in rows),
            )
            for rows in (list(group) for _, group in groupby(work, key=lambda row: row[0].block))
        )


class _Names:
    """Names of the nodes of a graph that is made of blocks."""

    def __init__(self, blocks: Sequence[str]) -> None:
        self.blocks = blocks
        self.taken: set[str] = set()
        self.scopes: set[str] = set(blocks)
        self.counts: dict[str, int] = {}

    def of(self, value: Value, block: int, scope: str, place: int) -> str:
        """The name of the node at `place` that `value` becomes, or of the layer that it is.

        Raises:
            SpaceError: another has it, or its role is no name.
        """
        if not value.inputs:
            return f"x{place}"
        scope = scope or self.blocks[block]
        role = value.role
        if not role:
            kind = f"{scope}.{type(value.op.block if isinstance(value.op, Layer) else value.op).__name__.lower()}"
            self.counts[kind] = self.counts.get(kind, -1) + 1
            role = f"{kind[len(scope) + 1 :]}{self.counts[kind]}"
        else:
            _check_role(role)
        name = f"{scope}.{role}"
        if name in self.taken or name in self.scopes:
            raise SpaceError(f"ops of a block must have roles of their own, but two are {name}")
        inside = name
        if not isinstance(value.op, Layer):
            self.taken.add(name)
            inside = name.rpartition(".")[0]
        while inside not in self.scopes:
            if inside in self.taken:
                raise SpaceError(f"ops of a block must have roles of their own, but two are {inside}")
            self.scopes.add(inside)
            inside = inside.rpartition(".")[0]
        return name


@lru_cache(maxsize=1 << 12)
def _check_role(role: str) -> None:
    """Check that a role is words or numbers with dots between them.

    Raises:
        SpaceError: it is not.
    """
    if not all((part.isascii() and part.isalnum()) or part.isidentifier() for part in role.split(".")):
        raise SpaceError(f"a role must be words or numbers with dots between them, but got {quoted(role)}")


def _claim(value: Value, name: str, names: dict[Value, str]) -> None:
    """Name what a node became, where it is not another's already, and whatever was made on the way there."""
    if value not in names:
        names[value] = name
        for place, x in enumerate(value.inputs):
            _claim(x, f"{name}_{place}", names)
