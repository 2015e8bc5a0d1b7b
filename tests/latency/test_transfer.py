"""Laws of a new device from few timings: a scaled device is found from one timing, a different one from some."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest
from small import make_space, make_table

from mvnas.backends import backend
from mvnas.errors import TableError, UnmeasuredError
from mvnas.graph import Kernel
from mvnas.latency.kinds import kind
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table
from mvnas.latency.transfer import (
    FACTOR,
    NETWORK,
    SHIFT,
    SUPPOSED,
    CorrectedPrices,
    Correction,
    Row,
    _covariance,
    choose,
    informative,
)
from mvnas.measuring.holdout import left_out
from mvnas.measuring.measure import measure
from mvnas.measuring.plan import sample
from mvnas.measuring.protocol import Protocol
from mvnas.ops import Conv, Map
from mvnas.reports.plot_table import plot_table
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space

SHORT = Protocol(op_openings=1, op_runs=1, op_seconds=0, network_runs=1, network_seconds=0, passes=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def space(folder: Path) -> Path:
    return make_space(folder)


@pytest.fixture(scope="module")
def table(folder: Path, space: Path) -> Path:
    return make_table(folder / "known", space)


@pytest.fixture(scope="module")
def known(table: Path) -> LatencyModel:
    return LatencyModel.fit(Table.load(table))


@pytest.fixture(scope="module")
def archs(space: Path) -> list[Arch]:
    return sample([Space.load(space)], 50, seed=0)


@pytest.fixture(scope="module")
def runs(archs: list[Arch]) -> dict[Kernel, int]:
    runs: dict[Kernel, int] = {}
    for arch in archs:
        for block in arch.summaries:
            for kernel, count in block.kernels:
                runs[kernel] = runs.get(kernel, 0) + count
    return runs


def test_a_scaled_device_is_found_from_two_timings(
    known: LatencyModel, runs: dict[Kernel, int], archs: list[Arch]
) -> None:
    timed = {kernel: 3 * known.prices.kernel(kernel) for kernel in informative(known.prices, archs, 2)}
    made = CorrectedPrices.fit(known.prices, known.calibration, timed)
    assert made.price(list(runs)) == pytest.approx([3 * known.prices.kernel(kernel) for kernel in runs], rel=1e-6)
    assert made.correction.errors == pytest.approx([0, 0], abs=1e-6)


def test_shifts_of_kinds_and_the_slope_are_found_from_some(
    known: LatencyModel, runs: dict[Kernel, int], archs: list[Arch]
) -> None:
    shifts = {name: 0.3 * i for i, name in enumerate(sorted({kind(kernel) for kernel in runs}))}

    def truth(kernel: Kernel) -> float:
        return 2 * known.prices.kernel(kernel) ** 1.1 * exp(shifts[kind(kernel)])

    few = CorrectedPrices.fit(
        known.prices, known.calibration, {kernel: truth(kernel) for kernel in informative(known.prices, archs, 5)}
    )
    many = CorrectedPrices.fit(
        known.prices, known.calibration, {kernel: truth(kernel) for kernel in informative(known.prices, archs, 60)}
    )
    wanted = np.log([truth(kernel) for kernel in runs])
    errors = [np.abs(np.log(made.price(list(runs))) - wanted).mean() for made in (few, many)]
    assert errors[1] < 0.1 < errors[0]


def test_informative_kernels_are_different_and_of_what_takes_time(
    known: LatencyModel, runs: dict[Kernel, int], archs: list[Arch]
) -> None:
    spent: dict[str, float] = {}
    for kernel, count in runs.items():
        spent[kind(kernel)] = spent.get(kind(kernel), 0) + count * known.prices.kernel(kernel)
    chosen = informative(known.prices, archs, 20)
    assert len(set(chosen)) == 20
    kinds = {kind(kernel) for kernel in chosen[:5]}
    assert sum(spent[name] for name in kinds) > 1.5 * len(kinds) / len(spent) * sum(spent.values())
    assert informative(known.prices, archs, 60)[:20] == chosen
    assert set(informative(known.prices, archs, 10**6)) == set(runs)
    assert set(informative(known.prices, archs, 10**6, among=chosen[5:9])) == set(chosen[5:9])


def draw_device(generator: np.random.Generator) -> tuple[list[Row], np.ndarray]:
    """Rows of three kinds, and milliseconds of a device with a bend, kinds of its own, and noise."""
    sizes = np.exp(generator.uniform(0, 5, (300, 2)))
    rows = [Row(f"kind{i % 3}", 1e-3 + 1e-4 * a * b, (a, b)) for i, (a, b) in enumerate(sizes.tolist())]
    bend = [0.01 + row.ms * (0.5 + 0.1 * int(row.kind[-1])) for row in rows]
    return rows, np.array(bend) * np.exp(generator.normal(0, 0.03, 300))


def mean_error(rows: list[Row], ms: np.ndarray, places: list[int]) -> float:
    found = Correction.fit([rows[i] for i in places], ms[places]).predict(rows)
    return float(np.abs(np.delete(found / ms, places) - 1).mean())


def test_chosen_timings_tell_more_than_random_ones() -> None:
    generator = np.random.default_rng(0)
    wins = []
    for _ in range(10):
        rows, ms = draw_device(generator)
        for count in (6, 12):
            chosen = choose(rows, np.eye(300), count)
            random = [mean_error(rows, ms, generator.permutation(300)[:count].tolist()) for _ in range(9)]
            wins.append(mean_error(rows, ms, chosen) < np.median(random))
    assert sum(wins) >= 15


def test_what_is_chosen_leaves_the_least_doubt_of_all_that_could_be() -> None:
    rows, _ = draw_device(np.random.default_rng(3))
    shares = np.vstack([np.random.default_rng(4).dirichlet(np.full(40, 0.3), 30), np.eye(40)[:20]])
    sums = np.vstack([shares[:2], np.eye(40)])
    prior = SHIFT + SUPPOSED * _covariance(rows[:40], rows[:40])
    noise = np.diag([NETWORK] * 2 + [1.0] * 40)
    noise[:2, :2] += FACTOR

    def doubt(places: list[int]) -> float:
        seen = [0, 1, *[place + 2 for place in places]]
        known = sums[seen] @ prior
        left = prior - known.T @ np.linalg.solve(known @ sums[seen].T + noise[np.ix_(seen, seen)], known)
        return float(np.sqrt((shares @ left * shares).sum(1)).sum())

    chosen = choose(rows[:40], shares, 12, shares[:2])
    for count in range(12):
        rest = [place for place in range(40) if place not in chosen[:count]]
        assert chosen[count] == min(rest, key=lambda place: doubt([*chosen[:count], place]))


def test_networks_alone_tell_how_kinds_differ() -> None:
    generator = np.random.default_rng(5)
    rows, _ = draw_device(generator)
    shares = generator.dirichlet(np.full(30, 0.2), 40)
    shifts = np.array([0.5 * int(row.kind[-1]) for row in rows[:30]])
    made = Correction.fit(rows[:30], [], shares, (shares @ shifts).tolist())
    assert np.log(made.predict(rows[:30]) / [row.ms for row in rows[:30]]) == pytest.approx(shifts, abs=0.1)


def test_what_networks_have_in_common_beside_their_kernels_says_nothing_of_kernels() -> None:
    generator = np.random.default_rng(6)
    rows, ms = draw_device(generator)
    shares = generator.dirichlet(np.full(30, 0.2), 3)
    alone, doubled = (
        Correction.fit(rows[:30], ms[:30], shares, (shares @ np.log(ms[:30] / [row.ms for row in rows[:30]]) + extra))
        for extra in (0.0, np.log(2))
    )
    assert doubled.predict(rows) == pytest.approx(alone.predict(rows), rel=0.1)


def test_errors_left_out_are_those_of_timings_not_used() -> None:
    rows, ms = draw_device(np.random.default_rng(1))
    made = Correction.fit(rows[:50], ms[:50])
    unseen = np.abs(np.log(ms[50:] / made.predict(rows[50:]))).mean()
    assert np.abs(made.errors).mean() == pytest.approx(unseen, rel=0.25)


def test_far_from_all_timings_the_correction_fades_to_the_shift() -> None:
    rows, ms = draw_device(np.random.default_rng(2))
    made = Correction.fit(rows[:50], ms[:50])
    far = Row("another", 1e9, (1e9, 1e9))
    assert made.predict([far]) == pytest.approx([1e9 * np.exp(made.shift)])


def test_a_table_like_another_is_measured_judged_and_used(
    folder: Path, space: Path, table: Path, known: LatencyModel
) -> None:
    slower = backend("roofline", gmacs=5.0, gbytes=8.0)
    made = measure(
        [Space.load(space)], slower, folder=folder / "new", like=str(table), ops=20, networks=3, protocol=SHORT
    )
    assert len(made.ops) == 20
    assert made.device["like"] == str(table)
    with pytest.raises(TableError, match="a table of its own"):
        plot_table(made, folder / "f.png")
    with pytest.raises(TableError, match=f"like was {table} and is None"):
        measure([Space.load(space)], slower, folder=folder / "new", ops=20, networks=9, protocol=SHORT)
    model = LatencyModel.fit(made)
    for arch in sample([Space.load(space)], 20, seed=5):
        path = folder / "n.json"
        slower.export(arch.graph().deployed(), path, {})
        estimate = model.predict(arch)
        assert estimate.value == pytest.approx(slower.stopwatch(path)(), rel=0.25)
        assert estimate.low < estimate.value < estimate.high
        assert sum(ms for ms, _ in model.predict_blocks(arch)) == pytest.approx(estimate.value)
    ms = known.prices.kernel
    scaled = {kernel: replace(timing, min_ms=3 * ms(kernel)) for kernel, timing in made.ops.items()}
    assert left_out(replace(made, ops=scaled))[0].mape < 1e-3 < left_out(made)[0].mape
    assert known.table
    more = replace(made, passes=known.table.passes)
    told, networks = left_out(more)[1], {arch: timing.min_ms for arch, timing in more.networks.items()}
    found = LatencyModel.of_kernels(more).prices.left_out(networks) / list(networks.values())
    assert told.name == "network, left out" and told.mape == pytest.approx(np.abs(found - 1).mean())


def test_what_the_known_device_cannot_price_is_refused(known: LatencyModel) -> None:
    kernel = (Conv(4096, norm=False, bias=True), (Map(64, 32, 32),))
    with pytest.raises(UnmeasuredError):
        CorrectedPrices.fit(known.prices, known.calibration, {kernel: 1.0})


def test_a_table_like_one_that_is_gone_says_so(folder: Path, space: Path, tmp_path: Path) -> None:
    other = make_table(tmp_path / "other", space)
    small = Protocol(op_openings=1, op_runs=1, op_seconds=0, network_runs=1, network_seconds=0, passes=1)
    measure([Space.load(space)], backend("roofline"), folder=tmp_path / "new", like=str(other), ops=5, protocol=small)
    other.rename(tmp_path / "gone")
    with pytest.raises(TableError, match="other"):
        LatencyModel.fit(Table.load(tmp_path / "new"))


def test_without_timings_of_kernels_networks_alone_scale_the_known_device(known: LatencyModel, space: Path) -> None:
    networks = {arch: 3 * known.predict(arch).value for arch in sample([Space.load(space)], 4, seed=3)}
    model = LatencyModel.alike(known, {}, "new").calibrated(networks)
    for arch, ms in networks.items():
        assert model.predict(arch).value == pytest.approx(ms)
    assert model.like is known and not len(model.prices.correction.errors)


def test_one_odd_network_of_three_hardly_moves_the_others(known: LatencyModel, archs: list[Arch]) -> None:
    networks = {arch: 3 * known.predict(arch).value for arch in archs[:3]}
    model = LatencyModel.alike(known, {}, "new").calibrated(networks | {archs[1]: 4 * known.predict(archs[1]).value})
    assert model.predict(archs[5]).value == pytest.approx(3 * known.predict(archs[5]).value, rel=0.1 * (4 / 3 - 1))
    assert model.calibration.spread > LatencyModel.alike(known, {}, "new").calibrated(networks).calibration.spread


def test_whole_networks_tell_of_kernels_that_were_not_timed(known: LatencyModel, archs: list[Arch]) -> None:
    def truth(arch: Arch) -> float:
        runs = [pair for block in arch.summaries for pair in block.kernels]
        return sum(n * known.prices.kernel(kernel) * (4 if "attention" in kind(kernel) else 1) for kernel, n in runs)

    def error(model: LatencyModel) -> float:
        logs = np.log([model.prices.network(arch)[0] / truth(arch) for arch in archs[20:]])
        return float(logs.std())  # how they compare, which no factor mends

    blank = LatencyModel.alike(known, {}, "new")
    assert error(blank.calibrated({arch: truth(arch) for arch in archs[:20]})) < 0.5 * error(blank)


@pytest.mark.parametrize("count", [3, 7])
def test_what_is_said_of_a_network_that_is_left_out_is_said_without_it(
    known: LatencyModel, archs: list[Arch], count: int
) -> None:
    networks = {arch: (3 + i % 2) * known.predict(arch).value for i, arch in enumerate(archs[:count])}
    model = LatencyModel.alike(known, {}, "new")
    found = model.prices.left_out(networks)
    for place, arch in enumerate(networks):  # with its neighbours of a fold, of which there are five at most
        others = {other: ms for i, (other, ms) in enumerate(networks.items()) if i % 5 != place % 5}
        assert found[place] == pytest.approx(model.calibrated(others).predict(arch).value)
    errors = np.log(found / list(networks.values()))
    assert (
        1.7 < model.calibrated(networks).calibration.spread / np.sqrt((errors**2).mean()) < 3
    )  # quantiles of t with 6 and 2


def test_kernels_that_a_device_does_within_others_correct_nothing(
    known: LatencyModel, runs: dict[Kernel, int], archs: list[Arch]
) -> None:
    timed = {kernel: 3 * known.prices.kernel(kernel) for kernel in informative(known.prices, archs, 4)}
    fused = next(kernel for kernel in runs if kernel not in timed)
    assert CorrectedPrices.fit(
        known.prices, known.calibration, timed | {fused: 0.0}
    ).correction.errors == pytest.approx(CorrectedPrices.fit(known.prices, known.calibration, timed).correction.errors)
