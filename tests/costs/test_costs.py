"""Laws of the declarations of costs: those of every one, and what is said of a module that declares none."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from mvnas import costs
from mvnas.budgets import Budget
from mvnas.errors import CostError, TableError, TrustError
from mvnas.latency import DEFAULT_TABLE
from mvnas.latency.model import Latency, LatencyModel
from mvnas.latency.table import Table, Timing
from mvnas.system import trust
from mvnas.testing.cost import CostContract, networks, shipped


class TestParams(CostContract):
    name = "params"


class TestMacs(CostContract):
    name = "macs"


class TestSize(CostContract):
    name = "size"


class TestMemory(CostContract):
    name = "memory"


class TestLatency(CostContract):
    name = "latency"


class TestEnergy(CostContract):
    name = "energy"

    def model(self) -> Latency:
        return powered()


@cache
def powered() -> LatencyModel:
    """A model of the shipped table as if an op drew three watts."""
    table = Table.load(DEFAULT_TABLE)

    def drawn(timing: Timing) -> Timing:
        return replace(timing, energy_mj=3 * timing.min_ms or None)

    ops = {kernel: drawn(timing) for kernel, timing in table.ops.items()}
    passes = {arch: tuple(map(drawn, timings)) for arch, timings in table.passes.items()}
    return LatencyModel.fit(replace(table, ops=ops, passes=passes))


def test_every_cost_of_ours_keeps_the_laws() -> None:
    assert {suite.name for suite in CostContract.__subclasses__()} >= {*costs.names()}


def test_a_price_tells_what_the_model_does() -> None:
    assert list(costs.Price(networks()[0], shipped())) == ["params", "macs", "latency", "size", "memory"]
    assert list(costs.Price(networks()[0], powered())) == costs.names()
    with pytest.raises(TableError, match="energy on genoa-1t must have been measured op by op"):
        costs.cost("energy").check(shipped())


def module(folder: Path, name: str, code: str) -> str:
    (folder / f"{name}.py").write_text(code)
    return f"{folder.name}.{name}"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a folder that modules are found in."""
    folder = tmp_path / "my_costs"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("", "must define the class Cost"),
        ("class Cost: name = 'plain'", "must derive from mvnas.costs.Cost"),
        ("from mvnas import costs\nclass Cost(costs.Counted): pass", "and have a name"),
        ("1 / 0", "must import, but raises ZeroDivisionError"),
    ],
)
def test_what_declares_no_cost_is_told(code: str, told: str, mine: Path) -> None:
    name = module(mine, f"no{abs(hash(code))}", code)
    with pytest.raises(CostError, match=told):
        costs.cost(name)


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(CostError, match="unknown cost 'latncy'; did you mean 'latency'"):
        costs.cost("latncy")
    with pytest.raises(CostError, match="unknown cost 'my_costs.nothing'"):
        costs.cost("my_costs.nothing")


def test_only_a_user_names_code_as_a_cost(mine: Path) -> None:
    name = module(mine, "foreign", "from mvnas import costs\nclass Cost(costs.Counted): name = 'foreign'")
    with pytest.raises(TrustError, match="must not run code that you did not name"):
        Budget.parse(f"5M-{name}", foreign=True)
    assert Budget.parse(f"5M-{name}").bounds[0].cost == name
    trust.check(name)  # named by the user, it may be named by files too
