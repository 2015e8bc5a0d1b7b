"""timm's names of MobileViTv2's layers; its packed layer is the score, the keys and the values of separable attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.arch import Arch, kind_of
from mvnas.pretrained._names import Names, conv, conv_bn, dense, packed


def layers(arch: Arch) -> Iterator[Names]:
    stage, place = -1, 0
    yield conv_bn("stem")
    for block in cast(Any, arch.blocks[1:-1]):
        if kind_of(block) == "inverted_residual":
            stage, place = (stage + 1, 0) if block.stride == 2 or stage < 0 else (stage, place + 1)
            yield from (conv_bn(f"stages.{stage}.{place}.{name}") for name in ("conv1_1x1", "conv2_kxk", "conv3_1x1"))
        else:
            name = f"stages.{stage}.{place + 1}"
            yield conv_bn(f"{name}.conv_kxk")
            yield conv(f"{name}.conv_1x1")
            for i in range(block.layers):
                layer = f"{name}.transformer.{i}"
                yield dense(f"{layer}.norm1")
                yield from packed(f"{layer}.attn.qkv_proj", (1, block.dim, block.dim))
                yield from (dense(f"{layer}.{part}") for part in ("attn.out_proj", "norm2", "mlp.fc1", "mlp.fc2"))
            yield from (dense(f"{name}.norm"), conv_bn(f"{name}.conv_proj"))
    yield dense("head.fc")
