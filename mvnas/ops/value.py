"""Values and the ops that make them; what every op says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from mvnas.errors import SpaceError
from mvnas.ops.shapes import Map, Shape, Tokens, Vector, one_shape

if TYPE_CHECKING:
    from torch import Tensor


Products = tuple[tuple[float, float, float, float], ...]


State = dict[str, "Tensor"]


def stride_trait(stride: int) -> str:
    """What a stride is in `Op.kind`: nothing if it is 1."""
    return f"stride{stride}" * (stride > 1)


class Value:
    """What `op` makes of `inputs`; `role` names it in its block. Two values are equal only if they are the same
    value.
    """

    __slots__ = ("inputs", "op", "role", "shape", "shapes")

    def __init__(self, op: Op, inputs: tuple[Value, ...] = (), role: str = "") -> None:
        self.op = op
        self.inputs = inputs
        self.role = role
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
    """One kernel: what a runtime does in one step, and what a latency table has a row of.

    A subclass is a frozen dataclass whose fields are numbers, words, truth values or tuples of these, each with a
    positive value or its default. It gives `shape` and those of the counts that are not zero, each a function of the
    input shapes; what it is in torch is registered by its class (`mvnas.nn.forms`), and so is what it is in files.
    `mvnas.testing.op` checks it.
    """

    takes: ClassVar[tuple[type, ...]] = (Map, Tokens, Vector)  # kinds of shapes that it is defined on
    usual: ClassVar[type] = Vector  # the kind of shape that `kind` does not tell

    @property
    def moves(self) -> bool:
        """Whether it only moves or averages positions, so that channels may be scaled and shifted after it."""
        return False

    def __call__(self, *xs: Value, role: str = "") -> Value:
        """What the op makes of `xs`.

        `role` is what the op is for in its block, such as "expand" or "mlp.norm": weights are named by it, so that
        those of two networks that have one role have one name. Every op with weights of a block should have one.
        """
        return Value(self, xs, role)

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
        """Numbers that the deployed op makes and drops again, beside its output once its inputs have been read."""
        return 0

    def pointers(self, *xs: Any, **_: Any) -> int:
        """Addresses of pixels that a runtime keeps for the op, as indirect convolutions do (arXiv:1907.02129)."""
        return 0

    def kind(self, *xs: Any) -> str:
        """Name of the kernels that a latency model prices together, such as `conv1` or `depthwise3.stride2.silu`.

        Of one kind is what a runtime computes alike but for sizes.
        """
        return ".".join([self.family(*xs), *[trait for trait in self.traits(*xs) if trait]])

    def family(self, *xs: Any) -> str:
        """The first part of `kind`: what computes it."""
        cls = type(self)
        name = cls.__name__.lower()
        if not cls.__module__.startswith("mvnas."):
            name = f"{cls.__module__}.{name}"
        return name if len(self.takes) == 1 or type(xs[0]) is self.usual else f"{name}.{type(xs[0]).__name__.lower()}"

    def traits(self, *xs: Any) -> Sequence[str]:
        """The other parts of `kind`, empty ones left out: its words, and the names of what is true of it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return [
            name if value is True else value for name, value in values.items() if value is True or type(value) is str
        ]

    def dimensions(self, *xs: Any) -> dict[str, int]:
        """The sizes of the deployed op by name: what the timings of a kind must span."""
        sizes: dict[str, int] = {}
        for label, shape in (("input", xs[0]), ("output", self.shape(*xs))):
            sizes[f"{label} channels"] = shape.c
            sizes[f"{label} positions"] = prod(shape) // shape.c
            if isinstance(shape, Tokens):
                sizes[f"{label} patches"] = shape.n
        return sizes

    def deploy(self, *xs: Any, **_: Any) -> Value:
        """The same function at fixed shapes, with whatever folds folded away; `mvnas.nn.fold` gives its weights."""
        return self(*xs)


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
class Add(Op):
    """Elementwise sum of two equal shapes."""

    def shape(self, a: Shape, b: Shape) -> Shape:
        return one_shape(a, b)
