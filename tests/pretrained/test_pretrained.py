"""Laws of pre-trained weights: timm's networks, loaded here, give timm's numbers; any other weights are refused."""

from __future__ import annotations

import io
import pickle
import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mvnas.errors import ExportError
from mvnas.nn import build
from mvnas.ops import Branched, Op, State
from mvnas.pretrained import from_timm, read_weights
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.testing.weights import randomise
from mvnas.training.weights import calibrate

XXS = "mobilevit_xxs"
MOBILEVITS = [XXS, "mobilevit_xs", "mobilevit_s"]  # test_zoo.py has the others


@pytest.fixture(scope="module")
def checkpoint(timm: ModuleType) -> State:
    """timm's weights of MobileViT-XXS."""
    return dict(randomise(timm.create_model(XXS)).state_dict())


def with_weights(arch: Arch, state: State) -> torch.fx.GraphModule:
    module = build(arch.graph()).eval()
    module.load_state_dict(state)
    return module


@pytest.mark.parametrize("name", MOBILEVITS)
@torch.no_grad()
def test_outputs_are_those_of_timm_at_any_size(timm: ModuleType, name: str) -> None:
    theirs = randomise(timm.create_model(name))
    ours = with_weights(Space.load(name).arch(), from_timm(name, theirs.state_dict()))
    for size in ((256, 256), (224, 224), (160, 288)):
        x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        expected = theirs(x)
        assert expected.std() > 0.05
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MOBILEVITS)
def test_counts_are_those_of_timm(timm: ModuleType, name: str) -> None:
    arch = Space.load(name).arch()
    with torch.device("meta"):
        theirs, x = timm.create_model(name).eval(), torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        theirs(x)
    assert arch.graph().params == sum(weight.numel() for weight in theirs.parameters())
    assert 2 * arch.macs == counter.get_total_flops()


def test_classes_are_those_of_the_checkpoint(timm: ModuleType, tmp_path: Path) -> None:
    theirs = randomise(timm.create_model(XXS, num_classes=7))
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    arch, state = read_weights(Space.load(XXS).arch(), tmp_path / "timm.safetensors")
    x = torch.randn(2, 3, 64, 64)
    assert arch == Space.load(XXS).arch().with_classes(7)
    torch.testing.assert_close(with_weights(arch, state)(x), theirs(x), rtol=0, atol=1e-5)


def test_a_file_of_ours_is_read_as_it_was_written(tmp_path: Path) -> None:
    arch = Space.load("mobilevit").sample(lambda name, options: options[0]).with_classes(3)
    written = dict(randomise(build(arch.graph())).state_dict())
    save_file(written, tmp_path / "ours.safetensors")
    found, state = read_weights(arch.with_classes(1000), tmp_path / "ours.safetensors")
    assert found == arch
    assert state.keys() == written.keys()
    assert all(torch.equal(state[key], written[key]) for key in written)


def earlier_names(arch: Arch) -> dict[str, str]:
    """The names that nodes had before they had roles: block, kind of op, and its place in the block."""
    names, begins = {}, {}
    for place, node in enumerate(arch.graph().nodes):
        begins.setdefault(node.block, place)
        names[node.name] = f"block{node.block}.{type(node.op).__name__.lower()}{place - begins[node.block]}"
    return names


def by_place(op: Op | None, key: str) -> str:
    """The key of a weight of an op where branches of sums were called by their places."""
    if not isinstance(op, Branched) or not key.startswith("branches."):
        return key
    _, name, leaf = key.split(".", 2)
    place = op.parts.index(name)
    return f"branches.{place}.{by_place(op.branches[place], leaf)}"


@pytest.mark.parametrize("named", [True, False], ids=["roles", "places"])
@pytest.mark.parametrize("name", ["mobilevit", "hybrid", "fastervit", "fastvit", "mobileone", "repvit"])
def test_files_are_read_by_the_names_that_nodes_had(name: str, named: bool, tmp_path: Path) -> None:
    arch = Space.load(name).sample(lambda name, options: options[-1]).with_classes(3)
    module = dict(build(arch.graph()).state_dict())
    written = {}
    earlier = earlier_names(arch)
    for node in arch.graph().nodes:
        start, began = f"{node.name}.", node.name if named else earlier[node.name]
        own = {key.removeprefix(start): w for key, w in module.items() if key.startswith(start)}
        written |= {f"{began}.{by_place(node.op, key)}": weight for key, weight in own.items()}
    assert len(written) == len(module)
    save_file(written, tmp_path / "earlier.safetensors")
    state = read_weights(arch, tmp_path / "earlier.safetensors")[1]
    assert list(state) == list(module)
    assert all(torch.equal(state[key], module[key]) for key in module)


