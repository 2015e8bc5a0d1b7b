"""LookupViT's blocks (arXiv:2407.12753, fig. 2 and sec. 3): few tokens think, many are looked up and told."""

from dataclasses import dataclass

from mvnas.blocks._attention import attend
from mvnas.blocks._parts import check_divides, feed_forward, kept, normed
from mvnas.ops import Attention, Conv, Fold, LayerNorm, Linear, Position, Resize, Unfold, Value

NORM = LayerNorm(bias=False)  # before linear layers


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (channels, H / stride, W / stride): `layers` blocks of pixels, and of tokens for `ratio` x `ratio` of them.

    The compressed tokens attend to the pixels and to each other, and have a feed-forward layer of `expand` times the channels;
    the pixels attend to them and have a layer of `cheap` times. What comes out is the sum of both, so that a mean over it is that
    of the pixels and that of the compressed tokens. The paper keeps the products of queries and keys for the way back, with a
    softmax over the compressed tokens; here they are computed again. Of another stride than 1, patches of `stride` x `stride`
    pixels are embedded by a convolution that sees 7 x 7 of them, and told where they are.

    Raises:
        SpaceError: the heads do not divide the channels, the ratio is none of 2, 4, ... or does not divide the map, or the block
            keeps the size and does not keep the channels.
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
            x = Conv(self.channels, 7 * self.stride, self.stride, norm=False, bias=True, same=True, act="")(x)
            x = Fold(1)(Position()(normed(Unfold(1)(x), bias=False)), x)
        kept(x, self.channels)
        check_divides(self.ratio, x, "ratio")
        size = (x.shape.h // self.ratio, x.shape.w // self.ratio)
        lookup, few = Unfold(1)(x), Unfold(1)(Resize(size=size)(x))
        for _ in range(self.layers):
            few, lookup = self.exchange(few, lookup)
        few_map, lookup_map = Fold(1, size=size)(normed(few, bias=False)), Fold(1)(normed(lookup, bias=False), x)
        return lookup_map + Resize(nearest=True)(few_map, lookup_map)

    def exchange(self, few: Value, lookup: Value) -> tuple[Value, Value]:
        """One block: gathering, thought among few, infusion (fig. 2)."""
        c, attention = few.channels, Attention(self.heads)
        linear = Linear(c, bias=False)
        seen = NORM(lookup)
        query, key = Linear(c, bias=False, gain=(c / self.heads) ** -0.5)(NORM(few)), linear(seen)
        few = few + linear(attention(query, key, linear(seen)))
        few = few + attend(NORM(few), attention, bias=False)
        few = feed_forward(few, self.expand, norm=NORM)
        lookup = lookup + linear(attention(key, query, linear(NORM(few))))
        return few, feed_forward(normed(lookup, bias=False), self.cheap, norm=NORM)
