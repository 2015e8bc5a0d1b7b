"""Laws of modules: what is folded for deployment computes the same, in no more than four axes, at any size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.nn import build, deploy, example, most_axes, program
from mvnas.ops import Attention, Concat, Conv, Fold, Input, LayerNorm, Map, Resize, Unfold
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published
from mvnas.testing.weights import randomise

Size = int | tuple[int, int]
SIZES = [256, 224, (160, 288)]

XXS = Space.load("mobilevit_xxs").arch()
WIDE = Space.load("mobilevit").sample(lambda name, options: 8 if 8 in options else options[0])  # patches of 8, resized


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """MobileViT-XXS with random weights, biases and statistics."""
    return randomise(build(XXS.graph()))


@pytest.mark.parametrize("name", published())
def test_published_networks_build_and_run(name: str) -> None:
    arch = Space.load(name).arch()
    graph, side = arch.graph(), arch.resolution
    with torch.device("meta"):
        module = build(graph)
        assert module(torch.empty(2, 3, side, side)).shape == (2, 1000)
    names = [node.name for node in graph.nodes if node.params]
    assert [
        name for name, _ in module.named_modules() if name in set(names)
    ] == names  # weights are drawn in this order


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_deployment_changes_no_output(trained: nn.Module, size: Size) -> None:
    graph, weights = deploy(XXS.graph(size), trained.state_dict())
    folded = build(graph).eval()
    folded.load_state_dict(weights)
    x = example(graph, seed=1, batch=2)
    expected = trained(*x)
    assert expected.std() > 0.05
    torch.testing.assert_close(folded(*x), expected, rtol=0, atol=1e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())


@torch.no_grad()
def test_a_norm_stays_with_what_is_moved_and_not_with_what_only_gives_its_size() -> None:
    x = Input(Map(8, 6, 6))()
    normed = Fold(2)(LayerNorm()(Unfold(2)(x)), x)
    graph = Graph.of(Concat()(Conv(4)(normed), Conv(4)(Resize()(x, normed))))
    module = randomise(build(graph))
    shipped, weights = deploy(graph, module.state_dict())
    folded = build(shipped).eval()
    folded.load_state_dict(weights)
    (image,) = example(graph, seed=1, batch=2)
    torch.testing.assert_close(folded(image), module(image), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_network_of_several_outputs_yields_each_and_folds() -> None:
    values = [Conv(8, 3)(Input(Map(3, 8, 8))())]
    values += [Conv(4)(values[0])]
    graph = Graph.of(*values, outputs=values)
    module = randomise(build(graph))
    shipped, weights = deploy(graph, module.state_dict())
    folded = build(shipped).eval()
    folded.load_state_dict(weights)
    (image,) = example(graph, seed=1, batch=2)
    assert (
        [tuple(y.shape[1:]) for y in module(image)]
        == [tuple(graph.nodes[i].shape) for i in graph.outputs]
        == [(8, 8, 8), (4, 8, 8)]
    )
    torch.testing.assert_close(folded(image), module(image), rtol=0, atol=1e-4)
    normed = LayerNorm()(values[0])
    ends = Graph.of(values[0], normed, Conv(4, bias=True, norm=False)(normed), outputs=[normed])
    with pytest.raises(ExportError, match="an output of a network must not be a norm's"):
        deploy(ends, build(ends).state_dict())


def test_no_tensor_of_an_exported_program_has_more_than_four_axes() -> None:
    graph, weights = deploy(WIDE.graph(), build(WIDE.graph()).state_dict())
    assert {type(node.op) for node in graph.work} >= {Unfold, Fold, Resize, Attention, Concat}
    assert most_axes(program(graph, weights)) <= 4


def test_rank_sees_intermediate_results() -> None:
    class Six(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(1, 2, 3, 1, 1, 4).permute(0, 3, 1, 2, 4, 5).flatten()

    assert most_axes(torch.export.export(Six(), (torch.zeros(2, 12),))) == 6


@pytest.mark.parametrize("size", [64, 224, (160, 288)])
@torch.no_grad()
def test_a_module_built_for_one_size_computes_others(trained: nn.Module, size: Size) -> None:
    graph = XXS.graph(size)
    built_for_size = build(graph).eval()
    built_for_size.load_state_dict(trained.state_dict())
    x = example(graph, batch=2)
    assert torch.equal(trained(*x), built_for_size(*x))


def test_a_module_trains_at_sizes_that_are_smaller_than_its_patches() -> None:
    module = build(WIDE.with_classes(5).graph()).train()
    module(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in module.parameters())


def test_examples_are_as_seeded() -> None:
    graph = XXS.graph(64)
    (x,), (again,), (other,) = (example(graph, seed=seed, batch=2) for seed in (0, 0, 1))
    assert x.shape == (2, *Map(3, 64, 64))
    assert torch.equal(x, again)
    assert not torch.equal(x, other)


def test_weights_of_another_network_are_not_deployed(trained: nn.Module) -> None:
    state = {key: value for key, value in trained.state_dict().items() if not key.startswith("stage4.0.")}
    with pytest.raises(ExportError, match=r"the weights must hold stage4.0.mobilevit.local.\*, but do not"):
        deploy(XXS.graph(), state)
