"""Architectures: blocks in order, what they read of one another, and a resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, cast

from mvnas.blocks import RESERVED, Block, check_taps, kind_of, make
from mvnas.errors import SpaceError, quoted, unknown
from mvnas.graph import FLOAT_BYTES, POINTER_BYTES, Graph, Summary, Use, alive, summary
from mvnas.ops import Input, Map, Shape, Value, Vector
from mvnas.system.reading import read_json

FLOAT = "float32"
PRECISIONS = {
    FLOAT: 4,
    "float16": 2,
    "dynamic-int8": 1,
    "int8": 1,
}  # deployed: bytes of a weight; training is in float32
IMAGE_CHANNELS = 3

# Bounds, far beyond what shipped spaces need (in brackets), so that every file is answered at once: docs/security.md.
SMALLEST, LARGEST_SIDE = 32, 4096  # pixels of an image's side [384]
BLOCKS = 1000  # of a network [43]
NUMBERS = 2**31 - 1  # parameters of a block, and numbers that it yields: what files of 2 GB hold at most
STEPS = 300_000  # ops in what is built to check a space, of which a block is 4 more [210,000]


@dataclass(frozen=True)
class Arch:
    """One network: its blocks in order, the resolution it is deployed at, in pixels, and the precision, one of
    PRECISIONS.

    A block reads what the one before it yields, and that of earlier ones that `taps` tell: pairs (reader, read), by
    reader and in the order in which it takes them. What the last block yields is an output, and what those in `outputs`
    do as well. `rows` are the numbers of blocks that each row of its space has made, one each if it is empty: they only
    name nodes.

    >>> from mvnas.spaces.space import Space
    >>> arch = Space.load("mobilevit_xxs").arch()
    >>> arch.graph().params, arch.params, arch.macs, Arch.from_json(arch.to_json()) == arch
    (1272024, 1266544, 407364096, True)
    """

    blocks: tuple[Block, ...]
    resolution: int = 256
    precision: str = FLOAT
    taps: tuple[tuple[int, int], ...] = ()
    outputs: tuple[int, ...] = ()
    rows: tuple[int, ...] = field(default=(), compare=False)

    def graph(self, resolution: int | tuple[int, int] = 0) -> Graph:
        """The network's ops, at another resolution (square, or height and width) if one is given.

        Raises:
            SpaceError: a block is not defined on the map it gets.
        """
        size = resolution or self.resolution
        image = Input(Map(IMAGE_CHANNELS, *((size, size) if isinstance(size, int) else size)))()
        made: list[Value] = []
        for part, reads in zip(self.blocks, self.reads, strict=True):
            made.append(part(*[made[i] if i >= 0 else image for i in reads]))
        return Graph.of(*made, outputs=[made[i] for i in self.ends], blocks=self.names)

    @property
    def reads(self) -> Sequence[tuple[int, ...]]:
        """The blocks that each block reads, in the order in which it takes what they yield; -1 is the image."""
        if not self.taps:
            return [(i - 1,) for i in range(len(self.blocks))]
        return [(i - 1, *[read for reader, read in self.taps if reader == i]) for i in range(len(self.blocks))]

    @property
    def ends(self) -> tuple[int, ...]:
        """The blocks whose outputs are the network's, the last one last."""
        return *self.outputs, len(self.blocks) - 1

    @property
    def names(self) -> list[str]:
        """What nodes of each block are named by: its row in the space, its place among the blocks of that row, its
        kind.
        """
        places = [(row, i) for row, count in enumerate(self.rows or [1] * len(self.blocks)) for i in range(count)]
        kinds = [kind_of(part).replace(".", "_") for part in self.blocks]
        return [f"stage{row}.{i}.{kind}" for (row, i), kind in zip(places, kinds, strict=True)]

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """Costs of each block at the deployed resolution, remembered across architectures.

        Raises:
            SpaceError: a block is not defined on the map it gets.
        """
        shape: Shape = Map(IMAGE_CHANNELS, self.resolution, self.resolution)
        found: list[Summary] = []
        if not self.taps:
            for part in self.blocks:
                found.append(summary(part, (shape,)))
                shape = found[-1].shape
            return tuple(found)
        for part, reads in zip(self.blocks, self.reads, strict=True):
            found.append(summary(part, tuple([found[i].shape if i >= 0 else shape for i in reads])))
        return tuple(found)

    @property
    def params(self) -> int:
        """Numbers that the deployed network holds; `graph().params` are those that are trained."""
        return sum([row.params for row in self.summaries])

    @property
    def macs(self) -> int:
        return sum([row.macs for row in self.summaries])

    @property
    def peak_bytes(self) -> int:
        """Most bytes of float32 activations alive at once in the deployed graph: the image, and what is an output or
        yet to be read.
        """
        uses = [Use((), FLOAT_BYTES * IMAGE_CHANNELS * self.resolution**2)]
        places = {-1: 0}  # in `uses`, of what each block yields
        for i, (row, reads) in enumerate(zip(self.summaries, self.reads, strict=True)):
            given = tuple([places[read] for read in reads])
            places[i] = len(uses) if row.passes is None else given[row.passes]
            if row.passes is None:
                uses.append(Use(given, FLOAT_BYTES * prod(row.shape), inner=row))
        return max(alive(uses, {0, *[places[i] for i in self.ends]}))

    @property
    def memory_bytes(self) -> int:
        """Bytes of float32 that it takes to run the network: weights, activations and the pointers of convolutions."""
        pointers = sum([row.pointers for row in self.summaries])
        return FLOAT_BYTES * self.params + self.peak_bytes + POINTER_BYTES * pointers

    def with_classes(self, classes: int) -> Arch:
        """The same network with another number of classes in its last block."""
        return replace(self, blocks=(*self.blocks[:-1], replace(cast(Any, self.blocks[-1]), classes=classes)))

    def identity(self) -> dict[str, Any]:
        """Plain data that equal architectures have in common: `to_json` without what only names nodes."""
        parts = [{"block": kind_of(part)} | asdict(cast(Any, part)) for part in self.blocks]
        for reader, read in self.taps:
            parts[reader].setdefault("taps", []).append(read)
        for i in self.outputs:
            parts[i]["output"] = True
        precision = {} if self.precision == FLOAT else {"precision": self.precision}
        return {"resolution": self.resolution, **precision, "blocks": parts}

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes an equal architecture whose nodes have the same names."""
        return self.identity() | ({"rows": list(self.rows)} if self.rows else {})

    @classmethod
    def from_json(cls, data: Any, *, source: str = "architecture", check: bool = True) -> Arch:
        """The architecture that `to_json` wrote; `source` names it in errors.

        With `check` its blocks are tried on one another; that they are blocks is looked at in any case.

        Raises:
            SpaceError: a key is missing or unknown, a value has the wrong type, or the network is not legal.
            TrustError: a block is of a module that is not trusted.
        """
        if not isinstance(data, Mapping) or set(data) - {"precision", "rows"} != {"resolution", "blocks"}:
            raise SpaceError(f"{source} must be an object with the keys resolution and blocks, but is {quoted(data)}")
        resolution, precision, parts = data["resolution"], data.get("precision", FLOAT), data["blocks"]
        check_resolution(resolution, source)
        check_precision(precision, source)
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not 0 < len(parts) <= BLOCKS:
            raise SpaceError(f"{source}: blocks must be a list of 1 to {BLOCKS:,}, but got {quoted(parts)}")
        blocks, taps, outputs = [], list[tuple[int, int]](), []
        for i, part in enumerate(parts):
            try:
                block, reads, output = _part(part, i)
            except SpaceError as error:
                kind = part.get("block", "") if isinstance(part, Mapping) else ""
                raise SpaceError(
                    f"{source}, block {i}{f' ({kind:.60})' if kind and isinstance(kind, str) else ''}: {error}"
                ) from None
            blocks.append(block)
            taps += [(i, read) for read in reads]
            if output and i + 1 < len(parts):
                outputs.append(i)
        rows = _rows(data.get("rows", []), len(blocks), source)
        arch = cls(tuple(blocks), resolution, precision, tuple(taps), tuple(outputs), rows)
        if check:
            arch.check(source)
        return arch

    @classmethod
    def load(cls, path: str | Path) -> Arch:
        """Architecture from a JSON file.

        Raises:
            SpaceError: the file is not there, is not JSON, or holds no legal architecture.
        """
        try:
            data = read_json(Path(path))
        except (OSError, ValueError) as error:
            raise SpaceError(f"{path} must be an architecture's JSON file, but cannot be read: {error}") from None
        return cls.from_json(data, source=str(path))

    def check(self, source: str) -> None:
        """Check that every block is defined on what it reads, that the last is a classifier, and that all of it could
        be built.

        Raises:
            SpaceError: it is not so; `source` names the architecture.
        """
        image: Shape = Map(IMAGE_CHANNELS, self.resolution, self.resolution)
        shapes: list[Shape] = []
        steps = 0
        for i, (part, reads) in enumerate(zip(self.blocks, self.reads, strict=True)):
            try:
                made = check_block(part, tuple([shapes[j] if j >= 0 else image for j in reads]))
            except SpaceError as error:
                raise SpaceError(f"{source}, block {i} ({kind_of(part)}): {error}") from None
            shapes.append(made.shape)
            steps += 4 + len(made.steps)
            if steps > STEPS:
                raise SpaceError(f"{source} must need {STEPS:,} ops at most to be checked, but needs more")
        check_last(self.blocks[-1], shapes[-1], f"{source}, block {len(shapes) - 1} ({kind_of(self.blocks[-1])})")


def _part(data: Any, index: int) -> tuple[Block, list[int], bool]:
    """A block of an architecture's JSON, the earlier blocks that it reads, and whether it is an output.

    Raises:
        SpaceError: it is none.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("block"), str):
        raise SpaceError(f"a block must be an object with the key block, but is {quoted(data)}")
    kind, taps, output = data["block"], data.get("taps", []), data.get("output", False)
    known = isinstance(taps, list) and all(type(i) is int and 0 <= i < index - 1 for i in taps)
    if not known or len(set(taps)) < len(taps):
        raise SpaceError(
            "taps must be a list of different indices of blocks before the one that is read anyway, but got"
            f" {quoted(taps)}"
        )
    if not isinstance(output, bool):
        raise SpaceError(f"output must be true or false, but got {quoted(output)}")
    try:
        block = make(kind, tuple([(key, value) for key, value in data.items() if key not in RESERVED]))
    except TypeError:  # what no field can be
        raise SpaceError(f"fields must be numbers, texts or truths, but got {quoted(data)}") from None
    check_taps(kind, len(taps))
    return block, taps, output


