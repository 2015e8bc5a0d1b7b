"""Laws of networks of windows beyond those of test_zoo.py."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import copysign, log2
from random import Random
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, gelu, layer_norm, linear

from mvnas.blocks import kind_of
from mvnas.blocks.fastervit import Block
from mvnas.graph import Graph
from mvnas.nn import build, example
from mvnas.ops import Attention, Conv, Input, Linear, Map
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.testing.weights import randomise

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


@pytest.mark.parametrize("name", ["tiny_vit", "fastervit", "elasticvit", "fmvit", "turbovit"])
def test_every_point_of_a_space_of_windows_is_legal(name: str) -> None:
    space, generator = Space.load(name), Random(0)
    for _ in range(200):
        assert space.sample(lambda _, options: generator.choice(options)).params > 0


Weights = Mapping[str, Tensor]
Place = tuple[int, int] | None  # row and column on a map, or nowhere


def small_network(weights: Weights, name: str, pair: list[float]) -> Tensor:
    hidden = weights[f"{name}.first.weight"] @ torch.tensor(pair, dtype=torch.float64) + weights[f"{name}.first.bias"]
    return weights[f"{name}.second.weight"] @ hidden.relu()


def encoder(weights: Weights, layer: str, tokens: Tensor, places: list[Place], side: int) -> Tensor:
    """A layer of FasterViT's `HAT` on a sequence (N, C) with heads of 4 channels; names of its nodes begin with
    `layer`.
    """

    def norm(role: str, x: Tensor) -> Tensor:
        return layer_norm(x, (8,), weights[f"{layer}.{role}.weight"], weights[f"{layer}.{role}.bias"])

    def dense(role: str, x: Tensor) -> Tensor:
        return linear(x, weights[f"{layer}.{role}.weight"], weights[f"{layer}.{role}.bias"])

    q, k, v = (dense(f"attention.{role}", norm("norm", tokens)) for role in ("query", "key", "value"))
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = q[:, part] @ k[:, part].T / 2
        for (i, one), (j, other) in product(enumerate(places), repeat=2):
            if one and other:
                far = [8 * (a - b) / (side - 1) for a, b in zip(one, other, strict=True)]
                logs = [copysign(log2(abs(x) + 1) / 3, x) for x in far]
                scores[i, j] += 16 * small_network(weights, f"{layer}.attention.attend.distances", logs)[head].sigmoid()
        heads.append(scores.softmax(1) @ v[:, part])
    tokens = tokens + dense("attention.project", torch.cat(heads, 1))
    return tokens + dense("mlp.project", gelu(dense("mlp.expand", norm("mlp.norm", tokens))))


@torch.no_grad()
def test_fastervit_is_its_definition_token_by_token() -> None:
    """A layer with 2 x 2 windows of 3 x 3 pixels, each with 2 x 2 carrier tokens (arXiv:2306.06189, sec. 3.3)."""
    graph = Graph.of(Block(layers=1, window=3, carriers=2, head_width=4, mlp=2)(Input(Map(8, 6, 6))()))
    module = randomise(build(graph)).double()
    weights = {key.removeprefix("block0."): value for key, value in module.state_dict().items()}
    (x,) = (x.double() for x in example(graph))
    local = conv2d(x, weights["local.conv.weight"], weights["local.conv.bias"], padding=1, groups=8)
    grid = list(product(range(4), repeat=2))
    carriers = avg_pool2d(local, 3, 1)[0].permute(1, 2, 0)
    position = "layers.0.carriers_position.places"
    tokens = [carriers[r, c] + small_network(weights, position, [(r - 2) / 2, (c - 2) / 2]) for r, c in grid]
    carriers = encoder(weights, "layers.0.carriers", torch.stack(tokens), list(grid), 4).view(4, 4, 8)
    expected = torch.empty_like(x)
    pixels = list(product(range(3), repeat=2))
    for top, left in product(range(2), repeat=2):
        tokens = [carriers[2 * top + r, 2 * left + c] for r, c in product(range(2), repeat=2)]
        for r, c in pixels:
            pixel = x[0, :, 3 * top + r, 3 * left + c]
            tokens.append(pixel + small_network(weights, "layers.0.position.places", [r - 1, c - 1]))
        made = encoder(weights, "layers.0.windows", torch.stack(tokens), [None] * 4 + list(pixels), 3)
        for token, (r, c) in zip(made[4:], pixels, strict=True):
            expected[0, :, 3 * top + r, 3 * left + c] = token
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)
