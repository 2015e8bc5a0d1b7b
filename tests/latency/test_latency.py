"""Laws of predicting: a batch says what each network's own ops say, and names the first that cannot be priced."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import exp
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from small import make_space, make_table

from mvnas.errors import TableError, UnmeasuredError
from mvnas.latency.calibration import NORMAL, SITTING, Calibration, sittings
from mvnas.latency.kinds import by_kind
from mvnas.latency.model import LatencyModel, latency
from mvnas.latency.table import Table
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def archs(folder: Path) -> list[Arch]:
    space, generator = Space.load(make_space(folder)), random.Random(0)
    return [space.sample(lambda name, options: generator.choice(options)) for _ in range(60)]


@pytest.fixture(scope="module")
def known(folder: Path) -> LatencyModel:
    """The model of a table of which every other timing was lost after the regressions were fitted."""
    table = Table.load(make_table(folder / "table", make_space(folder)))
    whole = LatencyModel.of_kernels(table)
    lost = {kernel for name, rows in by_kind(table.ops).items() if name in whole.prices.kinds for kernel in rows[::2]}
    timed = {kernel: ms for kernel, ms in whole.prices.timed.items() if kernel not in lost}
    networks = {arch: timing.min_ms for arch, timing in table.networks.items()}
    return LatencyModel("known", replace(whole.prices, timed=timed)).calibrated(networks)


def forgetful(model: LatencyModel) -> LatencyModel:
    """The same model, whose prices remember nothing yet."""
    return replace(model, prices=replace(cast(Any, model.prices)))


@pytest.fixture(params=["whole", "like another"])
def model(request: pytest.FixtureRequest, known: LatencyModel, archs: list[Arch]) -> LatencyModel:
    """A model that remembers nothing."""
    first = forgetful(replace(known, calibration=replace(known.calibration, reading=0.5, kept=0.02, unsteady=0.0)))
    if request.param == "whole":
        return first
    few = {kernel: 2 * ms for kernel, ms in list(known.prices.timed.items())[::3]}
    return LatencyModel.alike(first, few, "new").calibrated(
        {arch: known.prices.network(arch)[0] ** 1.1 for arch in archs[:5]}
    )


def test_a_batch_says_what_the_ops_of_each_network_say(model: LatencyModel, archs: list[Arch]) -> None:
    apart = forgetful(model)
    found = forgetful(model).predict_each([*archs, *archs[:3]])
    for i, arch in enumerate([*archs, *archs[:3]]):
        kernels = [node.key for node in arch.graph().deployed().work]
        total = sum(apart.prices.kernel(kernel) for kernel in kernels)
        measured = sum(model.prices.timed[kernel] for kernel in kernels if kernel in model.prices.timed)
        read = arch.params / 1e6 * min(1.0, max(0.0, arch.params / 1e6 / model.calibration.kept - 1))
        ms = model.calibration.factor * (total + model.calibration.reading * read) ** model.calibration.power
        wanted = (ms, ms / exp(model.calibration.spread), ms * exp(model.calibration.spread), measured / total)
        assert [column[i] for column in found[:4]] == pytest.approx(wanted, rel=1e-12)
        one = model.predict(arch)
        told = [one.value, one.low, one.high, one.measured_share]
        assert told == pytest.approx(wanted, rel=1e-12) and {type(value) for value in told} == {float}
        assert sum(ms for ms, _ in model.predict_blocks(arch)) == pytest.approx(ms, rel=1e-12)
    assert (found.measured_share > 0).all() and (found.measured_share < 1).all()
    assert len(set(found.value)) > 20


def test_what_it_takes_to_read_weights_is_found_on_networks(
    known: LatencyModel, archs: list[Arch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvnas.latency.calibration.KEPT", (0.0, 0.03, 0.06, 0.09))
    plain = forgetful(replace(known, calibration=Calibration()))
    sums = plain.prices.networks(archs)[0]
    millions = np.array([arch.params / 1e6 for arch in archs])
    kept = 0.06
    assert millions.min() < kept < millions.max()
    reading = 0.3 * float(np.median(sums / millions))
    truth = 1.2 * (sums + reading * millions * np.clip(millions / kept - 1, 0, 1))
    model = plain.calibrated(dict(zip(archs, truth.tolist(), strict=True)))
    assert (model.calibration.reading, model.calibration.kept) == pytest.approx((reading, kept), rel=1e-6)
    assert model.predict_each(archs).value == pytest.approx(truth, rel=1e-6)
    faster = 1.2 * sums**1.1 * (1 - 0.2 * millions / millions.max())
    assert plain.calibrated(dict(zip(archs, faster.tolist(), strict=True))).calibration.reading == 0


def test_a_batch_names_the_first_op_that_cannot_be_priced_and_the_rest_stays_priceable(
    model: LatencyModel, archs: list[Arch]
) -> None:
    def widened(arch: Arch, channels: int) -> Arch:
        return replace(
            arch, blocks=(arch.blocks[0], replace(cast(Any, arch.blocks[1]), channels=channels), *arch.blocks[2:])
        )

    batch = [*archs[:5], widened(archs[5], 4000), widened(archs[6], 5000), *archs[7:]]
    for _ in range(2):
        with pytest.raises(UnmeasuredError, match="Conv.*4000") as caught:
            model.predict_each(batch)
        with pytest.raises(UnmeasuredError) as alone:
            forgetful(model).predict(batch[5])
        assert str(caught.value) == str(alone.value)
    good = model.predict_each([*batch[:5], *batch[7:]])
    assert good.value == pytest.approx(
        np.array([model.predict(arch).value for arch in (*batch[:5], *batch[7:])]), rel=1e-12
    )


@pytest.mark.parametrize("count", [1, 2, 4])
def test_intervals_hold_nine_tenths_of_networks_over_sittings_not_of_each(
    known: LatencyModel, archs: list[Arch], count: int
) -> None:
    """Sittings that differ by as much as is supposed, of the table's networks, in turn of each, and one to come."""
    generator, archs = np.random.default_rng(0), [*dict.fromkeys(archs)]
    sums, covered = known.prices.networks(archs)[0], []
    sitting = [i % count for i in range(len(archs))]
    for _ in range(200):
        shifts = generator.normal(0, SITTING, count + 1)
        noise = generator.normal(0, 0.01, (2, len(archs)))
        timed = sums * np.exp(shifts[sitting] + noise[0])
        found = known.calibrated(dict(zip(archs, timed, strict=True)), sitting).predict_each(archs)
        truth = sums * np.exp(shifts[-1] + noise[1])
        covered.append(((found.low <= truth) & (truth <= found.high)).mean())
    assert 0.87 < np.mean(covered) < 0.94
    assert np.quantile(covered, 0.1) < 0.85 and np.quantile(covered, 0.9) > 0.95


