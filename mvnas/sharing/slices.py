"""Slices of weights as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from mvnas.sharing.forms import Axis
from mvnas.sharing.plan import Slice


def views(slices: Mapping[str, Slice], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a smaller network, as `torch.func.functional_call` takes them; gradients reach `weights`.

    They are views of `weights` but where channels do not follow one another, and must lack no places.
    """
    return {name: _part(weights[part.source], part.axes) for name, part in slices.items()}


def filled(
    slices: Mapping[str, Slice], weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights of a smaller network: copies of the slices, and of `fresh` wherever these have no source."""
    made = {name: weight.detach().clone() for name, weight in fresh.items()}
    for name, part in slices.items():
        places = [torch.tensor(axis, device=made[name].device, dtype=torch.long) for axis in part.axes]
        known = [(axis >= 0).nonzero().flatten() for axis in places]
        source = weights[part.source].detach().to(made[name])
        if not places:
            made[name].copy_(source)
        else:
            taken = source[torch.meshgrid(*[a[k] for a, k in zip(places, known, strict=True)], indexing="ij")]
            made[name][torch.meshgrid(*known, indexing="ij")] = taken
    return made


def _part(weight: Tensor, axes: tuple[Axis, ...]) -> Tensor:
    for i, axis in enumerate(axes):
        if isinstance(axis, tuple):
            weight = weight.index_select(i, _index(axis, weight.device))
        elif len(axis) < weight.shape[i]:
            weight = weight.narrow(i, axis.start, len(axis))
    return weight


@lru_cache(1 << 12)
def _index(axis: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(axis, device=device)
