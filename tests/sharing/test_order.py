"""Laws of the order of channels: a network computes what it did, and what is read most comes first."""

from __future__ import annotations

import pytest
import torch
from zoo import BLOCKS, OTHERS, small

from mvnas.nn import build, example
from mvnas.ops import Conv
from mvnas.sharing import ordered
from mvnas.testing.weights import randomise

FIXED = ("fmvit",)  # all of whose channels are tied to some that are cut or joined


@pytest.mark.parametrize("kind", [*BLOCKS, *OTHERS])
@torch.no_grad()
def test_a_network_computes_what_it_did(kind: str) -> None:
    graph = small((BLOCKS | OTHERS)[kind], 64).graph()
    before, after = randomise(build(graph)).double().eval(), build(graph).double().eval()
    state = before.state_dict()
    made = ordered(graph, state)
    after.load_state_dict(made)
    x = [image.double() for image in example(graph)]
    torch.testing.assert_close(after(*x), before(*x), rtol=0, atol=1e-9)
    assert any(not torch.equal(made[name], state[name]) for name in state) == (kind not in FIXED)


def test_channels_that_are_read_most_come_first() -> None:
    graph = small("mbconv channels=16 kernel=3 expand=3 stride=2", 64).graph()
    state = ordered(graph, randomise(build(graph)).state_dict())
    (reads,) = [node for node in graph.nodes if node.name.endswith("project")]
    made = graph.nodes[reads.inputs[0]]
    assert isinstance(made.op, Conv) and made.op.depthwise(made.shapes[0])
    worth = state[f"{reads.name}.conv.weight"].abs().sum((0, 2, 3)) * state[f"{made.name}.norm.weight"].abs()
    assert len(worth) == 48 and torch.equal(worth, worth.sort(descending=True).values)
