"""What is done number by number: sums, products, activations."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from mvnas.errors import SpaceError
from mvnas.ops.shapes import Map, Shape, Vector, one_shape
from mvnas.ops.value import Op

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sub(Op):
    """Elementwise difference of two equal shapes."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        return one_shape(a, b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


@dataclass(frozen=True)
class Mul(Op):
    """Elementwise product of two equal shapes, or of a map (C, H, W) and a gate (C,), as of squeeze and excitation."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        if a != b and not (isinstance(a, Map) and isinstance(b, Vector) and a.c == b.c):
            raise SpaceError(
                f"factors must have one shape, or be a map and a gate of its channels, but got {a} and {b}"
            )
        return a

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * (b if a.ndim == b.ndim else b[:, :, None, None])


@dataclass(frozen=True)
class Act(Op):
    """An activation on its own, for example after a sum."""

    act: str

    def shape(self, x: Shape) -> Shape:
        return x

    def scratch(self, x: Shape) -> int:
        return prod(x) if self.act == "silu" else 0

    def forward(self, x: Tensor) -> Tensor:
        from mvnas import nn

        return nn.activation(self.act)(x)  # type: ignore[no-any-return]
