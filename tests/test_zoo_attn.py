"""Laws of the zoo for networks of attention: published counts, the logits of references, files that compute what torch does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import randomise
from test_zoo import Published, small

from mvnas.backends import backend, coreml, tflite
from mvnas.errors import SpaceError
from mvnas.nn import build, deploy, example
from mvnas.pretrained import from_timm
from mvnas.space import Space

NETWORKS = {
    "mobilevitv2_050": Published(1_370_593, 464.8, side=256),
    "mobilevitv2_075": Published(2_866_009, 1028.4),
    "mobilevitv2_100": Published(4_901_841, 1812.6),
    "mobilevitv2_125": Published(7_478_089, 2817.6),
    "mobilevitv2_150": Published(10_594_753, 4043.2),
    "mobilevitv2_175": Published(14_251_833, 5489.7),
    "mobilevitv2_200": Published(18_449_329, 7156.8),
    # timm multiplies keys by a column of ones where we add them up: 0.1 to 1.1 million MACs more
    "efficientvit_b0": Published(3_410_008, 100.2, side=224),
    "efficientvit_b1": Published(9_102_024, 519.0),
    "efficientvit_b2": Published(24_330_712, 1584.4),
    "efficientvit_b3": Published(48_646_056, 3952.8),
    "efficientvit_l1": Published(52_654_088, 5258.2),
}
BLOCKS = {  # small stages of each block, behind a convolution to 16 channels at half the size
    "mobilevitv2": "conv channels=16 stride=2, mobilevitv2 dim=12 layers=2, mobilevitv2 dim=16 layers=1 patch=4 mlp=1.5",
    "efficientvit": "residual act=gelu_tanh, efficientvit channels=32 stride=2, efficientvit channels=32, "
    "efficientvit channels=32 width=8 kernel=3 expand=2.0 act=gelu_tanh, efficientvit_head channels=24 hidden=20 classes=5",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_the_published_ones(name: str) -> None:
    arch = Space.load(name).arch()
    assert arch.graph().params == NETWORKS[name].params
    assert arch.macs / 1e6 == pytest.approx(NETWORKS[name].macs, abs=0.06)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("edgevit")])
@torch.no_grad()
def test_logits_are_those_of_timm(timm: ModuleType, name: str) -> None:
    known, arch = NETWORKS[name], Space.load(name).arch()
    torch.manual_seed(0)
    theirs = randomise(timm.create_model(known.timm or name, **known.settings))
    ours = build(arch.graph()).eval()
    ours.load_state_dict(from_timm(name, theirs.state_dict()))
    x = torch.randn(1, 3, known.side, known.side, generator=torch.Generator().manual_seed(0))
    expected = theirs(x)
    assert expected.std() > 0.05
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("kind", BLOCKS)
def test_files_compute_what_torch_does(kind: str, side: int, tmp_path: Path) -> None:
    graph = small(BLOCKS[kind], side).graph()
    trained = randomise(build(graph))
    shipped, weights = deploy(graph, trained.state_dict())
    inputs = example(graph)
    with torch.no_grad():
        truth = trained(*inputs).numpy()
    for name in ("tflite", "onnx", "coreml"):
        path = tmp_path / f"network{backend(name).suffix}"
        backend(name).export(shipped, path, weights)
        if name != "coreml":
            (y,) = backend(name).run(path, [x.numpy() for x in inputs])
            assert np.abs(y - truth).max() <= 1e-4 * max(1, np.abs(truth).max())
    assert max(tflite.tensor_ranks(tmp_path / "network.tflite")) <= 4
    assert max(coreml.ranks(tmp_path / "network.mlpackage")) <= 4


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ("mobilevitv2 dim=8 layers=1 patch=64", "the patch must fit into the map, but got patch 64 on 32 x 32"),
        ("efficientvit channels=16 width=12", "a head's width must divide the channels, but got 12 for 16"),
    ],
)
def test_what_a_block_cannot_do_is_told(stages: str, told: str) -> None:
    with pytest.raises(SpaceError, match=told):
        small(stages, 64)
