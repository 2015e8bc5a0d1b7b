"""Laws of budgets: what they say, how far a network is over, and that what is called feasible is."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from itertools import product

import pytest

from mvnas.backends.roofline import Backend
from mvnas.budgets import Bound, Budget
from mvnas.budgets.feasible import check_feasible, repair
from mvnas.costs import Price, cost
from mvnas.costs._filesize import file_bytes
from mvnas.errors import BudgetError
from mvnas.graph import Graph, Kernel
from mvnas.latency.calibration import Calibration
from mvnas.latency.model import LatencyModel
from mvnas.latency.table_prices import TablePrices
from mvnas.spaces.space import Space


class Roofline(Mapping[Kernel, float]):
    """Timings of every kernel, by arithmetic."""

    def __getitem__(self, kernel: Kernel) -> float:
        return Backend().kernel_ms(Graph.single(*kernel).output)

    def __iter__(self) -> Iterator[Kernel]:
        return iter(())

    def __len__(self) -> int:
        return 0


MODEL = LatencyModel("roofline", TablePrices(Roofline(), {}), Calibration(spread=0.1))
MOBILEVIT = Space.load("mobilevit")
SMALL = Space.from_data(
    {
        "resolution": [64, 96],
        "stages": [
            {"block": "stem", "channels": 8},
            {"block": "inverted_residual", "channels": [8, 16, 24], "stride": 2, "expand": [1, 2]},
            {"block": "mobilevit", "dim": [16, 32], "layers": [1, 2], "heads": 2},
            {"block": "head", "channels": [32, 64]},
        ],
    },
    source="small",
    name="small",
)
COSTS = [  # of every point of the small space
    Price(SMALL.at(dict(zip(SMALL.choices, picks, strict=True))), MODEL) for picks in product(*SMALL.choices.values())
]


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("6M-params", [Bound("params", 6e6)]),
        ("1272024-params", [Bound("params", 1_272_024)]),
        ("2.01M-params", [Bound("params", 2_010_000)]),
        ("4M..6M-params", [Bound("params", 6e6, 4e6)]),
        ("4..6M-params", [Bound("params", 6e6, 4e6)]),
        ("900K..1.5M-params", [Bound("params", 1.5e6, 9e5)]),
        ("0.6G-macs", [Bound("macs", 6e8)]),
        ("8ms", [Bound("latency", 8)]),
        (".5ms-latency", [Bound("latency", 0.5)]),
        ("5..8ms", [Bound("latency", 8, 5)]),
        ("30mJ", [Bound("energy", 30)]),
        ("20..30.5mJ-energy", [Bound("energy", 30.5, 20)]),
        ("20MB-size", [Bound("size", 2e7)]),
        ("64MB-memory", [Bound("memory", 6.4e7)]),
        ("6M-params, 8ms,64MB-memory", [Bound("params", 6e6), Bound("latency", 8), Bound("memory", 6.4e7)]),
    ],
)
def test_a_budget_says_its_bounds(text: str, bounds: list[Bound]) -> None:
    assert Budget.parse(text) == Budget(text, tuple(bounds))


def test_a_network_bounds_parameters_and_latency() -> None:
    budget = Budget.parse("mobilevit_xs,64MB-memory", lambda name: {"params": 2.3e6, "latency": len(name)})
    assert budget.bounds == (Bound("params", 2.3e6), Bound("latency", 12), Bound("memory", 6.4e7))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a budget must be bounds such as 6M-params, .*, but got ''"),
        ("6M-params,", "a budget must be .*, but got ''"),
        ("6M", "'6M': a budget must name its cost"),
        ("20MB", "'20MB': a budget must name its cost"),
        ("6M-param", "unknown cost 'param'; did you mean 'params'"),
        ("6MM-params", "but got '6MM-params'"),
        ("1e6-params", "but got '1e6-params'"),
        ("-6M-params", "but got '-6M-params'"),
        ("nan-params", "but got 'nan-params'"),
        ("8 ms", "but got '8 ms'"),
        ("..8ms", "but got '..8ms'"),
        ("6M-params;8ms", "but got '6M-params;8ms'"),
        ("0-params", "must be positive and a range must rise, but got '0-params'"),
        ("6M..4M-params", "must be positive and a range must rise, but got '6M..4M-params'"),
        ("8ms-params", "params must be in plain numbers, but '8ms-params' is in ms"),
        ("20M-size", "size must be in B, but '20M-size' is in plain numbers"),
        ("8ms-energy", "energy must be in mJ, but '8ms-energy' is in ms"),
        ("8-latency", "latency must be in ms, but '8-latency' is in plain numbers"),
        ("8ms,9ms", "must bound each cost once, but '8ms,9ms' bounds latency 2 times"),
        ("mobilevit_xs,8ms", "must bound each cost once, but .* bounds latency 2 times"),
        ("mobilevit_xxl", "unknown network 'mobilevit_xxl'; did you mean 'mobilevit_xxs'"),
    ],
)
def test_what_is_no_budget_is_told(text: str, told: str) -> None:
    with pytest.raises(BudgetError, match=told):
        Budget.parse(text, lambda name: {"params": 1.0, "latency": 1.0})


@pytest.mark.parametrize(
    ("text", "costs", "excess"),
    [
        ("6M-params", {"params": 6e6}, 0.0),
        ("6M-params", {"params": 9e6}, 0.5),
        ("4M..6M-params", {"params": 4e6}, 0.0),
        ("4M..6M-params", {"params": 3e6}, 0.25),
        ("6M-params,8ms", {"params": 9e6, "latency": 10.0}, 0.75),
        ("6M-params,8ms", {"params": 1e6, "latency": 10.0}, 0.25),
    ],
)
def test_excess_adds_up_what_is_over(text: str, costs: dict[str, float], excess: float) -> None:
    assert Budget.parse(text).excess(costs) == pytest.approx(excess, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("params", 5_578_632, "5.579M"),
        ("macs", 2_000_831_488, "2.001G"),
        ("latency", 12.34, "12.3 ms"),
        ("latency", 1234.6, "1235 ms"),
        ("energy", 12.34, "12.3 mJ"),
        ("size", 22_314_528, "22.31 MB"),
        ("memory", 512, "512 B"),
    ],
)
def test_costs_are_shown_for_people(name: str, value: float, shown: str) -> None:
    assert cost(name).told(value) == shown


def test_prices_are_those_of_the_architecture() -> None:
    arch = MOBILEVIT.sample(lambda name, options: options[0])
    costs = Price(arch, MODEL)
    assert costs == {
        "params": arch.params, "macs": arch.macs, "latency": MODEL.predict(arch).value,
        "size": file_bytes(arch), "memory": arch.memory_bytes,
    }  # fmt: skip


@pytest.mark.parametrize("cost", ["params", "macs", "latency", "size", "memory"])
def test_a_budget_of_the_cheapest_point_is_feasible_and_one_below_is_not(cost: str) -> None:
    least = min(costs[cost] for costs in COSTS)
    check_feasible(Budget("", (Bound(cost, least),)), SMALL, MODEL)
    with pytest.raises(BudgetError, match="none does"):
        check_feasible(Budget("", (Bound(cost, 0.999 * least),)), SMALL, MODEL)


@pytest.mark.parametrize("seed", range(10))
def test_feasible_is_what_some_point_of_the_space_meets(seed: int) -> None:
    generator = random.Random(seed)
    bounds = []
    for name in generator.sample(["params", "latency", "memory"], 2):
        values = sorted(costs[name] for costs in COSTS)
        bounds.append(Bound(name, values[generator.randrange(len(values) // 3)]))
    budget = Budget("a random budget", tuple(bounds))
    if any(budget.excess(costs) == 0 for costs in COSTS):
        check_feasible(budget, SMALL, MODEL)
    else:
        with pytest.raises(BudgetError, match="the nearest feasible is"):
            check_feasible(budget, SMALL, MODEL)


@pytest.mark.parametrize("text", ["1K-params", "1K-macs", "0.01ms", "1B-memory", "1MB-size,1ms", "100M..101M-params"])
def test_the_nearest_budget_is_feasible(text: str) -> None:
    with pytest.raises(BudgetError, match=f"a network of mobilevit must meet the budget {re.escape(text)}") as caught:
        check_feasible(Budget.parse(text), MOBILEVIT, MODEL)
    nearest = Budget.parse(str(caught.value).rpartition("the nearest feasible is ")[2])
    check_feasible(nearest, MOBILEVIT, MODEL)
    assert [bound.cost for bound in nearest.bounds] == [bound.cost for bound in Budget.parse(text).bounds]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("text", ["1.2M-params", "3M..3.5M-params", "2M-params,8ms", "9ms,12MB-memory"])
def test_repair_ends_within_the_budget(text: str, seed: int) -> None:
    budget, generator = Budget.parse(text), random.Random(seed)
    start = {name: generator.choice(options) for name, options in MOBILEVIT.choices.items()}

    def excess(arch: object) -> float:
        return budget.excess(Price(arch, MODEL))  # type: ignore[arg-type]

    picks, left, over = repair(start, MOBILEVIT, excess, generator)
    assert left == excess(MOBILEVIT.at(picks)) == 0
    assert (over == 0) == (picks == start)


def test_repair_leaves_alone_what_is_within() -> None:
    start = {name: options[0] for name, options in MOBILEVIT.choices.items()}
    assert repair(start, MOBILEVIT, lambda arch: 0.0, random.Random(0)) == (start, 0.0, 0)


def test_repair_gives_up_in_the_end() -> None:
    start = {name: options[0] for name, options in MOBILEVIT.choices.items()}
    assert repair(start, MOBILEVIT, lambda arch: 1.0, random.Random(0), tries=5)[1:] == (1.0, 5)
