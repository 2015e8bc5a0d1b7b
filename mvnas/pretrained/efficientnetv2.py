"""timm's names of the layers of EfficientNetV2, which it has as `tf_efficientnetv2_*` with the padding of the
published ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, cast

from mvnas.pretrained._efficientnet import stages
from mvnas.pretrained._names import Names, conv, dense
from mvnas.spaces.arch import Arch


def layers(arch: Arch) -> Iterator[Names]:
    blocks = arch.blocks[1:-2]
    yield conv("conv_stem", "bn1")
    yield from stages(blocks, [len(list(group)) for _, group in groupby(blocks, lambda x: cast(Any, x).channels)])
    yield from (conv("conv_head", "bn2"), dense("classifier"))
