"""Parts that several blocks are made of."""

from dataclasses import dataclass

from mvnas.errors import SpaceError
from mvnas.ops import BatchNorm, Branched, Conv, Linear, Mul, Pool, Value


def divisible(width: float, *, guard: float = 0.9) -> int:
    """`width` rounded to the nearest multiple of 8, at least 8, and never less than `guard` of `width`."""
    near = max(8, int(width + 4) // 8 * 8)
    return near if near >= guard * width else near + 8


def kept(x: Value, channels: int) -> int:
    """The channels of `x`, which a block that keeps its size keeps too; `channels` may say so or be 0.

    Raises:
        SpaceError: it says otherwise.
    """
    if channels not in (0, x.channels):
        raise SpaceError(f"channels must stay as they are at stride 1, but are {x.channels} -> {channels}")
    return x.channels


@dataclass(frozen=True)
class SqueezeExcite:
    """Squeeze and excitation (arXiv:1709.01507, sec. 3): every channel times a gate that all channels' means decide on."""

    reduced: int
    act: str = "relu"
    gate: str = "sigmoid"

    def __call__(self, x: Value) -> Value:
        return Mul()(x, Linear(x.channels, act=self.gate)(Linear(self.reduced, act=self.act)(Pool()(x))))


def branched(
    x: Value, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, branches: int = 1, act: str = ""
) -> Branched:
    """MobileOne's convolution (arXiv:2206.04040, fig. 3): `branches` equal ones, a 1 x 1 and a batch norm, where these fit."""
    convs = [Conv(out, kernel, stride, groups, act="")] * branches
    if kernel > 1:
        convs.append(Conv(out, 1, stride, groups, act=""))
    skip = [BatchNorm()] if out == x.channels and stride == 1 else []
    return Branched((*convs, *skip), act=act)
