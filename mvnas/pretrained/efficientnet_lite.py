"""Names of EfficientNet-Lite's layers in the checkpoints of the package `efficientnet_lite_pytorch`; timm's
`tf_efficientnet_lite*` are read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor

from mvnas.pretrained._names import Names, conv, dense
from mvnas.spaces.arch import Arch

BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)")  # of timm: stage, place in it, layer, weight
OUTER = {
    "conv_stem": "_conv_stem",
    "bn1": "_bn0",
    "conv_head": "_conv_head",
    "bn2": "_bn1",
    "classifier": "_fc",
}
PLAIN = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}  # without expansion
INVERTED = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}


def merged(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`weights` by the names of the package, where they have timm's."""
    found = {key: match for key in weights if (match := BLOCK.fullmatch(key))}
    order = {place: i for i, place in enumerate(sorted({_place(match) for match in found.values()}))}
    inverted = {_place(match) for match in found.values() if match[3] == "conv_pwl"}
    named: dict[str, Tensor] = {}
    for key, weight in weights.items():
        layer, _, leaf = key.partition(".")
        if match := found.get(key):
            names = INVERTED if _place(match) in inverted else PLAIN
            key = f"_blocks.{order[_place(match)]}.{names.get(match[3], match[3])}.{match[4]}"
        elif layer in OUTER:
            key = f"{OUTER[layer]}.{leaf}"
        named[key] = weight
    return named


def _place(match: re.Match[str]) -> tuple[int, int]:
    return int(match[1]), int(match[2])


def layers(arch: Arch) -> Iterator[Names]:
    yield conv("_conv_stem", "_bn0")
    for place, block in enumerate(cast(Any, arch.blocks[2:-2])):
        name = f"_blocks.{place}"
        if block.expand != 1:
            yield conv(f"{name}._expand_conv", f"{name}._bn0")
        yield conv(f"{name}._depthwise_conv", f"{name}._bn1")
        yield conv(f"{name}._project_conv", f"{name}._bn2")
    yield from (conv("_conv_head", "_bn1"), dense("_fc"))
