"""timm's names of MobileOne's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from mvnas.pretrained._names import Names, branches, dense
from mvnas.spaces.arch import Arch


def layers(arch: Arch) -> Iterator[Names]:
    channels, stage, place = cast(Any, arch.blocks[0]).channels, -1, 0
    yield branches("stem", 1, skip=False)
    for block in cast(Any, arch.blocks[1:-1]):
        stage, place = (stage + 1, 0) if block.stride > 1 or block.channels != channels else (stage, place + 2)
        yield branches(f"stages.{stage}.{place}", block.branches, skip=block.stride == 1)
        yield branches(f"stages.{stage}.{place + 1}", block.branches, scale=False, skip=block.channels == channels)
        channels = block.channels
    yield dense("head.fc")
