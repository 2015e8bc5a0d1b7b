"""timm's names of MobileViTv2's layers; its packed layer is the score, the keys and the values of separable
attention.
"""

from __future__ import annotations

from collections.abc import Iterator

from mvnas.blocks import kind_of
from mvnas.pretrained._names import Names, conv, conv_bn, dense, inverted_residual, mobile, packed
from mvnas.spaces.arch import Arch


def layers(arch: Arch) -> Iterator[Names]:
    yield conv_bn("stem")
    for block, name in mobile(arch):
        if kind_of(block) == "inverted_residual":
            yield from inverted_residual(name)
        else:
            yield conv_bn(f"{name}.conv_kxk")
            yield conv(f"{name}.conv_1x1")
            for i in range(block.layers):
                layer = f"{name}.transformer.{i}"
                yield dense(f"{layer}.norm1")
                yield from packed(f"{layer}.attn.qkv_proj", (1, block.dim, block.dim))
                yield from (dense(f"{layer}.{part}") for part in ("attn.out_proj", "norm2", "mlp.fc1", "mlp.fc2"))
            yield from (dense(f"{name}.norm"), conv_bn(f"{name}.conv_proj"))
    yield dense("head.fc")
