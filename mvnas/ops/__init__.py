"""The vocabulary of operations: everything the toolkit knows about one kernel, said once.

An op is a frozen dataclass. Called on values it yields a value, so a block reads like a forward pass: ``y = Conv(64,
kernel=3)(x)``. Its class states the shape rule, the counts, its kind for a latency model and how it is deployed;
torch forms are in `mvnas.nn`; totals, table keys, microbenchmarks and exported files follow from these. No tensor in
a deployed op has more than four axes, because mobile GPU delegates refuse more.

Shape letters: B batch (never part of a `Shape`), C channels, H height, W width, P pixels of a patch, N patches.
"""

from mvnas.ops.attention import (
    EPS,
    LINEAR_FORMS,
    SOFTMAX_FORMS,
    Attention,
    GridBias,
    LinearAttention,
    PairBias,
    SeparableAttention,
)
from mvnas.ops.conv import Branched, Conv
from mvnas.ops.elementwise import Act, Mul, Sub
from mvnas.ops.layout import Concat, Fold, Resize, Slice, Spread, Unfold, axis
from mvnas.ops.linear import Linear, Position
from mvnas.ops.norm import Affine, BatchNorm, LayerNorm, Normalise
from mvnas.ops.pooling import Pool
from mvnas.ops.shapes import Map, Shape, Tokens, Vector, one_shape, same_pads, square
from mvnas.ops.value import Add, Input, Op, Products, State, Value, check_unused

__all__ = [
    "EPS",
    "LINEAR_FORMS",
    "SOFTMAX_FORMS",
    "Act",
    "Add",
    "Affine",
    "Attention",
    "BatchNorm",
    "Branched",
    "Concat",
    "Conv",
    "Fold",
    "GridBias",
    "Input",
    "LayerNorm",
    "Linear",
    "LinearAttention",
    "Map",
    "Mul",
    "Normalise",
    "Op",
    "PairBias",
    "Pool",
    "Position",
    "Products",
    "Resize",
    "SeparableAttention",
    "Shape",
    "Slice",
    "Spread",
    "State",
    "Sub",
    "Tokens",
    "Unfold",
    "Value",
    "Vector",
    "axis",
    "check_unused",
    "one_shape",
    "same_pads",
    "square",
]
