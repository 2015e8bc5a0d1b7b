"""ElasticViT's head (arXiv:2303.09730; microsoft/Moonlit): (C, H, W) -> (classes,)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Linear, Pool, Value


@dataclass(frozen=True)
class Block:
    """1 x 1 convolution to six times the channels, global average pool, `hidden` features, linear classifier; hard
    swish.
    """

    hidden: int = 1984
    classes: int = 1000

    def __call__(self, x: Value) -> Value:
        y = Pool()(Conv(6 * x.channels, bias=True, act="hardswish")(x, role="conv"))
        return Linear(self.classes)(Linear(self.hidden, act="hardswish")(y, role="hidden"), role="classify")
