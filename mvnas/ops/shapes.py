"""Shapes of values, of which the batch is never a part: B stands for it where tensors are spoken of."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any, NamedTuple, TypeVar

from mvnas.errors import SpaceError

Kind = TypeVar("Kind", bound=type)


def _single(kind: Kind) -> Kind:
    """Make one object of all named tuples of a kind with equal numbers, and compare and hash these by identity.

    Shapes of different kinds are then never equal, and as keys of what is remembered they are as fast as a key can be.
    """
    known: dict[tuple[int, ...], Any] = {}
    make: Callable[..., Any] = kind.__new__

    def new(cls: type, *numbers: int, **named: int) -> Any:
        found = None if named else known.get(numbers)
        if found is None:
            made = make(cls, *numbers, **named)
            found = known.setdefault(tuple(made), made)
        return found

    methods = {"__new__": new, "_make": classmethod(lambda cls, numbers: cls(*numbers)), "__hash__": object.__hash__}
    for name, method in (methods | {"__eq__": lambda a, b: a is b, "__ne__": lambda a, b: a is not b}).items():
        setattr(kind, name, method)
    return kind


@_single
class Map(NamedTuple):
    """Feature map: channels, height, width. Its tensor is (B, C, H, W).

    >>> Map(16, 64, 64) == Tokens(16, 64, 64)
    False
    """

    c: int
    h: int
    w: int


@_single
class Tokens(NamedTuple):
    """Patches as sequences: pixels of a patch, patches, channels. Its tensor is (B, P, N, C)."""

    p: int
    n: int
    c: int


@_single
class Vector(NamedTuple):
    """Features of the whole image. Its tensor is (B, C)."""

    c: int


Shape = Map | Tokens | Vector


def square(x: Map | Tokens) -> Map:
    """`x`, or the square map that each sequence of tokens is."""
    if isinstance(x, Map):
        return x
    side = isqrt(x.n)
    if side * side != x.n:
        raise SpaceError(f"tokens to convolve must be those of a square, but are {x.n}")
    return Map(x.c, side, side)


def same_pads(x: Map, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """TensorFlow's padding of a map, so that windows start at every `stride`-th pixel: (top, bottom, left, right)."""
    tall, wide = (max(-(-side // stride) * stride - stride + kernel - side, 0) for side in x[1:])
    return tall // 2, tall - tall // 2, wide // 2, wide - wide // 2


def one_shape(a: Shape, b: Shape) -> Shape:
    """The shape of two terms."""
    if a != b:
        raise SpaceError(f"terms must have one shape, but got {a} and {b}")
    return a
