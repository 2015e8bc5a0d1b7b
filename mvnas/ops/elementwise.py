"""What is done number by number: sums, products, activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mvnas.errors import SpaceError
from mvnas.ops.shapes import Map, Shape, Vector, one_shape
from mvnas.ops.value import Op


@dataclass(frozen=True)
class Sub(Op):
    """Elementwise difference of two equal shapes."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        return one_shape(a, b)


@dataclass(frozen=True)
class Mul(Op):
    """Elementwise product of two equal shapes, or of a map (C, H, W) and a gate (C,), as of squeeze and excitation."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        if a != b and not (isinstance(a, Map) and isinstance(b, Vector) and a.c == b.c):
            raise SpaceError(
                f"factors must have one shape, or be a map and a gate of its channels, but got {a} and {b}"
            )
        return a

    def traits(self, a: Shape, b: Shape) -> Sequence[str]:
        return ("unlike" * (a != b),)


@dataclass(frozen=True)
class Act(Op):
    """An activation on its own, for example after a sum."""

    act: str

    def shape(self, x: Shape) -> Shape:
        return x

    def scratch(self, x: Shape) -> int:
        return prod(x) if self.act == "silu" else 0