def _rows(rows: Any, count: int, source: str) -> tuple[int, ...]:
    """How many blocks each row made, of `count` in all.

    Raises:
        SpaceError: they do not add up.
    """
    if not isinstance(rows, list) or not all(type(n) is int and n > 0 for n in rows) or (rows and sum(rows) != count):
        raise SpaceError(
            f"{source}: rows must be whole numbers whose sum is {count}, or left out, but got {quoted(rows)}"
        )
    return tuple(rows)


def check_resolution(side: Any, source: str) -> None:
    """Check that a number is pixels of an image's side.

    Raises:
        SpaceError: it is not.
    """
    if type(side) is not int or side < SMALLEST:
        raise SpaceError(f"{source}: resolution must be whole pixels, {SMALLEST} or more, but got {quoted(side)}")
    if side > LARGEST_SIDE:
        raise SpaceError(f"{source}: resolution must be {LARGEST_SIDE} pixels at most, but got {quoted(side)}")


def check_precision(word: Any, source: str) -> None:
    """Check that a word is a precision.

    Raises:
        SpaceError: it is not.
    """
    if not isinstance(word, str) or word not in PRECISIONS:
        raise SpaceError(f"{source}: {unknown('precision', word, PRECISIONS)}")


def check_block(part: Block, shapes: tuple[Shape, ...]) -> Summary:
    """Costs of a block on inputs of `shapes`, which may follow one another and could be held in a file and in memory.

    Raises:
        SpaceError: they could not, or the block is not defined on these shapes.
    """
    if isinstance(shapes[0], Vector):
        raise SpaceError("a classifier must come last and once, but this block follows one")
    made = summary(part, shapes)
    if made.params > NUMBERS or not 0 < prod(made.shape) <= NUMBERS:
        raise SpaceError(
            f"a block must have {NUMBERS:,} parameters at most and yield as many numbers at most, and one at least, "
            f"but has {made.params:.3g} and yields {tuple(made.shape)}"
        )
    return made


def check_last(part: Block, shape: Shape, where: str) -> None:
    """Check that a network's last block, which yields `shape`, is a classifier.

    Raises:
        SpaceError: it is not.
    """
    if not (isinstance(shape, Vector) and hasattr(part, "classes")):
        raise SpaceError(f"{where}: the last block must be a classifier, such as head")
