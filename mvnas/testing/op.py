"""Laws of an op, for whoever writes one. In a test file of yours:

from mvnas.testing.op import OpContract

class TestShuffle(OpContract):
    examples = [(Shuffle(2), (Map(8, 4, 6),), Map(8, 4, 6))]  # ops, shapes of their inputs, and of their output
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mvnas.backends import backend
from mvnas.errors import SpaceError
from mvnas.graph import Graph
from mvnas.latency.table import read_kernel, write_op, write_shapes
from mvnas.nn import build, deploy, example, fold, most_axes, owes, program
from mvnas.ops import Conv, Input, Linear, Map, Op, Shape, Tokens, Vector
from mvnas.system import trust
from mvnas.testing.weights import randomise

Example = tuple[Op, tuple[Shape, ...], Shape]


class OpContract:
    """A test class for ops: subclasses give examples of them, and the formats that they are written in."""

    examples: ClassVar[Sequence[Example]] = ()
    formats: ClassVar[Sequence[str]] = ("tflite", "onnx")  # of which files are run here

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each example, and for each format."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.examples, ids=[str(row[0]) for row in self.examples])
        if "format" in metafunc.fixturenames:
            metafunc.parametrize("format", self.formats)

    def test_stated_costs_are_those_of_the_module(self, case: Example) -> None:
        op, shapes, out = case
        graph = Graph.single(op, shapes)
        assert graph.output.shape == out
        for form in (graph, graph.deployed()):
            with torch.device("meta"):
                module, inputs = build(form).eval(), tuple(torch.empty(1, *node.shape) for node in form.inputs)
            with FlopCounterMode(display=False) as counter:
                result = module(*inputs)
            assert result.shape == (1, *form.output.shape)
            assert type(form.output.shape) is type(out)
            assert form.params == sum(weight.numel() for weight in module.parameters())
            assert 2 * form.macs == counter.get_total_flops()

    @torch.no_grad()
    def test_deployment_changes_no_number(self, case: Example) -> None:
        op, shapes, out = case
        value = op(*(Input(shape)() for shape in shapes))
        if owing(op, shapes):
            value = (Conv(5) if isinstance(out, Map) else Linear(5))(value)
        graph = Graph.of(value)
        trained = randomise(build(graph))
        shipped, weights = deploy(graph, trained.state_dict())
        module = build(shipped).eval()
        module.load_state_dict(weights)
        inputs = example(graph, batch=2)
        fed = inputs[: len(shipped.inputs)]  # what only gave its size is fed no more
        torch.testing.assert_close(module(*fed), trained(*inputs), rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_folding_is_exact(self, case: Example) -> None:
        """In float64, in which weights fold."""
        op, shapes, _ = case
        if owing(op, shapes):
            return
        graph = Graph.single(op, shapes)
        shipped, start = graph.deployed(), f"{graph.output.name}."
        trained, folded = randomise(build(graph)).double(), build(shipped).eval().double()
        weights = fold(op, {key.removeprefix(start): value for key, value in trained.state_dict().items()}, *shapes)
        if shipped.work:
            folded.load_state_dict({f"{shipped.output.name}.{key}": value for key, value in weights.items()})
        inputs = [x.double() for x in example(graph, batch=2)]
        torch.testing.assert_close(folded(*inputs[: len(shipped.inputs)]), trained(*inputs), rtol=0, atol=1e-10)

    def test_what_is_deployed_is_in_its_last_form(self, case: Example) -> None:
        op, shapes, _ = case
        shipped = Graph.single(op, shapes).deployed()
        assert shipped.deployed() == shipped or not shipped.work

    def test_no_tensor_has_more_than_four_axes(self, case: Example) -> None:
        op, shapes, _ = case
        shipped = Graph.single(op, shapes).deployed()
        assert not shipped.work or most_axes(program(shipped, build(shipped).state_dict())) <= 4

    @torch.no_grad()
    def test_what_moves_leaves_scales_and_shifts_of_channels_to_what_comes_after(self, case: Example) -> None:
        op, shapes, out = case
        if not op.moves:
            return
        graph = Graph.single(op, shapes)
        module, (x, *others) = build(graph).eval(), example(graph)
        scale, shift = torch.linspace(0.5, 2, out.c), torch.linspace(-1, 1, out.c)
        moved = module(channels(x, scale, shift, shapes[0]), *others)
        torch.testing.assert_close(moved, channels(module(x, *others), scale, shift, out))

    def test_it_is_read_from_a_table_as_it_was_written(self, case: Example, monkeypatch: pytest.MonkeyPatch) -> None:
        op, shapes, _ = case
        monkeypatch.setattr(trust, "_allowed", {type(op).__module__})
        for node in Graph.single(op, shapes).deployed().work:
            assert read_kernel(write_op(node.op), write_shapes(node.shapes)) == node.key

    def test_a_latency_model_is_told_what_it_does(self, case: Example) -> None:
        op, shapes, _ = case
        for node in Graph.single(op, shapes).deployed().work:
            kind, sizes = node.op.kind(*node.shapes), node.op.dimensions(*node.shapes)
            assert kind and kind == node.op.kind(*node.shapes) and "," not in kind
            assert all(type(size) is int and size > 0 for size in sizes.values())
            for count in (node.op.elements, node.op.scratch, node.op.pointers, node.op.params, node.op.macs):
                assert count(*node.shapes) >= 0
            assert all(number > 0 for product in node.op.products(*node.shapes) for number in product)

    def test_it_is_a_value(self, case: Example) -> None:
        op, _, _ = case
        again = replace(op)  # type: ignore[type-var]
        assert again == op and hash(again) == hash(op)

    def test_shapes_that_it_is_not_defined_on_are_refused(self, case: Example) -> None:
        op, shapes, _ = case
        for shape in (Map(8, 4, 4), Tokens(4, 4, 8), Vector(8)):
            if not isinstance(shape, op.takes):
                with pytest.raises(SpaceError, match=f"{type(op).__name__} must be given"):
                    op(*(Input(shape)() for _ in shapes))

    @torch.no_grad()
    def test_files_compute_the_same(self, case: Example, format: str, tmp_path: Path) -> None:
        op, shapes, _ = case
        graph = Graph.single(op, shapes)
        if owing(op, shapes):
            return
        trained = randomise(build(graph))
        shipped, weights = deploy(graph, trained.state_dict())
        runtime: Any = backend(format)
        path = tmp_path / f"op{runtime.suffix}"
        runtime.export(shipped, path, weights)
        inputs = example(graph)
        (y,) = runtime.run(path, [x.numpy() for x in inputs[: len(shipped.inputs)]])
        torch.testing.assert_close(torch.from_numpy(y), trained(*inputs), rtol=1e-4, atol=1e-4)


def owing(op: Op, shapes: Sequence[Shape]) -> bool:
    """Whether the deployed op leaves a scale and shift to what reads it."""
    graph = Graph.single(op, shapes)
    start = f"{graph.output.name}."
    state = {key.removeprefix(start): value for key, value in build(graph).state_dict().items()}
    return owes(op, state) is not None


def channels(x: Tensor, scale: Tensor, shift: Tensor, shape: Shape) -> Tensor:
    """scale * x + shift of the channels of a tensor of `shape`."""
    if isinstance(shape, Map):
        return x * scale[:, None, None] + shift[:, None, None]
    return x * scale + shift
