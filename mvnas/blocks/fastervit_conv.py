"""FasterViT's convolutional block (arXiv:2306.06189, sec. 3.3): (C, H, W) -> (C, H, W)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """Two convolutions of `kernel` x `kernel`, GELU between them; the input is added."""

    kernel: int = 3

    def __call__(self, x: Value) -> Value:
        y = Conv(x.channels, self.kernel, bias=True, act="gelu")(x, role="convs.0")
        return x + Conv(x.channels, self.kernel, bias=True, act="")(y, role="convs.1")
