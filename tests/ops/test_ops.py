"""The contract of ops: what an op says about itself is what its torch module does, before and after deployment."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from vocabulary import EXAMPLES

from mvnas import ops
from mvnas.errors import ExportError, SpaceError
from mvnas.graph import Graph, summary
from mvnas.nn import build, deploy, example, module
from mvnas.ops import (
    Add,
    Affine,
    Attention,
    BatchNorm,
    Branched,
    Concat,
    Conv,
    Fold,
    GridBias,
    Input,
    LayerNorm,
    Linear,
    LinearAttention,
    Map,
    Mul,
    Op,
    Pool,
    Resize,
    SeparableAttention,
    Shape,
    Slice,
    Spread,
    Tokens,
    Unfold,
    Value,
    Vector,
)
from mvnas.testing.op import OpContract
from mvnas.testing.weights import randomise

NOT_KERNELS = {ops.Op, ops.Input}  # the root, and what a network is fed
FOLDED = {  # fields that deployed ops do not use
    "norm": False, "gain": 1.0, "scale": 0.0, "copies": 1, "affine": False, "multiple": 1, "start": 1.0, "hidden": 0,
}  # fmt: skip
NORMS = (BatchNorm, LayerNorm)

each_example = pytest.mark.parametrize(("op", "shapes", "out"), EXAMPLES, ids=[str(row[0]) for row in EXAMPLES])


def test_every_op_has_an_example() -> None:
    classes = {kind for _, kind in inspect.getmembers(ops, inspect.isclass) if issubclass(kind, Op)}
    assert {type(op) for op, _, _ in EXAMPLES} == classes - NOT_KERNELS


class TestOps(OpContract):
    """Every law of ops, of all of ours; what they are in files is tested with the formats."""

    examples = EXAMPLES
    test_files_compute_the_same = None  # type: ignore[assignment]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_a_convolution_keeps_where_its_windows_read(kernel: int, stride: int) -> None:
    """Every pixel of every window; a depthwise one, every pixel of a row of windows once."""
    x, reach = Map(4, 9, 12), range(kernel)
    _, h, w = Conv(4, kernel, stride).shape(x)
    windows = [[(i, a, stride * j + b) for a in reach for b in reach] for i in range(h) for j in range(w)]
    assert Conv(4, kernel, stride).pointers(x) == sum(map(len, windows))
    assert Conv(4, kernel, stride, groups=4).pointers(x) == len({pixel for window in windows for pixel in window})
    assert Conv(4, 1, stride).pointers(x) == 0


@torch.no_grad()
def assert_deploys(graph: Graph) -> None:
    """The deployed form of `graph`, with random weights, biases and statistics, computes the same."""
    trained = randomise(build(graph))
    shipped, weights = deploy(graph, trained.state_dict())
    module = build(shipped).eval()
    module.load_state_dict(weights)
    inputs = example(graph, batch=2)
    fed = inputs[: len(shipped.inputs)]  # what only gave its size is fed no more
    torch.testing.assert_close(module(*fed), trained(*inputs), rtol=0, atol=1e-5)


READERS: dict[str, Callable[[Value], Value]] = {  # of a layer norm of tokens (4, 6, 8), unfolded from a map of 4 x 6
    "linear": lambda y: Linear(5, act="silu", gain=0.5)(y),
    "attention": lambda y: Attention(2)(Linear(8, gain=0.5)(y), Linear(8)(y), Linear(8)(y)),
    "convolution": lambda y: Conv(5)(Fold(2, size=(4, 6))(y)),
    "convolution with bias": lambda y: Conv(5, norm=False, bias=True)(Fold(2, size=(4, 6))(y)),
    "resized convolution": lambda y: Conv(5)(Resize(size=(3, 5))(Fold(2, size=(4, 6))(y))),
    "pooled linear": lambda y: Linear(5)(Pool()(y)),
    "two": lambda y: Concat()(Conv(5)(Fold(2, size=(4, 6))(y)), Fold(2, size=(4, 6))(Linear(3)(y))),
}
OTHER_READERS: dict[str, Callable[[Value], Value]] = {
    "nobody": lambda y: y,
    "a sum": lambda y: Linear(8)(y) + y,
    "attention": lambda y: Attention(2)(y, Linear(8)(y), Linear(8)(y)),
    "a padded convolution": lambda y: Conv(5, kernel=3)(Fold(2, size=(4, 6))(y)),
    "a grouped convolution": lambda y: Conv(8, groups=2)(Fold(2, size=(4, 6))(y)),
    "a convolution without bias": lambda y: Conv(5, norm=False)(Fold(2, size=(4, 6))(y)),
    "a layer norm": lambda y: Linear(5)(LayerNorm()(y)),
    "a maximum": lambda y: Linear(5)(Pool()(Pool(2, stride=2, largest=True)(Fold(2, size=(4, 6))(y)))),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_scale_and_shift_of_a_layer_norm_fold_into_its_readers(read: Callable[[Value], Value]) -> None:
    assert_deploys(Graph.of(read(LayerNorm()(Input(Tokens(4, 6, 8))()))))


@pytest.mark.parametrize("read", OTHER_READERS.values(), ids=OTHER_READERS)
def test_a_layer_norm_that_does_not_fold_is_an_error(read: Callable[[Value], Value]) -> None:
    graph = Graph.of(read(LayerNorm()(Input(Tokens(4, 6, 8))())))
    with pytest.raises(ExportError, match="a norm must be read by|must not be a norm's"):
        deploy(graph, build(graph).state_dict())


@each_example
def test_deployed_ops_have_no_field_that_folds(op: Op, shapes: tuple[Shape, ...], out: Shape) -> None:
    shipped = Graph.single(op, shapes).deployed()
    assert "GridBias" not in str(shipped)
    for node in shipped.nodes:
        assert not any(getattr(node.op, name, neutral) != neutral for name, neutral in FOLDED.items())


def compute(op: Op, *xs: Tensor) -> Tensor:
    """What the torch form of an op makes."""
    shapes = [(Map if isinstance(op, Unfold | Resize) or i else Tokens)(*x.shape[1:]) for i, x in enumerate(xs)]
    return module(op, *shapes)(*xs)  # type: ignore[no-any-return]


def unfold(x: Tensor, patch: int) -> Tensor:
    """Reference: token n of sequence p is pixel p of patch n (arXiv:2110.02178, sec. 3.1)."""
    b, c, h, w = x.shape
    grid = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return grid.permute(0, 3, 5, 2, 4, 1).reshape(b, patch**2, -1, c)


@pytest.mark.parametrize("patch", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_unfold_and_fold_are_the_reference_and_its_inverse(patch: int, rows: int) -> None:
    x = torch.randn(2, 3, rows * patch, 4 * patch)
    tokens = compute(Unfold(patch), x)
    assert torch.equal(tokens, unfold(x, patch))
    assert torch.equal(compute(Fold(patch), tokens, x), x)
    assert torch.equal(compute(Fold(patch, size=(rows * patch, 4 * patch)), tokens), x)


@pytest.mark.parametrize(("heads", "keys"), [(1, 5), (2, 5), (4, 7)])
def test_attention_is_that_of_torch_without_scale(heads: int, keys: int) -> None:
    q, k, v = (torch.randn(2, 4, n, 8, dtype=torch.float64) for n in (5, keys, keys))

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(2, 3)

    expected = scaled_dot_product_attention(split(q), split(k), split(v), scale=1.0).transpose(2, 3).flatten(3)
    torch.testing.assert_close(compute(Attention(heads), q, k, v), expected)


def test_resize_is_bilinear_and_leaves_what_has_its_size() -> None:
    x = torch.tensor([[[[0.0, 1.0]]]])
    torch.testing.assert_close(compute(Resize(4), x)[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))
    assert compute(Resize(2), x.repeat(1, 1, 2, 1)).tolist() == x.repeat(1, 1, 2, 1).tolist()


@pytest.mark.parametrize(
    ("op", "shapes", "told"),
    [
        (Conv(8, groups=3), (Map(6, 4, 4),), "groups must divide the channels, but got 3 groups for 6 -> 8"),
        (Conv(9, groups=3), (Map(8, 4, 4),), "groups must divide the channels, but got 3 groups for 8 -> 9"),
        (Attention(3), (Tokens(4, 6, 8),) * 3, "heads must divide the width, but got 3 heads for width 8"),
        (Unfold(4), (Map(3, 8, 6),), "patch must divide the map, but got patch 4 on a map of 8 x 6"),
        (Unfold(4), (Map(3, 6, 8),), "patch must divide the map, but got patch 4 on a map of 6 x 8"),
        (Add(), (Map(3, 4, 4), Map(3, 4, 5)), "terms must have one shape"),
        (Concat(), (Map(3, 4, 4), Map(3, 4, 5)), "maps to concatenate must have one size"),
        (Add(), (Map(3, 4, 5), Tokens(3, 4, 5)), "terms must have one shape"),
        (Conv(8), (Tokens(4, 6, 8),), "tokens to convolve must be those of a square, but are 6"),
        (Conv(8), (Vector(8),), "Conv must be given Map or Tokens, but got Vector"),
        (Linear(8), (Map(8, 4, 4),), "Linear must be given Tokens or Vector, but got Map"),
        (Pool(), (Vector(8),), "Pool must be given Map or Tokens, but got Vector"),
        (Pool(3), (Tokens(4, 6, 8),), "windows must be those of a map that holds one, but got kernel 3 on Tokens"),
        (Conv(8, kernel=2), (Map(4, 4, 4),), "even kernel must be padded as TensorFlow does"),
        (Attention(2), (Tokens(1, 6, 8), Tokens(1, 9, 6), Tokens(1, 9, 6)), "queries, keys and values must agree"),
        (Attention(2, form="sofmax"), (Tokens(1, 9, 8),) * 3, "unknown form 'sofmax'; did you mean 'softmax'"),
        (
            Attention(2, bias=GridBias((3, 3), stride=2)),
            (Tokens(1, 9, 8),) * 3,
            "queries must be every 2. of the keys each way",
        ),
        (
            Attention(2, bias=GridBias((2, 2))),
            (Tokens(1, 6, 8),) * 3,
            "keys must be on a map of 2 x 2 or a square, but are 6",
        ),
        (Branched((Conv(8), Conv(6))), (Map(4, 4, 4),), "branches must yield one shape"),
        (Spread(2), (Tokens(4, 6, 8),), "tokens to spread must be one sequence, but got Tokens"),
        (Mul(), (Map(3, 4, 4), Vector(4)), "factors must have one shape, or be a map and a gate"),
        (Slice(3, first=2), (Map(4, 4, 4),), "a slice must lie in 0..4, but got 3 from 2 on"),
        (Branched((Conv(4),)), (Map(4, 4, 4),), "a branch must have no activation"),
        (Branched((Conv(4, 3, act="", same=True),)), (Map(4, 4, 4),), "a branch must have no padding other"),
        (Fold(2), (Tokens(4, 6, 8),), "tokens must be folded to a size or that of a map"),
        (Linear(8, copies=0), (Vector(8),), "must be the mean of 1 or more, but got 0 copies"),
        (Attention(2, bias=GridBias((0, 3))), (Tokens(4, 6, 8),) * 3, "a grid must have a height and a width"),
        (SeparableAttention(), (Tokens(4, 6, 8),) * 3, "queries of separable attention must have 1 channel"),
        (
            LinearAttention(2, form="softmax"),
            (Tokens(4, 6, 8),) * 3,
            "unknown form 'softmax'; known: relu_linear, scaled",
        ),
    ],
)
def test_an_op_on_shapes_it_is_not_defined_on_is_an_error(op: Op, shapes: tuple[Shape, ...], told: str) -> None:
    with pytest.raises(SpaceError, match=told):
        Graph.single(op, shapes)


IGNORED: list[tuple[Op, dict[str, object], tuple[Shape, ...]]] = [
    # fields that mean nothing beside the others of an op
    (Conv(8, norm=False), {"eps": 1e-3}, (Map(4, 3, 3),)),
    (LayerNorm(affine=False), {"bias": False}, (Map(4, 3, 5),)),
    (LayerNorm(), {"whole": True}, (Vector(7),)),
    (Fold(2), {"size": (4, 6)}, (Tokens(4, 6, 3), Map(5, 4, 6))),
    (Resize(), {"multiple": 2, "size": (5, 7)}, (Map(3, 4, 6), Map(5, 7, 5))),
    (Resize(size=(3, 5)), {"multiple": 2}, (Map(3, 4, 4),)),
    (Pool(), {"stride": 2, "pad": False, "largest": True}, (Map(3, 4, 5),)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "field", "value", "shapes"),
    [(op, field, value, shapes) for op, settings, shapes in IGNORED for field, value in settings.items()],
    ids=str,
)
def test_a_field_that_would_change_nothing_is_refused(
    op: Op, field: str, value: object, shapes: tuple[Shape, ...]
) -> None:
    Graph.single(op, shapes)
    with pytest.raises(SpaceError, match=f"{field} of {type(op).__name__} must stay .* which ignores it, but is "):
        Graph.single(replace(op, **{field: value}), shapes)


KINDS: dict[type, tuple[int, ...]] = {Map: (16, 64, 64), Tokens: (16, 64, 64), Vector: (16,)}


def test_shapes_of_one_kind_and_size_are_equal_however_they_are_made() -> None:
    for kind, sizes in KINDS.items():
        shape = kind(*sizes)
        others = [kind(**shape._asdict()), kind._make(sizes), shape._replace(c=shape.c), copy.deepcopy(shape),
                  pickle.loads(pickle.dumps(shape))]  # fmt: skip
        for other in others:
            assert type(other) is kind and other == shape and (other != shape) is False and hash(other) == hash(shape)
        assert shape._replace(c=8) != shape and shape != sizes and tuple(shape) == sizes


def test_shapes_of_different_kinds_are_different_keys() -> None:
    a, b = Map(16, 64, 64), Tokens(16, 64, 64)
    assert a != b and (a == b) is False and hash(a) != hash(b) and len({a, b}) == 2
    with pytest.raises(SpaceError, match="factors must have one shape"):
        Mul().shape(a, b)


def test_an_op_on_tokens_is_not_told_the_costs_of_a_map() -> None:
    """The same numbers of another kind: a block, and an op, whose costs were remembered."""
    assert summary(Affine(), (Map(3, 4, 8),)).params == 2 * 3
    assert summary(Affine(), (Tokens(3, 4, 8),)).params == 2 * 8


def test_an_unknown_activation_names_the_near_miss() -> None:
    with pytest.raises(SpaceError, match="unknown activation 'silo'; did you mean 'silu'"):
        build(Graph.single(Conv(8, act="silo"), (Map(4, 4, 4),)))
