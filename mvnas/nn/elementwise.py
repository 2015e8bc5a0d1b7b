"""What is done number by number, as torch modules."""

from __future__ import annotations

from torch import Tensor

from mvnas.nn.activations import activation
from mvnas.nn.forms import computes
from mvnas.ops import Act, Add, Mul, Normalise, Sub


@computes(Add)
def add(op: Add, a: Tensor, b: Tensor) -> Tensor:
    return a + b


@computes(Sub)
def subtract(op: Sub, a: Tensor, b: Tensor) -> Tensor:
    return a - b


@computes(Mul)
def multiply(op: Mul, a: Tensor, b: Tensor) -> Tensor:
    return a * (b if a.ndim == b.ndim else b[:, :, None, None])


@computes(Act)
def activate(op: Act, x: Tensor) -> Tensor:
    return activation(op.act)(x)  # type: ignore[no-any-return]


@computes(Normalise)
def normalise(op: Normalise, x: Tensor) -> Tensor:
    return (255 * x - op.mean) / op.deviation
