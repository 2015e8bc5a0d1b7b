"""A block that reads earlier stages: a decoder of several maps, after feature pyramids (arXiv:1612.03144, fig. 3).

    mvnas search --space examples/decoder.yaml --budget 1M-params

Its space chooses which stages are read (`taps`), and its networks have two outputs: the decoder's map and the classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvnas.ops import Conv, Resize, Value


@dataclass(frozen=True)
class Block:
    """(C, H, W) and a map of each tap, (C1, H1, W1), ... -> (channels, H1, W1), of the last tap's size.

    The map is resized to that of each tap in turn, and a 1 x 1 convolution of the tap added; a 3 x 3 ends it.
    """

    channels: int

    def __call__(self, x: Value, earlier: Value, *others: Value) -> Value:
        y = Conv(self.channels)(x, role="top")
        for i, tap in enumerate((earlier, *others)):
            y = Resize()(y, tap) + Conv(self.channels)(tap, role=f"lateral.{i}")
        return Conv(self.channels, 3, groups=self.channels)(y, role="smooth")
