"""Laws of the zoo: networks have their published counts and timm's logits, and files of their blocks compute what
torch does.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import zoo_attention
import zoo_windows
from vocabulary import EXAMPLES
from zoo import BLOCKS, small

from mvnas.backends import backend
from mvnas.graph import Graph
from mvnas.latency.kinds import kind, workload
from mvnas.latency.table import read_kernel, write_op, write_shapes
from mvnas.nn import build, deploy, example
from mvnas.pretrained import from_timm
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.testing.weights import randomise
from mvnas.training.weights import calibrate, initialise


class Published(NamedTuple):
    """A network: parameters in training, MACs deployed, timm's name and settings of it, and a side to compare logits
    at.

    The side is 0 where timm has no such network.
    """

    params: int
    macs: float  # in millions
    timm: str = ""
    side: int = 64
    settings: dict[str, Any] = {}  # noqa: RUF012
    within: float = 1e-8  # of timm's logits, in float64


NETWORKS = {
    "mobilenetv2_100": Published(3_504_872, 300.8),
    "mobilenetv3_large_100": Published(5_483_032, 216.6),
    "efficientnetv2_b0": Published(7_139_704, 718.1, "tf_efficientnetv2_b0"),
    "efficientnetv2_b1": Published(8_141_052, 1196.8, "tf_efficientnetv2_b1"),
    "efficientnetv2_b2": Published(10_096_086, 1697.5, "tf_efficientnetv2_b2", 70),
    "efficientnetv2_b3": Published(14_358_406, 3011.5, "tf_efficientnetv2_b3"),
    "efficientnetv2_s": Published(21_458_488, 8365.6, "tf_efficientnetv2_s"),
    "efficientnet_lite0": Published(4_652_008, 385.2, side=0),
    "efficientnet_lite1": Published(5_416_680, 600.2, side=0),
    "efficientnet_lite2": Published(6_092_072, 859.7, side=0),
    "mobileone_s0": Published(5_293_272, 275.1),
    "repvit_m0_9": Published(5_103_560, 815.6, within=1e-5),
    "repvit_m1_0": Published(6_852_900, 1106.1, within=1e-5),
    "repvit_m1_1": Published(8_288_888, 1337.1, within=1e-5),
    "fastvit_t8": Published(4_026_232, 685.2),
    "efficientformer_l1": Published(12_289_928, 1290.8, side=224),
    "efficientformer_l3": Published(31_406_000, 3906.1, side=224),
    "efficientformerv2_s0": Published(3_600_256, 395.7, side=224),
    "efficientformerv2_s1": Published(6_185_560, 651.7, side=224),
    "efficientformerv2_s2": Published(12_710_112, 1246.6, side=224),
}
DEPLOYED = {"mobileone_s0": 2_078_504, "repvit_m0_9": 5_067_056, "repvit_m1_0": 6_810_312, "repvit_m1_1": 8_244_312}

NETWORKS |= {name: Published(*row) for name, row in (zoo_windows.NETWORKS | zoo_attention.NETWORKS).items()}
DEPLOYED |= zoo_windows.DEPLOYED


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_the_published_ones(name: str) -> None:
    arch = Space.load(name).arch()
    assert arch.graph().params == NETWORKS[name].params
    assert arch.macs / 1e6 == pytest.approx(NETWORKS[name].macs, abs=0.06)
    assert arch.params == DEPLOYED.get(name, arch.params)
    assert Arch.from_json(arch.to_json()) == arch


@pytest.mark.parametrize(
    ("space", "points"),
    [
        ("mobilenetv2", ["mobilenetv2_100"]),
        ("mobilenetv3", ["mobilenetv3_large_100"]),
        ("efficientnetv2", ["efficientnetv2_b0", "efficientnetv2_b1", "efficientnetv2_b2", "efficientnetv2_b3"]),
        ("efficientnet_lite", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]),
        ("mobileone", ["mobileone_s0"]),
        ("repvit", ["repvit_m0_9", "repvit_m1_0", "repvit_m1_1"]),
        ("fastvit", ["fastvit_t8"]),
        ("efficientformer", ["efficientformer_l1", "efficientformer_l3"]),
        ("efficientformerv2", ["efficientformerv2_s0", "efficientformerv2_s2"]),
        *zoo_windows.POINTS.items(),
        *zoo_attention.POINTS.items(),
    ],
)
def test_published_networks_are_points_of_the_space_of_their_system(space: str, points: list[str]) -> None:
    found = Space.load(space)
    assert [name for name in points if found.locate(Space.load(name).arch()) is None] == []


def test_kernels_are_priced_by_their_kind_and_kept_in_tables() -> None:
    """Those of a kind have sizes and work of one form, as a regression needs; every kernel is what its text says."""
    single = [Graph.single(op, shapes).deployed().output for op, shapes, _ in EXAMPLES]
    kernels = [node.key for node in single if node.inputs]
    for name in NETWORKS:
        kernels += [kernel for row in Space.load(name).arch().summaries for kernel, _ in row.kernels]
    forms: dict[str, tuple[int, ...]] = {}
    for kernel in kernels:
        assert read_kernel(write_op(kernel[0]), write_shapes(kernel[1])) == kernel
        load = workload(kernel)
        form = (len(load.sizes), len(load.products), len(load.others))
        assert forms.setdefault(kind(kernel), form) == form
        assert min(load.sizes) > 0


@pytest.mark.parametrize("name", [name for name, known in NETWORKS.items() if known.side])
@torch.no_grad()
def test_logits_are_those_of_timm(timm: ModuleType, name: str) -> None:
    known, arch = NETWORKS[name], Space.load(name).arch()
    torch.manual_seed(0)
    theirs = randomise(timm.create_model(known.timm or name, **known.settings))
    x = torch.randn(2, 3, known.side, known.side, generator=torch.Generator().manual_seed(0))
    calibrate(theirs, [x])  # or random weights would make numbers beyond all bounds
    ours = build(arch.graph()).eval()
    ours.load_state_dict(from_timm(name, theirs.state_dict()))
    expected = theirs.double()(x.double())  # orders of sums do not matter then
    assert expected.std() > 0.05
    torch.testing.assert_close(ours.double()(x.double()), expected, rtol=0, atol=known.within)


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("kind", BLOCKS)
def test_files_compute_what_torch_does(kind: str, side: int, tmp_path: Path) -> None:
    graph = small(BLOCKS[kind], side).graph()
    trained = randomise(build(graph))
    shipped, weights = deploy(graph, trained.state_dict())
    inputs = example(graph)
    with torch.no_grad():
        truth = trained(*inputs).numpy()
    for name, ranks in (("tflite", "tensor_ranks"), ("onnx", ""), ("coreml", "axes")):
        runtime = backend(name)
        path = tmp_path / f"network{runtime.suffix}"
        runtime.export(shipped, path, weights)
        if ranks:
            assert max(getattr(import_module(f"mvnas.backends.{name}"), ranks)(path)) <= 4
        if name != "coreml":
            (y,) = runtime.run(path, [x.numpy() for x in inputs])
            assert np.abs(y - truth).max() <= 1e-4 * max(1, np.abs(truth).max())


def test_a_fresh_repmixer_changes_nothing() -> None:
    """Its layer scale begins near 0, and its norm is subtracted (arXiv:2303.14189, eq. 2)."""
    module = build(small(BLOCKS["fastvit"], 64).graph())
    initialise(module, seed=0)
    state = module.state_dict()
    scales = torch.cat([value for key, value in state.items() if key.endswith("branches.sum0.scale")])
    norms = torch.cat([value for key, value in state.items() if key.endswith("branches.sum0.branches.norm1.weight")])
    assert (scales == torch.tensor(1e-5)).all() and (norms == -1).all()
