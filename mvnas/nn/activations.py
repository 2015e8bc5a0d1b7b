"""Activations, and what comes after a linear op."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import GELU, Hardsigmoid, Hardswish, Identity, Module, Parameter, ReLU, ReLU6, Sigmoid, SiLU

from mvnas.errors import SpaceError, unknown

ACTIVATIONS: dict[str, Callable[[], Module]] = {
    "": Identity,
    "silu": SiLU,
    "relu": ReLU,
    "relu6": ReLU6,
    "gelu": GELU,
    "gelu_tanh": partial(GELU, approximate="tanh"),
    "hardswish": Hardswish,
    "hardsigmoid": Hardsigmoid,
    "sigmoid": Sigmoid,
}


def activation(name: str) -> Module:
    """Fresh module of the activation `name`; "" is none.

    Raises:
        SpaceError: there is no activation of that name.
    """
    if name not in ACTIVATIONS:
        raise SpaceError(unknown("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]()


class Scaled(Module):
    """What comes after a linear op: a learned factor a channel, if it begins as other than 0, and an activation."""

    scale: Parameter | None
    act: Module

    def take(self, out: int, scale: float, act: str) -> None:
        """Set the parts, for modules with other parents too."""
        self.scale = Parameter(torch.full((out,), scale)) if scale else None
        self.act = activation(act)

    def finish(self, y: Tensor, axis: int) -> Tensor:
        """`y`, whose channels are on `axis`, multiplied and activated."""
        if self.scale is not None:
            y = y * self.scale.view(-1, *[1] * (y.ndim - axis - 1))
        return self.act(y)  # type: ignore[no-any-return]
