"""timm's names of the layers of MSRA's EfficientViT; the biases of all heads lie in one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.pretrained._names import Names, Part, branch_of, conv, conv_bn, dense, squeeze_excite
from mvnas.spaces.arch import Arch


def layers(arch: Arch) -> Iterator[Names]:
    yield from (conv_bn(f"patch_embed.conv{i}") for i in (1, 2, 3, 4))
    stage, place, channels = 0, 0, cast(Any, arch.blocks[0]).channels
    for block in cast(Any, arch.blocks[1:-1]):
        if block.stride > 1:
            stage, place, channels = stage + 1, 0, block.channels
            name = f"stages.{stage}.downsample"
            yield from _mix(f"{name}.res1.0.m", f"{name}.res1.1.m")
            yield from (conv_bn(f"{name}.patchmerge.conv{i}") for i in (1, 2))
            yield from (*squeeze_excite(f"{name}.patchmerge.se"), conv_bn(f"{name}.patchmerge.conv3"))
            yield from _mix(f"{name}.res2.0.m", f"{name}.res2.1.m")
        else:
            name = f"stages.{stage}.blocks.{place}"
            yield from _mix(f"{name}.dw0.m", f"{name}.ffn0.m")
            yield from _attention(f"{name}.mixer.m.attn", channels, block)
            yield from _mix(f"{name}.dw1.m", f"{name}.ffn1.m")
            place += 1
    yield from (dense("head.bn"), dense("head.linear"))


def _mix(depthwise: str, feed_forward: str) -> Iterator[Names]:
    yield branch_of("conv0", conv_bn(depthwise))
    yield from (conv_bn(f"{feed_forward}.pw{i}") for i in (1, 2))


def _attention(name: str, channels: int, block: Any) -> Iterator[Names]:
    parts = (block.width, block.width, channels // block.heads)
    for i in range(block.heads):
        packed = f"{name}.qkvs.{i}"
        query, key, value = [conv(Part(f"{packed}.conv", j, parts), Part(f"{packed}.bn", j, parts)) for j in range(3)]
        yield from (query, conv_bn(f"{name}.dws.{i}"), key, value)
        yield {"bias": Part(f"{name}.attention_biases", i, (1,) * block.heads)}
    yield conv_bn(f"{name}.proj.1")