def test_a_table_of_sittings_that_differ_learns_that_they_do(known: LatencyModel, archs: list[Arch]) -> None:
    """Each sitting counts alike, however many networks were timed in it."""
    archs = [*dict.fromkeys(archs)]
    sums = known.prices.networks(archs)[0]
    sitting = [0] * (len(archs) - 20) + [1] * 10 + [2] * 10
    timed = sums * np.exp(np.array([-0.03, 0.0, 0.06])[sitting])
    model = known.calibrated(dict(zip(archs, timed, strict=True)), sitting)
    assert model.predict_each(archs).value == pytest.approx(sums * np.exp(0.01), rel=1e-6)
    wanted = (2 * SITTING**2 + (0.04**2 + 0.01**2 + 0.05**2)) / (2 + 2) * (1 + 1 / 3)
    assert model.calibration.spread == pytest.approx(NORMAL * np.sqrt(wanted), rel=1e-6)
    one = known.calibrated(dict(zip(archs, sums, strict=True)))
    assert one.calibration.spread == pytest.approx(NORMAL * SITTING * np.sqrt(2), rel=1e-6)


def test_networks_that_are_mostly_weights_have_wider_intervals(known: LatencyModel, archs: list[Arch]) -> None:
    """How much of the caches is left for weights is the hour's."""
    model = forgetful(
        replace(known, calibration=replace(known.calibration, reading=0.5, kept=0.02, unsteady=0.25, spread=0.03))
    )
    found = model.predict_each(archs)
    millions = np.array([arch.params / 1e6 for arch in archs])
    share = millions / (found.value / model.calibration.factor) ** (1 / model.calibration.power)
    assert np.log(found.high / found.value) == pytest.approx(np.hypot(0.03, NORMAL * 0.25 * share))
    for arch, low in zip(archs[:5], found.low, strict=False):
        assert model.predict(arch).low == pytest.approx(low)


def test_an_hour_without_a_timing_parts_sittings_and_a_few_networks_are_none(folder: Path) -> None:
    table = Table.load(make_table(folder / "hours", make_space(folder)))
    archs = list(table.networks)
    assert len(archs) == 12

    def timed(hours: list[float]) -> list[int]:
        first = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
        times = {
            arch: f"{first + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}" for arch, hour in zip(archs, hours, strict=True)
        }
        passes = {arch: tuple(replace(t, time=times[arch]) for t in table.passes[arch]) for arch in archs}
        return sittings(replace(table, passes=passes), archs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mvnas.latency.calibration.FEWEST_NETWORKS", 3)
        assert timed([0, 0.5, 1, 1.5, 30, 30.1, 30.2, 48, 49.5, 49.6, 49.7, 49.8]) == [0] * 4 + [1] * 3 + [2] * 5
        assert timed([9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0]) == [1] * 6 + [0] * 6
        assert timed([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 5]) == [0] * 12
    assert timed([0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9]) == [0] * 12


def test_each_precision_has_a_table_of_its_own(folder: Path, archs: list[Arch]) -> None:
    table = Table.load(make_table(folder / "precise", make_space(folder)))
    coarse = replace(
        table,
        device=dict(table.device) | {"precision": "int8"},
        passes={
            arch: tuple(replace(timing, min_ms=timing.min_ms / 2) for timing in timings)
            for arch, timings in table.passes.items()
        },
    )
    both = latency([table, coarse])
    for arch in archs[:3]:
        ms = both.predict(arch).value
        assert both.predict(replace(arch, precision="int8")).value == pytest.approx(ms / 2)
        assert sum(ms for ms, _ in both.predict_blocks(replace(arch, precision="int8"))) == pytest.approx(ms / 2)
    with pytest.raises(UnmeasuredError, match="a table must be of float16"):
        both.predict(replace(archs[0], precision="float16"))
    with pytest.raises(TableError, match="different precisions"):
        latency([table, table])
