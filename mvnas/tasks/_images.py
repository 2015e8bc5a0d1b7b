"""Batches of stored images as network inputs: random crops for training, whole images for evaluation."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

RATIO = 4 / 3


def random_crops(images: Tensor, side: int, *, area: float, flip: bool, generator: Generator) -> Tensor:
    """A random part of each image as a square: uint8 (B, C, S, S) -> float (B, C, side, side) in [0, 1].

    The standard random resized crop: a share of the area uniform in [area, 1], an aspect ratio log-uniform
    in [3/4, 4/3], cut to the image where it is longer, at a uniform place; then, with `flip`, mirrored in
    half the cases. All images are resampled at once, as two matrix products with anti-aliased bilinear
    weights. `generator` is on the CPU whatever the device of the images: all devices see the same crops.
    """
    share, aspect, left, top, mirror = torch.rand(5, len(images), generator=generator)
    share = area + (1 - area) * share
    aspect = torch.exp((2 * aspect - 1) * math.log(RATIO))
    width, height = (share * aspect).sqrt().clamp(max=1), (share / aspect).sqrt().clamp(max=1)
    mirror = (mirror < 0.5) & flip
    across = resampling((1 - width) * left, width, side, images).mul_(1 / 255)
    across = torch.where(mirror.to(images.device)[:, None, None], across.flip(1), across)
    down = resampling((1 - height) * top, height, side, images)
    b, c, s, _ = images.shape
    narrow = torch.bmm(images.float().view(b, c * s, s), across.mT).view(b, c, s, side)
    return down[:, None] @ narrow


def resampling(start: Tensor, extent: Tensor, side: int, images: Tensor) -> Tensor:
    """Rows of weights that resample part of an axis of `images`: (B,), (B,) -> (B, side, S).

    Triangles as wide as a step, or as a pixel where steps are smaller, as in torch's
    `interpolate(antialias=True)`; `start` and `extent` are shares of the axis.
    """
    source = images.shape[-1]
    start, step = (start * source).to(images.device), (extent * source / side).to(images.device)
    target = start[:, None] + (torch.arange(side, device=images.device) + 0.5) * step[:, None]
    distance = target[:, :, None] - (torch.arange(source, device=images.device) + 0.5)
    weights = (1 - distance.abs_() / step.clamp(min=1)[:, None, None]).clamp_(min=0)
    return weights.div_(weights.sum(2, keepdim=True))


def whole(images: Tensor, side: int) -> Tensor:
    """Each image resized: uint8 (B, C, S, S) -> float (B, C, side, side) in [0, 1]."""
    scaled = images.float().div_(255)
    if images.shape[-1] == side:
        return scaled
    return interpolate(scaled, size=(side, side), mode="bilinear", antialias=True)
