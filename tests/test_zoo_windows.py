"""Laws of networks of windows beyond those of test_zoo.py."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import pytest
import torch
from test_zoo import small
from zoo_windows import BLOCKS

from mvnas.arch import Arch, kind_of
from mvnas.nn import build
from mvnas.ops import Attention, Conv, Linear
from mvnas.space import Space

MILLIONS = {  # FLOPs of the released networks by the authors' function (microsoft/Moonlit, ElasticViT, compute_flops)
    "t1": 62.9, "t2": 120.0, "s1": 217.6, "s2": 318.5, "m": 415.6, "l1": 517.1, "l1_5": 618.8, "l2": 704.1, "l3": 815.4,
}  # fmt: skip


def counted(arch: Arch) -> float:
    """FLOPs as the authors count them.

    They count a softmax, but of the convolution of values only a ninth, and no gates and shortcuts where a stage of
    transformers begins, whose first convolution they take to be on twice the map that it ends in.
    """
    total = 0
    for node in arch.graph().work:
        op, block = node.op, cast(Any, arch.blocks[node.block])
        begins = kind_of(arch.blocks[min(node.block + 1, len(arch.blocks) - 1)]) == "elasticvit"
        flops = node.macs
        if isinstance(op, Attention):
            flops += op.heads * node.shapes[0][1] * node.shapes[1][1]
        elif isinstance(op, Conv) and kind_of(block) == "elasticvit":
            flops //= 9
        elif kind_of(block) == "elasticvit_conv" and begins:
            side = cast(Any, node.shape)[-1]
            if isinstance(op, Linear) or (isinstance(op, Conv) and not op.norm):
                flops = 0
            elif isinstance(op, Conv) and (op.kernel, op.act, block.stride, side % 2) == (1, "hardswish", 2, 1):
                flops = flops * (side + 1) ** 2 // side**2
        total += flops
    return total / 1e6


@pytest.mark.parametrize("name", MILLIONS)
def test_elasticvit_has_the_flops_that_its_authors_count(name: str) -> None:
    assert counted(Space.load(f"elasticvit_{name}").arch()) == pytest.approx(MILLIONS[name], abs=0.051)


@pytest.mark.parametrize("kind", BLOCKS)
@torch.no_grad()
def test_a_network_of_windows_runs_at_sizes_that_its_windows_do_not_divide(kind: str) -> None:
    """Training goes through several sizes, whatever the deployed one."""
    module = build(small(BLOCKS[kind], 64).graph()).eval()
    for side in (32, 52, 96):
        assert module(torch.zeros(2, 3, side, side)).shape == (2, 5)


@pytest.mark.parametrize("name", ["tiny_vit", "fastervit", "elasticvit", "fmvit", "turbovit"])
def test_every_point_of_a_space_of_windows_is_legal(name: str) -> None:
    space, generator = Space.load(name), Random(0)
    for _ in range(200):
        assert space.sample(lambda _, options: generator.choice(options)).params > 0
