"""Weights of a module: how they start, how they are averaged and kept, and the statistics of batch norms."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd


def initialise(module: nn.Module, seed: int) -> None:
    """Set fresh weights in place, the same for the same seed; `module` is on the CPU.

    Convolutions are Kaiming-normal (fan out), linear layers normal with standard deviation 0.02, biases 0,
    norms the identity (the recipe of MobileViT, apple/ml-cvnets). Parameters of any other kind of module
    keep what its constructor gave them.
    """
    generator = Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, _ConvNd):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", generator=generator)
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02, generator=generator)
        elif isinstance(part, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
            part.reset_parameters()
        if isinstance(part, _ConvNd | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


class Average:
    """Exponential moving average of a module's parameters.

    After step t (from 1) the decay is min(decay, (1 + t) / (10 + t)), so that a short training averages
    about its last tenth, and not the weights it started from. Statistics of batch norms are not averaged:
    they are measured again for the averaged weights, see `calibrate`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.source = [value.detach() for value in module.parameters()]
        self.values = [value.clone() for value in self.source]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the module's values after `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self.source, 1 - decay)

    @torch.no_grad()
    def store(self) -> None:
        """Write the average into the module."""
        torch._foreach_copy_(self.source, self.values)


@torch.no_grad()
def calibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of all batch norms to their mean over `batches` of inputs; evaluation mode.

    Those of the training lag behind the weights by tens of steps, belong to other weights than the averaged
    ones, and mix the sizes of multi-scale training ("precise BN", arXiv:2105.07576, section 3).
    """
    module.eval()
    norms = {part: part.momentum for part in module.modules() if isinstance(part, _BatchNorm)}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: a cumulative, evenly weighted mean
        norm.train()
    for x in batches if norms else ():
        module(x)
    for norm, momentum in norms.items():
        norm.momentum = momentum
        norm.eval()


def groups(module: nn.Module, decay: float) -> list[dict[str, object]]:
    """Parameter groups for an optimizer: weight decay for what inputs are multiplied and summed by, none for anything
    else.

    That is the `weight` of convolutions and linear layers, and what a module names in `decayed`. Norms and other affine
    maps, layer scales, and whatever is added (biases, also those of attention, and positions) have none, whatever their
    axes.
    """
    multiplied = {id(value) for part in module.modules() for value in _multiplied(part)}
    trained = [value for value in module.parameters() if value.requires_grad]
    return [
        {"params": [value for value in trained if id(value) in multiplied], "weight_decay": decay},
        {"params": [value for value in trained if id(value) not in multiplied], "weight_decay": 0.0},
    ]


def _multiplied(part: nn.Module) -> Iterable[Tensor]:
    """Parameters of one module, without those of its parts, that inputs are multiplied and summed by."""
    names = getattr(part, "decayed", ("weight",) if isinstance(part, _ConvNd | nn.Linear) else ())
    return [getattr(part, name) for name in names]


def copied(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, on the CPU in the default memory format, ready for a file."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()}
