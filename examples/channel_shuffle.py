"""An op of your own, and a block that is made of it: ShuffleNet's (arXiv:1707.01083).

    mvnas measure --table shuffle --space examples/channel_shuffle.yaml --networks 12
    mvnas space examples/channel_shuffle.yaml --device shuffle --trust

The class says shapes and counts, one function what it is in torch, and one what it is in files of every format. In a
table it is called by its dotted name, and files that name it need `--trust`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mvnas.errors import SpaceError
from mvnas.lowering import Builder, Call, Tensor, lowers
from mvnas.nn import computes
from mvnas.ops import Conv, Map, Op, Value


@dataclass(frozen=True)
class Shuffle(Op):
    """Channels of `groups` groups, dealt out in turn: (C, H, W) -> (C, H, W).

    A grouped convolution that comes next mixes groups then.
    """

    takes: ClassVar = (Map,)

    groups: int

    def shape(self, x: Map) -> Map:
        if x.c % self.groups:
            raise SpaceError(f"groups must divide the channels, but got {self.groups} groups for {x.c}")
        return x


@computes(Shuffle)
def shuffled(op: Shuffle, x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) each."""
    b, c, h, w = x.shape
    return x.reshape(b, op.groups, c // op.groups, h * w).transpose(1, 2).reshape(b, c, h, w)


@lowers(Shuffle)
def shuffled_in_files(b: Builder, op: Shuffle, call: Call) -> Tensor:
    """Reshapes and a transpose of three axes, as runtimes take them."""
    (x,) = call.inputs
    _, h, w, c = sizes = b.shape(x) if b.channels_last else tuple(b.shape(x)[i] for i in (0, 2, 3, 1))
    if b.channels_last:
        return b.reshape(b.transpose(b.reshape(x, (h * w, op.groups, c // op.groups)), (0, 2, 1)), sizes)
    return b.reshape(b.transpose(b.reshape(x, (op.groups, c // op.groups, h * w)), (1, 0, 2)), b.shape(x))


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (C, H, W): 1 x 1 in groups, shuffle, depthwise 3 x 3, 1 x 1 in groups, the input added.

    Raises:
        SpaceError: the groups do not divide the channels.
    """

    groups: int = 2

    def __call__(self, x: Value) -> Value:
        c = x.channels
        y = Shuffle(self.groups)(Conv(c, groups=self.groups, act="relu")(x, role="mix"))
        y = Conv(c, 3, groups=c, act="")(y, role="depthwise")
        return x + Conv(c, groups=self.groups, act="")(y, role="project")
