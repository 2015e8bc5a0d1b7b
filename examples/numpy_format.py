"""A format of one's own in one file: an archive of arrays and a list of steps, which NumPy alone executes.

    mvnas measure --backend examples.numpy_format --space mobilevit --table tables/numpy
    mvnas export STUDY --format examples.numpy_format

A `Builder` says what each primitive is here, so that the format has every op of mvnas, and the ops of others. A
`Backend` writes files, runs and times them. It is slow and exact: a reference to port to a chip without a runtime.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mvnas.backends import Stopwatch, one_by_one, stopwatch
from mvnas.graph import Graph, Node
from mvnas.lowering import Builder, lower
from mvnas.ops import Map, Shape, State

Array = np.ndarray
Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class Backend:
    """NumPy at float32."""

    suffix = ".npz"
    ships = True
    tolerance = 1e-4

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        steps = Steps()
        made = lower(steps, graph, {name: weight.numpy() for name, weight in weights.items()}, steps.input)
        steps.save(path, [(made[i], graph.nodes[i].shape) for i in graph.outputs])

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return one_by_one(self, graphs, folder)

    def run(self, path: Path, inputs: Sequence[Array]) -> list[Array]:
        return Program(path)(inputs)

    def stopwatch(self, path: Path) -> Stopwatch:
        program = Program(path)
        inputs = [np.zeros(shape, np.float32) for _, shape, _ in program.inputs]
        return stopwatch(lambda: program(inputs))

    def conditions(self) -> Mapping[str, Any]:
        versions = {"numpy": np.__version__}
        return {"backend": __name__, "runtime": "NumPy", "versions": versions, "threads": 1, "precision": "float32"}


class Program:
    """A file that is open: its steps, with the constants in place."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as held:
            self.constants = {int(name): held[name] for name in held.files if name != "program"}
            told = json.loads(str(held["program"]))
        self.steps, self.inputs, self.outputs = told["steps"], told["inputs"], told["outputs"]

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        values = dict(self.constants)
        for (index, _, is_map), x in zip(self.inputs, inputs, strict=True):
            values[index] = np.moveaxis(x, 1, -1) if is_map else x
        for name, reads, options, index in self.steps:
            values[index] = FUNCTIONS[name](*[values[i] for i in reads], **options)
        return [np.moveaxis(values[i], -1, 1) if is_map else values[i] for i, is_map in self.outputs]


class Value(NamedTuple):
    """A tensor of the file: its number, and its shape."""

    number: int
    sizes: tuple[int, ...]


class Steps(Builder):
    """A file in the making. Shapes are found by computing each step once, on ones."""

    format = "NumPy"
    channels_last = True

    def __init__(self) -> None:
        self.constants: list[tuple[int, Array]] = []
        self.steps: list[tuple[str, list[int], dict[str, Any], int]] = []
        self.inputs: list[tuple[int, tuple[int, ...], bool]] = []
        self.count = 0

    def value(self, sizes: Sequence[int]) -> Value:
        self.count += 1
        return Value(self.count, tuple(sizes))

    def constant(self, data: Array) -> Value:
        made = self.value(data.shape)
        self.constants.append((made.number, data))
        return made

    def step(self, name: str, *operands: Value | Array | float, **options: Any) -> Value:
        """Append a function of FUNCTIONS."""
        xs = [x if isinstance(x, Value) else self.constant(np.asarray(x, np.float32)) for x in operands]
        sizes = FUNCTIONS[name](*[np.ones(x.sizes, np.float32) for x in xs], **options).shape
        made = self.value(sizes)
        self.steps.append((name, [x.number for x in xs], options, made.number))
        return made

    def save(self, path: Path, outputs: Sequence[tuple[Value, Shape]]) -> None:
        ends = [(x.number, isinstance(shape, Map)) for x, shape in outputs]
        told = json.dumps({"steps": self.steps, "inputs": self.inputs, "outputs": ends})
        arrays: dict[str, Any] = {str(number): data for number, data in self.constants}
        np.savez(path, program=np.array(told), **arrays)

    def input(self, name: str, shape: Shape) -> Value:
        made = self.value(self.axes(shape))
        is_map = isinstance(shape, Map)
        self.inputs.append((made.number, (1, *shape) if is_map else made.sizes, is_map))
        return made

    def at(self, node: Node) -> None:
        """Steps have no names."""

    def shape(self, x: Value) -> tuple[int, ...]:
        return x.sizes

    def conv(
        self, x: Value, weight: Array, bias: Array | None, *, stride: int, pads: Pads, groups: int, act: str
    ) -> Value:
        shift = np.zeros(len(weight), np.float32) if bias is None else bias
        return self.activate(self.step("conv", x, weight, shift, stride=stride, pads=pads, groups=groups), act)

    def linear(self, x: Value, weight: Array, bias: Array, *, act: str) -> Value:
        return self.activate(self.add(self.step("matmul", x, weight.T), bias), act)

    def matmul(self, a: Value | Array, b: Value, *, flip_a: bool = False, flip_b: bool = False) -> Value:
        return self.step("matmul", a, b)

    def add(self, a: Value, b: Value | Array | float) -> Value:
        return self.step("add", a, b)

    def sub(self, a: Value, b: Value | Array | float) -> Value:
        return self.step("sub", a, b)

    def mul(self, a: Value, b: Value | Array | float) -> Value:
        return self.step("mul", a, b)

    def div(self, a: Value, b: Value | Array | float) -> Value:
        return self.step("div", a, b)

    def activate(self, x: Value, act: str) -> Value:
        return self.step(act, x) if act else x

    def softmax(self, x: Value) -> Value:
        return self.step("softmax", x)

    def mean(self, x: Value, axes: Sequence[int], *, keep: bool) -> Value:
        return self.step("mean", x, axes=list(axes), keep=keep)

    def total(self, x: Value, axis: int) -> Value:
        return self.step("total", x, axis=axis)

    def normalise(self, x: Value, axes: Sequence[int], *, eps: float) -> Value:
        return self.step("normalise", x, axes=list(axes), eps=eps)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        return self.step("reshape", x, shape=list(shape))

    def transpose(self, x: Value, order: Sequence[int]) -> Value:
        return self.step("transpose", x, order=list(order))

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        return self.step("concat", *xs, axis=axis)

    def cut(self, x: Value, axis: int, first: int, size: int) -> Value:
        return self.step("cut", x, axis=axis, first=first, size=size)

    def pool(self, x: Value, kernel: int, *, stride: int, pads: Pads, largest: bool) -> Value:
        return self.step("pool", x, kernel=kernel, stride=stride, pads=pads, largest=largest)

    def resize(self, x: Value, h: int, w: int, *, nearest: bool) -> Value:
        return self.step("nearest" if nearest else "bilinear", x, h=h, w=w)


