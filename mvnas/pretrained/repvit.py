"""timm's names of RepViT's layers, without its head for distillation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.arch import Arch
from mvnas.pretrained._names import Names, conv, dense, squeeze_excite


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
        "branches.0.conv": f"{mixer}.conv.c",
        "branches.0.norm": f"{mixer}.conv.bn",
        "branches.1.conv": f"{mixer}.conv1",
        "norm": f"{mixer}.bn",
    }
    if gated:
        yield from squeeze_excite(f"{name}.se")
    yield from _feed_forward(f"{name}.channel_mixer")


def _feed_forward(name: str) -> Iterator[Names]:
    yield from (_conv(f"{name}.conv1"), _conv(f"{name}.conv2"))
