"""Norms, and the scales and shifts that they owe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from mvnas.ops.shapes import Map, Shape, Tokens, Vector
from mvnas.ops.value import Op, Value, check_unused


@dataclass(frozen=True)
class LayerNorm(Op):
    """Layer norm over the channels of every position, or with `whole` over all positions and channels of an image.

    With `affine` it has a scale and, with `bias`, a shift a channel, which on deployment fold into the linear layers
    and 1 x 1 convolutions that read it; nothing else may, and what is read by others has an `Affine` of its own.
    """

    takes: ClassVar = (Tokens, Map, Vector)

    usual: ClassVar = Tokens

    affine: bool = True
    whole: bool = False
    eps: float = 1e-5
    bias: bool = True

    def shape(self, x: Shape) -> Shape:
        if not self.affine:
            check_unused(self, ("bias",), "without affine")
        if isinstance(x, Vector):
            check_unused(self, ("whole",), "on a vector")
        return x

    def params(self, x: Shape) -> int:
        return (1 + self.bias) * x.c * self.affine

    def scratch(self, x: Shape) -> int:
        return prod(x)  # the squares

    def traits(self, x: Shape) -> Sequence[str]:
        return ("whole" * self.whole,)

    def deploy(self, x: Value) -> Value:
        return replace(self, affine=False, bias=True)(x)


@dataclass(frozen=True)
class BatchNorm(Op):
    """Batch norm on its own, whose scale begins as `start`; gone when deployed, folded as that of a `LayerNorm` is."""

    takes: ClassVar = (Map, Vector)

    start: float = 1.0
    eps: float = 1e-5

    def shape(self, x: Shape) -> Shape:
        return x

    def params(self, x: Shape) -> int:
        return 2 * x.c

    def deploy(self, x: Value) -> Value:
        return x


@dataclass(frozen=True)
class Affine(Op):
    """A learned factor a channel, which begins as `start`, and with `bias` a learned shift: weight * x + bias.

    For what cannot fold: a layer scale after no linear op, or the scale and shift of a norm before a padded
    convolution.
    """

    start: float = 1.0
    bias: bool = True

    def shape(self, x: Shape) -> Shape:
        return x

    def params(self, x: Shape) -> int:
        return x.c * (1 + self.bias)

    def traits(self, x: Shape) -> Sequence[str]:
        return ()

    def deploy(self, x: Value) -> Value:
        return Affine(bias=self.bias)(x)


@dataclass(frozen=True)
class Normalise(Op):
    """Images in [0, 1] as a network was trained to see them: (255 x - mean) / deviation, both of the range 0..255.

    It learns nothing. A convolution behind it cannot take it in, since what pads that is zero after it.
    """

    takes: ClassVar = (Map,)

    mean: float = 127.0
    deviation: float = 128.0

    def shape(self, x: Map) -> Map:
        return x
