"""What a network costs. One file a cost; the file name is the name, and the class it defines is `Cost`.

A cost says its unit, how it is found of a network, and how it is told to people. Budgets, objectives, scores, studies,
tables, pictures and plain data read all of that here. Less of a cost is better: that is what makes it one.

Yours is a module with one class, and this is all of it:

    from mvnas import costs

    class Cost(costs.Counted):
        name, unit = "traffic", "B"

        def count(self, arch):
            return sum(row.traffic_bytes for row in arch.graph().deployed().block_costs())

`mvnas search --budget 20MB-mine.traffic --objective mine.traffic` bounds and minimises it, and `mvnas.testing.cost`
checks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from mvnas.errors import CostError, TableError
from mvnas.latency.estimate import Estimate
from mvnas.latency.model import Latency
from mvnas.spaces.arch import Arch
from mvnas.system import trust
from mvnas.system.plugins import load_class
from mvnas.system.plugins import names as files

PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
ORDER = ("params", "macs", "latency", "energy", "size", "memory")  # that tables have; others follow
SUFFIXES = {"": "", "B": "_bytes"}  # of names in plain data, by units; of any other unit the unit


class Cost:
    """One kind of cost, predicted with an interval; where it is counted, derive from `Counted` instead."""

    name: ClassVar[str]
    """What budgets and objectives call it: a word in lower case, the last one of its module's name."""
    unit: ClassVar[str] = ""
    """A word such as ms, or nothing if it is a plain number."""
    title: ClassVar[str] = ""
    """What heads its column in tables, if not the name."""
    digits: ClassVar[int] = 3
    """How many of them people are shown."""
    prefixes: ClassVar[bool] = False
    """Whether people are shown thousands as K, millions as M, and 1e9 as G."""
    interval: ClassVar[bool] = True
    """Whether estimates have one, being predicted."""

    def check(self, model: Latency) -> None:
        """Return if a model tells this cost.

        Raises:
            TableError: its tables lack what it takes.
        """

    def of(self, arch: Arch, model: Latency) -> Estimate:
        """What a network costs on the device of a model, in `unit`.

        Raises:
            TableError: the model does not tell it, of this network or at all.
        """
        raise NotImplementedError

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """What columns and plain data call the value, and the low and the high end where it is predicted.

        >>> cost("latency").keys, cost("memory").keys
        (('latency_ms', 'latency_low_ms', 'latency_high_ms'), ('memory_bytes',))
        """
        suffix = SUFFIXES.get(self.unit, f"_{self.unit.lower()}")
        ends = ("", "_low", "_high") if self.interval else ("",)
        return tuple(f"{self.name}{end}{suffix}" for end in ends)

    @property
    def heading(self) -> str:
        """What heads its column in tables."""
        return self.title or self.name

    def told(self, value: float) -> str:
        """A value for people.

        >>> cost("latency").told(12.34), cost("params").told(5_578_632), cost("size").told(22_314_528)
        ('12.3 ms', '5.579M', '22.31 MB')
        """
        prefix = next((p for p in ("G", "M", "K") if self.prefixes and value >= PREFIXES[p]), "")
        scaled = value / PREFIXES[prefix]
        number = f"{scaled:.0f}" if scaled >= 10 ** (self.digits - 1) else f"{scaled:.{self.digits}g}"
        return f"{number}{' ' if self.unit else ''}{prefix}{self.unit}"


class Counted(Cost):
    """A cost that follows from the architecture alone, so that it is exact and no table is asked."""

    digits = 4
    prefixes = True
    interval = False

    def count(self, arch: Arch) -> float:
        """What a network costs, in `unit`."""
        raise NotImplementedError

    def of(self, arch: Arch, model: Latency) -> Estimate:
        return Estimate.exactly(self.count(arch), self.unit)


_loaded: dict[str, Cost] = {}


def names() -> list[str]:
    """Names of the costs of ours, in the order that tables have."""
    found = files(__name__)
    return [*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER)]


def cost(name: str, *, foreign: bool = False) -> Cost:
    """The cost of a name: one of ours, or the class `Cost` of any module if the name is dotted.

    `foreign` says that a file named it, and not the user: such a module is run only if it is trusted.

    Raises:
        CostError: there is none.
        TrustError: it is not trusted.
    """
    if foreign and "." in name:
        trust.check(name)
    if name not in _loaded:
        made = load_class("cost", name, __name__, "Cost", CostError, foreign=foreign)
        if not issubclass(made, Cost) or not str(getattr(made, "name", "")).isidentifier():
            raise CostError(f"a cost must derive from mvnas.costs.Cost and have a name, but {name}.Cost does not")
        _loaded[name] = made()
    return _loaded[name]


def known(name: str, model: Latency) -> bool:
    """Whether a model tells a cost."""
    try:
        cost(name).check(model)
    except TableError:
        return False
    return True


def estimates(arch: Arch, model: Latency, which: Iterable[str]) -> dict[str, Estimate]:
    """What a network costs on the device of a model, by the names of the costs.

    Raises:
        UnmeasuredError: the model does not know one of the ops.
        TableError: the model's tables lack what a cost takes.
    """
    return {name: cost(name).of(arch, model) for name in which}


def to_json(costs: Mapping[str, Estimate]) -> dict[str, float]:
    """Costs as plain data: values, and the ends of intervals where they are predicted, each by its key."""
    found: dict[str, float] = {}
    for name, its in costs.items():
        found |= dict(zip(cost(name).keys, (its.value, its.low, its.high), strict=False))
    return found


def from_json(name: str, data: Mapping[str, Any]) -> Estimate | None:
    """The estimate that `to_json` wrote of a cost; None if it did not."""
    keys = cost(name).keys
    if any(key not in data for key in keys):
        return None
    value, low, high = (data[key] for key in (keys if len(keys) == 3 else keys * 3))
    return Estimate(value, low, high, cost(name).unit)


class Price(Mapping[str, float]):
    """The costs of one network by the names that budgets use, each found when it is asked for; those the model tells.

    Raises, when a cost is asked for:
        UnmeasuredError: the model does not know one of the ops.
        TableError: the model's tables lack what the cost takes.
    """

    def __init__(self, arch: Arch, model: Latency) -> None:
        self.arch, self.model = arch, model

    def __getitem__(self, name: str) -> float:
        return cost(name).of(self.arch, self.model).value

    def __iter__(self) -> Iterator[str]:
        return (name for name in names() if known(name, self.model))

    def __len__(self) -> int:
        return sum(1 for _ in self)
