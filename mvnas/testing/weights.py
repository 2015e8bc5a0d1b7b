"""Modules whose weights and statistics are not those of a fresh module."""

from __future__ import annotations

import torch
from torch.nn import Module


def randomise(module: Module, seed: int = 0) -> Module:
    """`module` in evaluation mode with random norms, so that no weight, bias or statistic is 0 or 1 by default."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        leaf = name.rpartition(".")[2]
        if leaf in ("running_var", "scale", "gamma") or (leaf == "weight" and value.ndim == 1):
            value.uniform_(0.5, 1.5, generator=generator)
        elif leaf in ("running_mean", "bias", "attention_biases"):
            value.normal_(0, 0.1, generator=generator)
    return module.eval()
