"""What an op is in torch, registered by its class, so that ops know nothing of torch.

Five functions, of which an op that has no parameters needs `module` alone, by `computes`:

    @computes(Shuffle)
    def shuffled(op: Shuffle, x: Tensor) -> Tensor: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, singledispatch
from typing import Any, TypeVar

from torch import Tensor
from torch.nn import Module

from mvnas.errors import ExportError, SpaceError
from mvnas.ops import Op, State

Computed = TypeVar("Computed", bound=Callable[..., Tensor])


class Function(Module):
    """An op without parameters as a module, by the function that it computes."""

    def __init__(self, op: Op, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.op, self.compute = op, compute

    def forward(self, *xs: Tensor) -> Tensor:
        return self.compute(*xs)

    def extra_repr(self) -> str:
        return repr(self.op)


@singledispatch
def module(op: Op, *xs: Any) -> Module:
    """Fresh module of `op` on inputs of shapes `xs`; its tensors have a batch axis before those of `Shape`.

    Raises:
        SpaceError: none is registered for the class of the op.
    """
    name = f"{type(op).__module__}.{type(op).__qualname__}"
    raise SpaceError(
        f"an op must have a torch form, but {name} has none; register one with mvnas.nn.module or computes"
    )


@singledispatch
def fold(op: Op, state: Mapping[str, Tensor], *xs: Any) -> State:
    """Weights of the deployed op on inputs of shapes `xs` that make it compute what `op` computes with `state`.

    `Op.deploy` says what the deployed op is. Weights are in float64 and begin with no name of a node.
    """
    return dict(state)


@singledispatch
def owes(op: Op, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of channels that the deployed op leaves to what reads it (`absorb`); None if it owes nothing."""
    return None


@singledispatch
def absorb(op: Op, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
    """Weights with which a deployed op computes on x what it computes with `state` on scale * x + shift.

    Raises:
        ExportError: it has none.
    """
    raise ExportError(f"a norm must be read by linear layers or 1 x 1 convolutions with bias, but {op} reads it")


def computes(*kinds: type[Op]) -> Callable[[Computed], Computed]:
    """Register a function of an op and tensors as the torch form of ops of these classes, which have no parameters."""

    def register(function: Computed) -> Computed:
        for kind in kinds:
            module.register(kind, lambda op, *xs: Function(op, partial(function, op)))
        return function

    return register
