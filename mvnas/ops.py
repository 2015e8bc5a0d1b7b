"""The vocabulary of operations: everything the toolkit knows about one kernel, said once.

An op is a frozen dataclass. Called on values it yields a value, so a block reads like a forward pass:
``y = Conv(64, kernel=3)(x)``. Its class states the shape rule, the counts, the torch module and how it is deployed;
totals, table keys, microbenchmarks and exported files follow from these. No tensor in a deployed op has more than
four axes, because mobile GPU delegates refuse more.

Shape letters: B batch (never part of a `Shape`), C channels, H height, W width, P pixels of a patch, N patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from mvnas.errors import ExportError, SpaceError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class Map(NamedTuple):
    """Feature map: channels, height, width. Its tensor is (B, C, H, W)."""

    c: int
    h: int
    w: int


class Tokens(NamedTuple):
    """Patches as sequences: pixels of a patch, patches, channels. Its tensor is (B, P, N, C)."""

    p: int
    n: int
    c: int


class Vector(NamedTuple):
    """Features of the whole image. Its tensor is (B, C)."""

    c: int


Shape = Map | Tokens | Vector
State = dict[str, "Tensor"]


class Value:
    """What `op` makes of `inputs`. Two values are equal only if they are the same value."""

    __slots__ = ("inputs", "op", "shape")

    def __init__(self, op: Op, inputs: tuple[Value, ...] = ()) -> None:
        for x in inputs:
            if not isinstance(x.shape, op.takes):
                kinds = " or ".join(kind.__name__ for kind in op.takes)
                raise SpaceError(f"{type(op).__name__} must be given {kinds}, but got {x.shape}")
        self.op = op
        self.inputs = inputs
        self.shape: Any = op.shape(*[x.shape for x in inputs])

    @property
    def channels(self) -> int:
        return int(self.shape.c)

    def __add__(self, other: Value) -> Value:
        return Add()(self, other)


class Op:
    """One kernel. Subclasses give `shape`, the counts that are not zero, and `forward` or `module`."""

    takes: ClassVar[tuple[type, ...]] = (Map, Tokens, Vector)  # kinds of shapes that it is defined on
    moves: ClassVar[bool] = False  # whether it only moves or blends positions, so that channels may be scaled after it

    def __call__(self, *xs: Value) -> Value:
        return Value(self, xs)

    def shape(self, *xs: Any, **_: Any) -> Shape:
        """Shape of the output for input shapes `xs`.

        Raises:
            SpaceError: the op is not defined on these shapes.
        """
        raise AssertionError(f"{type(self).__name__} defines no shape")

    def params(self, *xs: Any, **_: Any) -> int:
        """Learned parameters."""
        return 0

    def macs(self, *xs: Any, **_: Any) -> int:
        """Multiply-accumulates of one forward pass at batch 1, in matrix products and convolutions."""
        return 0

    def scratch(self, *xs: Any, **_: Any) -> int:
        """Numbers that the deployed op makes and drops again, alive beside its output once its inputs have been read."""
        return 0

    def pointers(self, *xs: Any, **_: Any) -> int:
        """Addresses of pixels that a runtime keeps for the op, as indirect convolutions do (arXiv:1907.02129)."""
        return 0

    def module(self, *xs: Any, **_: Any) -> Module:
        """Fresh torch module. Ops without parameters define `forward` on tensors instead."""
        from mvnas.nn import Function

        return Function(self)

    def forward(self, *xs: Any, **_: Any) -> Tensor:
        """What an op without parameters computes, on tensors with a batch axis."""
        raise AssertionError(f"{type(self).__name__} defines neither module nor forward")

    def deploy(self, *xs: Any, **_: Any) -> Value:
        """The same function at fixed shapes, with whatever folds folded away; `fold` gives its weights."""
        return self(*xs)

    def fold(self, state: Mapping[str, Tensor]) -> State:
        """Weights of the deployed op that make it compute what this op computes with `state`."""
        return dict(state)

    def absorb(self, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
        """Weights with which this deployed op computes on x what it computes with `state` on scale * x + shift.

        Raises:
            ExportError: it has none.
        """
        raise ExportError(f"a layer norm must be read by linear layers or 1 x 1 convolutions, but {self} reads it")


@dataclass(frozen=True)
class Input(Op):
    """The image or, in a microbenchmark, the tensor an op is fed."""

    size: Shape

    def shape(self) -> Shape:
        return self.size


@dataclass(frozen=True)
class Layer(Op):
    """A block used as one op inside another. A graph holds its ops; its costs are added up once however often it repeats."""

    block: Callable[..., Value]

    def shape(self, *xs: Shape) -> Shape:
        from mvnas.graph import summary

        return summary(self.block, xs).shape


@dataclass(frozen=True)
class Conv(Op):
    """Convolution, batch norm and activation: (C, H, W) -> (out, ceil(H / stride), ceil(W / stride)).

    The convolution has a bias exactly where no batch norm follows and `bias` asks for one. Batch norm folds on deployment.
    """

    takes: ClassVar = (Map,)

    out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    norm: bool = True
    act: str = "silu"
    bias: bool = False

    def shape(self, x: Map) -> Map:
        if x[0] % self.groups or self.out % self.groups:
            raise SpaceError(f"groups must divide the channels, but got {self.groups} groups for {x[0]} -> {self.out}")
        return Map(self.out, -(-x[1] // self.stride), -(-x[2] // self.stride))

    def params(self, x: Map) -> int:
        return self.out * (x.c // self.groups * self.kernel**2 + (2 if self.norm else self.bias))

    def macs(self, x: Map) -> int:
        return prod(self.shape(x)) * (x.c // self.groups) * self.kernel**2

    def scratch(self, x: Map) -> int:
        return prod(self.shape(x)) if self.act == "silu" else 0  # a sigmoid and what it multiplies

    def pointers(self, x: Map) -> int:
        _, h, w = self.shape(x)
        if self.kernel == 1:
            return 0
        shared = self.groups == x.c > 1  # a depthwise window keeps the columns that it shares with the one before
        return h * self.kernel * (self.kernel + (w - 1) * (min(self.stride, self.kernel) if shared else self.kernel))

    def module(self, x: Map) -> Module:
        from mvnas import nn

        return nn.ConvNormAct(x.c, self)

    def deploy(self, x: Value) -> Value:
        return (replace(self, norm=False, bias=True) if self.norm else self)(x)

    def fold(self, state: Mapping[str, Tensor]) -> State:
        from mvnas import nn

        return nn.fold_norm(state) if self.norm else dict(state)

    def absorb(self, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
        if self.kernel > 1 or self.groups > 1 or not self.bias:
            return super().absorb(state, scale, shift)
        weight = state["conv.weight"]
        bias = state["conv.bias"] + weight[:, :, 0, 0] @ shift
        return {"conv.weight": weight * scale[:, None, None], "conv.bias": bias}


@dataclass(frozen=True)
class Linear(Op):
    """Dense layer with bias on the channels of tokens or a vector, C -> out: `gain * (W x + b)`, then activation.

    A query projection carries the 1 / sqrt(head dimension) of attention as its gain, which folds on deployment.
    """

    takes: ClassVar = (Tokens, Vector)

    out: int
    act: str = ""
    gain: float = 1.0

    def shape(self, x: Tokens | Vector) -> Tokens | Vector:
        if self.out < 1:
            raise SpaceError(f"a linear layer must have 1 output or more, but got {self.out} from {x[-1]} channels")
        return Vector(self.out) if len(x) == 1 else Tokens(x[0], x[1], self.out)

    def params(self, x: Tokens | Vector) -> int:
        return (x.c + 1) * self.out

    def macs(self, x: Tokens | Vector) -> int:
        return prod(x) * self.out

    def scratch(self, x: Tokens | Vector) -> int:
        return prod(self.shape(x)) if self.act == "silu" else 0

    def module(self, x: Tokens | Vector) -> Module:
        from mvnas import nn

        return nn.Dense(x.c, self)

    def deploy(self, x: Value) -> Value:
        return (replace(self, gain=1.0) if self.gain != 1 else self)(x)

    def fold(self, state: Mapping[str, Tensor]) -> State:
        return {name: self.gain * weight for name, weight in state.items()}

    def absorb(self, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
        return {"weight": state["weight"] * scale, "bias": state["bias"] + state["weight"] @ shift}


@dataclass(frozen=True)
class LayerNorm(Op):
    """Layer norm over the channels of tokens (P, N, C), with scale and shift if `affine`.

    On deployment scale and shift fold into the linear layers and 1 x 1 convolutions that read it; nothing else may.
    """

    takes: ClassVar = (Tokens,)

    affine: bool = True

    def shape(self, x: Tokens) -> Tokens:
        return x

    def params(self, x: Tokens) -> int:
        return 2 * x.c * self.affine

    def scratch(self, x: Tokens) -> int:
        return prod(x)  # the squares

    def module(self, x: Tokens) -> Module:
        from mvnas import nn

        return nn.LayerNorm(x.c, elementwise_affine=self.affine)

    def deploy(self, x: Value) -> Value:
        return LayerNorm(affine=False)(x)


@dataclass(frozen=True)
class Attention(Op):
    """Multi-head softmax attention among the N patches: queries, keys, values (P, N, C) -> (P, N, C).

    Each of the P pixel positions is a sequence of its own (arXiv:2110.02178, sec. 3.1). The product of queries and keys
    is not scaled here: see `Linear.gain`.
    """

    takes: ClassVar = (Tokens,)

    heads: int

    def shape(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        if q[2] % self.heads:
            raise SpaceError(f"heads must divide the width, but got {self.heads} heads for width {q[2]}")
        return q

    def macs(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return 2 * prod(q) * k.n

    def scratch(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return q.p * self.heads * q.n * k.n + prod(k) + prod(v)  # scores, and inputs with the heads first

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from mvnas import nn

        return nn.attention(q, k, v, self.heads)


@dataclass(frozen=True)
class Unfold(Op):
    """Map to tokens: (C, H, W) -> (P, N, C) with P = patch ** 2, N = H * W / P; H and W must be multiples of `patch`."""

    takes: ClassVar = (Map,)
    moves: ClassVar[bool] = True
    patch: int

    def shape(self, x: Map) -> Tokens:
        if x[1] % self.patch or x[2] % self.patch:
            raise SpaceError(f"the patch must divide the map, but got patch {self.patch} on a map of {x.h} x {x.w}")
        pixels = self.patch * self.patch
        return Tokens(pixels, x[1] * x[2] // pixels, x[0])

    def scratch(self, x: Map) -> int:
        return prod(x)  # it moves twice

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        p = self.patch
        rows = x.permute(0, 2, 3, 1).reshape(b, h // p, p, w * c).transpose(1, 2)  # two swaps of rank 4, not one of 6
        return rows.reshape(b * p, h * w // p**2, p, c).transpose(1, 2).reshape(b, p**2, h * w // p**2, c)


@dataclass(frozen=True)
class Fold(Op):
    """Tokens back to the map they were unfolded from: (P, N, C) -> (C, H, W).

    Height and width are those of `like`, or once deployed the fixed `size`.
    """

    takes: ClassVar = (Tokens, Map)
    moves: ClassVar[bool] = True
    patch: int
    size: tuple[int, int] = (0, 0)

    def shape(self, x: Tokens, like: Map | None = None) -> Map:
        return Map(x[2], like[1], like[2]) if like else Map(x[2], *self.size)

    def scratch(self, x: Tokens, like: Map | None = None) -> int:
        return prod(x)

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        b, _, n, c = x.shape
        p = self.patch
        h, w = self.size if like is None else like.shape[2:]
        rows = x.reshape(b * p, p, n, c).transpose(1, 2).reshape(b, p, h // p, w * c).transpose(1, 2)
        return rows.reshape(b, h, w, c).permute(0, 3, 1, 2)

    def deploy(self, x: Value, *like: Value) -> Value:
        return Fold(self.patch, like[0].shape[1:])(x) if like else self(x)


@dataclass(frozen=True)
class Resize(Op):
    """Bilinear resize of a map to the next multiple of `multiple`, to the size of `like`, or to the fixed `size`.

    Where the size is right already it does nothing, and vanishes on deployment.
    """

    takes: ClassVar = (Map,)
    moves: ClassVar[bool] = True
    multiple: int = 1
    size: tuple[int, int] = (0, 0)

    def shape(self, x: Map, like: Map | None = None) -> Map:
        if like:
            return Map(x[0], like[1], like[2])
        m = self.multiple
        return Map(x[0], *self.size) if self.size[0] else Map(x[0], -(-x[1] // m) * m, -(-x[2] // m) * m)

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        from mvnas import nn

        _, h, w = self.shape(Map(*x.shape[1:]), None if like is None else Map(*like.shape[1:]))
        return nn.resize(x, (h, w))

    def deploy(self, x: Value, *like: Value) -> Value:
        target = self.shape(x.shape, *(y.shape for y in like))
        return x if target == x.shape else Resize(size=target[1:])(x)


@dataclass(frozen=True)
class Add(Op):
    """Elementwise sum of two equal shapes."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        if a != b or type(a) is not type(b):
            raise SpaceError(f"the terms of a sum must have one shape, but got {a} and {b}")
        return a

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


@dataclass(frozen=True)
class Concat(Op):
    """Concatenation of maps along channels: (C1, H, W), (C2, H, W), ... -> (C1 + C2 + ..., H, W)."""

    takes: ClassVar = (Map,)

    def shape(self, *xs: Map) -> Map:
        if len({x[1:] for x in xs}) > 1:
            raise SpaceError(f"maps to concatenate must have one size, but got {xs}")
        return Map(sum(x.c for x in xs), xs[0].h, xs[0].w)

    def forward(self, *xs: Tensor) -> Tensor:
        from mvnas import nn

        return nn.concat(xs)


@dataclass(frozen=True)
class Pool(Op):
    """Global average pool: (C, H, W) -> (C,)."""

    takes: ClassVar = (Map,)

    def shape(self, x: Map) -> Vector:
        return Vector(x.c)

    def forward(self, x: Tensor) -> Tensor:
        from mvnas import nn

        return nn.pool(x)
