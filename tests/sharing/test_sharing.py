"""Laws of shared weights: a candidate computes with views of a larger network's weights what it computes with copies of
them, gradients reach these and no others, and what cannot be shared is refused.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.func import functional_call

from mvnas.errors import SpaceError
from mvnas.graph import Graph
from mvnas.nn import build
from mvnas.ops import Affine, LayerNorm, Linear
from mvnas.sharing import Slice, filled, plan, views
from mvnas.spaces.space import Space

SPACES = {  # of each kind that is shared, with all that is elastic in it; several values are a choice
    "inverted_residual": "inverted_residual channels=8,12 stride=2 expand=1,2,3 repeat=1,2",
    "mbconv": (
        "mbconv channels=8,16 kernel=3,5 stride=2 expand=1,2 se=hidden repeat=1,2; "
        "mbconv channels=8,16 stride=2 expand=2,3 se=input"
    ),
    "fused_mbconv": "fused_mbconv channels=8,16 kernel=3,5 stride=2 expand=2,3 repeat=1,2",
    "mobilevit": "mobilevit dim=8,16,24 layers=1,2 heads=2,4 patch=2,4 mlp=1,2",
    "mobilevitv2": "mobilevitv2 dim=8,12 layers=1,2 patch=2,4 mlp=1,2",
    "kinds": "mobilevit|mobilevitv2 dim=8,16 layers=1,2",
    "repvit": "repvit expand=1,2; repvit channels=8,16 stride=2 repeat=1,2",
    "mobileone": "mobileone channels=12,16 stride=2 branches=1,3",
    "tiny_vit": "tiny_vit window=4,8 head_width=4 mlp=1,2 repeat=1,2",
    "efficientformer": (
        "efficientformer_pool channels=8,16 stride=2 expand=1,2; "
        "efficientformer_attention heads=2,4 key=4,8 side=8 expand=1,2; classifier norm=layer copies=2 classes=5"
    ),
    "elasticvit": "elasticvit values=2,3 head_width=4 mlp=1,2",
    "efficientvit": "efficientvit channels=8,16 stride=2 repeat=1,2 width=4 expand=1,2 kernel=3,5",
    "turbovit": "turbovit window=4 head_width=4 mlp=1,2 repeat=1,2",
}
REFUSED = {  # what cannot be shared, and what is said of it
    "fused_mbconv": (
        "fused_mbconv channels=8 stride=2 expand=1,4",
        r"stage1\.0\.fused_mbconv\.expand cannot share weights: a block must end as it does in the larger network",
    ),
    "slice": (
        "fmvit low=0.5,0.75 groups=1 head_width=2",
        r"fmvit\.slice0 cannot share weights: an op must say how it shares weights .* but Slice does not",
    ),
    "groups": (
        "efficientvit width=2,4",
        r"efficientvit\.attention\.query\.mix cannot share weights: groups of channels must be as wide",
    ),
    "branch": (
        "mobileone channels=8,16; mobileone channels=8,24",
        r"mobileone\.pointwise cannot share weights: each weight must be in the larger network too",
    ),
    "kernels": (
        "conv channels=8 kernel=2,3 same=yes",
        r"stage1\.0\.conv\.conv cannot share weights: kernels must be both odd or both even",
    ),
    "heads": (
        "conv channels=8; tiny_vit window=4 head_width=2,4",
        r"tiny_vit\.attention\.attend cannot share weights: heads must be heads of the larger network, but 4 of 2",
    ),
    "patches": ("edgevit rate=2,4 heads=1", "edgevit.spread cannot share weights: patches must be as large"),
}


def rows(text: str) -> Iterator[dict[str, Any]]:
    """Rows of a space behind a convolution: `kind|kind key=value,value; ...`."""
    yield {"block": "conv", "channels": [4, 8], "stride": 2}
    for row in text.split("; "):
        kinds, *fields = row.split()
        values = {key: yaml.safe_load(f"[{told}]") for key, _, told in (field.partition("=") for field in fields)}
        fixed = {key: options if len(options) > 1 else options[0] for key, options in values.items()}
        yield {"block": kinds.split("|") if "|" in kinds else kinds, **fixed}
    if "classes" not in text:
        yield {"block": "head", "channels": [8, 16], "classes": 5}


@cache
def space(name: str) -> Space:
    return made(SPACES[name])


def made(text: str) -> Space:
    return Space.from_data({"resolution": 32, "stages": list(rows(text))}, source="test")


def largest(space: Space) -> list[Graph]:
    """The networks that have every kind of every row."""
    found = []
    for turn in range(max(len(row.stages) for row in space.rows)):
        rows = {f"{i}.block": row.stages[turn].kind for i, row in enumerate(space.rows) if len(row.stages) > 1}
        found.append(space.at(space.ends[1] | rows).graph())
    return found


def drawn(space: Space, count: int) -> list[dict[str, Any]]:
    generator = random.Random(3)
    some = [{name: generator.choice(values) for name, values in space.choices.items()} for _ in range(count)]
    return [space.ends[0], *some]


def weights_of(graphs: list[Graph]) -> dict[str, Tensor]:
    """Weights that all differ, in float64, those of convolutions and linear layers of a size that keeps values."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for graph in graphs:
        for name, weight in build(graph).double().state_dict().items():
            if weight.is_floating_point() and name not in found:
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                shift = 0.5 + noise.abs() / 5 if weight.ndim == 1 else noise / weight[0].numel() ** 0.5
                found[name] = shift.requires_grad_("running" not in name)
            found.setdefault(name, weight)
    return found


