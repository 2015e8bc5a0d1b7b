"""Convolutions and sums of them as torch modules, and how they fold into one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from math import isqrt

import torch
from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, Identity, Module, ModuleDict
from torch.nn.functional import pad

from mvnas.nn.activations import Scaled
from mvnas.nn.forms import absorb, fold, module, owes
from mvnas.ops import BatchNorm, Branched, Conv, Map, Op, State, Tokens


class ConvNormAct(Scaled):
    """Convolution, then batch norm if the op has one, gain, scale and activation: (B, C, H, W) -> (B, out, H', W')."""

    def __init__(self, channels: int, op: Conv) -> None:
        super().__init__()
        self.take(op.out, op.scale, op.act)
        self.gain = op.gain
        self.pads = op.pads if op.same else None
        reach = 0 if op.same else op.kernel // 2
        self.conv = Conv2d(channels, op.out, op.kernel, op.stride, reach, groups=op.groups, bias=op.bias)
        self.norm = BatchNorm2d(op.out, op.eps) if op.norm else Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.pads:
            top, bottom, left, right = self.pads(Map(*x.shape[1:]))
            x = pad(x, (left, right, top, bottom))
        y = self.norm(self.conv(x))
        return self.finish(y if self.gain == 1 else y * self.gain, 1)


class WindowConv(ConvNormAct):
    """The same on tokens of which each sequence is a square map: (B, P, N, C) -> (B, P, N', out)."""

    def forward(self, x: Tensor) -> Tensor:
        b, p, n, c = x.shape
        y = super().forward(x.reshape(b * p, isqrt(n), isqrt(n), c).permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1).reshape(b, p, -1, y.shape[1])


class Branches(Scaled):
    """Sum of branches, then batch norm if the op has one, scale and activation: (B, C, H, W) -> (B, out, H', W')."""

    def __init__(self, x: Map, op: Branched) -> None:
        super().__init__()
        out = op.shape(x).c
        self.take(out, op.scale, op.act)
        made = [module(branch, x) if branch else Identity() for branch in op.branches]
        self.branches = ModuleDict(dict(zip(op.parts, made, strict=True)))
        self.norm = BatchNorm2d(out) if op.norm else Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.norm(reduce(torch.add, [branch(x) for branch in self.branches.values()])), 1)


@module.register
def conv(op: Conv, x: Map | Tokens) -> Module:
    return (WindowConv if isinstance(x, Tokens) else ConvNormAct)(x.c, op)


@fold.register
def fold_conv(op: Conv, state: Mapping[str, Tensor], x: Map | Tokens) -> State:
    made = folded(state, op.gain, op.eps)
    if not op.linear(x):
        return made
    weight = made["conv.weight"].flatten(1)
    return {"weight": weight, "bias": made.get("conv.bias", weight.new_zeros(op.out))}


@absorb.register
def absorb_conv(op: Conv, state: Mapping[str, Tensor], scale: Tensor, shift: Tensor) -> State:
    if op.kernel > 1 or op.groups > 1 or not op.bias:
        return absorb.dispatch(Op)(op, state, scale, shift)
    weight = state["conv.weight"]
    bias = state["conv.bias"] + weight[:, :, 0, 0] @ shift
    return {"conv.weight": weight * scale[:, None, None], "conv.bias": bias}


@module.register
def branches(op: Branched, x: Map) -> Module:
    return Branches(x, op)


@fold.register
def fold_branches(op: Branched, state: Mapping[str, Tensor], x: Map) -> State:
    like = op.merged(x)
    total: State = {}
    for name, part in zip(op.parts, op.branches, strict=True):
        start = f"branches.{name}."
        own = {key.removeprefix(start): weight for key, weight in state.items() if key.startswith(start)}
        for key, weight in branch(part, own, x, like).items():
            total[key] = total[key] + weight if key in total else weight
    return folded(total | {key: weight for key, weight in state.items() if not key.startswith("branches.")})


def folded(state: Mapping[str, Tensor], gain: float = 1.0, eps: float = 1e-5) -> State:
    """Weights of one convolution that equals convolution, batch norm (as evaluated) if there is one, gain and scale."""
    weight, bias = state["conv.weight"], state.get("conv.bias")
    if "norm.weight" in state:
        scale = state["norm.weight"] / (state["norm.running_var"] + eps).sqrt()
        bias = state["norm.bias"] - (state["norm.running_mean"] - (0 if bias is None else bias)) * scale
        weight = weight * scale[:, None, None, None]
    factor = gain * state.get("scale", torch.ones(len(weight), dtype=weight.dtype))
    made = {"conv.weight": weight * factor[:, None, None, None]}
    return made if bias is None else made | {"conv.bias": bias * factor}


def branch(op: Conv | Branched | BatchNorm | None, state: Mapping[str, Tensor], x: Map, like: Conv) -> State:
    """Weights of the branch `op` of a sum on `x` as those of `like`, whose kernel may be larger and groups fewer."""
    if op is None or isinstance(op, BatchNorm):
        scale, shift = (op and owes(op, state)) or (torch.ones(x.c, dtype=torch.float64), torch.zeros(1))
        made, groups = {"conv.weight": scale.view(-1, 1, 1, 1), "conv.bias": shift.expand(x.c)}, x.c
    else:
        made, groups = fold(op, state, x), (op.merged(x) if isinstance(op, Branched) else op).groups
    weight = made["conv.weight"]
    out, inner, kernel, _ = weight.shape
    bias = made.get("conv.bias", weight.new_zeros(out))
    blocks = weight.view(like.groups, groups // like.groups, out // groups, inner, kernel, kernel)
    whole = weight.new_zeros(like.groups, blocks.shape[1], out // groups, blocks.shape[1], inner, kernel, kernel)
    for i in range(blocks.shape[1]):
        whole[:, i, :, i] = blocks[:, i]
    spread = whole.view(out, -1, kernel, kernel)
    return {"conv.weight": pad(spread, [(like.kernel - kernel) // 2] * 4), "conv.bias": bias}
