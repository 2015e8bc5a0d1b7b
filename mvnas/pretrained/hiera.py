"""timm's names of Hiera's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.pretrained._names import Names, conv, dense, packed
from mvnas.spaces.arch import Arch


def layers(arch: Arch) -> Iterator[Names]:
    yield conv("patch_embed.proj")
    yield {"weight": "pos_embed"}
    for i, block in enumerate(cast(Any, arch.blocks[1:-1])):
        name = f"blocks.{i}"
        yield dense(f"{name}.norm1")
        if block.stride > 1:
            yield conv(f"{name}.proj")
        yield from (*packed(f"{name}.attn.qkv"), dense(f"{name}.attn.proj"), dense(f"{name}.norm2"))
        yield from (conv(f"{name}.mlp.fc1"), conv(f"{name}.mlp.fc2"))
    yield from (dense("head.norm"), dense("head.fc"))
