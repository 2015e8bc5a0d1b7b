"""FasterViT's hierarchical attention (arXiv:2306.06189, sec. 3.3; NVlabs/FasterViT): (C, H, W) -> (C, H, W)."""

from dataclasses import dataclass

from mvnas.blocks._attention import Transformer, heads_of
from mvnas.blocks._parts import check_divides
from mvnas.errors import SpaceError
from mvnas.graph import Layer
from mvnas.ops import Attention, Concat, Conv, Fold, GridBias, Pool, Position, Resize, Slice, Unfold, Value

HIDDEN = 512  # units of the networks that make positions and biases


@dataclass(frozen=True)
class Block:
    """`layers` layers of attention within windows, each of which sees the others through `carriers` x `carriers`
    tokens.

    Carrier tokens are averages of the map. In every layer they attend to one another, and then, with the pixels of
    their window, to these. A map of one window needs none. Heads have `head_width` channels; a hidden width is `mlp`
    times C. Carriers are not added to the map at the end, which only larger FasterViTs do. Maps of other sizes, as in
    training, are resized.

    Raises:
        SpaceError: the map is not square, or the window does not divide it, or the carriers are more than its pixels,
            or the width of a head does not divide the channels.
    """

    layers: int
    window: int = 7
    carriers: int = 2
    head_width: int = 32
    mlp: float = 4.0

    def __call__(self, x: Value) -> Value:
        c, h, w = x.shape
        check_divides(self.window, x)
        if h != w or self.carriers > self.window:
            told = f"{self.carriers} x {self.carriers} in windows of {self.window} on {h} x {w}"
            raise SpaceError(f"carriers must fit into the windows of a square map, but got {told}")
        x = Resize(size=(h, w))(x)
        tokens = Unfold(self.window, windows=True)(x)
        side, count = self.carriers * h // self.window, self.carriers**2 if h > self.window else 0
        inside, between = self.layer(x, self.window, count), self.layer(x, side)
        local = Conv(c, 3, groups=c, norm=False, bias=True, act="")(x, role="local")
        grid = Pool(h - (side - 1) * (h // side), h // side, pad=False)(local)
        for i in range(self.layers):
            tokens = Position(HIDDEN)(tokens, role=f"layers.{i}.position")
            if not count:
                tokens = inside(tokens, role=f"layers.{i}.windows")
                continue
            placed = Position(HIDDEN)(Unfold(1)(grid), role=f"layers.{i}.carriers_position")
            grid = Fold(1)(between(placed, role=f"layers.{i}.carriers"), grid)
            both = Concat(patches=True)(Unfold(self.carriers, windows=True)(grid), tokens)
            y = inside(both, role=f"layers.{i}.windows")
            grid = Fold(self.carriers, windows=True)(Slice(count, patches=True)(y), grid)
            tokens = Slice(self.window**2, count, patches=True)(y)
        return Fold(self.window, windows=True)(tokens, x)

    def layer(self, x: Value, side: int, extra: int = 0) -> Layer:
        """A transformer layer on `extra` tokens and the tokens of a map of `side` x `side`."""
        near = GridBias((side, side), signed=True, hidden=HIDDEN, extra=extra)
        return Layer(Transformer(Attention(heads_of(x, self.head_width), bias=near), self.mlp))
