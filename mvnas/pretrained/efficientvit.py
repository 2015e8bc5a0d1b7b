"""timm's names of the layers of MIT's EfficientViT; queries, keys and values of a head lie beside each other in its
packed ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from mvnas.blocks import kind_of
from mvnas.pretrained._names import Names, Part, conv, dense
from mvnas.spaces.arch import Arch

LAYERS = {"residual": ("conv1", "conv2"), "fused_mbconv": ("spatial_conv", "point_conv")}
DEPTHWISE, INVERTED = ("depth_conv", "point_conv"), ("inverted_conv", "depth_conv", "point_conv")


def layers(arch: Arch) -> Iterator[Names]:
    yield _conv("stem.in_conv")
    stage, place, channels = -1, -1, 0
    for block in cast(Any, arch.blocks[1:-1]):
        kind = kind_of(block)
        if getattr(block, "stride", 1) == 2:
            stage, place, channels = stage + 1, -1, block.channels
        place += 1
        name = f"stages.{stage}.blocks.{place}" if stage >= 0 else f"stem.res{place}"
        attends = kind == "efficientvit" and block.stride == 1 and block.attention
        if attends:
            yield from _attention(f"{name}.context_module.main", channels // block.width)
        parts = LAYERS.get(kind) or (DEPTHWISE if block.expand == 1 else INVERTED)
        yield from _convs(f"{name}.local_module.main" if attends else f"{name}.main", parts)
    yield from (_conv("head.in_conv"), *(dense(f"head.classifier.{i}") for i in (0, 1, 4)))


def _conv(name: str) -> Names:
    return conv(f"{name}.conv", f"{name}.norm")


def _convs(name: str, parts: Sequence[str]) -> Iterator[Names]:
    return (_conv(f"{name}.{part}") for part in parts)


def _attention(name: str, heads: int) -> Iterator[Names]:
    for i in range(3):
        for layer in ("qkv.conv", "aggreg.0.0", "aggreg.0.1"):
            yield {"conv": Part(f"{name}.{layer}", i, (1, 1, 1), heads)}
    yield _conv(f"{name}.proj")
