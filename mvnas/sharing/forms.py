"""What the class of an op says of how its channels and weights are shared.

Three functions, found by the class of the op as those of `mvnas.nn.forms` are:

    @channels.register
    def shuffled(op: Shuffle, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, singledispatch
from typing import NamedTuple, TypeVar

import torch

from mvnas.errors import SpaceError
from mvnas.graph import Node
from mvnas.nn import module
from mvnas.ops import (
    Act,
    Add,
    Affine,
    Attention,
    BatchNorm,
    Branched,
    Concat,
    Conv,
    Fold,
    GridBias,
    Input,
    LayerNorm,
    Linear,
    LinearAttention,
    Mul,
    Normalise,
    Op,
    Pool,
    Position,
    Resize,
    SeparableAttention,
    Shape,
    Spread,
    Sub,
    Unfold,
)

Axis = range | tuple[int, ...]  # places on an axis of the larger network; -1 where it has none
Kind = TypeVar("Kind")


class Held(NamedTuple):
    """Which channels of a value of the larger network a value has, and how many that has; None if it is not known."""

    axis: Axis
    of: int | None


class Pair(NamedTuple):
    """An op of the smaller network, and the one of its name in the larger; None where it has no weights and no
    heads.
    """

    small: Node
    large: Node | None

    def like(self, op: type[Kind]) -> Kind:
        """The op of the larger network."""
        assert self.large and isinstance(self.large.op, op)
        return self.large.op


def lead(count: int, of: int) -> Axis:
    """The first `count` of so many."""
    return range(count) if count <= of else (*range(of), *[-1] * (count - of))


def centre(count: int, of: int) -> Axis:
    """The `count` in the middle of so many, such as the pixels of a kernel.

    Raises:
        SpaceError: there is no middle.
    """
    spare = of - count
    if spare % 2:
        raise SpaceError(f"kernels must be both odd or both even to have one centre, but are {count} and {of} wide")
    if spare < 0:
        return (*[-1] * (-spare // 2), *range(of), *[-1] * (-spare // 2))
    return range(spare // 2, spare // 2 + count)


def settled(places: Sequence[int]) -> Axis:
    """Places as a range where they follow one another."""
    if places and places[0] >= 0 and list(places) == list(range(places[0], places[0] + len(places))):
        return range(places[0], places[0] + len(places))
    return tuple(places)


@lru_cache(1 << 12)
def sizes(op: Op, shapes: tuple[Shape, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of each weight and buffer of an op's module."""
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in module(op, *shapes).state_dict().items()}


# Channels ------------------------------------------------------------------------------------------------------------


