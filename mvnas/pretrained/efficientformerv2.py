"""timm's names of EfficientFormerV2's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.blocks import kind_of
from mvnas.pretrained._names import Names, conv, conv_bn, dense, one_for_both
from mvnas.spaces.arch import Arch

merged = one_for_both


def layers(arch: Arch) -> Iterator[Names]:
    yield from (conv_bn("stem.conv1"), conv_bn("stem.conv2"))
    stage, place = 0, -1
    for block in cast(Any, arch.blocks[1:-1]):
        if kind_of(block) == "efficientformerv2_down":
            stage, place = stage + 1, -1
            yield conv_bn(f"stages.{stage}.downsample.conv")
            if block.heads:
                yield from _down(f"stages.{stage}.downsample.attn")
            continue
        place += 1
        name = f"stages.{stage}.blocks.{place}"
        if block.heads:
            yield from _mixer(f"{name}.token_mixer", half=block.half)
            yield conv_bn(f"{name}.token_mixer.proj") | {"scale": f"{name}.ls1.gamma"}
        yield from (conv_bn(f"{name}.mlp.fc1"), conv_bn(f"{name}.mlp.mid"))
        yield conv_bn(f"{name}.mlp.fc2") | {"scale": f"{name}.ls2.gamma"}
    yield from (dense("norm"), dense("head") | {"others.0": "head_dist"})


def _mixer(name: str, *, half: bool) -> Iterator[Names]:
    if half:
        yield conv_bn(f"{name}.stride_conv")
    yield from (conv_bn(f"{name}.{part}") for part in ("q", "k", "v"))
    talk: Names = {"before": f"{name}.talking_head1", "after": f"{name}.talking_head2"}
    yield talk | {"bias": f"{name}.attention_biases"}
    yield conv_bn(f"{name}.v_local")


def _down(name: str) -> Iterator[Names]:
    yield conv(f"{name}.q.local")
    yield from (conv_bn(f"{name}.{part}") for part in ("q.proj", "k", "v"))
    yield {"bias": f"{name}.attention_biases"}
    yield from (conv_bn(f"{name}.v_local"), conv_bn(f"{name}.proj"))