@pytest.mark.parametrize("name", SPACES)
def test_views_compute_what_copies_do_and_gradients_reach_them_alone(name: str) -> None:
    graphs = largest(space(name))
    weights = weights_of(graphs)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for picks in drawn(space(name), 2):
        graph = space(name).at(picks).graph()
        slices = plan(graphs, graph).slices
        module, copy = build(graph).double(), build(graph).double()
        assert slices.keys() == module.state_dict().keys()
        copy.load_state_dict(filled(slices, weights, copy.state_dict()))
        for mode in (False, True):
            module.train(mode), copy.train(mode)
            trained = {key: weight for key, weight in weights.items() if weight.requires_grad}
            taken = views(
                slices, {key: weight if weight.requires_grad else weight.clone() for key, weight in weights.items()}
            )
            shared, own = functional_call(module, taken, (x,), strict=True), copy(x)
            assert torch.equal(shared, own) and shared.std() > 0
            grads = torch.autograd.grad(shared.square().sum(), [*trained.values()], allow_unused=True)
            expected = torch.autograd.grad(own.square().sum(), [*copy.parameters()])
            reached = dict(zip([key for key, _ in copy.named_parameters()], expected, strict=True))
            spread = spread_out({key: slices[key] for key in reached}, reached, trained)
            for (key, weight), grad in zip(trained.items(), grads, strict=True):
                known = weight.new_zeros(weight.shape) if grad is None else grad
                assert torch.allclose(known, spread[key], rtol=1e-9, atol=1e-12), key
                assert (known[spread[key] == 0] == 0).all(), key