def test_files_are_read_whatever_rows_made_the_blocks(tmp_path: Path) -> None:
    arch = Space.load("mobilevit").sample(lambda name, options: options[0])
    alone = replace(arch, rows=())
    assert alone == arch and alone.names != arch.names
    written = dict(build(arch.graph()).state_dict())
    save_file(written, tmp_path / "rows.safetensors")
    state = read_weights(alone, tmp_path / "rows.safetensors")[1]
    assert list(state) == list(build(alone.graph()).state_dict())
    assert all(torch.equal(one, other) for one, other in zip(state.values(), written.values(), strict=True))
    fewer = {key: value for key, value in written.items() if not key.startswith(arch.names[1])}
    save_file(fewer, tmp_path / "fewer.safetensors")
    with pytest.raises(ExportError, match="fewer.safetensors: weights must be of 11 blocks, but are of 10"):
        read_weights(arch, tmp_path / "fewer.safetensors")


def test_a_converted_checkpoint_can_be_written_and_read_again(checkpoint: State, tmp_path: Path) -> None:
    state = from_timm(XXS, checkpoint)
    save_file(state, tmp_path / "converted.safetensors")
    again = read_weights(Space.load(XXS).arch(), tmp_path / "converted.safetensors")[1]
    assert all(torch.equal(state[key], again[key]) for key in state)


def test_an_older_checkpoint_without_step_counts_is_whole(checkpoint: State) -> None:
    older = {key: value for key, value in checkpoint.items() if not key.endswith("num_batches_tracked")}
    with_weights(Space.load(XXS).arch(), from_timm(XXS, older))


QKV, HEAD = "stages.2.1.transformer.0.attn.qkv.weight", "head.fc.weight"


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("mobilevit_sx", {}, "unknown network 'mobilevit_sx'; did you mean 'mobilevit_s'"),
        ("mobilevit", {}, "unknown network 'mobilevit'"),
        (
            "mobilevit_xs",
            {},
            "weight must be of shape (64, 16, 1, 1), but is (32, 16, 1, 1); the weights are of another",
        ),
        (XXS, {QKV: None}, f"{QKV} must be of shape (192, 64), but is missing"),
        (XXS, {QKV: torch.zeros(191, 64)}, f"{QKV} must be of shape (192, 64), but is (191, 64)"),
        (XXS, {HEAD: None}, f"weights must hold a classifier, {HEAD}, but have none"),
        (XXS, {HEAD: torch.zeros(())}, f"{HEAD} must be of shape (1000, 320), but is ()"),
        (XXS, {"head.fc.bias": torch.zeros(5)}, "head.fc.bias must be of shape (1000,), but is (5,)"),
        (
            XXS,
            {"stages.5.0.bias": torch.zeros(5)},
            "must all belong to the network, but stages.5.0.bias does not",
        ),
    ],
)
def test_weights_of_another_network_are_refused(
    checkpoint: State, name: str, change: dict[str, torch.Tensor | None], told: str
) -> None:
    weights = {key: value for key, value in (checkpoint | change).items() if value is not None}
    with pytest.raises(ExportError, match=re.escape(told)):
        from_timm(name, weights)


