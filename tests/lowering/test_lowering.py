"""Laws of lowering: one function says what an op becomes in every format, and a format may say it in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from files import assert_close, compute, execute

from mvnas import nn
from mvnas.backends import backend
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.lowering import Builder, Call, Tensor, lower, lowers
from mvnas.ops import Map, Op

WRITTEN = ("coreml", "onnx", "tflite")


@dataclass(frozen=True)
class Leaky(Op):
    """An op that mvnas does not have: (C, H, W) -> (1, H, W), sums of channels, those below 0 divided."""

    divisor: int

    def shape(self, x: Map) -> Map:
        return Map(1, x.h, x.w)


@nn.computes(Leaky)
def leaked(op: Leaky, x: torch.Tensor) -> torch.Tensor:
    return (x - x.relu() * (1 - op.divisor)).sum(1, keepdim=True) / op.divisor


@lowers(Leaky)
def leaky(b: Builder, op: Leaky, call: Call) -> Tensor:
    (x,), (shape,) = call.inputs, call.shapes
    rest = b.sub(x, b.mul(b.activate(x, "relu"), 1 - op.divisor))
    return b.div(b.total(rest, b.channel_axis(shape)), op.divisor)


@pytest.mark.parametrize("name", WRITTEN)
def test_an_op_of_the_user_needs_one_form_for_all_formats(name: str, tmp_path: Path) -> None:
    single = Graph.single(Leaky(3), (Map(4, 3, 5),))
    path = tmp_path / f"op{backend(name).suffix}"
    backend(name).export(single, path, {})
    feed = [x.numpy() for x in nn.example(single)]
    assert_close(name, execute(name, path, single, feed), compute(single, {}, feed))


@pytest.mark.parametrize("name", WRITTEN)
def test_an_op_without_a_form_is_named(name: str, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Odd(Op):
        def shape(self, x: Map) -> Map:
            return x

    graph = Graph.single(Odd(), (Map(1, 2, 2),))
    with pytest.raises(ExportError, match="has none of Odd"):
        backend(name).export(graph, tmp_path / "odd", {})


def test_what_a_format_says_in_its_own_way_goes_before_what_all_say() -> None:
    from mvnas.backends.onnx._onnxfile import ONNX

    class Other(ONNX):
        """A format of its own."""

    class Nearer(Other):
        """One more."""

    lowers(Leaky, to=Other)(lambda b, op, call: call.inputs[0])
    graph = Graph.single(Leaky(3), (Map(4, 3, 5),))

    def ends(builder: ONNX) -> list[str]:
        return lower(builder, graph, {}, lambda name, shape: builder.input(name, builder.axes(shape)))

    assert ends(Other()) == ends(Nearer()) == ["x0", "x0"]
    assert ends(ONNX())[1] != "x0"
