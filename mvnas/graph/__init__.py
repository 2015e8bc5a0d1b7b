"""A network as plain data, and every cost that follows from it by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from math import prod
from typing import NamedTuple

from mvnas.errors import SpaceError, told
from mvnas.ops import Input, Op, Shape, Value

FLOAT_BYTES = 4  # costs in bytes are those of float32, the precision networks are trained and measured in
POINTER_BYTES = 8


@dataclass(frozen=True)
class Layer(Op):
    """A block used as one op inside another. A graph holds its ops; its costs are added up once however often it repeats."""

    block: Callable[..., Value]

    def shape(self, *xs: Shape) -> Shape:
        return summary(self.block, xs).shape


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
    def of(cls, *values: Value, outputs: Sequence[Value] = ()) -> Graph:
        """Graph that computes the last of `values`, or `outputs`; each value closes one numbered block."""
        return cls._indexed(values, outputs or values[-1:])[0]

    @classmethod
    def _indexed(cls, values: Sequence[Value], outputs: Sequence[Value]) -> tuple[Graph, dict[Value, int]]:
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
            fed = not inputs
            name = f"x{place}" if fed else f"block{block}.{type(value.op).__name__.lower()}{place - start}"
            nodes.append(Node(name, value.op, inputs, value.shapes, value.shape, -1 if fed else block))

        for block, value in enumerate([*values, *outputs]):
            if value not in index:
                visit(value, block, len(nodes) or 1)
        return cls(tuple(nodes), tuple([index[value] for value in outputs])), index

    @classmethod
    def single(cls, op: Op, shapes: Sequence[Shape]) -> Graph:
        """The microbenchmark of one table entry: `op` alone, fed from inputs."""
        return cls.of(op(*(Input(shape)() for shape in shapes)))

    def deployed(self) -> Graph:
        """The graph that ships: shapes fixed, norms and gains folded, resizes that do nothing removed."""
        return self.deployment()[0]

    def on(self, *inputs: Shape) -> Graph:
        """The same ops on inputs of other sizes, which blocks are not asked about."""
        sizes = iter(inputs)
        values: list[Value] = []
        ends: dict[int, Value] = {}
        for node in self.nodes:
            values.append(node.op(*[values[i] for i in node.inputs]) if node.inputs else Input(next(sizes))())
            if node.inputs:
                ends[node.block] = values[-1]
        return Graph.of(*[ends[block] for block in sorted(ends)], outputs=[values[i] for i in self.outputs])

    def deployment(self) -> tuple[Graph, dict[str, str]]:
        """The deployed graph, and for each of its nodes with weights the node of this graph that they fold from."""
        values: list[Value] = []
        ends: dict[int, Value] = {}
        for node in self.nodes:
            values.append(node.op.deploy(*[values[i] for i in node.inputs]) if node.inputs else Value(node.op))
            if node.inputs:
                ends[node.block] = values[-1]
        outputs = [values[i] for i in self.outputs]
        graph, index = self._indexed([ends[block] for block in sorted(ends)], outputs)
        places = {value: i for i, value in reversed(list(enumerate(values)))}  # of the node that made each value
        made = [(graph.nodes[index[value]], self.nodes[i]) for value, i in places.items() if self.nodes[i].params]
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

        First its inputs and its output; then, its inputs freed if nobody needs them any more, its output and its scratch.
        """
        held = {*self.outputs, *[i for i, node in enumerate(self.nodes) if not node.inputs]}
        last = {i: place for place, node in enumerate(self.nodes) for i in node.inputs if i not in held}
        sizes = [FLOAT_BYTES * prod(node.shape) for node in self.nodes]
        alive, peaks = 0, []
        for place, node in enumerate(self.nodes):
            first = alive + sizes[place]
            alive = first - sum([sizes[i] for i in set(node.inputs) if last.get(i) == place])
            peaks.append(max(first, alive + node.scratch_bytes))
        return tuple(peaks)

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


Kernel = tuple[Op, tuple[Shape, ...]]  # a deployed op on shapes: what a latency table is indexed by


