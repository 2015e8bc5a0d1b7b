"""What moves numbers, as torch modules."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, cat
from torch.nn import Module, Parameter
from torch.nn.functional import interpolate

from mvnas import ops
from mvnas.nn.forms import Function, computes, module
from mvnas.ops import Concat, Fold, Map, Resize, Slice, Tokens, Unfold, axis


@computes(Unfold)
def unfold(op: Unfold, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    p = op.patch
    rows = x.permute(0, 2, 3, 1)
    if op.windows:
        rows = rows.reshape(b * h // p, p, w // p, p * c).transpose(1, 2)
        return rows.reshape(b, h * w // p**2, p**2, c)
    rows = rows.reshape(b, h // p, p, w * c).transpose(1, 2)  # two swaps of rank 4, not one of 6
    return rows.reshape(b * p, h * w // p**2, p, c).transpose(1, 2).reshape(b, p**2, h * w // p**2, c)


@computes(Fold)
def fold(op: Fold, x: Tensor, like: Tensor | None = None) -> Tensor:
    b, c, p = x.shape[0], x.shape[3], op.patch
    h, w = op.size if like is None else like.shape[2:]
    if op.windows:
        rows = x.reshape(b * h // p, w // p, p, p * c).transpose(1, 2)
    else:
        rows = x.reshape(b * p, p, h * w // p**2, c).transpose(1, 2)
        rows = rows.reshape(b, p, h // p, w * c).transpose(1, 2)
    return rows.reshape(b, h, w, c).permute(0, 3, 1, 2)


class Spread(Module):
    """Tokens as the pixels of patches, each pixel with a factor of its own: (B, 1, N, C) -> (B, N, P, C)."""

    decayed = ("weight",)  # the kernel of a transposed convolution

    def __init__(self, channels: int, pixels: int) -> None:
        super().__init__()
        self.weight, self.bias = Parameter(torch.ones(pixels, channels)), Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2) * self.weight + self.bias


@module.register
def spread(op: ops.Spread, x: Tokens) -> Module:
    return Spread(x.c, op.patch**2)


@computes(Resize)
def resized(op: Resize, x: Tensor, like: Tensor | None = None) -> Tensor:
    h, w = op.shape(Map(*x.shape[1:]))[1:] if like is None else like.shape[2:]
    return resize(x, (h, w), nearest=op.nearest)


def resize(x: Tensor, size: tuple[int, int], *, nearest: bool = False) -> Tensor:
    """`x`, (B, C, H, W), at a size, bilinearly (corners not aligned) or with `nearest` by repeated pixels."""
    if tuple(x.shape[2:]) == size:
        return x
    return interpolate(x, size=size) if nearest else interpolate(x, size=size, mode="bilinear", align_corners=False)


@module.register
def concatenated(op: Concat, *xs: Any) -> Module:
    return Function(op, partial(concat, axis=axis(xs[0], op.patches)))


def concat(*xs: Tensor, axis: int) -> Tensor:
    """Concatenation along an axis; of maps in channel-last order, so that no converter moves data."""
    return cat([x.permute(0, 2, 3, 1) for x in xs], -1).permute(0, 3, 1, 2) if axis == 1 else cat(xs, axis)


@module.register
def slice_of(op: Slice, x: Map | Tokens) -> Module:
    return Function(op, partial(cut, axis=axis(x, op.patches), first=op.first, size=op.size))


def cut(x: Tensor, *, axis: int, first: int, size: int) -> Tensor:
    """Some of an axis."""
    return x.narrow(axis, first, size)
