"""Trained weights from files: those that mvnas wrote, and timm's checkpoints of the published networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mvnas.arch import Arch, kind_of
from mvnas.errors import ExportError, unknown
from mvnas.nn import build
from mvnas.ops import State
from mvnas.space import Space, published

Source = Callable[[str], tuple[str, int, int]]  # our key -> key in a file, and which of how many parts of its tensor

TIMM_STEM = "stem.conv.weight"  # tells a timm checkpoint from a file of ours
TIMM_LAYER = ("norm1", "attn.qkv", "attn.qkv", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def read_weights(arch: Arch, path: str | Path) -> tuple[Arch, State]:
    """`arch` with as many classes as the weights in a safetensors file, and these weights as its state.

    They are weights that mvnas wrote for `arch`, or timm's of the published network that `arch` is.

    Raises:
        ExportError: the file cannot be read, or its weights are of another network.
    """
    weights = _tensors(path)
    networks = [Space.load(name).arch() for name in published()]
    if TIMM_STEM in weights and arch.blocks[:-1] not in [network.blocks[:-1] for network in networks]:
        # heads and patches leave no trace in weights: they would load, and the network compute something else
        raise ExportError(f"{path} holds timm's weights, which must go into one of {', '.join(published())}")
    try:
        return _fill(arch, weights, _timm_source(arch) if TIMM_STEM in weights else lambda key: (key, 0, 1))
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None


def _tensors(path: str | Path) -> State:
    """The tensors of a safetensors file.

    Raises:
        ExportError: it is not there or is no safetensors file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"weights must be a safetensors file, but {path} cannot be read as one ({error}); convert a .bin "
            "or .pth with safetensors.torch.save_file(torch.load(OLD, weights_only=True), NEW)"
        ) from None


def from_timm(name: str, weights: Mapping[str, Tensor]) -> State:
    """State of the published network `name`, with as many classes as timm's `weights` of it.

    `build(Space.load(name).arch().with_classes(classes).graph())` loads it.

    Raises:
        ExportError: there is no such network, or the weights are of another one.
    """
    if name not in published():
        raise ExportError(unknown("network", name, published()))
    arch = Space.load(name).arch()
    return _fill(arch, weights, _timm_source(arch))[1]


def _fill(arch: Arch, weights: Mapping[str, Tensor], source: Source) -> tuple[Arch, State]:
    """`arch` with as many classes as `weights` have, and its state taken from them."""
    head = weights.get(source(f"{arch.graph().output.name}.weight")[0])
    if head is not None and head.ndim == 2:
        arch = arch.with_classes(len(head))
    with torch.device("meta"):
        wanted = build(arch.graph()).state_dict()
    state: State = {}
    for ours, like in wanted.items():
        key, part, parts = source(ours)
        if not like.ndim:  # the count of training steps of a batch norm, which older checkpoints lack
            state[ours] = weights.get(key, torch.tensor(0))
            continue
        shape = (parts * like.shape[0], *like.shape[1:])
        got = tuple(weights[key].shape) if key in weights else "missing"
        if got != shape:
            raise ExportError(f"{key} must be of shape {shape}, but is {got}; the weights are of another network")
        state[ours] = weights[key].chunk(parts)[part].clone()
    extra = sorted(weights.keys() - {source(ours)[0] for ours in wanted})
    if extra:
        raise ExportError(f"weights must all belong to the network, but {extra[0]} does not; they are of another one")
    return arch, state


def _timm_source(arch: Arch) -> Source:
    """Where timm keeps each of our weights; its packed qkv layer is the three linear layers q, k and v."""
    nodes = [node.name for node in arch.graph().nodes if node.params]
    modules = list(_timm_modules(arch))
    parts, seen = Counter(modules), Counter[str]()
    places: dict[str, tuple[str, int]] = {}
    for node, module in zip(nodes, modules, strict=True):
        places[node] = module, seen[module]
        seen[module] += 1

    def source(key: str) -> tuple[str, int, int]:
        block, op, weight = key.split(".", 2)
        module, part = places[f"{block}.{op}"]
        weight = weight.replace("norm.", "bn.").removeprefix("conv." if module.endswith("conv_1x1") else "")
        return f"{module}.{weight}", part, parts[module]

    return source


def _timm_modules(arch: Arch) -> Iterator[str]:
    """timm's name of each layer with weights, in the order of the graph."""
    stage, place = -1, 0
    for block in cast(Any, arch.blocks):
        kind = kind_of(block)
        if kind == "inverted_residual":
            stage, place = (stage + 1, 0) if block.stride == 2 or stage < 0 else (stage, place + 1)
            names = ["conv1_1x1", "conv2_kxk", "conv3_1x1"]
        elif kind == "mobilevit":
            place += 1
            layers = [f"transformer.{i}.{name}" for i in range(block.layers) for name in TIMM_LAYER]
            names = ["conv_kxk", "conv_1x1", *layers, "norm", "conv_proj", "conv_fusion"]
        elif kind in ("stem", "head"):
            yield from ("stem",) if kind == "stem" else ("final_conv", "head.fc")
            continue
        else:
            raise ExportError(f"timm's weights must be of a MobileViT, but this network has the block {kind}")
        yield from (f"stages.{stage}.{place}.{name}" for name in names)
