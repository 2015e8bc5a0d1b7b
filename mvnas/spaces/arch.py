"""Architectures: blocks in order and a resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import cache, cached_property, lru_cache
from importlib import import_module
from inspect import getdoc
from itertools import accumulate
from math import inf
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, cast, get_type_hints

from mvnas.errors import SpaceError, told, unknown
from mvnas.graph import FLOAT_BYTES, POINTER_BYTES, Graph, Summary, summary
from mvnas.ops import Input, Map, Shape, Value
from mvnas.system import trust
from mvnas.system.reading import read_json

Block = Callable[[Value], Value]

FLOAT = "float32"
PRECISIONS = {
    FLOAT: 4,
    "float16": 2,
    "dynamic-int8": 1,
    "int8": 1,
}  # deployed: bytes of a weight; training is in float32
IMAGE_CHANNELS = 3
LARGEST = 1_000_000  # value of a field: no mobile network has as many channels, classes or pixels in a row
REPEATS = 100  # layers of a block, and blocks of a stage; the published networks have 15 at most
COUNTED = ("layers", "repeat")


@cache
def data_folder(name: str) -> Path:
    """The folder of shipped data `name`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / name if (package / name).is_dir() else package.parent / name


def block_class(kind: str) -> type:
    """Class of the block `kind`: `Block` of a module of mvnas.blocks, or if the name is dotted of any module that is trusted.

    Raises:
        SpaceError: there is no such module, or it defines no `Block`.
        TrustError: it is not trusted.
    """
    if "." in kind:
        trust.check(kind)
    return _block_class(kind)


@cache
def _block_class(kind: str) -> type:
    name = kind if "." in kind else f"mvnas.blocks.{kind}"
    try:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ModuleNotFoundError(name=name)
        made = getattr(trust.module(name, SpaceError) if "." in kind else import_module(name), "Block", None)
    except ModuleNotFoundError:
        modules = iter_modules(import_module("mvnas.blocks").__path__)
        known = [module.name for module in modules if not module.name.startswith("_")]
        raise SpaceError(unknown("block", kind, known)) from None
    if not isinstance(made, type):
        raise SpaceError(f"a block's module must define the class Block, but {name} does not")
    if not is_dataclass(made):
        raise SpaceError(f"a block must be a dataclass, but {name}.Block is none")
    return made


def check_field(kind: str, key: str, value: object) -> None:
    """Check that blocks of `kind` have the field `key`, and that it may hold `value`.

    Raises:
        SpaceError: there is no such field, or the value has the wrong type, or is too large, or neither positive nor the default.
    """
    known = _fields(kind)
    if key not in known:
        raise SpaceError(unknown("key", key, (*known, "block", "repeat")))
    wanted, default = known[key]
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    if not fits or isinstance(value, bool) != (wanted is bool):
        raise SpaceError(f"{key} must be of type {wanted.__name__}, but got {told(value)}")
    if wanted in (int, float) and value != default:
        check_size(key, value)


def check_size(key: str, value: Any) -> None:
    """Check that a number is positive, and no larger than networks need.

    Raises:
        SpaceError: it is not.
    """
    if not 0 < value < inf:
        raise SpaceError(f"{key} must be positive and finite, but got {told(value)}")
    most = REPEATS if key in COUNTED else LARGEST
    if value > most:
        raise SpaceError(f"{key} must be {most:,} at most, but got {told(value)}")


@cache
def _fields(kind: str) -> dict[str, tuple[type, Any]]:
    """The type of each field of a block of `kind`, and its default: MISSING if it has none."""
    made = block_class(kind)
    types = get_type_hints(made)
    return {field.name: (types[field.name], field.default) for field in fields(made)}


def required_fields(kind: str) -> list[str]:
    """Names of the fields of a block of `kind` that have no default."""
    return [name for name, (_, default) in _fields(kind).items() if default is MISSING]


