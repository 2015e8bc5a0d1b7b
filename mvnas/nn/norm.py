"""Norms as torch modules, and the scale and shift that they leave to what reads them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import LayerNorm, Module, Parameter
from torch.nn.functional import layer_norm
from torch.nn.modules.batchnorm import _BatchNorm

from mvnas import ops
from mvnas.nn.forms import module, owes
from mvnas.ops import Map, Shape


class Statistics(_BatchNorm):
    """Batch norm of maps or vectors whose scale begins as `start`: (B, C, ...)."""

    def __init__(self, channels: int, op: ops.BatchNorm) -> None:
        self.start = op.start
        super().__init__(channels, op.eps)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        torch.nn.init.constant_(self.weight, self.start)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any."""


@module.register
def statistics(op: ops.BatchNorm, x: Shape) -> Module:
    return Statistics(x.c, op)


@owes.register
def owed_by_batch_norm(op: ops.BatchNorm, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    scale = state["weight"] / (state["running_var"] + op.eps).sqrt()
    return scale, state["bias"] - state["running_mean"] * scale


class Norm(LayerNorm):
    """Layer norm over the channels of maps, tokens or vectors, or over all positions and channels of maps or tokens."""

    def __init__(self, x: Shape, op: ops.LayerNorm) -> None:
        super().__init__(x.c, op.eps, elementwise_affine=op.affine, bias=op.bias)
        self.map, self.whole = isinstance(x, Map), op.whole

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1) if self.map else x
        if self.whole:
            y = layer_norm(y, y.shape[1:], eps=self.eps)
            y = y if self.weight is None else y * self.weight
            y = y if self.bias is None else y + self.bias
        else:
            y = super().forward(y)
        return y.permute(0, 3, 1, 2) if self.map else y


@module.register
def norm(op: ops.LayerNorm, x: Shape) -> Module:
    return Norm(x, op)


@owes.register
def owed_by_layer_norm(op: ops.LayerNorm, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    if not op.affine:
        return None
    scale = state["weight"]
    return scale, state["bias"] if op.bias else scale.new_zeros(len(scale))


class Affine(Module):
    """weight * x + bias of every channel: (B, C, ...) of maps and vectors, (..., C) of tokens."""

    def __init__(self, x: Shape, op: ops.Affine) -> None:
        super().__init__()
        form = (x.c, 1, 1) if isinstance(x, Map) else (x.c,)
        self.weight = Parameter(torch.full(form, op.start))
        self.bias = Parameter(torch.zeros(form)) if op.bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if self.bias is None else x * self.weight + self.bias


@module.register
def affine(op: ops.Affine, x: Shape) -> Module:
    return Affine(x, op)
