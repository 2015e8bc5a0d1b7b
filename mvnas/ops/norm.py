"""Norms, and the scales and shifts that they owe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

from mvnas.ops.shapes import Map, Shape, Tokens, Vector
from mvnas.ops.value import Op, Value, check_unused

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class LayerNorm(Op):
    """Layer norm over the channels of every position, or with `whole` over all of an image's positions and channels together.

    With `affine` it has a scale and, with `bias`, a shift a channel, which on deployment fold into the linear layers and 1 x 1 convolutions
    that read it; nothing else may, and what is read by others has an `Affine` of its own.
    """

    takes: ClassVar = (Tokens, Map, Vector)

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

    def module(self, x: Shape) -> Module:
        from mvnas import nn

        return nn.Norm(x, self)

    def deploy(self, x: Value) -> Value:
        return replace(self, affine=False, bias=True)(x)

    def owes(self, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        if not self.affine:
            return None
        scale = state["weight"]
        return scale, state["bias"] if self.bias else scale.new_zeros(len(scale))


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

    def module(self, x: Shape) -> Module:
        from mvnas import nn

        return nn.Statistics(x.c, self)

    def deploy(self, x: Value) -> Value:
        return x

    def owes(self, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        scale = state["weight"] / (state["running_var"] + self.eps).sqrt()
        return scale, state["bias"] - state["running_mean"] * scale


@dataclass(frozen=True)
class Affine(Op):
    """A learned factor a channel, which begins as `start`, and with `bias` a learned shift: weight * x + bias.

    For what cannot fold: a layer scale after no linear op, or the scale and shift of a norm before a padded convolution.
    """

    start: float = 1.0
    bias: bool = True

    def shape(self, x: Shape) -> Shape:
        return x

    def params(self, x: Shape) -> int:
        return x.c * (1 + self.bias)

    def module(self, x: Shape) -> Module:
        from mvnas import nn

        return nn.Affine(x, self)

    def deploy(self, x: Value) -> Value:
        return Affine(bias=self.bias)(x)
