"""timm's names of the layers of networks that it builds as EfficientNets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mvnas.blocks import Block, kind_of
from mvnas.pretrained._names import Names, conv, squeeze_excite

DEPTHWISE = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
INVERTED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
FUSED = (("conv_exp", "bn1"), ("conv_pwl", "bn2"))
SINGLE = (("conv", "bn1"),)


def stages(blocks: Sequence[Block], depths: Sequence[int]) -> Iterator[Names]:
    """The layers of `blocks`, of which each stage has as many as `depths` say."""
    places = (f"blocks.{stage}.{place}" for stage, depth in enumerate(depths) for place in range(depth))
    for place, block in zip(places, blocks, strict=True):
        *first, last = (conv(f"{place}.{name}", f"{place}.{norm}") for name, norm in _pairs(block))
        yield from first
        if getattr(block, "se", ""):
            yield from squeeze_excite(f"{place}.se", "conv_reduce", "conv_expand")
        yield last


def _pairs(block: Any) -> Sequence[tuple[str, str]]:
    """timm's names of the convolutions and batch norms of a block."""
    if kind_of(block) == "conv" or (kind_of(block) == "fused_mbconv" and block.expand == 1):
        return SINGLE
    if kind_of(block) == "fused_mbconv":
        return FUSED
    return DEPTHWISE if block.expand == 1 else INVERTED
