"""timm's names of EfficientFormer's layers; its packed qkv layer has queries, keys and values of a head together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.blocks import kind_of
from mvnas.pretrained._names import Names, conv, dense, one_for_both, packed
from mvnas.spaces.arch import Arch

merged = one_for_both


def layers(arch: Arch) -> Iterator[Names]:
    yield from (conv("stem.conv1", "stem.norm1"), conv("stem.conv2", "stem.norm2"))
    stage, place, flat = 0, -1, False
    for block in cast(Any, arch.blocks[1:-1]):
        place += 1
        if kind_of(block) == "efficientformer_attention":
            place, flat = place + (not flat), True  # the change to tokens has a place of its own
            name = f"stages.{stage}.blocks.{place}"
            yield dense(f"{name}.norm1")
            yield from packed(f"{name}.token_mixer.qkv", (1, 1, 4), block.heads)
            yield {"bias": f"{name}.token_mixer.attention_biases"}
            yield dense(f"{name}.token_mixer.proj") | {"scale": f"{name}.ls1.gamma"}
            yield from (dense(f"{name}.norm2"), dense(f"{name}.mlp.fc1"))
            yield dense(f"{name}.mlp.fc2") | {"scale": f"{name}.ls2.gamma"}
            continue
        if block.stride > 1:
            stage, place = stage + 1, 0
            yield conv(f"stages.{stage}.downsample.conv", f"stages.{stage}.downsample.norm")
        name = f"stages.{stage}.blocks.{place}"
        yield {"weight": f"{name}.ls1.gamma"}
        yield conv(f"{name}.mlp.fc1", f"{name}.mlp.norm1")
        yield conv(f"{name}.mlp.fc2", f"{name}.mlp.norm2") | {"scale": f"{name}.ls2.gamma"}
    yield from (dense("norm"), dense("head") | {"others.0": "head_dist"})
