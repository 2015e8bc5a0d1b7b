"""timm's names of MobileNetV2's layers."""

from __future__ import annotations

from collections.abc import Iterator

from mvnas.pretrained._efficientnet import stages
from mvnas.pretrained._names import Names, conv, dense
from mvnas.spaces.arch import Arch


def layers(arch: Arch) -> Iterator[Names]:
    yield conv("conv_stem", "bn1")
    yield from stages(arch.blocks[1:-2], (1, 2, 3, 4, 3, 3, 1))
    yield from (conv("conv_head", "bn2"), dense("classifier"))
