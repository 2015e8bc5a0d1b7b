"""The primitives that every op is lowered to, and that a format says in its own terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mvnas.graph import Node
from mvnas.ops import Map, Shape

Tensor = Any  # what a builder calls a tensor of its file: an index, a name, an object
Operand = Any  # a tensor, an array, or a number


class Builder(ABC):
    """A file in the making, to which ops are appended in the order in which they run.

    A method takes tensors of the file and returns the one that it appended. Tensors have a batch axis of 1: tokens are
    (1, P, N, C), vectors (1, C), maps (1, H, W, C) where `channels_last`, else (1, C, H, W): lowerings ask for `axes`,
    `channel_axis`, `position_axes`, `a_channel`, `pixels_last` and `maps`, so that none of them knows which.
    Where a number or an array (NumPy, float32) stands for a tensor it becomes a constant of the file.

    No tensor may have more than four axes, since GPU runtimes of phones refuse more.
    """

    format: ClassVar[str]  # its name in errors
    channels_last: ClassVar[bool] = False
    flips: ClassVar[bool] = False  # whether `matmul` reads a flipped matrix at no cost; else none is flipped

    def axes(self, shape: Shape) -> tuple[int, ...]:
        """Sizes of the axes of a tensor of this shape."""
        if isinstance(shape, Map):
            return (1, shape.h, shape.w, shape.c) if self.channels_last else (1, shape.c, shape.h, shape.w)
        return (1, *shape)

    def channel_axis(self, shape: Shape) -> int:
        """The axis of channels of a tensor of this shape."""
        return 1 if isinstance(shape, Map) and not self.channels_last else len(self.axes(shape)) - 1

    def position_axes(self, shape: Shape) -> list[int]:
        """The axes of rows and columns of a map, or of pixels and patches of tokens."""
        return [axis for axis in range(1, len(self.axes(shape))) if axis != self.channel_axis(shape)]

    def a_channel(self, numbers: np.ndarray, shape: Shape) -> np.ndarray:
        """A number a channel, laid out to be added to a tensor of this shape or multiplied by it."""
        behind = len(self.axes(shape)) - 1 - self.channel_axis(shape)
        return numbers.reshape(-1, *[1] * behind)

    def pixels_last(self, x: Tensor) -> Tensor:
        """Maps as (N, H, W, C), whatever this format has them as."""
        return x if self.channels_last else self.transpose(x, (0, 2, 3, 1))

    def maps(self, x: Tensor) -> Tensor:
        """(N, H, W, C) as maps of this format."""
        return x if self.channels_last else self.transpose(x, (0, 3, 1, 2))

    @abstractmethod
    def at(self, node: Node) -> None:
        """What follows serves this node of the graph, by whose name a profile of the file is read."""

    @abstractmethod
    def shape(self, x: Tensor) -> tuple[int, ...]:
        """Sizes of the axes of a tensor."""

    @abstractmethod
    def conv(
        self,
        x: Tensor,
        weight: np.ndarray,
        bias: np.ndarray | None,
        *,
        stride: int,
        pads: tuple[int, int, int, int],
        groups: int,
        act: str,
    ) -> Tensor:
        """Convolution of maps by a weight (out, in / groups, k, k), zeros at (top, bottom, left, right), activation."""

    @abstractmethod
    def linear(self, x: Tensor, weight: np.ndarray, bias: np.ndarray, *, act: str) -> Tensor:
        """Dense layer on the last axis by a weight (out, in), and activation."""

    @abstractmethod
    def matmul(self, a: Operand, b: Tensor, *, flip_a: bool = False, flip_b: bool = False) -> Tensor:
        """Products of matrices, the last two axes; an array `a` goes with each of `b`'s. Flips only where `flips`."""

    @abstractmethod
    def add(self, a: Tensor, b: Operand) -> Tensor: ...
    @abstractmethod
    def sub(self, a: Tensor, b: Operand) -> Tensor: ...
    @abstractmethod
    def mul(self, a: Tensor, b: Operand) -> Tensor: ...
    @abstractmethod
    def div(self, a: Tensor, b: Operand) -> Tensor: ...

    @abstractmethod
    def activate(self, x: Tensor, act: str) -> Tensor:
        """An activation, one of those of `mvnas.nn`; "" is none."""

    @abstractmethod
    def softmax(self, x: Tensor) -> Tensor:
        """Softmax along the last axis."""

    @abstractmethod
    def mean(self, x: Tensor, axes: Sequence[int], *, keep: bool) -> Tensor:
        """Mean along some axes, which stay as 1 or go."""

    @abstractmethod
    def total(self, x: Tensor, axis: int) -> Tensor:
        """Sum along an axis, which stays as 1."""

    @abstractmethod
    def normalise(self, x: Tensor, axes: Sequence[int], *, eps: float) -> Tensor:
        """Zero mean and unit variance along some axes: (x - mean) / sqrt(variance + eps)."""

    @abstractmethod
    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor: ...

    @abstractmethod
    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor: ...

    @abstractmethod
    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor: ...

    @abstractmethod
    def cut(self, x: Tensor, axis: int, first: int, size: int) -> Tensor:
        """`size` entries of an axis, from `first` on."""

    @abstractmethod
    def pool(self, x: Tensor, kernel: int, *, stride: int, pads: tuple[int, int, int, int], largest: bool) -> Tensor:
        """Means or maxima of what windows hold of a map; a kernel of 1 takes every `stride`-th pixel."""

    @abstractmethod
    def resize(self, x: Tensor, h: int, w: int, *, nearest: bool) -> Tensor:
        """A map resized, bilinearly with pixels' centres at halves or, by whole factors, each pixel repeated."""
