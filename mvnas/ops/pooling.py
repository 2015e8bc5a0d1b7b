"""Means and maxima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from mvnas.errors import SpaceError
from mvnas.ops.shapes import Map, Tokens, Vector, same_pads
from mvnas.ops.value import Op, check_unused, stride_trait


@dataclass(frozen=True)
class Pool(Op):
    """Average over all positions, (C, H, W) or (P, N, C) -> (C,), or with a `kernel` over windows of a map.

    Windows are at every `stride`-th pixel, (C, H, W) -> (C, ceil(H / stride), ceil(W / stride)), and average the
    pixels of the map that are in them; without `pad`, windows that reach over its end are left out. With `largest` it
    is the maximum.
    """

    takes: ClassVar = (Map, Tokens)
    usual: ClassVar = Map

    kernel: int = 0
    stride: int = 1
    pad: bool = True
    largest: bool = False

    @property
    def moves(self) -> bool:
        return not self.largest

    def shape(self, x: Map | Tokens) -> Vector | Map:
        if not self.kernel:
            check_unused(self, ("stride", "pad", "largest"), "without kernel")
            return Vector(x.c)
        if not isinstance(x, Map) or (not self.pad and min(x[1:]) < self.kernel):
            raise SpaceError(f"windows must be those of a map that holds one, but got kernel {self.kernel} on {x}")
        spare = 0 if self.pad else self.kernel - 1
        return Map(x[0], -(-(x[1] - spare) // self.stride), -(-(x[2] - spare) // self.stride))

    def family(self, x: Map | Tokens) -> str:
        return f"{'largest' if self.largest else 'pool'}{self.kernel}" if self.kernel else super().family(x)

    def traits(self, x: Map | Tokens) -> Sequence[str]:
        return (stride_trait(self.stride),)

    def pads(self, x: Map) -> tuple[int, int, int, int]:
        """Rows and columns around a map that windows reach into: (top, bottom, left, right)."""
        return same_pads(x, self.kernel, self.stride) if self.pad else (0, 0, 0, 0)

    def elements(self, x: Map | Tokens) -> int:
        return prod(self.shape(x)) * self.kernel**2
