"""Laws of a block, for whoever writes one. In a test file of yours:

from mvnas.testing.block import BlockContract

class TestShuffle(BlockContract):
    examples = [(Block(groups=2), (Map(16, 8, 8),))]  # blocks, and the shapes of what they are given
    refused = [(Block(groups=3), (Map(16, 8, 8),), "groups must divide")]  # and a part of what is told
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, get_type_hints

import pytest
import torch

from mvnas.blocks import RESERVED
from mvnas.errors import SpaceError
from mvnas.graph import Graph, Kernel, summary
from mvnas.nn import build, deploy, example
from mvnas.ops import Input, Map, Shape, Value
from mvnas.testing.weights import randomise

Block = Callable[..., Value]
Example = tuple[Block, tuple[Shape, ...]]
Refusal = tuple[Block, tuple[Shape, ...], str]


class BlockContract:
    """A test class for blocks: subclasses give examples of them, and of what they refuse.

    Networks are trained on images of several sizes, so a block that is made for one map must work on others.
    """

    examples: ClassVar[Sequence[Example]] = ()
    refused: ClassVar[Sequence[Refusal]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each example, and for each refusal."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.examples, ids=[_told(block) for block, _ in self.examples])
        if "refusal" in metafunc.fixturenames:
            metafunc.parametrize("refusal", self.refused, ids=[_told(row[0]) for row in self.refused])

    def test_its_fields_may_be_choices_of_a_space(self, case: Example) -> None:
        block: Any = case[0]
        assert is_dataclass(block)
        types = get_type_hints(type(block))
        assert all(types[field.name] in (bool, int, float, str) for field in fields(block))
        assert not {field.name for field in fields(block)} & {*RESERVED}
        again = replace(block)  # type: ignore[type-var]
        assert again == block and hash(again) == hash(block), "a block is a value: costs are remembered by it"

    def test_costs_that_are_remembered_are_those_of_the_graph(self, case: Example) -> None:
        block, shapes = case
        found, shipped = summary(block, shapes), graph_of(case).deployed()
        assert (found.params, found.macs, found.shape) == (shipped.params, shipped.macs, shipped.output.shape)
        kernels: Counter[Kernel] = Counter(node.key for node in shipped.work)
        assert Counter(dict(found.kernels)) == kernels
        assert found.pointers == sum(node.op.pointers(*node.shapes) for node in shipped.work)
        assert found.peak((True,) * len(shapes)) == shipped.peak_bytes

    @torch.no_grad()
    def test_deployment_changes_no_number(self, case: Example) -> None:
        graph = graph_of(case)
        trained = randomise(build(graph))
        shipped, weights = deploy(graph, trained.state_dict())
        module = build(shipped).eval()
        module.load_state_dict(weights)
        inputs = example(graph, batch=2)
        expected = trained(*inputs)
        assert expected.shape == (2, *graph.output.shape)
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(module(*inputs), expected, rtol=0, atol=1e-4 * scale)

    @torch.no_grad()
    def test_it_works_on_maps_of_other_sizes(self, case: Example) -> None:
        """Which no map of whole windows or patches need be."""
        _, shapes = case
        if not isinstance(shapes[0], Map):
            return
        graph = graph_of(case)
        module = build(graph).eval()
        for more in (1, shapes[0].h // 2, -(shapes[0].h // 4), -(shapes[0].h // 2)):
            others = [Map(x.c, x.h + more, x.w + more) if isinstance(x, Map) else x for x in shapes]
            made, like = module(*[torch.zeros(1, *x) for x in others]), graph.output.shape
            assert made.numel() and made.ndim == 1 + len(like)
            assert made.shape[1 if isinstance(like, Map) else -1] == like.c
            with suppress(SpaceError):  # an op that deploys at some sizes alone may train at others
                assert made.shape == (1, *graph.on(*others).output.shape)

    def test_each_op_with_weights_has_a_role(self, case: Example) -> None:
        nodes = [node for node in graph_of(case).nodes if node.params]
        for node in nodes:
            role = node.name.rpartition(".")[2]
            assert not re.fullmatch(rf"{type(node.op).__name__.lower()}\d+", role), f"{node.op} has no role"
        names = sorted(f"{node.name}." for node in nodes)
        assert not any(after.startswith(before) for before, after in pairwise(names))

    def test_what_has_one_name_is_one_kind_of_op(self) -> None:
        """So that weights of one block may be taken for another, whatever its fields are."""
        found: dict[tuple[type, str], type] = {}
        for block, shapes in self.examples:
            for node in graph_of((block, shapes)).nodes:
                if node.params:
                    kind = type(node.op)
                    assert found.setdefault((type(block), node.name), kind) is kind, f"{node.name} of {block}"

    def test_what_it_refuses_is_told(self, refusal: Refusal) -> None:
        block, shapes, told = refusal
        with pytest.raises(SpaceError, match=told) as caught:
            summary(block, shapes)
        assert len(str(caught.value)) <= 300

    def test_what_it_says_that_it_refuses_has_an_example(self) -> None:
        kinds = {type(block) for block, _ in self.examples}
        says = {kind.__module__ for kind in kinds if "SpaceError:" in (kind.__doc__ or "")}
        assert says - {type(block).__module__ for block, _, _ in self.refused} == set()


def graph_of(case: Example) -> Graph:
    """The block alone, as it is trained."""
    block, shapes = case
    return Graph.of(block(*[Input(shape)() for shape in shapes]))


def _told(block: Any) -> str:
    """A block by its module and fields, which are all that tells blocks apart."""
    module = type(block).__module__.rpartition(".")[2]
    return f"{module}{str(block).removeprefix(type(block).__qualname__)}"