def windows(x: Array, kernel: int, stride: int, pads: Pads, value: float = 0.0) -> Array:
    """Windows of maps: (N, H, W, C) -> (N, H', W', C, kernel, kernel)."""
    top, bottom, left, right = pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)
    return sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]


def conv(x: Array, weight: Array, bias: Array, *, stride: int, pads: Pads, groups: int) -> Array:
    out, inner, kernel, _ = weight.shape
    seen = windows(x, kernel, stride, pads)
    seen = seen.reshape(*seen.shape[:3], groups, inner * kernel**2)
    made = np.einsum("nhwgi,goi->nhwgo", seen, weight.reshape(groups, -1, inner * kernel**2), optimize=True)
    return made.reshape(*seen.shape[:3], out) + bias


def pool(x: Array, *, kernel: int, stride: int, pads: Pads, largest: bool) -> Array:
    if largest:
        return windows(x, kernel, stride, pads, -np.inf).max((4, 5))
    inside = windows(np.ones_like(x), kernel, stride, pads).sum((4, 5))
    return windows(x, kernel, stride, pads).sum((4, 5)) / inside


def normalise(x: Array, *, axes: Sequence[int], eps: float) -> Array:
    centred = x - x.mean(tuple(axes), keepdims=True)
    return centred / np.sqrt((centred**2).mean(tuple(axes), keepdims=True) + np.float32(eps))


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def bilinear(x: Array, *, h: int, w: int) -> Array:
    for axis, size in ((1, h), (2, w)):
        of = x.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * of / size - 0.5, 0, of - 1)
        before = place.astype(int)
        share = (place - before).astype(np.float32).reshape(-1, *[1] * (3 - axis))
        x = np.take(x, before, axis) * (1 - share) + np.take(x, np.minimum(before + 1, of - 1), axis) * share
    return x


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def hardsigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


def gelu(x: Array) -> Array:
    return (x * (1 + np.vectorize(math.erf, otypes=[np.float32])(x / math.sqrt(2))) / 2).astype(np.float32)


def gelu_tanh(x: Array) -> Array:
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "bilinear": bilinear,
    "concat": lambda *xs, axis: np.concatenate(xs, axis),
    "conv": conv,
    "cut": lambda x, axis, first, size: np.take(x, range(first, first + size), axis),
    "div": np.divide,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "hardsigmoid": hardsigmoid,
    "hardswish": lambda x: x * hardsigmoid(x),
    "matmul": np.matmul,
    "mean": lambda x, axes, keep: x.mean(tuple(axes), keepdims=keep),
    "mul": np.multiply,
    "nearest": lambda x, h, w: x.repeat(h // x.shape[1], 1).repeat(w // x.shape[2], 2),
    "normalise": normalise,
    "pool": pool,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "reshape": lambda x, shape: x.reshape(shape),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "softmax": softmax,
    "sub": np.subtract,
    "total": lambda x, axis: x.sum(axis, keepdims=True),
    "transpose": lambda x, order: x.transpose(order),
}
