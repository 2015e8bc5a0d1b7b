"""Values and the ops that make them; what every op says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from mvnas.errors import ExportError, SpaceError
from mvnas.ops.shapes import Map, Shape, Tokens, Vector, one_shape

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


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
class Add(Op):
    """Elementwise sum of two equal shapes."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        return one_shape(a, b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b
