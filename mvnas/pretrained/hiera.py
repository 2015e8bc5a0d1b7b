"""timm's names of Hiera's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.arch import Arch
from mvnas.pretrained._names import Names, dense, packed


def layers(arch: Arch) -> Iterator[Names]:
    yield from ({"conv": "patch_embed.proj"}, {"weight": "pos_embed"})
    for i, block in enumerate(cast(Any, arch.blocks[1:-1])):
        name = f"blocks.{i}"
        query, key, value = packed(f"{name}.attn.qkv")
        projected = [{"conv": f"{name}.proj"}] if block.stride > 1 else []
        yield dense(f"{name}.norm1")
        yield from (*projected, query, key, value)
        yield from (dense(f"{name}.attn.proj"), dense(f"{name}.norm2"))
        yield from ({"conv": f"{name}.mlp.{part}"} for part in ("fc1", "fc2"))
    yield from (dense("head.norm"), dense("head.fc"))