def test_timm_weights_go_into_no_network_with_other_heads(checkpoint: State, tmp_path: Path) -> None:
    rows = Space.load(XXS).arch().to_json()
    rows["blocks"][6]["heads"] = 8  # of the same shapes, but of another function
    save_file(checkpoint, tmp_path / "timm.safetensors")
    with pytest.raises(ExportError, match=r"timm.safetensors holds timm's weights, which must go into one of"):
        read_weights(Arch.from_json(rows), tmp_path / "timm.safetensors")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("repvit_m0_9", {"distillation": False}),
        ("repvit_m0_9", {"num_classes": 7}),
        ("efficientformerv2_s0", {"distillation": False}),
        ("tiny_vit_5m_224", {}),
    ],
)
@torch.no_grad()
def test_networks_are_those_of_timm_however_many_heads_and_classes(
    timm: ModuleType, name: str, settings: dict[str, Any]
) -> None:
    """timm's default of TinyViT has the 21,841 classes that it was trained on; RepViT has a head for a teacher's
    labels.
    """
    theirs = randomise(timm.create_model(name, **settings))
    arch = Space.load(name).arch().with_classes(theirs.num_classes)
    x = torch.randn(2, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(0))
    calibrate(theirs, [x])
    ours = with_weights(arch, from_timm(name, theirs.state_dict()))
    expected = theirs.double()(x.double())
    assert expected.std() > 0.05
    torch.testing.assert_close(ours.double()(x.double()), expected, rtol=0, atol=1e-5)


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "data parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled in parallel": lambda state: {"model": {f"module._orig_mod.{key}": value for key, value in state.items()}},
    "timm's trainer": lambda state: {
        "epoch": 3,
        "arch": XXS,
        "args": Namespace(lr=0.1),
        "optimizer": {"state": {}},
        "state_dict": {key: 0 * value for key, value in state.items()},
        "state_dict_ema": state,
    },
    "DeiT's": lambda state: {
        "model": {key: 0 * value for key, value in state.items()},
        "model_ema": state,
        "metric": 0.7,
    },
    "Lightning's": lambda state: {
        "state_dict": {f"model.{key}": value for key, value in state.items()},
        "global_step": 9,
    },
    "averaged": lambda state: {
        "n_averaged": torch.tensor(4),
        **{f"module.{key}": value for key, value in state.items()},
    },
    "half": lambda state: {key: value.half() if value.ndim else value for key, value in state.items()},
}


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin"])
@pytest.mark.parametrize("how", WRAPPED)
def test_checkpoints_are_read_however_they_are_wrapped(checkpoint: State, tmp_path: Path, name: str, how: str) -> None:
    torch.save(WRAPPED[how](checkpoint), tmp_path / name, _use_new_zipfile_serialization=name != "w.pt")
    _, state = read_weights(Space.load(XXS).arch(), tmp_path / name)
    for key, value in from_timm(XXS, checkpoint).items():
        assert state[key].dtype == value.dtype
        torch.testing.assert_close(state[key], value, rtol=0, atol=1e-3 if how == "half" else 0)


def saved(content: Any, *, zipped: bool = True) -> bytes:
    """What `torch.save` writes."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.pth"])
def test_a_file_that_holds_no_weights_is_told_and_no_code_of_it_runs(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arch, path = Space.load(XXS).arch(), tmp_path / name
    with pytest.raises(ExportError, match=rf"{name} cannot be read"):
        read_weights(arch, path)
    for content, told in (
        (saved({"stem.conv.weight": [1.0], "epoch": 3}), "there are none"),
        (saved({"model": Evil()}), "holds objects that only code could make, or is damaged"),
        (saved({"model": Evil()}, zipped=False), "holds objects that only code could make, or is damaged"),
        (pickle.dumps({"model": Evil()}, protocol=2), "or is damaged"),
        (saved(dict.fromkeys("ab", torch.ones(9)))[:-99], "or is damaged"),
        (b"PK\x03\x04 no archive", "or is damaged"),
        (b"\x80", "or is damaged"),
        (b"", "cannot be read as one"),
        (b"{}", "cannot be read as one"),
    ):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=told) as caught:
            read_weights(arch, path)
        assert len(str(caught.value)) <= 300 + len(str(tmp_path))
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ExportError, match=r"save torch.load\(FILE, weights_only=False\).state_dict\(\) anew"):
        read_weights(arch, path)
    assert not (tmp_path / "ran").exists()


def test_weights_without_a_classifier_are_told(checkpoint: State, tmp_path: Path) -> None:
    torch.save({key: value for key, value in checkpoint.items() if "head" not in key}, tmp_path / "features.pth")
    with pytest.raises(
        ExportError, match="features.pth: weights must hold a classifier, head.fc.weight, but have none"
    ):
        read_weights(Space.load(XXS).arch(), tmp_path / "features.pth")


def test_a_second_head_that_does_not_fit_is_told(timm: ModuleType) -> None:
    weights = dict(timm.create_model("repvit_m0_9").state_dict())
    weights["head.head_dist.l.bias"] = torch.zeros(5)
    with pytest.raises(ExportError, match=r"weights must all belong to the network, but head.head_dist"):
        from_timm("repvit_m0_9", weights)


def test_a_file_of_ours_for_another_network_names_file_and_key(tmp_path: Path) -> None:
    save_file(build(Space.load("mobilevit_xs").arch().graph()).state_dict(), tmp_path / "xs.safetensors")
    with pytest.raises(
        ExportError, match=r"xs.safetensors: stage1.0.inverted_residual.expand.conv.weight must be of shape"
    ):
        read_weights(Space.load(XXS).arch(), tmp_path / "xs.safetensors")