def spread_out(
    slices: Mapping[str, Slice], small: Mapping[str, Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights of the larger network with those of a smaller one in their places, and zeros elsewhere."""
    found = {key: torch.zeros_like(weight) for key, weight in like.items()}
    for key, part in slices.items():
        places = torch.meshgrid(*map(torch.tensor, part.axes or [(0,)]), indexing="ij")
        found[part.source].view(-1 if not part.axes else found[part.source].shape)[places] = small[key].detach()
    return found


EXACT = [name for name in SPACES if name not in ("repvit", "mobileone")]  # their sums keep channels where widths agree


@pytest.mark.parametrize("name", EXACT)
def test_a_candidate_is_the_larger_network_with_zeros_where_it_has_nothing(name: str) -> None:
    """With affine maps in place of layer norms, which see how many channels there are, and a larger network as deep."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    widths = 0
    for picks in drawn(space(name), 4):
        picks = {key: max(2, value) if key.endswith("expand") else value for key, value in picks.items()}
        same = {
            key: value
            for key, value in picks.items()
            if key.rpartition(".")[2] in ("layers", "repeat", "patch", "block", "window", "branches")
        }
        if name == "mobilevit" and picks["1.mobilevit.heads"] < 4 and picks["1.mobilevit.dim"] > 8:
            continue  # heads that are wider than the larger network's are no heads of it
        small, large = (plain(space(name).at(one).graph()) for one in (picks, space(name).ends[1] | same))
        slices = plan(large, small).slices
        module, whole = build(small).double().eval(), build(large).double().eval()
        known = weights_of([large])
        module.load_state_dict(filled(slices, known, module.state_dict()))
        whole.load_state_dict(spread_out(slices, module.state_dict(), known))
        with torch.no_grad():
            got, wanted = module(x), whole(x)
        assert (wanted[0] - wanted[1]).abs().max() > 1e-6
        assert torch.allclose(got, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
        widths += small.params < large.params
    assert widths > 1


def plain(graph: Graph) -> Graph:
    """The same network with affine maps in place of layer norms, and no gains."""

    def ungained(op: Any) -> Any:
        if isinstance(op, LayerNorm):
            return Affine()
        return replace(op, gain=1.0) if isinstance(op, Linear) else op

    return Graph(tuple(node._replace(op=ungained(node.op)) for node in graph.nodes), graph.outputs)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_refused_by_its_name(name: str) -> None:
    text, told = REFUSED[name]
    small, large = (made(text).at(end).graph() for end in made(text).ends)
    with pytest.raises(SpaceError, match=told):
        plan(large, small)
    lenient = plan(large, small, strict=False)
    assert lenient.slices.keys() < build(small).state_dict().keys()


def test_heads_are_whole_heads_kernels_the_centre_and_joined_channels_have_offsets() -> None:
    found = space("mobilevit")
    large = found.at(found.ends[1]).graph()
    small = found.at({**found.ends[1], "0.conv.channels": 4, "1.mobilevit.dim": 8}).graph()
    slices = plan(large, small).slices
    query = slices["stage1.0.mobilevit.layers.0.attention.query.weight"]
    assert query.axes == ((0, 1, 6, 7, 12, 13, 18, 19), range(8))
    assert slices["stage1.0.mobilevit.fuse.conv.weight"].axes[1] == (0, 1, 2, 3, 8, 9, 10, 11)
    found = space("mbconv")
    slices = plan(found.at(found.ends[1]).graph(), found.at({**found.ends[1], "1.mbconv.kernel": 3}).graph()).slices
    assert slices["stage1.0.mbconv.depthwise.conv.weight"].axes[2:] == (range(1, 4), range(1, 4))


def test_a_wider_deeper_network_takes_what_there_is_and_keeps_fresh_weights_beside_it() -> None:
    found = space("mobilevit")
    small, large = (found.at(end).graph() for end in found.ends)
    told = plan(small, large, strict=False)
    fresh = {key: torch.full(value.shape, -1.0) for key, value in build(large).state_dict().items()}
    weights = {key: torch.ones(value.shape) for key, value in build(small).state_dict().items()}
    made = filled(told.slices, weights, fresh)
    local = made["stage1.0.mobilevit.local.conv.weight"]
    assert (local[:4, :4] == 1).all() and (local[4:] == -1).all() and (local[:, 4:] == -1).all()
    assert (made["stage1.0.mobilevit.layers.1.mlp.expand.weight"] == -1).all()
    assert "stage1.0.mobilevit.layers.1.mlp.expand" in told.refused
    assert all((value == -1).all() for value in fresh.values()), "fresh weights are left as they were"
