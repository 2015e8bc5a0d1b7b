"""FasterViT's hierarchical attention (arXiv:2306.06189, sec. 3.3; NVlabs/FasterViT): (C, H, W) -> (C, H, W)."""

from dataclasses import dataclass

from mvnas.blocks._attention import attend
from mvnas.errors import SpaceError
from mvnas.ops import Concat, Conv, Fold, Layer, LayerNorm, Linear, Pool, Position, Resize, Slice, Unfold, Value

HIDDEN = 512  # units of the networks that make positions and biases


@dataclass(frozen=True)
class Block:
    """`layers` layers of attention within windows, each of which sees the others through `carriers` x `carriers` tokens.

    Carrier tokens are averages of the map. In every layer they attend to one another, and then, with the pixels of their
    window, to these. A map of one window needs none. Heads have `head_width` channels; a hidden width is `mlp` times C.
    Carriers are not added to the map at the end, which only larger FasterViTs do. Maps of other sizes, as in training, are
    resized.

    Raises:
        SpaceError: the map is not square, or the window does not divide it, or the carriers are more than its pixels.
    """

    layers: int
    window: int = 7
    carriers: int = 2
    head_width: int = 32
    mlp: float = 4.0

    def __call__(self, x: Value) -> Value:
        c, h, w = x.shape
        if h != w or h % self.window or self.carriers > self.window:
            told = f"window {self.window} with {self.carriers} x {self.carriers} carriers on {h} x {w}"
            raise SpaceError(f"the window must divide a square map and hold its carriers, but got {told}")
        x = Resize(size=(h, w))(x)
        tokens = Unfold(self.window, windows=True)(x)
        side, count = self.carriers * h // self.window, self.carriers**2 if h > self.window else 0
        inside = Layer(Encoder(self.window, self.head_width, self.mlp, count))
        between = Layer(Encoder(side, self.head_width, self.mlp))
        local = Conv(c, 3, groups=c, norm=False, bias=True, act="")(x)
        grid = Pool(h - (side - 1) * (h // side), h // side, pad=False)(local)
        for _ in range(self.layers):
            tokens = Position(HIDDEN)(tokens)
            if not count:
                tokens = inside(tokens)
                continue
            grid = Fold(1)(between(Position(HIDDEN)(Unfold(1)(grid))), grid)
            y = inside(Concat(patches=True)(Unfold(self.carriers, windows=True)(grid), tokens))
            grid = Fold(self.carriers, windows=True)(Slice(count, patches=True)(y), grid)
            tokens = Slice(self.window**2, count, patches=True)(y)
        return Fold(self.window, windows=True)(tokens, x)


@dataclass(frozen=True)
class Encoder:
    """Pre-norm transformer layer: (P, N, C) -> (P, N, C), of `extra` tokens and the `side` x `side` tokens of a map."""

    side: int
    head_width: int
    mlp: float
    extra: int = 0

    def __call__(self, x: Value) -> Value:
        near = {"grid": (self.side, self.side), "signed": True, "hidden": HIDDEN, "extra": self.extra}
        x = x + attend(LayerNorm()(x), self.head_width, **near)
        return x + Linear(x.channels)(Linear(int(self.mlp * x.channels), act="gelu")(LayerNorm()(x)))
