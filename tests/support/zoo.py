"""Blocks of the zoo as tests go through them: small networks of each kind, and what each refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zoo_attention
import zoo_windows

from mvnas.blocks import Block, make
from mvnas.ops import Map, Shape
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space

BLOCKS: dict[str, str] = {  # small stages of each block, behind a convolution to 16 channels at half the size
    "mbconv": (
        "mbconv channels=16 kernel=5 se=hidden act=hardswish, mbconv channels=24 stride=2 se=input same=1 eps=0.001"
    ),
    "fused_mbconv": "fused_mbconv channels=16 expand=1 act=relu6, fused_mbconv channels=24 stride=2 same=1",
    "mobileone": "mobileone channels=16 branches=2, mobileone channels=24 stride=2",
    "mobileone_stem": "mobileone_stem channels=16",
    "repvit": "repvit_stem channels=16, repvit channels=16, repvit channels=24 stride=2",
    "fastvit": "fastvit_stem channels=16, fastvit channels=16, fastvit channels=32 stride=2",
    "efficientformer": (
        "efficientformer_stem channels=16, efficientformer_pool channels=16 expand=2, efficientformer_pool channels=24"
        " stride=2, efficientformer_attention heads=2 key=8 side=4, classifier norm=layer copies=2 classes=5"
    ),
    "efficientformerv2": (
        "efficientformerv2 heads=2 key=8 half=1 side=8, efficientformerv2_down channels=24 heads=2 side=16, "
        "efficientformerv2 heads=2 key=8 side=8, classifier norm=batch copies=2 classes=5"
    ),
}
BLOCKS |= zoo_windows.BLOCKS | zoo_attention.BLOCKS
OTHERS = {  # blocks of networks that are tested whole
    "mobilevit": (
        "inverted_residual channels=24 stride=2 expand=2, inverted_residual channels=24 expand=1, "
        "mobilevit dim=16 layers=2 heads=2 patch=4, head channels=32 classes=5"
    ),
    "conv": "conv channels=24 kernel=5 act=relu same=1, classifier hidden=12 classes=5",
}
TOLD = [
    ("mbconv channels=16 se=hiden", "unknown se 'hiden'; did you mean 'hidden'"),
    ("classifier norm=bach classes=5", "unknown norm 'bach'; did you mean 'batch'"),
    ("repvit channels=24", "channels must stay as they are at stride 1, but are 16 -> 24"),
    ("fastvit channels=24", "channels must stay as they are at stride 1, but are 16 -> 24"),
    ("mobilevit dim=16 layers=1 patch=64", "the patch must fit into the map, but got patch 64 on 32 x 32"),
    ("mobilevit dim=18 layers=1", "heads must divide the width, but got 4 heads for width 18"),
    ("efficientformerv2 key=8", "key of efficientformerv2 must stay 32 without heads, which ignores it, but is 8"),
    ("efficientformerv2_down channels=24 key=8", "key of efficientformerv2_down must stay"),
    *zoo_windows.TOLD,
    *zoo_attention.TOLD,
]


def small(stages: str, side: int) -> Arch:
    """A network of a few blocks, each written as `kind key=value key=value`."""
    rows: list[dict[str, Any]] = [{"block": "conv", "channels": 16, "stride": 2}]
    for stage in stages.split(", "):
        kind, fields = parsed(stage)
        rows.append({"block": kind} | fields)
    if "classes" not in stages:
        rows.append({"block": "classifier", "classes": 5})
    return Space.from_data({"resolution": side, "stages": rows}, source="test").arch()


def parsed(stage: str) -> tuple[str, dict[str, Any]]:
    """Kind and fields of a block that is written as `kind key=value key=value`."""
    kind, *settings = stage.split()
    return kind, {key: _value(key, text) for key, text in (item.split("=") for item in settings)}


def examples() -> Iterator[tuple[Block, tuple[Shape, ...]]]:
    """Each block of the small networks with the shape that it is given, and stems."""
    for kind in ("stem", "turbovit_stem"):
        yield make(kind, (("channels", 8),)), (Map(3, 32, 32),)
    yield make("normalise", ()), (Map(3, 32, 32),)
    yield make("fastvit_head", (("channels", 32), ("classes", 5))), (Map(16, 8, 8),)
    for stages in (BLOCKS | OTHERS).values():
        for row in small(stages, 64).summaries[1:]:
            yield row.block, row.shapes


def refused() -> Iterator[tuple[Block, tuple[Shape, ...], str]]:
    """Blocks that are not defined on a map of 16 x 32 x 32, and why."""
    for stage, told in TOLD:
        kind, fields = parsed(stage)
        yield make(kind, tuple(fields.items())), (Map(16, 32, 32),), told


def _value(key: str, text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if key in ("same", "half"):
        return text == "1"
    if key == "kernels":
        return text
    return text if not text.replace(".", "").isdigit() else float(text) if "." in text else int(text)
