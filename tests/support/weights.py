"""Weights of small networks for exports to get right."""

from __future__ import annotations

import torch

from mvnas.nn import build
from mvnas.ops import State
from mvnas.spaces.arch import Arch
from mvnas.training import initialise


def varied(arch: Arch, *, variance: tuple[float, float]) -> State:
    """Fresh weights with means of norms, and variances from a range, that folding must get right."""
    module = build(arch.graph())
    initialise(module, 0)
    generator = torch.Generator().manual_seed(1)
    for name, value in module.state_dict().items():
        if "running_var" in name:
            value.uniform_(*variance, generator=generator)
        elif "running_mean" in name or name.endswith("bias"):
            value.normal_(0, 0.2, generator=generator)
    return module.state_dict()
