"""A network as plain data, and every cost that follows from it by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from math import prod
from typing import NamedTuple

from mvnas.ops import Input, Layer, Op, Shape, Value

FLOAT_BYTES = 4  # costs in bytes are those of float32, the precision networks are trained and measured in


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
    """Nodes in execution order; the last is the output.

    >>> from mvnas.ops import Conv, Input, Map
    >>> x = Input(Map(3, 32, 32))()
    >>> graph = Graph.of(Conv(8, kernel=3, stride=2)(x))
    >>> [node.name for node in graph.nodes], graph.params, graph.macs
    (['x0', 'block0.conv0'], 232, 55296)
    """

    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, *values: Value) -> Graph:
        """Graph that computes the last of `values`; each value closes one numbered block."""
        return cls._indexed(values)[0]

    @classmethod
    def _indexed(cls, values: Sequence[Value]) -> tuple[Graph, dict[Value, int]]:
        """The graph of `values`, and the index of the node that each value became."""
        index: dict[Value, int] = {}
        nodes: list[Node] = []

        def visit(value: Value, block: int, start: int) -> None:
            for x in value.inputs:
                if x not in index:
                    visit(x, block, start)
            if isinstance(value.op, Layer):
                inner = value.op.block(*value.inputs)
                visit(inner, block, start)
                index[value] = index[inner]
                return
            place = index[value] = len(nodes)
            inputs = tuple([index[x] for x in value.inputs])
            shapes = tuple([x.shape for x in value.inputs])
            fed = not inputs
            name = f"x{place}" if fed else f"block{block}.{type(value.op).__name__.lower()}{place - start}"
            nodes.append(Node(name, value.op, inputs, shapes, value.shape, -1 if fed else block))

        for block, value in enumerate(values):
            if value not in index:
                visit(value, block, len(nodes) or 1)
        return cls(tuple(nodes)), index

    @classmethod
    def single(cls, op: Op, shapes: Sequence[Shape]) -> Graph:
        """The microbenchmark of one table entry: `op` alone, fed from inputs."""
        return cls.of(op(*(Input(shape)() for shape in shapes)))

    def deployed(self) -> Graph:
        """The graph that ships: shapes fixed, norms and gains folded, resizes that do nothing removed."""
        return self.deployment()[0]

    def deployment(self) -> tuple[Graph, dict[str, str]]:
        """The deployed graph, and for each of its nodes with weights the node of this graph that they fold from."""
        values: list[Value] = []
        ends: dict[int, Value] = {}
        for node in self.nodes:
            values.append(node.op.deploy(*[values[i] for i in node.inputs]) if node.inputs else Value(node.op))
            if node.inputs:
                ends[node.block] = values[-1]
        graph, index = self._indexed([ends[block] for block in sorted(ends)])
        pairs = zip(self.nodes, values, strict=True)
        made = [(graph.nodes[index[value]], node) for node, value in pairs if node.params]
        return graph, {new.name: old.name for new, old in made if new.params}

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
        return self.nodes[-1]

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
        """For each node, the bytes of activations alive while it runs, its inputs and output among them."""
        last = {i: place for place, node in enumerate(self.nodes) for i in node.inputs}
        sizes = [FLOAT_BYTES * prod(node.shape) for node in self.nodes]
        alive, peaks = 0, []
        for place, node in enumerate(self.nodes):
            alive += sizes[place]
            peaks.append(alive)
            alive -= sum([sizes[i] for i in set(node.inputs) if last[i] == place])
        return tuple(peaks)

    @property
    def peak_bytes(self) -> int:
        """Most bytes of activations alive at once when nodes run in order and each frees its inputs as early as it can."""
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


Kernel = tuple[Op, tuple[Shape, ...]]  # a deployed op on shapes: what a latency table is indexed by


class Summary(NamedTuple):
    """Costs of one block on one input shape, without the nodes: equal to those of its graph, found much faster.

    `kernels` are the deployed ops with how often each runs. `peak_bytes` is the peak of the block if its input is freed
    after its last use, `held_peak_bytes` if somebody else still needs the input.
    """

    shape: Shape
    params: int
    macs: int
    kernels: tuple[tuple[Kernel, int], ...]
    peak_bytes: int
    held_peak_bytes: int


@lru_cache(maxsize=1 << 17)
def summary(block: Callable[..., Value], shapes: tuple[Shape, ...]) -> Summary:
    """Summary of `block` on inputs of `shapes`.

    Raises:
        SpaceError: the block is not defined on these shapes.
    """
    inputs = [Input(shape)() for shape in shapes]
    order: dict[Value, None] = dict.fromkeys(inputs)

    def visit(value: Value) -> None:
        for x in value.inputs:
            if x not in order:
                visit(x)
        order[value] = None

    output = block(*inputs)
    visit(output)
    steps = [(value, _step(value.op, tuple([x.shape for x in value.inputs]))) for value in order if value.inputs]
    kernels: dict[Kernel, int] = {}
    for _, step in steps:
        for kernel, count in step.kernels:
            kernels[kernel] = kernels.get(kernel, 0) + count
    return Summary(
        output.shape,
        sum([step.params for _, step in steps]),
        sum([step.macs for _, step in steps]),
        tuple(kernels.items()),
        *_peaks(inputs, steps),
    )


class _Step(NamedTuple):
    """One op of a block as deployed: the inputs it still reads, the bytes it yields (0: it vanished), and what it costs.

    `peaks` are those of a `Layer`, which frees or holds its input; (0, 0) for a plain op.
    """

    params: int
    macs: int
    kernels: tuple[tuple[Kernel, int], ...]
    reads: tuple[int, ...]
    size: int
    peaks: tuple[int, int]


@lru_cache(maxsize=1 << 17)
def _step(op: Op, shapes: tuple[Shape, ...]) -> _Step:
    if isinstance(op, Layer):
        inner = summary(op.block, shapes)
        peaks = (inner.peak_bytes, inner.held_peak_bytes)
        reads = tuple(range(len(shapes)))
        return _Step(inner.params, inner.macs, inner.kernels, reads, FLOAT_BYTES * prod(inner.shape), peaks)
    inputs = [Input(shape)() for shape in shapes]
    value = op.deploy(*inputs)
    params, macs = op.params(*shapes), op.macs(*shapes)
    if value in inputs:
        return _Step(params, macs, (), (inputs.index(value),), 0, (0, 0))
    kernel = (value.op, tuple([x.shape for x in value.inputs]))
    reads = tuple([inputs.index(x) for x in value.inputs])
    return _Step(params, macs, ((kernel, 1),), reads, FLOAT_BYTES * prod(value.shape), (0, 0))


def _peaks(inputs: Sequence[Value], steps: Sequence[tuple[Value, _Step]]) -> tuple[int, int]:
    """Most bytes alive at once while `steps` run, with the block's inputs freed after their last use, and with them held."""
    sizes = {x: FLOAT_BYTES * prod(x.shape) for x in inputs}
    source, last = {x: x for x in inputs}, dict.fromkeys(inputs, -1)
    reads = []
    for place, (value, step) in enumerate(steps):
        read = [source[value.inputs[i]] for i in step.reads]
        source[value] = value if step.size else read[0]
        if step.size:
            sizes[value] = step.size
        for x in read:
            last[x] = place
        reads.append(read)
    alive = most = held_most = sum(sizes[x] for x in inputs)
    held = 0  # bytes of inputs that were freed, but would be alive if held
    for place, (_, step) in enumerate(steps):
        freed = [x for x in dict.fromkeys(reads[place]) if last[x] == place]
        if step.peaks[0]:
            x = reads[place][0]
            others = alive - sizes[x]
            most = max(most, others + step.peaks[not freed])
            held_most = max(held_most, others + held + step.peaks[not freed or x in inputs])
        else:
            most = max(most, alive + step.size)
            held_most = max(held_most, alive + held + step.size)
        alive += step.size
        for x in freed:
            alive -= sizes[x]
            if x in inputs:
                held += sizes[x]
    return most, held_most
