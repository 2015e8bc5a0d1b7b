"""LookupViT's blocks (arXiv:2407.12753, fig. 2 and sec. 3): few tokens think, many are looked up and told."""

from dataclasses import dataclass

from mvnas.blocks._attention import attend
from mvnas.blocks._parts import check_divides, feed_forward, normed, same_channels
from mvnas.ops import Attention, Conv, Fold, LayerNorm, Linear, Position, Resize, Unfold, Value

NORM = LayerNorm(bias=False)  # before linear layers


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (channels, H / stride, W / stride): `layers` blocks of pixels, and of tokens for `ratio` x `ratio`
    of them.

    The compressed tokens attend to the pixels and to each other, and have a feed-forward layer of `expand` times the
    channels; the pixels attend to them and have a layer of `cheap` times. What comes out is the sum of both, so that a
    mean over it is that of the pixels and that of the compressed tokens. The paper keeps the products of queries and
    keys for the way back, with a softmax over the compressed tokens; here they are computed again. Of another stride
    than 1, patches of `stride` x `stride` pixels are embedded by a convolution that sees 7 x 7 of them, and told where
    they are.

    Raises:
        SpaceError: the heads do not divide the channels, the ratio is none of 2, 4, ... or does not divide the map, or
            the block keeps the size and does not keep the channels.
    """

    channels: int = 0
    stride: int = 1
    layers: int = 1
    heads: int = 4
    ratio: int = 4
    expand: float = 4.0
    cheap: float = 2.0

    def __call__(self, x: Value) -> Value:
        if self.stride > 1:
            x = Conv(self.channels, 7 * self.stride, self.stride, norm=False, bias=True, same=True, act="")(
                x, role="embed"
            )
            x = Fold(1)(Position()(normed(Unfold(1)(x), "embed_norm", bias=False), role="position"), x)
        same_channels(x, self.channels)
        check_divides(self.ratio, x, "ratio")
        size = (x.shape.h // self.ratio, x.shape.w // self.ratio)
        lookup, few = Unfold(1)(x), Unfold(1)(Resize(size=size)(x))
        for i in range(self.layers):
            few, lookup = self.exchange(few, lookup, f"layers.{i}.")
        few_map = Fold(1, size=size)(normed(few, "few_norm", bias=False))
        lookup_map = Fold(1)(normed(lookup, "lookup_norm", bias=False), x)
        return lookup_map + Resize(nearest=True)(few_map, lookup_map)

    def exchange(self, few: Value, lookup: Value, within: str) -> tuple[Value, Value]:
        """One block: gathering, thought among few, infusion (fig. 2). Roles of its ops begin with `within`."""
        c, attention = few.channels, Attention(self.heads)
        linear = Linear(c, bias=False)
        seen = NORM(lookup, role=f"{within}lookup_norm")
        scaled = Linear(c, bias=False, gain=(c / self.heads) ** -0.5)
        query, key = (
            scaled(NORM(few, role=f"{within}few_norm"), role=f"{within}query"),
            linear(seen, role=f"{within}key"),
        )
        mixed = attention(query, key, linear(seen, role=f"{within}gather.value"))
        few = few + linear(mixed, role=f"{within}gather.project")
        think = NORM(few, role=f"{within}think.norm")
        few = few + attend(think, attention, bias=False, role=f"{within}think")
        few = feed_forward(few, self.expand, norm=NORM, role=f"{within}mlp")
        mixed = attention(key, query, linear(NORM(few, role=f"{within}infuse.norm"), role=f"{within}infuse.value"))
        lookup = normed(lookup + linear(mixed, role=f"{within}infuse.project"), f"{within}cheap_norm", bias=False)
        return few, feed_forward(lookup, self.cheap, norm=NORM, role=f"{within}cheap")