@dataclass(eq=False)
class Summary:
    """Costs of one deployed block on one input shape, without the nodes: equal to those of its graph, found much faster.

    `steps` are what the block does in order; memory is looked at when it is asked for, which most searches do not.
    """

    block: Callable[..., Value]
    shapes: tuple[Shape, ...]
    shape: Shape
    params: int
    macs: int
    steps: tuple[Step, ...]

    @property
    def kernels(self) -> tuple[tuple[Kernel, int], ...]:
        """The deployed ops of the block with how often each runs."""
        counts: dict[Kernel, int] = {}
        for step in self.steps:
            inner = step.inner.kernels if step.inner else ((step.kernel, 1),) if step.kernel else ()
            for kernel, count in inner:
                counts[kernel] = counts.get(kernel, 0) + count
        return tuple(counts.items())

    @cached_property
    def pointers(self) -> int:
        """Addresses that a runtime keeps for the convolutions of the block."""
        return sum([step.inner.pointers if step.inner else step.pointers for step in self.steps])

    @cached_property
    def peaks(self) -> tuple[int, int]:
        """Most bytes of activations alive at once in the deployed block: its input freed after its last use; its input held."""
        return _peaks(*self.trace())

    def trace(self) -> tuple[list[Value], list[tuple[Value, Step]]]:
        """Inputs of the block, and its steps with the value that each yields."""
        inputs, _, traced = _trace(self.block, self.shapes)
        return inputs, traced


class Step(NamedTuple):
    """One op of a block, as deployed: the inputs it still reads, the bytes it yields (0: it vanished), and what it costs.

    It runs a `kernel`, or the `inner` block of a `Layer`, or nothing.
    """

    params: int
    macs: int
    kernel: Kernel | None
    inner: Summary | None
    reads: tuple[int, ...]
    size: int
    scratch: int = 0
    pointers: int = 0


@lru_cache(maxsize=1 << 17)
def summary(block: Callable[..., Value], shapes: tuple[Shape, ...]) -> Summary:
    """Summary of `block` on inputs of `shapes`.

    Raises:
        SpaceError: the block is not defined on these shapes.
    """
    _, output, traced = _trace(block, shapes)
    steps = tuple([step for _, step in traced])
    params, macs = sum([step.params for step in steps]), sum([step.macs for step in steps])
    return Summary(block, shapes, output.shape, params, macs, steps)


def _trace(
    block: Callable[..., Value], shapes: tuple[Shape, ...]
) -> tuple[list[Value], Value, list[tuple[Value, Step]]]:
    """Inputs, output and the steps of a block in execution order, each with the value it yields."""
    inputs = [Input(shape)() for shape in shapes]
    output = block(*inputs)
    if not isinstance(output, Value):
        raise SpaceError(f"a block must yield a value, but {type(block).__module__} yields {told(output)}")
    traced: list[tuple[Value, Step]] = []
    _visit(output, set(inputs), traced)
    return inputs, output, traced


def _visit(value: Value, seen: set[Value], traced: list[tuple[Value, Step]]) -> None:
    seen.add(value)
    for x in value.inputs:
        if x not in seen:
            _visit(x, seen, traced)
    if value.inputs:
        traced.append((value, _step(value.op, value.shapes)))


@lru_cache(maxsize=1 << 17)
def _step(op: Op, shapes: tuple[Shape, ...]) -> Step:
    if isinstance(op, Layer):
        inner = summary(op.block, shapes)
        return Step(inner.params, inner.macs, None, inner, tuple(range(len(shapes))), FLOAT_BYTES * prod(inner.shape))
    inputs = [Input(shape)() for shape in shapes]
    value = op.deploy(*inputs)
    if value in inputs:
        return Step(0, 0, None, None, (inputs.index(value),), 0)
    op, shapes = kernel = value.op, value.shapes
    reads = tuple([inputs.index(x) for x in value.inputs])
    size, scratch = FLOAT_BYTES * prod(value.shape), FLOAT_BYTES * op.scratch(*shapes)
    return Step(op.params(*shapes), op.macs(*shapes), kernel, None, reads, size, scratch, op.pointers(*shapes))


def _peaks(inputs: Sequence[Value], steps: Sequence[tuple[Value, Step]]) -> tuple[int, int]:
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
        if step.inner:
            x = reads[place][0]
            others = alive - sizes[x]
            most = max(most, others + step.inner.peaks[not freed])
            held_most = max(held_most, others + held + step.inner.peaks[not freed or x in inputs])
        else:
            first, then = alive + step.size, alive + step.size + step.scratch
            most = max(most, first, then - sum(sizes[x] for x in freed))
            held_most = max(held_most, held + first, held + then - sum(sizes[x] for x in freed if x not in inputs))
        alive += step.size
        for x in freed:
            alive -= sizes[x]
            if x in inputs:
                held += sizes[x]
    return most, held_most
