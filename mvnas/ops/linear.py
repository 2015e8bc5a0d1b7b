"""Dense layers, and positions that are added to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import ClassVar

from mvnas.errors import SpaceError
from mvnas.ops.shapes import Tokens, Vector
from mvnas.ops.value import Op, Products, Value


@dataclass(frozen=True)
class Linear(Op):
    """Dense layer on the channels of tokens or a vector, C -> out: `gain * (W x + b)`, then activation.

    A query projection carries the 1 / sqrt(head dimension) of attention as its gain. `scale` is that of `Conv`. With
    `copies` it is the mean of so many layers, such as two classifiers of which one was distilled. All of it folds on
    deployment.
    """

    takes: ClassVar = (Tokens, Vector)

    out: int
    act: str = ""
    gain: float = 1.0
    bias: bool = True
    scale: float = 0.0
    copies: int = 1

    def shape(self, x: Tokens | Vector) -> Tokens | Vector:
        if self.out < 1:
            raise SpaceError(f"a linear layer must have 1 output or more, but got {self.out} from {x[-1]} channels")
        if self.copies < 1:
            raise SpaceError(f"a linear layer must be the mean of 1 or more, but got {self.copies} copies")
        return Vector(self.out) if len(x) == 1 else Tokens(x[0], x[1], self.out)

    def params(self, x: Tokens | Vector) -> int:
        return self.out * (self.copies * (x.c + self.bias) + bool(self.scale))

    def macs(self, x: Tokens | Vector) -> int:
        return prod(x) * self.out

    def products(self, x: Tokens | Vector) -> Products:
        return ((1, prod(x) // x.c, x.c, self.out),)

    def elements(self, x: Tokens | Vector) -> int:
        return 0

    def scratch(self, x: Tokens | Vector) -> int:
        return prod(self.shape(x)) if self.act == "silu" else 0

    def traits(self, x: Tokens | Vector) -> Sequence[str]:
        return (self.act,)

    def deploy(self, x: Value) -> Value:
        return Linear(self.out, self.act)(x)


@dataclass(frozen=True)
class Position(Op):
    """A learned vector a patch is added to it, the same for every pixel position: (P, N, C) -> (P, N, C).

    With `hidden` the patches are on a square, and their vectors are what a network of so many ReLU units makes of
    their rows and columns, which run from -1 to 1, until deployed (FasterViT, arXiv:2306.06189, sec. 3.3).
    """

    takes: ClassVar = (Tokens,)

    hidden: int = 0

    def shape(self, x: Tokens) -> Tokens:
        if self.hidden and (isqrt(x[1]) ** 2 != x[1] or x[1] < 4):
            raise SpaceError(f"patches must be on a square of 2 x 2 or more, but are {x[1]}")
        return x

    def params(self, x: Tokens) -> int:
        return self.hidden * (2 + 1 + x.c) if self.hidden else x.n * x.c

    def macs(self, x: Tokens) -> int:
        return x.n * self.hidden * (2 + x.c)

    def elements(self, x: Tokens) -> int:
        return prod(x)

    def deploy(self, x: Value) -> Value:
        return Position()(x)
