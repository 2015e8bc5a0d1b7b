"""Means and maxima as torch modules."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from mvnas import ops
from mvnas.nn.forms import Function, module
from mvnas.ops import Map, Tokens


@module.register
def pooled(op: ops.Pool, x: Map | Tokens) -> Module:
    if op.kernel:
        return Function(op, partial(windows, op=op))
    return Function(op, pool if isinstance(x, Map) else mean)


def pool(x: Tensor) -> Tensor:
    """Mean over the map: (B, C, H, W) -> (B, C)."""
    return x.permute(0, 2, 3, 1).mean((1, 2))


def mean(x: Tensor) -> Tensor:
    """Mean over tokens: (B, P, N, C) -> (B, C)."""
    return x.mean((1, 2))


def windows(x: Tensor, *, op: ops.Pool) -> Tensor:
    """Mean or maximum of the pixels in each window: (B, C, H, W) -> (B, C, H', W')."""
    if op.kernel == 1:
        return x[:, :, :: op.stride, :: op.stride]
    top, bottom, left, right = op.pads(Map(*x.shape[1:]))
    edges = (left, right, top, bottom)
    if op.largest:
        return max_pool2d(pad(x, edges, value=float("-inf")), op.kernel, op.stride)
    total = avg_pool2d(pad(x, edges), op.kernel, op.stride)
    inside = pad(torch.ones_like(x[:1, :1]), edges)
    return total / avg_pool2d(inside, op.kernel, op.stride) if any(edges) else total
