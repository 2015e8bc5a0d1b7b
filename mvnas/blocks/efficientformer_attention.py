"""EfficientFormer's block on tokens, MB3D (arXiv:2206.01191, eq. 4-5): (1, N, C) -> (1, N, C)."""

from dataclasses import dataclass

from mvnas.ops import Attention, GridBias, LayerNorm, Linear, Map, Unfold, Value

START = 1e-5  # of layer scales


@dataclass(frozen=True)
class Block:
    """Attention with a bias for each distance on a map of `side` x `side`, then a feed-forward layer; a map becomes tokens first.

    A head has queries and keys of width `key` and values four times as wide. A hidden width is `expand` times the channels.
    """

    heads: int = 8
    key: int = 32
    side: int = 7
    expand: float = 4.0

    def __call__(self, x: Value) -> Value:
        if isinstance(x.shape, Map):
            x = Unfold(1)(x)
        c, width = x.channels, self.heads * self.key
        y = LayerNorm()(x)
        query = Linear(width, gain=self.key**-0.5)(y)
        mixed = Attention(self.heads, bias=GridBias((self.side, self.side)))(
            query, Linear(width)(y), Linear(4 * width)(y)
        )
        x = x + Linear(c, scale=START)(mixed)
        return x + Linear(c, scale=START)(Linear(int(self.expand * c), act="gelu")(LayerNorm()(x)))
