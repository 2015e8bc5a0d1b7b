"""An FMViT-style block, after the abstract of arXiv:2311.05707; the paper's own layers are not public: (C, H, W) ->
(C, H, W).
"""

from dataclasses import dataclass

from mvnas.errors import SpaceError
from mvnas.ops import Attention, BatchNorm, Branched, Concat, Conv, Fold, Pool, Resize, Slice, Unfold, Value


@dataclass(frozen=True)
class Block:
    """Low frequencies go through attention on a pooled map, high ones through a convolution, and a 1 x 1 mixes both
    (CFB).

    `low` is the share of channels that attention gets, whole heads of `head_width`; its map is averaged over `pool` x
    `pool` pixels and resized back (RLMHSA). The others have a 3 x 3 convolution in `groups`. Every 1 x 1 convolution
    has a branch in groups beside it, and a batch norm of its input where the width stays (gMLP): one convolution when
    deployed. A hidden width is `mlp` times the channels; both halves have the input added.

    Raises:
        SpaceError: a share holds no head, or the groups do not divide the channels of the others.
    """

    low: float = 0.5
    pool: int = 2
    groups: int = 4
    head_width: int = 16
    mlp: float = 2.0

    def __call__(self, x: Value) -> Value:
        c = x.channels
        width = int(self.low * c) // self.head_width * self.head_width
        if not 0 < width < c:
            raise SpaceError(f"low must leave channels for a head and for others, but gives {width} of {c} to heads")
        pooled = Slice(width)(x)
        if self.pool > 1:
            pooled = Pool(self.pool, self.pool)(pooled)
        scales = {"query": self.head_width**-0.5, "key": 0.0, "value": 0.0}
        query, key, value = (
            Unfold(1)(self.mix(pooled, width, scale, role=f"attention.{name}")) for name, scale in scales.items()
        )
        low = Fold(1)(Attention(width // self.head_width)(query, key, value), pooled)
        others = Slice(c - width, first=width)(x)
        small, one = (Conv(c - width, kernel, groups=self.groups, act="") for kernel in (3, 1))
        high = Branched((small, one, BatchNorm()), act="relu")(others, role="local")
        x = x + self.mix(Concat()(Resize()(low, x), high), c, role="fuse")
        return x + self.mix(self.mix(x, int(self.mlp * c), act="relu", role="mlp.expand"), c, role="mlp.project")

    def mix(self, x: Value, out: int, scale: float = 0.0, act: str = "", *, role: str) -> Value:
        """A 1 x 1 convolution with its branches; `scale` begins as the factor of attention's scores."""
        skip = [BatchNorm()] if out == x.channels else []
        convs = Conv(out, act=""), Conv(out, groups=self.groups, act="")
        return Branched((*convs, *skip), scale=scale, act=act)(x, role=role)