@singledispatch
def channels(op: Op, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    """Which channels of the larger network's value the value of `op` has, given those of its inputs.

    `wish` is what an op that reads the value needs, such as the first channels of each head; only an op that decides on
    its channels can heed it.

    Raises:
        SpaceError: its channels cannot be shared.
    """
    raise SpaceError(f"an op must say how it shares weights (mvnas.sharing.channels), but {type(op).__name__} does not")


@channels.register(Act | Affine | BatchNorm | Fold | LayerNorm | Normalise | Pool | Position | Resize | Spread | Unfold)
def kept(op: Op, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    """Those of the first input."""
    return inputs[0]


@channels.register
def of_input(op: Input, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    return Held(range(pair.small.shape.c), pair.small.shape.c)


@channels.register
def of_linear(op: Linear, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    out = pair.like(Linear).out
    return Held(lead(op.out, out) if wish is None else wish, out)


@channels.register
def of_conv(op: Conv, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    return _of_convs(pair, [op], [pair.like(Conv)], inputs[0], wish)


@channels.register
def of_branched(op: Branched, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    return _of_convs(pair, _convs(op), _convs(pair.like(Branched)), inputs[0], wish)


def _convs(branch: Conv | BatchNorm | Branched | None) -> list[Conv | None]:
    """The convolutions of a sum; None stands for what keeps channels."""
    if isinstance(branch, Branched):
        return [conv for one in branch.branches for conv in _convs(one)]
    return [branch if isinstance(branch, Conv) else None]


def _of_convs(
    pair: Pair, convs: Sequence[Conv | None], others: Sequence[Conv | None], held: Held, wish: Axis | None
) -> Held:
    """Channels of a sum of convolutions: those of the input if each has its own filters, else any first ones.

    Raises:
        SpaceError: groups of channels are not as wide in both networks, or a branch keeps other channels.
    """
    assert pair.large
    read, made, of = pair.small.shapes[0].c, pair.small.shape.c, pair.large.shape.c
    if made == read > 1 and all(conv is None or conv.groups == read for conv in convs):
        return held
    groups, wholes = {conv.groups for conv in convs if conv}, {conv.groups for conv in others if conv}
    if groups | wholes != {1}:
        widths = {(read // g, made // g) for g in groups} | {(pair.large.shapes[0].c // g, of // g) for g in wholes}
        if len(widths) > 1 or held.axis != range(read):
            raise SpaceError("groups of channels must be as wide in both networks, but are not")
    axis = lead(made, of) if wish is None else wish
    if None in convs and axis != held.axis:
        raise SpaceError("a branch that keeps channels must yield those that it reads, but it reads others")
    return Held(axis, of)


@channels.register(Add | Sub | Mul)
def of_pair(op: Op, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    """Those of what was made last, which the larger network has even where it adds nothing to it."""
    places = pair.small.inputs
    known = sorted(
        [(place, held) for place, held in zip(places, inputs, strict=True) if held.of is not None],
        key=lambda row: row[0],
    )
    if any(held.axis != known[0][1].axis for _, held in known):
        raise SpaceError(f"what {type(op).__name__} reads must be the same channels in both networks, but is not")
    return known[-1][1] if known else inputs[0]


@channels.register
def of_concat(op: Concat, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    if op.patches:
        return of_pair(op, pair, inputs, wish)
    places: list[int] = []
    start = 0
    for held in inputs:
        if held.of is None:
            return Held(tuple([-1] * pair.small.shape.c), None)
        places += [start + place if place >= 0 else -1 for place in held.axis]
        start += held.of
    return Held(settled(places), start)


@channels.register(Attention | LinearAttention)
def of_attention(op: Attention | LinearAttention, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    heads(pair, inputs)
    return inputs[2]


@channels.register
def of_separable(op: SeparableAttention, pair: Pair, inputs: Sequence[Held], wish: Axis | None) -> Held:
    if inputs[1].axis != inputs[2].axis:
        raise SpaceError("keys and values must be the same channels in both networks, but are not")
    return inputs[2]


def heads(pair: Pair, inputs: Sequence[Held]) -> Axis:
    """Which heads of the larger network those of an attention are.

    Heads that are wider than the larger network's, or more, are no heads of it: then all must be the first channels,
    and heads without learned numbers of their own.

    Raises:
        SpaceError: queries, keys and values are not of the same heads.
    """
    op, other = pair.small.op, pair.large.op if pair.large else None
    assert isinstance(op, Attention | LinearAttention) and isinstance(other, Attention | LinearAttention)
    found = set()
    for held, small, large in zip(inputs, pair.small.shapes, pair.large.shapes if pair.large else (), strict=True):
        width, widest = small.c // op.heads, large.c // other.heads
        starts = [held.axis[i * width] for i in range(op.heads)]
        whole = [place for start in starts for place in range(start, start + width)]
        fits = width <= widest and list(held.axis) == whole and not any(start % widest for start in starts)
        found.add(tuple(start // widest for start in starts) if fits else None)
        if not fits and (held.axis != range(small.c) or pair.small.params):
            raise SpaceError(
                f"heads must be heads of the larger network, but {op.heads} of {width} channels are none of"
                f" {other.heads} of {widest}"
            )
    if len(found) > 1:
        raise SpaceError("queries, keys and values must be of the same heads in both networks, but are not")
    return settled(found.pop() or range(op.heads))


# Wishes --------------------------------------------------------------------------------------------------------------


@singledispatch
def wishes(op: Op, pair: Pair, wish: Axis | None) -> Sequence[Axis | None]:
    """Which channels of the larger network's values `op` needs of its inputs, if it is to have `wish`; None: any."""
    return ()


@wishes.register(Act | Affine | BatchNorm | Fold | Pool | Position | Resize | Spread | Unfold | LayerNorm)
def wishes_kept(op: Op, pair: Pair, wish: Axis | None) -> Sequence[Axis | None]:
    return (wish,)


@wishes.register
def wishes_conv(op: Conv, pair: Pair, wish: Axis | None) -> Sequence[Axis | None]:
    return (wish,) if op.groups == pair.small.shapes[0].c else ()


@wishes.register(Add | Sub | Mul)
def wishes_pair(op: Op, pair: Pair, wish: Axis | None) -> Sequence[Axis | None]:
    return wish, wish


@wishes.register(Attention | LinearAttention)
def wishes_attention(op: Attention | LinearAttention, pair: Pair, wish: Axis | None) -> Sequence[Axis | None]:
    """The first channels of the first heads, where heads are neither wider nor more."""
    if not pair.large:
        return ()
    other = pair.large.op
    assert isinstance(other, Attention | LinearAttention)
    found: list[Axis | None] = []
    for small, large in zip(pair.small.shapes, pair.large.shapes, strict=True):
        width, widest = small.c // op.heads, large.c // other.heads
        if width > widest or op.heads > other.heads:
            return ()
        found.append(settled([head * widest + i for head in range(op.heads) for i in range(width)]))
    return found


# Weights -------------------------------------------------------------------------------------------------------------


class Sizes(NamedTuple):
    """The shape of a weight in both networks."""

    small: tuple[int, ...]
    large: tuple[int, ...]


@singledispatch
def axes(op: Op, pair: Pair, name: str, shape: Sizes, out: Axis, inputs: Sequence[Axis]) -> tuple[Axis, ...]:
    """Which places of each axis of the larger network's weight `name` are the smaller one's.

    By default the first axis is that of the op's own channels, the second that of its first input, unless channels
    have filters of their own, and the others are those of a kernel.

    Raises:
        SpaceError: they cannot be told.
    """
    return _axes(shape, out, inputs[0])


def _axes(shape: Sizes, out: Axis, inner: Axis) -> tuple[Axis, ...]:
    made: list[Axis] = []
    for i, (small, large) in enumerate(zip(*shape, strict=True)):
        if i == 0:
            made.append(out)
        elif i == 1 and (small, large) != (1, 1) and small == len(inner):
            made.append(inner)
        elif i == 1 and small != large:
            raise SpaceError(f"weights must read the same channels in both networks, but read {small} and {large}")
        else:
            made.append(centre(small, large))
    return tuple(made)


@axes.register
def axes_conv(op: Conv, pair: Pair, name: str, shape: Sizes, out: Axis, inputs: Sequence[Axis]) -> tuple[Axis, ...]:
    inner = inputs[0] if op.groups == 1 else range(pair.small.shapes[0].c // op.groups)
    return _axes(shape, out, inner)


@axes.register
def axes_position(
    op: Position, pair: Pair, name: str, shape: Sizes, out: Axis, inputs: Sequence[Axis]
) -> tuple[Axis, ...]:
    """Vectors of patches, of which there must be as many; or of a small network its last layer."""
    if name.startswith("places.first."):
        return tuple(centre(*pair) for pair in zip(*shape, strict=True))
    if name.startswith("places."):
        return (out, range(op.hidden))
    if shape.small[0] != shape.large[0]:
        raise SpaceError(f"positions must be of as many patches, but are of {shape.small[0]} and {shape.large[0]}")
    return range(shape.small[0]), out


@axes.register
def axes_spread(op: Spread, pair: Pair, name: str, shape: Sizes, out: Axis, inputs: Sequence[Axis]) -> tuple[Axis, ...]:
    if shape.small[:-1] != shape.large[:-1]:
        raise SpaceError("patches must be as large in both networks, but are not")
    return (range(shape.small[0]), out) if name == "weight" else (out,)


@axes.register
def axes_attention(
    op: Attention, pair: Pair, name: str, shape: Sizes, out: Axis, inputs: Sequence[Axis]
) -> tuple[Axis, ...]:
    """What heads have learned: of their distances on a map, of pairs of places, and of one another."""
    own = heads(pair, [Held(axis, None) for axis in inputs])
    if name.startswith(("before.", "after.")):
        return (own, own, range(1))[: len(shape.small)]
    if name.startswith("distances."):
        hidden = range(shape.small[-1])
        return (own, hidden) if name == "distances.second.weight" else tuple(map(range, shape.small))
    other = pair.like(Attention).bias
    if isinstance(op.bias, GridBias) and isinstance(other, GridBias):
        return own, grid(op.bias, other)
    if shape.small[1:] != shape.large[1:]:
        raise SpaceError("learned scores must be of as many places in both networks, but are not")
    return own, *map(range, shape.small[1:])


def grid(small: GridBias, large: GridBias) -> Axis:
    """Distances on a map among those of another.

    Raises:
        SpaceError: they are distances of another kind.
    """
    if (small.signed, small.stride, small.extra) != (large.signed, large.stride, large.extra):
        raise SpaceError("distances on maps must be of one kind in both networks, but are not")
    rows, columns = (
        centre(2 * one - 1, 2 * other - 1) if small.signed else lead(one, other)
        for one, other in zip(small.grid, large.grid, strict=True)
    )
    width = 2 * large.grid[1] - 1 if small.signed else large.grid[1]
    return settled([row * width + column if row >= 0 and column >= 0 else -1 for row in rows for column in columns])
