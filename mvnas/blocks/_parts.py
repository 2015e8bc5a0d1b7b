"""Parts that several blocks are made of."""

from dataclasses import dataclass

from mvnas.errors import SpaceError
from mvnas.ops import Affine, BatchNorm, Branched, Concat, Conv, LayerNorm, Linear, Map, Mul, Pool, Value

NORM = LayerNorm()


def divisible(width: float, *, guard: float = 0.9) -> int:
    """`width` rounded to the nearest multiple of 8, at least 8, and never less than `guard` of `width`."""
    near = max(8, int(width + 4) // 8 * 8)
    return near if near >= guard * width else near + 8


def same_channels(x: Value, channels: int) -> int:
    """The channels of `x`, which a block that keeps its size keeps too; `channels` may say so or be 0.

    Raises:
        SpaceError: it says otherwise.
    """
    if channels not in (0, x.channels):
        raise SpaceError(f"channels must stay as they are at stride 1, but are {x.channels} -> {channels}")
    return x.channels


def check_fits(patch: int, x: Value) -> None:
    """Check that a map holds a patch of `patch` x `patch` pixels.

    Raises:
        SpaceError: it does not.
    """
    if min(x.shape[1:]) < patch:
        raise SpaceError(f"the patch must fit into the map, but got patch {patch} on {x.shape.h} x {x.shape.w}")


def check_divides(side: int, x: Value, name: str = "window") -> None:
    """Check that a map is made of squares of `side` x `side` pixels; `name` is what the side is called in errors.

    Raises:
        SpaceError: it is not.
    """
    if x.shape.h % side or x.shape.w % side:
        raise SpaceError(f"the {name} must divide the map, but got {name} {side} on {x.shape.h} x {x.shape.w}")


def joined(values: list[Value]) -> Value:
    """Channels of `values` beside one another."""
    return Concat()(*values) if len(values) > 1 else values[0]


def normed(x: Value, role: str, *, bias: bool = True) -> Value:
    """A layer norm that something else than linear layers reads."""
    return Affine(bias=bias)(LayerNorm(affine=False)(x), role=role)


def feed_forward(
    x: Value, expand: float, act: str = "gelu", norm: LayerNorm | BatchNorm = NORM, role: str = "mlp"
) -> Value:
    """A transformer's feed-forward layer on tokens or the pixels of a map, normed before, its input added after it.

    The hidden width is `expand` times the channels. Roles of its ops begin with `role`.
    """
    hidden = dense(norm(x, role=f"{role}.norm"), int(expand * x.channels), act, role=f"{role}.expand")
    return x + dense(hidden, x.channels, role=f"{role}.project")


def dense(x: Value, out: int, act: str = "", *, role: str) -> Value:
    """A linear layer with bias on each token, or each pixel of a map."""
    if isinstance(x.shape, Map):
        return Conv(out, norm=False, bias=True, act=act)(x, role=role)
    return Linear(out, act)(x, role=role)


@dataclass(frozen=True)
class SqueezeExcite:
    """Squeeze and excitation (arXiv:1709.01507, sec. 3): every channel times a gate that all channels' means decide
    on.
    """

    reduced: int
    act: str = "relu"
    gate: str = "sigmoid"

    def __call__(self, x: Value, within: str = "") -> Value:
        """Roles of its ops begin with `within`, where it is no layer of its own."""
        squeezed = Linear(self.reduced, act=self.act)(Pool()(x), role=f"{within}reduce")
        return Mul()(x, Linear(x.channels, act=self.gate)(squeezed, role=f"{within}expand"))


def branched(
    x: Value, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, branches: int = 1, act: str = ""
) -> Branched:
    """MobileOne's convolution (arXiv:2206.04040, fig. 3): `branches` equal ones, a 1 x 1 and a batch norm, where
    these fit.
    """
    convs = [Conv(out, kernel, stride, groups, act="")] * branches
    if kernel > 1:
        convs.append(Conv(out, 1, stride, groups, act=""))
    skip = [BatchNorm()] if out == x.channels and stride == 1 else []
    return Branched((*convs, *skip), act=act)
