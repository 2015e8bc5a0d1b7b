"""timm's names of TinyViT's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.blocks import kind_of
from mvnas.pretrained._names import Names, conv, conv_bn, dense, packed
from mvnas.spaces.arch import Arch


def layers(arch: Arch) -> Iterator[Names]:
    yield from (conv_bn("patch_embed.conv1"), conv_bn("patch_embed.conv2"))
    stage, place = 0, 0
    for block, graph in zip(cast(Any, arch.blocks[2:-1]), arch.summaries[2:-1], strict=True):
        merges = kind_of(block) == "tiny_vit_mbconv" and block.stride > 1
        stage, place = (stage + 1, 0) if merges else (stage, place)
        name = f"stages.{stage}.downsample" if merges else f"stages.{stage}.blocks.{place}"
        if kind_of(block) == "tiny_vit_mbconv":
            yield from (conv_bn(f"{name}.conv{i}") for i in (1, 2, 3))
        else:
            heads = graph.shape.c // block.head_width
            yield from (dense(f"{name}.attn.norm"), *packed(f"{name}.attn.qkv", heads=heads))
            yield {"bias": f"{name}.attn.attention_biases"}
            yield from (dense(f"{name}.attn.proj"), conv_bn(f"{name}.local_conv"), dense(f"{name}.mlp.norm"))
            yield from (conv(f"{name}.mlp.fc1"), conv(f"{name}.mlp.fc2"))
        place += not merges
    yield from (dense("head.norm"), dense("head.fc"))
