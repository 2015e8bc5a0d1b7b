"""timm's names of RepViT's layers, whose two heads, one for labels and one for a teacher's, are deployed as their
mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from mvnas.pretrained._names import Names, conv, dense, squeeze_excite
from mvnas.spaces.arch import Arch

HEADS = ("head.head", "head.head_dist")
LEAVES = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "l.weight", "l.bias")
EPS = 1e-5  # of batch norms


def merged(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`weights` with the mean of both heads, where there are two, as that for labels alone.

    Each is a batch norm and a linear layer. The mean keeps the statistics of the first norm; scales and shifts go into
    the layer.
    """
    heads = [[weights.get(f"{head}.{leaf}") for leaf in LEAVES] for head in HEADS]
    if any(value is None or value.ndim < 1 for head in heads for value in head):
        return weights
    rows = [[cast(Tensor, value).double() for value in head] for head in heads]
    wide, classes = rows[0][4].shape[-1], len(rows[0][4])
    if any([tuple(value.shape) for value in row] != [(wide,)] * 4 + [(classes, wide), (classes,)] for row in rows):
        return weights
    mean, deviation = rows[0][2], (rows[0][3] + EPS).sqrt()
    layers, biases = [], []
    for weight, shift, own, variance, layer, bias in rows:
        scale = weight / (variance + EPS).sqrt()
        layers.append(layer * scale * deviation)
        biases.append(bias + layer @ (shift + scale * (mean - own)))
    made = (torch.ones_like(mean), torch.zeros_like(mean), torch.stack(layers).mean(0), torch.stack(biases).mean(0))
    one = {
        f"{HEADS[0]}.{leaf}": value
        for leaf, value in zip(("bn.weight", "bn.bias", "l.weight", "l.bias"), made, strict=True)
    }
    return {key: value for key, value in weights.items() if not key.startswith(f"{HEADS[1]}.")} | one


def layers(arch: Arch) -> Iterator[Names]:
    yield from (_conv("stem.conv1"), _conv("stem.conv2"))
    stage, place = 0, 0
    for block in cast(Any, arch.blocks[1:-1]):
        if block.stride > 1:
            stage, place = stage + 1, 0
            name = f"stages.{stage}.downsample"
            yield from _mixers(f"{name}.pre_block")
            yield from (_conv(f"{name}.spatial_downsample"), _conv(f"{name}.channel_downsample"))
            yield from _feed_forward(f"{name}.ffn")
        else:
            yield from _mixers(f"stages.{stage}.blocks.{place}", gated=True)
            yield from _mixers(f"stages.{stage}.blocks.{place + 1}")
            place += 2
    yield from (dense("head.head.bn"), dense("head.head.l"))


def _conv(name: str) -> Names:
    return conv(f"{name}.c", f"{name}.bn")


def _mixers(name: str, *, gated: bool = False) -> Iterator[Names]:
    mixer = f"{name}.token_mixer"
    yield {
        "branches.conv0.conv": f"{mixer}.conv.c",
        "branches.conv0.norm": f"{mixer}.conv.bn",
        "branches.small0.conv": f"{mixer}.conv1",
        "norm": f"{mixer}.bn",
    }
    if gated:
        yield from squeeze_excite(f"{name}.se")
    yield from _feed_forward(f"{name}.channel_mixer")


def _feed_forward(name: str) -> Iterator[Names]:
    yield from (_conv(f"{name}.conv1"), _conv(f"{name}.conv2"))
