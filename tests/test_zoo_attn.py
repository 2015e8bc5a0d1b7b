"""Laws of the zoo for networks of attention: published counts, the logits of references, files that compute what torch does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import randomise
from test_zoo import Published, small
from torch.nn.functional import conv_transpose2d

from mvnas.backends import backend, coreml, tflite
from mvnas.errors import ExportError, SpaceError
from mvnas.nn import build, deploy, example
from mvnas.ops import Fold, Spread, Tokens, Unfold
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
    "efficientvit_m0": Published(2_349_436, 79.2, side=224),
    "efficientvit_m1": Published(2_980_560, 167.1, side=224),
    "efficientvit_m2": Published(4_187_554, 201.0, side=224),
    "efficientvit_m3": Published(6_900_722, 262.7, side=224),
    "efficientvit_m4": Published(8_804_228, 299.3, side=224),
    "efficientvit_m5": Published(12_473_772, 521.6, side=224),
    "edgevit_xxs": Published(4_067_704, 551.0),
    "edgevit_xs": Published(6_770_056, 1127.4),
    "edgevit_s": Published(13_108_168, 1910.5),
}
BLOCKS = {  # small stages of each block, behind a convolution to 16 channels at half the size
    "mobilevitv2": "conv channels=16 stride=2, mobilevitv2 dim=12 layers=2, mobilevitv2 dim=16 layers=1 patch=4 mlp=1.5",
    "efficientvit": "residual act=gelu_tanh, efficientvit channels=32 stride=2, efficientvit channels=32, "
    "efficientvit channels=32 width=8 kernel=3 expand=2.0 act=gelu_tanh, efficientvit_head channels=24 hidden=20 classes=5",
    "efficientvit_m_stem": "efficientvit_m_stem channels=16",
    "efficientvit_m": "conv channels=16 stride=2, efficientvit_m heads=2 kernels=53 window=4, "
    "efficientvit_m channels=32 stride=2, efficientvit_m heads=1 kernels=7 width=8 window=12, classifier norm=pooled classes=5",
    "edgevit": "edgevit heads=2 rate=4, edgevit channels=24 stride=2 rate=2 heads=1 expand=2.0, edgevit rate=1 heads=3, "
    "classifier norm=batch classes=5",
    "mpcvit": "mpcvit channels=24 stride=4 heads=2, mpcvit heads=3 form=relu_softmax scaled=1, mpcvit form=separable act=silu, "
    "mpcvit form=relu_linear mlp=1.5, mpcvit form=scaled, classifier norm=layer classes=5",
    "lookupvit": "lookupvit channels=24 stride=4 layers=2 heads=2 ratio=4, lookupvit layers=1 heads=3 ratio=2 cheap=1.0",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_the_published_ones(name: str) -> None:
    arch = Space.load(name).arch()
    assert arch.graph().params == NETWORKS[name].params
    assert arch.macs / 1e6 == pytest.approx(NETWORKS[name].macs, abs=0.06)


@pytest.mark.parametrize(
    ("space", "points"),
    [
        ("mobilevitv2", [name for name in NETWORKS if name.startswith("mobilevitv2")]),
        ("efficientvit", [f"efficientvit_b{i}" for i in range(4)]),
        ("efficientvit_m", ["efficientvit_m1"]),
        ("edgevit", ["edgevit_xxs"]),
        ("mpcvit", []),
        ("lookupvit", []),
    ],
)
def test_published_networks_are_points_of_the_space_of_their_system(space: str, points: list[str]) -> None:
    found = Space.load(space)
    assert [name for name in points if found.locate(Space.load(name).arch()) is None] == []


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
        ("mpcvit form=sofmax", "unknown form 'sofmax'; did you mean 'softmax'"),
        ("mpcvit heads=3", "heads must divide the channels, but got 3 heads for 16"),
        ("mpcvit form=separable scaled=1", "some heads must be separable, but 1 of 4 are to be only scaled"),
        ("lookupvit ratio=6", "the ratio must divide the map, but got ratio 6 on 32 x 32"),
        ("lookupvit heads=3", "heads must divide the channels, but got 3 heads for 16"),
        ("edgevit rate=3", "the rate must divide the map, but got rate 3 on 32 x 32"),
        ("efficientvit_m window=5", "windows must divide the map, but got window 5 on 32 x 32"),
        ("efficientvit_m heads=3 window=4", "3 heads must divide 16 channels and have a kernel each, but got 5555"),
        ("efficientvit_m kernels=53 window=4", "4 heads must divide 16 channels and have a kernel each, but got 53"),
        ("efficientvit_m channels=24", "channels must stay as they are at stride 1, but are 16 -> 24"),
    ],
)
def test_what_a_block_cannot_do_is_told(stages: str, told: str) -> None:
    with pytest.raises(SpaceError, match=told):
        small(stages, 64)


def test_systems_without_published_networks_have_the_counts_of_their_code() -> None:
    """ViT-Lite 7/4 of MPCViT without gates and class token (28 and 512 numbers), and LookupViT as lucidrains/vit-pytorch has it."""
    mpcvit = Space.load("mpcvit").sample(lambda _, options: options[0])
    assert mpcvit.graph().params == 3_716_902 - 28 - 512
    lookupvit = {"block": "lookupvit", "channels": 128, "stride": 8, "layers": 2, "heads": 2, "ratio": 4}
    data = {"resolution": 256, "stages": [lookupvit, {"block": "classifier", "bias": False}]}
    assert Space.from_data(data, source="test").arch().graph().params == 2_188_544


def test_weights_of_a_network_that_timm_does_not_have_are_refused() -> None:
    with pytest.raises(ExportError, match="weights of edgevit_xxs must be mvnas's own"):
        from_timm("edgevit_xxs", {"head.weight": torch.zeros(1000, 288)})


def test_spread_and_folded_tokens_are_a_depthwise_transposed_convolution() -> None:
    x, op = torch.randn(2, 6, 3, 4), Spread(2).module(Tokens(1, 12, 6))
    weight, bias = (part.data.normal_() for part in (op.weight, op.bias))
    y = Fold(2, size=(6, 8), windows=True).forward(op(Unfold(1).forward(x)))
    expected = conv_transpose2d(x, weight.T.reshape(6, 1, 2, 2), bias, stride=2, groups=6)
    torch.testing.assert_close(y, expected)
