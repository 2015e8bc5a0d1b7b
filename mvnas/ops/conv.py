"""Convolutions, and sums of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any, ClassVar

from mvnas.errors import SpaceError
from mvnas.ops.linear import Linear
from mvnas.ops.norm import BatchNorm
from mvnas.ops.shapes import Map, Tokens, same_pads, square
from mvnas.ops.value import Op, Products, Value, check_unused, stride_trait


@dataclass(frozen=True)
class Conv(Op):
    """Convolution, batch norm and activation: (C, H, W) -> (out, ceil(H / stride), ceil(W / stride)).

    Its result after the norm is multiplied by the fixed `gain` and, where `scale` is not 0, by a learned number a
    channel that begins as `scale` (layer scale, arXiv:2103.17239). Norm, gain and scale fold on deployment. A map is
    padded by half the kernel on every side; with `same`, which even kernels need, by as little as it takes and more
    at the far end, as TensorFlow does. Of tokens (P, N, C), such as windows, each sequence is a square map of its
    own; with a kernel of 1 it deploys to a `Linear`.
    """

    takes: ClassVar = (Map, Tokens)

    out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    norm: bool = True
    act: str = "silu"
    bias: bool = False
    same: bool = False
    gain: float = 1.0
    scale: float = 0.0
    eps: float = 1e-5

    def shape(self, x: Map | Tokens) -> Map | Tokens:
        if not self.norm and self.eps != Conv.eps:
            check_unused(self, ("eps",), "without norm")
        if isinstance(x, Tokens):
            y = self.shape(square(x))
            return Tokens(x.p, prod(y[1:]), self.out)
        if x[0] % self.groups or self.out % self.groups:
            raise SpaceError(f"groups must divide the channels, but got {self.groups} groups for {x[0]} -> {self.out}")
        if not self.kernel % 2 and not self.same:
            raise SpaceError(
                f"an even kernel must be padded as TensorFlow does (same), but kernel {self.kernel} is not"
            )
        return Map(self.out, -(-x[1] // self.stride), -(-x[2] // self.stride))

    def family(self, x: Map | Tokens) -> str:
        form = "depthwise" if self.depthwise(x) else "grouped" if self.groups > 1 else "conv"
        return f"{form}{self.kernel}" + ".tokens" * isinstance(x, Tokens)

    def traits(self, x: Map | Tokens) -> Sequence[str]:
        return stride_trait(self.stride), "same" * self.same, self.act

    def pads(self, x: Map) -> tuple[int, int, int, int]:
        """Rows and columns of zeros around a map: (top, bottom, left, right)."""
        if self.same:
            return same_pads(x, self.kernel, self.stride)
        return (self.kernel // 2,) * 4

    def depthwise(self, x: Map | Tokens) -> bool:
        """Whether every channel has filters of its own."""
        return self.groups == x.c > 1

    def params(self, x: Map | Tokens) -> int:
        return self.out * (x.c // self.groups * self.kernel**2 + 2 * self.norm + self.bias + bool(self.scale))

    def macs(self, x: Map | Tokens) -> int:
        return prod(self.shape(x)) * (x.c // self.groups) * self.kernel**2

    def products(self, x: Map | Tokens) -> Products:
        if self.depthwise(x):
            return ()
        positions, inner = prod(self.shape(x)) // self.out, x.c // self.groups * self.kernel**2
        return ((self.groups, positions, inner, self.out // self.groups),)

    def elements(self, x: Map | Tokens) -> int:
        return self.macs(x) if self.depthwise(x) else 0

    def scratch(self, x: Map | Tokens) -> int:
        return prod(self.shape(x)) if self.act == "silu" else 0  # a sigmoid and what it multiplies

    def pointers(self, x: Map | Tokens) -> int:
        if self.kernel == 1:
            return 0
        _, h, w = self.shape(square(x))
        shared = self.depthwise(x)  # a depthwise window keeps the columns that it shares with the one before
        return h * self.kernel * (self.kernel + (w - 1) * (min(self.stride, self.kernel) if shared else self.kernel))

    def linear(self, x: Map | Tokens) -> bool:
        """Whether it is a linear layer of tokens."""
        return isinstance(x, Tokens) and self.kernel == self.stride == self.groups == 1

    def deploy(self, x: Value) -> Value:
        if self.linear(x.shape):
            return Linear(self.out, self.act)(x)
        same = self.same and self.pads(square(x.shape)) != (self.kernel // 2,) * 4
        if not self.norm and self.gain == 1 and not self.scale and same == self.same:
            return self(x)
        bias = self.norm or self.bias
        return replace(self, norm=False, bias=bias, same=same, gain=1.0, scale=0.0, eps=Conv.eps)(x)


@dataclass(frozen=True)
class Branched(Op):
    """A sum of linear branches on one map, norm and activation, which is one convolution when deployed.

    A branch is a convolution without activation, a batch norm, a sum of such, or None for the map itself (RepVGG,
    arXiv:2101.03697, sec. 3; MobileOne, arXiv:2206.04040, fig. 3). `norm` and `scale` are those of `Conv`.
    """

    takes: ClassVar = (Map,)

    branches: tuple[Conv | BatchNorm | Branched | None, ...]
    norm: bool = False
    act: str = ""
    scale: float = 0.0

    @property
    def parts(self) -> tuple[str, ...]:
        """A name for each branch, by which its weights are called: what it is, and how many such come before it.

        It is a convolution of the largest kernel (`conv0`) or of a smaller one (`small0`), a batch norm (`norm0`), a
        sum (`sum0`) or the map (`skip0`), so that names do not shift with the number of other branches.
        """
        largest = max([branch.kernel for branch in self.branches if isinstance(branch, Conv)], default=0)
        names: list[str] = []
        for branch in self.branches:
            part = "skip" if branch is None else "norm" if isinstance(branch, BatchNorm) else "sum"
            if isinstance(branch, Conv):
                part = "conv" if branch.kernel == largest else "small"
            names.append(f"{part}{sum(name.startswith(part) for name in names)}")
        return tuple(names)

    def shape(self, x: Map) -> Map:
        shapes: dict[Any, None] = dict.fromkeys([branch.shape(x) if branch else x for branch in self.branches])
        if len(shapes) > 1:
            raise SpaceError(f"branches must yield one shape, but yield {', '.join(map(str, shapes))}")
        for branch in self.branches:
            if isinstance(branch, Conv | Branched) and (branch.act or getattr(branch, "same", False)):
                told = "activation, which would not merge" if branch.act else "padding other than half the kernel"
                raise SpaceError(f"a branch must have no {told}, but got {branch}")
        return next(iter(shapes))  # type: ignore[no-any-return]

    def params(self, x: Map) -> int:
        own = self.shape(x).c * (2 * self.norm + bool(self.scale))
        return own + sum([branch.params(x) for branch in self.branches if branch])

    def macs(self, x: Map) -> int:
        return sum([branch.macs(x) for branch in self.branches if branch])

    def merged(self, x: Map) -> Conv:
        """The convolution that it deploys to."""
        convs = [branch.merged(x) if isinstance(branch, Branched) else branch for branch in self.branches]
        known = [conv for conv in convs if isinstance(conv, Conv)]
        groups = gcd(*(conv.groups if isinstance(conv, Conv) else x.c for conv in convs))
        kernel, stride = max((conv.kernel, conv.stride) for conv in known)
        return Conv(self.shape(x).c, kernel, stride, groups, norm=False, bias=True, act=self.act)

    def deploy(self, x: Value) -> Value:
        return self.merged(x.shape)(x)
