"""Costs of blocks, remembered: equal to those of their graphs, found much faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import NamedTuple

from mvnas.errors import SpaceError, quoted
from mvnas.graph.memory import FLOAT_BYTES, Use, alive
from mvnas.ops import Input, Op, Shape, Value


@dataclass(frozen=True)
class Layer(Op):
    """A block used as one op inside another. A graph holds its ops; its costs are added up once however often it
    repeats.
    """

    block: Callable[..., Value]

    def shape(self, *xs: Shape) -> Shape:
        return summary(self.block, xs).shape


Kernel = tuple[Op, tuple[Shape, ...]]  # a deployed op on shapes: what a latency table is indexed by


@dataclass(eq=False)
class Summary:
    """Costs of one deployed block on one input shape, without the nodes: equal to those of its graph, found much
    faster.

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

    def peak(self, held: tuple[bool, ...]) -> int:
        """Most bytes of activations alive at once in the deployed block, of its inputs the `held` ones to its end.

        Each other is freed after its last use.
        """
        found = self._peaks.get(held)
        if found is None:
            found = max(alive(self._memory[0], {i for i, holds in enumerate(held) if holds}))
            self._peaks[held] = found
        return found

    @cached_property
    def _peaks(self) -> dict[tuple[bool, ...], int]:
        return {}

    @cached_property
    def passes(self) -> int | None:
        """The input that the deployed block yields as it is, where nothing of it is left; None for most."""
        _, place = self._memory
        return place if place < len(self.shapes) else None

    @cached_property
    def _memory(self) -> tuple[list[Use], int]:
        """Inputs and steps as memory sees them, but for those that vanished, and which of them yields the output."""
        inputs, output, traced = _trace(self.block, self.shapes)
        uses = [Use((), FLOAT_BYTES * prod(x.shape)) for x in inputs]
        places = {x: i for i, x in enumerate(inputs)}
        for value, step in traced:
            reads = tuple([places[value.inputs[i]] for i in step.reads])
            places[value] = len(uses) if step.size else reads[0]
            if step.size:
                uses.append(Use(reads, step.size, step.scratch, step.inner))
        return uses, places[output]

    def trace(self) -> tuple[list[Value], list[tuple[Value, Step]]]:
        """Inputs of the block, and its steps with the value that each yields."""
        inputs, _, traced = _trace(self.block, self.shapes)
        return inputs, traced


class Step(NamedTuple):
    """One op of a block, as deployed: the inputs it still reads, the bytes it yields (0: it vanished), and what it
    costs.

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
        raise SpaceError(f"a block must yield a value, but {type(block).__module__} yields {quoted(output)}")
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
