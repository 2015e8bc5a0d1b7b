"""How timm names weights: parts of the tensors of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from torch import Tensor

from mvnas.spaces.arch import Arch


class Part(NamedTuple):
    """A tensor of a file, or one of the `parts` that its rows hold, for each of `heads` again; negated with `sign` -1.

    `parts` are relative numbers of rows: (1, 1, 4) are queries, keys and values that are four times as wide.
    """

    key: str
    place: int = 0
    parts: tuple[int, ...] = (1,)
    heads: int = 1
    sign: int = 1

    @classmethod
    def of(cls, name: str | Part) -> Part:
        return cls(name) if isinstance(name, str) else name

    def whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the tensor of which this part has `shape`."""
        return shape[0] * sum(self.parts) // self.parts[self.place], *shape[1:]

    def take(self, tensor: Tensor) -> Tensor:
        """The part of `tensor`."""
        unit = len(tensor) // (self.heads * sum(self.parts))
        start = unit * sum(self.parts[: self.place])
        rows = tensor.view(self.heads, -1, *tensor.shape[1:])[:, start : start + unit * self.parts[self.place]]
        return self.sign * rows.flatten(0, 1)


Source = Callable[[str], Part]  # our key -> where it lies in a file
Names = dict[str, str | Part]  # our module within a node, or our weight -> timm's


def conv(name: str | Part, norm: str | Part = "") -> Names:
    """A convolution and the batch norm after it."""
    return {"conv": name, "norm": norm}


def conv_bn(name: str) -> Names:
    """A convolution and a batch norm that timm keeps as `conv` and `bn` of one module."""
    return conv(f"{name}.conv", f"{name}.bn")


def dense(name: str) -> Names:
    """A linear layer or a norm."""
    return {"": name}


def mobile(arch: Arch) -> Iterator[tuple[Any, str]]:
    """Blocks between stem and head of a network of mobile blocks with timm's names: one of stride 2 begins a stage."""
    stage, place = -1, 0
    for block in cast(Any, arch.blocks[1:-1]):
        first = stage < 0 or getattr(block, "stride", 1) == 2
        stage, place = (stage + 1, 0) if first else (stage, place + 1)
        yield block, f"stages.{stage}.{place}"


def inverted_residual(name: str) -> Iterator[Names]:
    """The three convolutions of a block of a MobileViT."""
    yield from (conv_bn(f"{name}.{part}") for part in ("conv1_1x1", "conv2_kxk", "conv3_1x1"))


def squeeze_excite(name: str, reduce: str = "fc1", expand: str = "fc2") -> list[Names]:
    """The two layers of a gate."""
    return [dense(f"{name}.{reduce}"), dense(f"{name}.{expand}")]


def packed(name: str, parts: tuple[int, ...] = (1, 1, 1), heads: int = 1) -> list[Names]:
    """Queries, keys and values that timm keeps in one linear layer."""
    return [{"": Part(name, index, parts, heads)} for index in range(len(parts))]


def one_for_both(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`weights` whose classifier is that of a teacher too, where they have none for it."""
    alone = "head.weight" in weights and "head_dist.weight" not in weights
    return (
        {
            **{
                f"head_dist.{leaf}": weights[f"head.{leaf}"] for leaf in ("weight", "bias") if f"head.{leaf}" in weights
            },
            **weights,
        }
        if alone
        else weights
    )


def branches(name: str, count: int, *, scale: bool = True, skip: bool = True, at: str = "") -> Names:
    """MobileOne's branches: equal convolutions, a 1 x 1, a batch norm of the input; `at` is where they are in our
    op.
    """
    convs = {f"conv{i}": f"{name}.conv_kxk.{i}" for i in range(count)}
    if scale:
        convs["small0"] = f"{name}.conv_scale"
    names: Names = {}
    for branch, theirs in convs.items():
        names |= branch_of(branch, conv_bn(theirs), at)
    return names | ({f"{at}branches.norm0": f"{name}.identity"} if skip else {})


def branch_of(branch: str, names: Names, at: str = "") -> Names:
    """The names of what is a branch of a sum (`Branched.parts`)."""
    return {f"{at}branches.{branch}.{part}": theirs for part, theirs in names.items()}