def rules(kind: str) -> str:
    """What a block of `kind` refuses, as its docstring says under Raises; empty if it says nothing."""
    _, _, raises = (getdoc(block_class(kind)) or "").partition("SpaceError: ")
    return " ".join(raises.split())


@lru_cache(maxsize=1 << 14)
def block(kind: str, settings: tuple[tuple[str, Any], ...]) -> Block:
    """The block `kind` with its fields set."""
    return cast(Block, block_class(kind)(**dict(settings)))


def kind_of(part: Block) -> str:
    """The name a block has in a YAML file."""
    return type(part).__module__.removeprefix("mvnas.blocks.")


@dataclass(frozen=True)
class Arch:
    """One network: its blocks in order, the resolution it is deployed at, in pixels, and the precision, one of PRECISIONS.

    >>> from mvnas.spaces.space import Space
    >>> arch = Space.load("mobilevit_xxs").arch()
    >>> arch.graph().params, arch.params, arch.macs, Arch.from_json(arch.to_json()) == arch
    (1272024, 1266544, 407364096, True)
    """

    blocks: tuple[Block, ...]
    resolution: int = 256
    precision: str = FLOAT

    def graph(self, resolution: int | tuple[int, int] = 0) -> Graph:
        """The network's ops, at another resolution (square, or height and width) if one is given.

        Raises:
            SpaceError: a block is not defined on the map it gets.
        """
        size = resolution or self.resolution
        image = Input(Map(IMAGE_CHANNELS, *((size, size) if isinstance(size, int) else size)))()
        values = accumulate(self.blocks, lambda x, part: part(x), initial=image)
        return Graph.of(*list(values)[1:])

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """Costs of each block at the deployed resolution, remembered across architectures.

        Raises:
            SpaceError: a block is not defined on the map it gets.
        """
        shape: Shape = Map(IMAGE_CHANNELS, self.resolution, self.resolution)
        rows = []
        for part in self.blocks:
            rows.append(summary(part, (shape,)))
            shape = rows[-1].shape
        return tuple(rows)

    @property
    def params(self) -> int:
        """Numbers that the deployed network holds; `graph().params` are those that are trained."""
        return sum([row.params for row in self.summaries])

    @property
    def macs(self) -> int:
        return sum([row.macs for row in self.summaries])

    @property
    def peak_bytes(self) -> int:
        """Most bytes of float32 activations alive at once in the deployed graph, the image among them."""
        first, *others = self.summaries
        image = FLOAT_BYTES * IMAGE_CHANNELS * self.resolution**2
        return max([first.peaks[1], *[image + row.peaks[0] for row in others]])

    @property
    def memory_bytes(self) -> int:
        """Bytes of float32 that it takes to run the network: weights, activations and the pointers of convolutions."""
        pointers = sum([row.pointers for row in self.summaries])
        return FLOAT_BYTES * self.params + self.peak_bytes + POINTER_BYTES * pointers

    def with_classes(self, classes: int) -> Arch:
        """The same network with another number of classes in its last block."""
        return replace(self, blocks=(*self.blocks[:-1], replace(cast(Any, self.blocks[-1]), classes=classes)))

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes an equal architecture."""
        rows = [{"block": kind_of(part)} | asdict(cast(Any, part)) for part in self.blocks]
        precision = {} if self.precision == FLOAT else {"precision": self.precision}
        return {"resolution": self.resolution, **precision, "blocks": rows}

    @classmethod
    def from_json(cls, data: Any, *, source: str = "architecture") -> Arch:
        """The architecture that `to_json` wrote; `source` names it in errors.

        Raises:
            SpaceError: a key is missing or unknown, a value has the wrong type, or the network is not legal.
        """
        if not isinstance(data, Mapping) or set(data) - {"precision"} != {"resolution", "blocks"}:
            raise SpaceError(f"{source} must be an object with the keys resolution and blocks, but is {told(data)}")
        from mvnas.spaces.space import Space

        stages = {"stages" if key == "blocks" else key: value for key, value in data.items()}
        return Space.from_data(stages, source=source).arch()

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
