"""The vocabulary of operations: everything the toolkit knows about one kernel, said once.

An op is a frozen dataclass. Called on values it yields a value, so a block reads like a forward pass:
``y = Conv(64, kernel=3)(x)``. Its class states the shape rule, the counts, the torch module and how it is deployed;
totals, table keys, microbenchmarks and exported files follow from these. No tensor in a deployed op has more than
four axes, because mobile GPU delegates refuse more.

Shape letters: B batch (never part of a `Shape`), C channels, H height, W width, P pixels of a patch, N patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from math import gcd, isqrt, prod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from mvnas.errors import ExportError, SpaceError, unknown

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


Kind = TypeVar("Kind", bound=type)


def _single(kind: Kind) -> Kind:
    """Let a named tuple be one object for equal numbers, told by its identity: equal to those of its own kind alone, and fast."""
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
Products = tuple[tuple[float, float, float, float], ...]
State = dict[str, "Tensor"]


class Value:
    """What `op` makes of `inputs`. Two values are equal only if they are the same value."""

    __slots__ = ("inputs", "op", "shape", "shapes")

    def __init__(self, op: Op, inputs: tuple[Value, ...] = ()) -> None:
        self.op = op
        self.inputs = inputs
        self.shapes = tuple([x.shape for x in inputs])
        for shape in self.shapes:
            if not isinstance(shape, op.takes):
                kinds = " or ".join(kind.__name__ for kind in op.takes)
                raise SpaceError(f"{type(op).__name__} must be given {kinds}, but got {shape}")
        self.shape: Any = op.shape(*self.shapes)

    @property
    def channels(self) -> int:
        return int(self.shape.c)

    def __add__(self, other: Value) -> Value:
        return Add()(self, other)


class Op:
    """One kernel. Subclasses give `shape`, the counts that are not zero, and `forward` or `module`."""

    takes: ClassVar[tuple[type, ...]] = (Map, Tokens, Vector)  # kinds of shapes that it is defined on

    @property
    def moves(self) -> bool:
        """Whether it only moves or averages positions, so that channels may be scaled and shifted after it."""
        return False

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

    def products(self, *xs: Any, **_: Any) -> Products:
        """Matrix products that a runtime computes the deployed op by, as (how many, rows, inner size, columns) each."""
        return ()

    def elements(self, *xs: Any, **_: Any) -> int:
        """Multiply-accumulates or numbers that the deployed op computes outside of `products`."""
        return self.macs(*xs)

    def scratch(self, *xs: Any, **_: Any) -> int:
        """Numbers that the deployed op makes and drops again, alive beside its output once its inputs have been read."""
        return 0

    def pointers(self, *xs: Any, **_: Any) -> int:
        """Addresses of pixels that a runtime keeps for the op, as indirect convolutions do (arXiv:1907.02129)."""
        return 0

    def module(self, *xs: Any, **_: Any) -> Module:
        """Fresh torch module. Ops without parameters define `forward` on tensors instead."""
        from mvnas.nn import Function

        return Function(self, self.forward)

    def forward(self, *xs: Any, **_: Any) -> Tensor:
        """What an op without parameters computes, on tensors with a batch axis."""
        raise AssertionError(f"{type(self).__name__} defines neither module nor forward")

    def deploy(self, *xs: Any, **_: Any) -> Value:
        """The same function at fixed shapes, with whatever folds folded away; `fold` gives its weights."""
        return self(*xs)

    def fold(self, state: Mapping[str, Tensor], *xs: Any) -> State:
        """Weights of the deployed op on inputs of shapes `xs` that make it compute what this op computes with `state`."""
        return dict(state)

    def owes(self, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Scale and shift of channels that the deployed op leaves to what reads it (`absorb`); None if it owes nothing."""
        return None

    def absorb(self, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
        """Weights with which this deployed op computes on x what it computes with `state` on scale * x + shift.

        Raises:
            ExportError: it has none.
        """
        raise ExportError(f"a norm must be read by linear layers or 1 x 1 convolutions with bias, but {self} reads it")


def check_unused(owner: Any, names: Sequence[str], why: str) -> None:
    """Check that fields of an op or a block that mean nothing as its others are have their defaults.

    Raises:
        SpaceError: one has not, so that what was asked for would be left out; `why` says why it is.
    """
    for field in fields(owner):
        value = getattr(owner, field.name)
        if field.name in names and value != field.default:
            name = type(owner).__name__ if isinstance(owner, Op) else type(owner).__module__.rpartition(".")[2]
            raise SpaceError(
                f"{field.name} of {name} must stay {field.default!r} {why}, which ignores it, but is {value!r}"
            )


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

    Its result after the norm is multiplied by the fixed `gain` and, where `scale` is not 0, by a learned number a channel that
    begins as `scale` (layer scale, arXiv:2103.17239). Norm, gain and scale fold on deployment. A map is padded by half the
    kernel on every side; with `same`, which even kernels need, by as little as it takes and more at the far end, as TensorFlow does.
    Of tokens (P, N, C), such as windows, each sequence is a square map of its own; with a kernel of 1 it deploys to a `Linear`.
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

    def module(self, x: Map | Tokens) -> Module:
        from mvnas import nn

        return (nn.WindowConv if isinstance(x, Tokens) else nn.ConvNormAct)(x.c, self)

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

    def fold(self, state: Mapping[str, Tensor], *xs: Map | Tokens) -> State:
        from mvnas import nn

        made = nn.folded(state, self.gain, self.eps)
        if not self.linear(xs[0]):
            return made
        weight = made["conv.weight"].flatten(1)
        return {"weight": weight, "bias": made.get("conv.bias", weight.new_zeros(self.out))}

    def absorb(self, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
        if self.kernel > 1 or self.groups > 1 or not self.bias:
            return super().absorb(state, scale, shift)
        weight = state["conv.weight"]
        bias = state["conv.bias"] + weight[:, :, 0, 0] @ shift
        return {"conv.weight": weight * scale[:, None, None], "conv.bias": bias}


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

    def module(self, x: Map) -> Module:
        from mvnas import nn

        return nn.Branches(x, self)

    def merged(self, x: Map) -> Conv:
        """The convolution that it deploys to."""
        convs = [branch.merged(x) if isinstance(branch, Branched) else branch for branch in self.branches]
        known = [conv for conv in convs if isinstance(conv, Conv)]
        groups = gcd(*(conv.groups if isinstance(conv, Conv) else x.c for conv in convs))
        kernel, stride = max((conv.kernel, conv.stride) for conv in known)
        return Conv(self.shape(x).c, kernel, stride, groups, norm=False, bias=True, act=self.act)

    def deploy(self, x: Value) -> Value:
        return self.merged(x.shape)(x)

    def fold(self, state: Mapping[str, Tensor], *xs: Map) -> State:
        from mvnas import nn

        (x,) = xs
        like = self.merged(x)
        total: State = {}
        for i, branch in enumerate(self.branches):
            start = f"branches.{i}."
            own = {key.removeprefix(start): weight for key, weight in state.items() if key.startswith(start)}
            for key, weight in nn.branch(branch, own, x, like).items():
                total[key] = total[key] + weight if key in total else weight
        return nn.folded(total | {key: weight for key, weight in state.items() if not key.startswith("branches.")})


@dataclass(frozen=True)
class Linear(Op):
    """Dense layer on the channels of tokens or a vector, C -> out: `gain * (W x + b)`, then activation.

    A query projection carries the 1 / sqrt(head dimension) of attention as its gain. `scale` is that of `Conv`. With `copies`
    it is the mean of so many layers, such as two classifiers of which one was distilled. All of it folds on deployment.
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

    def module(self, x: Tokens | Vector) -> Module:
        from mvnas import nn

        return nn.Dense(x.c, self)

    def deploy(self, x: Value) -> Value:
        return Linear(self.out, self.act)(x)

    def fold(self, state: Mapping[str, Tensor], *xs: Tokens | Vector) -> State:
        from mvnas import nn

        return nn.folded_linear(state, self)

    def absorb(self, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
        return {"weight": state["weight"] * scale, "bias": state["bias"] + state["weight"] @ shift}


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


@dataclass(frozen=True)
class Position(Op):
    """A learned vector a patch is added to it, the same for every pixel position: (P, N, C) -> (P, N, C).

    With `hidden` the patches are on a square, and their vectors are what a network of so many ReLU units makes of their rows and
    columns, which run from -1 to 1, until deployed (FasterViT, arXiv:2306.06189, sec. 3.3).
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

    def module(self, x: Tokens) -> Module:
        from mvnas import nn

        return nn.Position(x, self)

    def deploy(self, x: Value) -> Value:
        return Position()(x)

    def fold(self, state: Mapping[str, Tensor], *xs: Tokens) -> State:
        from mvnas import nn

        return {"weight": nn.positions(state, xs[0].n)} if self.hidden else dict(state)


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


EPS = 1e-5  # of sums that attention divides by
SOFTMAX_FORMS = ("softmax", "relu_softmax")
LINEAR_FORMS = ("scaled", "relu_linear")


@dataclass(frozen=True)
class GridBias:
    """What `Attention` adds to its scores: a learned number a head for each distance |dy|, |dx| of a query from a key.

    `grid` is the height and width of the keys' map; the queries are at every `stride`-th key each way (LeViT, arXiv:2104.01136,
    sec. 4.2). On square maps of another size the farthest known distance stands for farther ones. With `signed` it is a number for
    every dy, dx; with `hidden` these are 16 sigmoid of what a network of so many ReLU units makes of them (Swin V2,
    arXiv:2111.09883, sec. 3.3). The first `extra` patches have no place on the map, and nothing is added to their scores.
    """

    grid: tuple[int, int]
    stride: int = 1
    signed: bool = False
    hidden: int = 0
    extra: int = 0

    def check(self, q: Tokens, k: Tokens) -> None:
        """Check that queries and keys are on its map.

        Raises:
            SpaceError: they are not, or it is no map.
        """
        if min(self.grid) < 1:
            raise SpaceError(f"a grid must have a height and a width, but is {self.grid}")
        if q.n - self.extra != prod(-(-side // self.stride) for side in self.sides(k.n)):
            raise SpaceError(f"queries must be every {self.stride}. of the keys each way, but are {q.n} of {k.n}")

    def sides(self, keys: int) -> tuple[int, int]:
        """Height and width of the keys' map: those of `grid`, or of a square."""
        keys -= self.extra
        if keys == prod(self.grid):
            return self.grid
        if isqrt(keys) ** 2 != keys:
            raise SpaceError(f"keys must be on a map of {self.grid[0]} x {self.grid[1]} or a square, but are {keys}")
        return isqrt(keys), isqrt(keys)

    @property
    def distances(self) -> int:
        """How many distances there are numbers for."""
        return prod(2 * side - 1 for side in self.grid) if self.signed else prod(self.grid)

    def params(self, heads: int, q: Tokens, k: Tokens) -> int:
        """Learned numbers."""
        return self.hidden * (2 + 1 + heads) if self.hidden else heads * self.distances

    def macs(self, heads: int) -> int:
        """Multiply-accumulates that it takes to make the numbers."""
        return self.distances * self.hidden * (2 + heads)


@dataclass(frozen=True)
class PairBias:
    """What `Attention` adds to its scores: a learned number a head, query and key. A `GridBias` deploys to it."""

    def check(self, q: Tokens, k: Tokens) -> None:
        """Any queries and keys will do."""

    def params(self, heads: int, q: Tokens, k: Tokens) -> int:
        """Learned numbers."""
        return heads * q.n * k.n

    def macs(self, heads: int) -> int:
        """None: the numbers are there."""
        return 0


@dataclass(frozen=True)
class Attention(Op):
    """Multi-head attention among the patches: queries (P, N, C), keys (P, M, C), values (P, M, V) -> (P, N, V).

    Each of the P pixel positions is a sequence of its own (arXiv:2110.02178, sec. 3.1). The product A of queries and keys is not
    scaled here: see `Linear.gain`. Shares of the values are, by `form`, softmax: exp(A) / sum over keys; relu_softmax:
    relu(A) / (sum over keys + 1e-5) (MPCViT, arXiv:2211.13955, sec. 3). `bias` is added to A. `talking` mixes heads before and after
    the softmax (arXiv:2003.02436).
    """

    takes: ClassVar = (Tokens,)

    heads: int
    form: str = SOFTMAX_FORMS[0]
    bias: GridBias | PairBias | None = None
    talking: bool = False

    def shape(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        if self.form not in SOFTMAX_FORMS:
            raise SpaceError(unknown("form", self.form, SOFTMAX_FORMS))
        made = _attended(self.heads, q, k, v)
        if self.bias:
            self.bias.check(q, k)
        return made

    def params(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        bias = self.bias.params(self.heads, q, k) if self.bias else 0
        return bias + 2 * self.talking * self.heads * (self.heads + 1)

    def macs(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return (self.bias.macs(self.heads) if self.bias else 0) + int(sum(map(prod, self.products(q, k, v))))

    def products(self, q: Tokens, k: Tokens, v: Tokens) -> Products:
        count, width, values = q.p * self.heads, q.c // self.heads, v.c // self.heads
        talk = ((q.p, self.heads, self.heads, q.n * k.n),) * (2 * self.talking)
        return (count, q.n, width, k.n), (count, q.n, k.n, values), *talk

    def elements(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return q.p * self.heads * q.n * k.n

    def scratch(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return q.p * self.heads * q.n * k.n + prod(k) + prod(v)  # scores, and inputs with the heads first

    def module(self, q: Tokens, k: Tokens, v: Tokens) -> Module:
        from mvnas import nn

        return nn.Attend(self, q, k) if self.params(q, k, v) else nn.Function(self, self.forward)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from mvnas import nn

        return nn.attention(q, k, v, self)

    def deploy(self, q: Value, k: Value, v: Value) -> Value:
        return replace(self, bias=PairBias())(q, k, v) if self.bias else self(q, k, v)

    def fold(self, state: Mapping[str, Tensor], *xs: Tokens) -> State:
        if not isinstance(self.bias, GridBias):
            return dict(state)
        from mvnas import nn

        kept = {key: weight for key, weight in state.items() if key.startswith(("before.", "after."))}
        return kept | {"bias": nn.biases(self.bias, state, xs[1].n)}


@dataclass(frozen=True)
class LinearAttention(Op):
    """Multi-head attention that multiplies keys and values first, so that no N x M numbers are made: shapes as of `Attention`.

    With A the product of queries and keys, shares of the values are, by `form`, scaled: A / M (MPCViT, arXiv:2211.13955, sec. 3);
    relu_linear: of relu(q) and relu(k), A / (sum over keys + 1e-5) (EfficientViT, arXiv:2205.14756, eq. 2).
    """

    takes: ClassVar = (Tokens,)

    heads: int
    form: str

    def shape(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        if self.form not in LINEAR_FORMS:
            raise SpaceError(unknown("form", self.form, LINEAR_FORMS))
        return _attended(self.heads, q, k, v)

    def macs(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return int(sum(map(prod, self.products(q, k, v))))

    def products(self, q: Tokens, k: Tokens, v: Tokens) -> Products:
        count, width, values = q.p * self.heads, q.c // self.heads, v.c // self.heads
        total = ((count, q.n, width, 1),) if self.form == "relu_linear" else ()
        return (count, width, k.n, values), (count, q.n, width, values), *total

    def elements(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return prod(q) + prod(k)

    def scratch(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return prod(q) + prod(k) + prod(v)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from mvnas import nn

        return nn.linear_attention(q, k, v, self)


@dataclass(frozen=True)
class SeparableAttention(Op):
    """Attention with one number a patch as query: queries (P, N, 1), keys (P, N, C), values (P, N, C) -> (P, N, C).

    A softmax of the queries weighs the keys, and their sum multiplies every value (MobileViTv2, arXiv:2206.02680, eq. 3).
    """

    takes: ClassVar = (Tokens,)

    def shape(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        if q.c != 1:
            raise SpaceError(f"queries of separable attention must have 1 channel, but are {q}")
        if k != v or q[:2] != k[:2]:
            raise SpaceError(f"queries, keys and values must agree, but are {q}, {k} and {v}")
        return v

    def macs(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return prod(k)

    def elements(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return 2 * prod(k)

    def scratch(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return q.p * q.n

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v * (q.transpose(2, 3).softmax(-1) @ k)


def _attended(heads: int, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
    """Shape of what `heads` make.

    Raises:
        SpaceError: queries, keys and values are not of the same sequences, or heads do not divide them.
    """
    if q.c % heads or v.c % heads:
        wrong = q.c if q.c % heads else v.c
        raise SpaceError(f"heads must divide the width, but got {heads} heads for width {wrong}")
    if k.c != q.c or k[:2] != v[:2] or q.p != k.p:
        raise SpaceError(f"queries, keys and values must agree, but are {q}, {k} and {v}")
    return Tokens(q.p, q.n, v.c)


@dataclass(frozen=True)
class Unfold(Op):
    """Map to tokens: (C, H, W) -> (P, N, C) with P = patch ** 2, N = H * W / P; H and W must be multiples of `patch`.

    With `windows` it is (N, P, C): each patch is a sequence of its pixels. A patch of 1 takes the pixels in reading order.
    """

    takes: ClassVar = (Map,)
    patch: int
    windows: bool = False

    @property
    def moves(self) -> bool:
        return True

    def shape(self, x: Map) -> Tokens:
        if x[1] % self.patch or x[2] % self.patch:
            raise SpaceError(f"the patch must divide the map, but got patch {self.patch} on a map of {x.h} x {x.w}")
        pixels, patches = self.patch * self.patch, x[1] * x[2] // (self.patch * self.patch)
        return Tokens(patches, pixels, x[0]) if self.windows else Tokens(pixels, patches, x[0])

    def scratch(self, x: Map) -> int:
        return prod(x) if self.patch > 1 and not self.windows else 0  # it moves twice

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        p = self.patch
        rows = x.permute(0, 2, 3, 1)
        if self.windows:
            rows = rows.reshape(b * h // p, p, w // p, p * c).transpose(1, 2)
            return rows.reshape(b, h * w // p**2, p**2, c)
        rows = rows.reshape(b, h // p, p, w * c).transpose(1, 2)  # two swaps of rank 4, not one of 6
        return rows.reshape(b * p, h * w // p**2, p, c).transpose(1, 2).reshape(b, p**2, h * w // p**2, c)


@dataclass(frozen=True)
class Fold(Op):
    """Tokens back to the map they were unfolded from: (P, N, C) -> (C, H, W).

    Height and width are those of `like`, or once deployed the fixed `size`.
    """

    takes: ClassVar = (Tokens, Map)
    patch: int
    size: tuple[int, int] = (0, 0)
    windows: bool = False

    @property
    def moves(self) -> bool:
        return True

    def shape(self, x: Tokens, like: Map | None = None) -> Map:
        if like:
            check_unused(self, ("size",), "beside a map of that size")
        elif not all(self.size):
            raise SpaceError(f"tokens must be folded to a size or that of a map, but got size {self.size} and no map")
        return Map(x[2], like[1], like[2]) if like else Map(x[2], *self.size)

    def scratch(self, x: Tokens, like: Map | None = None) -> int:
        return prod(x) if self.patch > 1 and not self.windows else 0

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        b, c, p = x.shape[0], x.shape[3], self.patch
        h, w = self.size if like is None else like.shape[2:]
        if self.windows:
            rows = x.reshape(b * h // p, w // p, p, p * c).transpose(1, 2)
        else:
            rows = x.reshape(b * p, p, h * w // p**2, c).transpose(1, 2)
            rows = rows.reshape(b, p, h // p, w * c).transpose(1, 2)
        return rows.reshape(b, h, w, c).permute(0, 3, 1, 2)

    def deploy(self, x: Value, *like: Value) -> Value:
        return Fold(self.patch, like[0].shape[1:], self.windows)(x) if like else self(x)


@dataclass(frozen=True)
class Spread(Op):
    """Each token becomes the pixels of a patch: (1, N, C) -> (N, patch ** 2, C).

    Each pixel is the token times a learned factor a pixel and channel, plus a learned shift a channel: folded with `windows`, a
    depthwise transposed convolution whose kernel is its stride.
    """

    takes: ClassVar = (Tokens,)

    patch: int

    def shape(self, x: Tokens) -> Tokens:
        if x.p != 1:
            raise SpaceError(f"tokens to spread must be one sequence, but got {x}")
        return Tokens(x.n, self.patch**2, x.c)

    def params(self, x: Tokens) -> int:
        return x.c * (self.patch**2 + 1)

    def elements(self, x: Tokens) -> int:
        return prod(self.shape(x))

    def scratch(self, x: Tokens) -> int:
        return prod(self.shape(x))  # products, before the shift

    def module(self, x: Tokens) -> Module:
        from mvnas import nn

        return nn.Spread(x.c, self.patch**2)


@dataclass(frozen=True)
class Resize(Op):
    """Bilinear resize of a map to the next multiple of `multiple`, to the size of `like`, or to the fixed `size`.

    Where the size is right already it does nothing, and vanishes on deployment. With `nearest` each pixel
    becomes 2 x 2, 4 x 4, ... equal ones.
    """

    takes: ClassVar = (Map,)
    multiple: int = 1
    size: tuple[int, int] = (0, 0)
    nearest: bool = False

    @property
    def moves(self) -> bool:
        return True

    def shape(self, x: Map, like: Map | None = None) -> Map:
        if like or self.size != (0, 0):
            check_unused(self, ("multiple", "size") if like else ("multiple",), "where the size is given")
        m = self.multiple
        size = like[1:] if like else self.size if self.size[0] else (-(-x[1] // m) * m, -(-x[2] // m) * m)
        if self.nearest and (times := size[0] // x[1]) & (times - 1) | (x[1] * times - size[0]) | (
            x[2] * times - size[1]
        ):
            raise SpaceError(f"pixels must be repeated 2, 4, ... times each way, but got {x[1]} x {x[2]} -> {size}")
        return Map(x[0], *size)

    def scratch(self, x: Map, like: Map | None = None) -> int:
        return prod(self.shape(x, like)) if self.nearest else 0  # copies beside one another

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        from mvnas import nn

        h, w = self.shape(Map(*x.shape[1:]))[1:] if like is None else like.shape[2:]
        return nn.resize(x, (h, w), nearest=self.nearest)

    def deploy(self, x: Value, *like: Value) -> Value:
        target = self.shape(x.shape, *(y.shape for y in like))
        return x if target == x.shape else Resize(size=target[1:], nearest=self.nearest)(x)


@dataclass(frozen=True)
class Add(Op):
    """Elementwise sum of two equal shapes."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        return one_shape(a, b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


@dataclass(frozen=True)
class Sub(Op):
    """Elementwise difference of two equal shapes."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        return one_shape(a, b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


def one_shape(a: Shape, b: Shape) -> Shape:
    """The shape of two terms."""
    if a != b:
        raise SpaceError(f"terms must have one shape, but got {a} and {b}")
    return a


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
class Concat(Op):
    """Concatenation along channels: (C1, H, W), (C2, H, W), ... -> (C1 + C2 + ..., H, W); with `patches` along those of tokens."""

    takes: ClassVar = (Map, Tokens)

    patches: bool = False

    def shape(self, *xs: Any) -> Map | Tokens:
        first = xs[0]
        if isinstance(first, Map):
            if len({x[1:] for x in xs}) > 1 or self.patches:
                raise SpaceError(f"maps to concatenate must have one size, but got {xs}")
            return Map(sum(x.c for x in xs), first.h, first.w)
        if len({(x.p, x.c if self.patches else x.n) for x in xs}) > 1:
            raise SpaceError(f"tokens to concatenate must agree, but got {xs}")
        return (
            Tokens(*first)._replace(n=sum(x.n for x in xs))
            if self.patches
            else Tokens(*first)._replace(c=sum(x.c for x in xs))
        )

    def module(self, *xs: Any) -> Module:
        from mvnas import nn

        return nn.Function(self, partial(nn.concat, axis=axis(xs[0], self.patches)))


@dataclass(frozen=True)
class Slice(Op):
    """`size` channels of a map or of tokens from `first` on; with `patches`, patches of tokens."""

    takes: ClassVar = (Map, Tokens)

    size: int
    first: int = 0
    patches: bool = False

    def shape(self, x: Map | Tokens) -> Map | Tokens:
        whole = x[1] if self.patches else x.c
        if not 0 <= self.first < self.first + self.size <= whole:
            raise SpaceError(f"a slice must lie in 0..{whole}, but got {self.size} from {self.first} on")
        if not self.patches:
            return x._replace(c=self.size)
        if isinstance(x, Map):
            raise SpaceError(f"patches must be those of tokens, but got {x}")
        return x._replace(n=self.size)

    def module(self, x: Map | Tokens) -> Module:
        from mvnas import nn

        return nn.Function(self, partial(nn.cut, axis=axis(x, self.patches), first=self.first, size=self.size))


def axis(x: Shape, patches: bool) -> int:
    """The axis of channels, or of patches, of a tensor with a batch axis."""
    return 1 if isinstance(x, Map) else 2 if patches else 3


@dataclass(frozen=True)
class Pool(Op):
    """Average over all positions, (C, H, W) or (P, N, C) -> (C,), or with a `kernel` over windows of a map.

    Windows are at every `stride`-th pixel, (C, H, W) -> (C, ceil(H / stride), ceil(W / stride)), and average the pixels of the
    map that are in them; without `pad`, windows that reach over its end are left out. With `largest` it is the maximum.
    """

    takes: ClassVar = (Map, Tokens)

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

    def pads(self, x: Map) -> tuple[int, int, int, int]:
        """Rows and columns around a map that windows reach into: (top, bottom, left, right)."""
        return same_pads(x, self.kernel, self.stride) if self.pad else (0, 0, 0, 0)

    def elements(self, x: Map | Tokens) -> int:
        return prod(self.shape(x)) * self.kernel**2

    def module(self, x: Map | Tokens) -> Module:
        from mvnas import nn

        if self.kernel:
            return nn.Function(self, partial(nn.windows, op=self))
        return nn.Function(self, nn.pool if isinstance(x, Map) else nn.mean)
