"""Dense layers as torch modules, and positions that are added to tokens."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor
from torch.nn import Linear, Module, ModuleList, Parameter
from torch.nn.functional import linear

from mvnas import ops
from mvnas.nn.activations import Scaled
from mvnas.nn.forms import absorb, fold, module
from mvnas.nn.layout import resize
from mvnas.ops import State, Tokens, Vector


class Dense(Linear, Scaled):
    """Linear layer, or the mean of some, then gain, scale and activation: (..., C) -> (..., out)."""

    def __init__(self, channels: int, op: ops.Linear) -> None:
        super().__init__(channels, op.out, op.bias)
        self.take(op.out, op.scale, op.act)
        self.gain = op.gain
        self.others = ModuleList([Linear(channels, op.out, op.bias) for _ in range(op.copies - 1)])

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if self.others:
            layers = [self, *self.others]
            weight = torch.stack([layer.weight for layer in layers]).mean(0)
            bias = torch.stack([layer.bias for layer in layers]).mean(0)
        if self.gain != 1:
            weight, bias = weight * self.gain, None if bias is None else bias * self.gain
        return self.finish(linear(x, weight, bias), x.ndim - 1)


@module.register
def dense(op: ops.Linear, x: Tokens | Vector) -> Module:
    return Dense(x.c, op)


@fold.register
def fold_linear(op: ops.Linear, state: Mapping[str, Tensor], *xs: Tokens | Vector) -> State:
    """Weights of one linear layer with bias that equals the mean of some, then gain and scale."""
    names = ["", *(f"others.{i}." for i in range(op.copies - 1))]
    weight = torch.stack([state[f"{name}weight"] for name in names]).mean(0)
    zeros = weight.new_zeros(len(weight))
    bias = torch.stack([state.get(f"{name}bias", zeros) for name in names]).mean(0)
    factor = op.gain * state.get("scale", zeros + 1)
    return {"weight": weight * factor[:, None], "bias": bias * factor}


@absorb.register
def absorb_linear(op: ops.Linear, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
    return {"weight": state["weight"] * scale, "bias": state["bias"] + state["weight"] @ shift}


class Small(Module):
    """Weights of a network from two numbers, through ReLU units, to some."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.first, self.second = Linear(2, hidden), Linear(hidden, out, bias=False)


def small_network(state: Mapping[str, Tensor], name: str, places: Tensor) -> Tensor:
    """What the `Small` network `name` makes of pairs of numbers: (N, 2) -> (N, out)."""
    first, bias, second = (state[f"{name}.{part}"] for part in ("first.weight", "first.bias", "second.weight"))
    return linear(linear(places.to(first), first, bias).relu(), second)


class Position(Module):
    """A learned vector a patch, or what a small network makes of its place, is added: (B, P, N, C) -> (B, P, N, C).

    Learned vectors of a square are resized for squares of other sizes, as in training.
    """

    def __init__(self, x: Tokens, op: ops.Position) -> None:
        super().__init__()
        if op.hidden:
            self.places = Small(op.hidden, x.c)
        else:
            self.weight = Parameter(torch.empty(x.n, x.c).normal_(std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[2]
        if hasattr(self, "places"):
            return x + positions(dict(self.named_parameters()), n)
        if n == len(self.weight):
            return x + self.weight
        table = self.weight.T.reshape(1, -1, *[isqrt(len(self.weight))] * 2)
        return x + resize(table, (isqrt(n), isqrt(n))).flatten(2).transpose(1, 2)


@module.register
def position(op: ops.Position, x: Tokens) -> Module:
    return Position(x, op)


@fold.register
def fold_position(op: ops.Position, state: Mapping[str, Tensor], x: Tokens) -> State:
    return {"weight": positions(state, x.n)} if op.hidden else dict(state)


def positions(state: Mapping[str, Tensor], patches: int) -> Tensor:
    """What the small network of a `Position` makes of each patch of a square: (N, C)."""
    side = isqrt(patches)
    places = (torch.arange(side, dtype=torch.float64) - side // 2) / (side // 2)
    return small_network(state, "places", torch.cartesian_prod(places, places))
