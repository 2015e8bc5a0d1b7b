"""Laws of a cost, for whoever writes one. In a test file of yours:

from mvnas.testing.cost import CostContract

class TestMine(CostContract):
    name = "mine.traffic"
"""

from __future__ import annotations

from functools import cache
from math import inf

from mvnas.budgets import Bound, Budget
from mvnas.costs import Cost, Price, cost, from_json, names, to_json
from mvnas.latency import DEFAULT_TABLE
from mvnas.latency.model import Latency, LatencyModel
from mvnas.latency.table import Table
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space

NETWORKS = ("mobilevit_xxs", "mobilevit_xs", "mobilevit_s", "repvit_m0_9")


class CostContract:
    """A test class for each cost: subclasses give its name as budgets have it, and a model where it needs one."""

    name: str

    def model(self) -> Latency:
        """A model of a device that tells the cost."""
        return shipped()

    def test_it_declares_what_all_others_read(self) -> None:
        its = cost(self.name)
        assert isinstance(its, Cost)
        assert its.name.isidentifier() and its.name == its.name.lower()
        assert self.name.rpartition(".")[2] == its.name, "a cost is called by the name of its module"
        assert its.unit == "" or its.unit.isalpha()
        others = {key for name in names() if name != self.name for key in cost(name).keys}
        assert not others & {*its.keys}, "columns and attributes of trials are called by it"

    def test_estimates_are_positive_and_within_their_interval(self) -> None:
        its, model = cost(self.name), self.model()
        its.check(model)
        for arch in networks():
            one = its.of(arch, model)
            assert one.unit == its.unit
            assert 0 < one.low <= one.value <= one.high < inf
            assert (one.low < one.high) == its.interval, "what is counted is exact, what is predicted is not"
            assert its.of(arch, model) == one, "the same network costs the same"

    def test_networks_differ_in_it(self) -> None:
        assert len({cost(self.name).of(arch, self.model()).value for arch in networks()}) == len(networks())

    def test_it_is_told_and_bounded_by_what_is_told(self) -> None:
        its, model = cost(self.name), self.model()
        for arch in networks():
            value = Price(arch, model)[self.name]
            budget = Budget.parse(f"{its.told(value).replace(' ', '')}-{self.name}")
            (bound,) = budget.bounds
            assert abs(bound.high / value - 1) < 10 ** (1 - its.digits)
            assert Budget("", (Bound(self.name, value),)).excess(Price(arch, model)) == 0
            assert Budget("", (Bound(self.name, value / 2),)).excess(Price(arch, model)) > 0

    def test_plain_data_tells_it_whole(self) -> None:
        its = cost(self.name)
        for arch in networks():
            one = its.of(arch, self.model())
            again = from_json(self.name, to_json({self.name: one}))
            assert again and (again.value, again.low, again.high) == (one.value, one.low, one.high)


@cache
def networks() -> list[Arch]:
    """Some networks that differ."""
    return [Space.load(name).arch() for name in NETWORKS]


@cache
def shipped() -> LatencyModel:
    """The model of the shipped table."""
    return LatencyModel.fit(Table.load(DEFAULT_TABLE))
