"""Error of a new device's model against the number of its timings: chosen ones against random draws.

    python benchmarks/few_timings.py KNOWN NEW [--draws 20]
    python benchmarks/few_timings.py ../shared/data/phone_layers pixel6 pixel4

KNOWN and NEW are tables of two devices; NEW holds many timings, of which few are used, and networks: of those that both
hold three calibrate, the others judge. Error is the mean absolute percentage error over networks. Of phones (nn-Meter's
data, see phone_layers.py) there are layers only, each of equal weight: the error is that over the layers that were not
timed, and the known device is the regression of the first phone's. Correction and choice are the same code for both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from phone_layers import KINDS, distinct

from mvnas.errors import UnmeasuredError
from mvnas.graph import Kernel
from mvnas.latency.model import LatencyModel
from mvnas.latency.regression import fit
from mvnas.latency.table import Table
from mvnas.latency.transfer import Correction, Row, choose, informative
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published

COUNTS = (5, 10, 20, 50, 100)
TARGETS = 1000  # layers of a phone that a choice is judged by
HALVES = 10
Error = Callable[[list[int]], float]  # of a model from timings of these kernels or layers
Pick = Callable[[list[int]], list[int]]  # those to time of these, most telling first


def curve(error: Error, pick: Pick, kernels: int, draws: int) -> None:
    """A row a count: chosen among all kernels, chosen among random halves of them, and drawn at random."""
    generator = np.random.default_rng(0)
    halves = [generator.permutation(kernels)[: kernels // 2].tolist() for _ in range(HALVES)]
    first, *others = [pick(pool) for pool in (list(range(kernels)), *halves)]
    print(
        "| timings | chosen | of a half: median | worst | random: best | median | worst"
        " |\n|---|---|---|---|---|---|---|"
    )
    for count in COUNTS:
        chosen = [error(order[:count]) for order in others]
        drawn = [error(generator.choice(kernels, count, replace=False).tolist()) for _ in range(draws)]
        cells = (error(first[:count]), np.median(chosen), max(chosen), min(drawn), np.median(drawn), max(drawn))
        print(f"| {count} | {' | '.join(f'{cell:.2%}' for cell in cells)} |", flush=True)


def priced(model: LatencyModel, kernel: Kernel) -> bool:
    """Whether a model tells what a kernel costs by regression."""
    try:
        return bool(model.prices.price([kernel]))
    except UnmeasuredError:
        return False


def tables(known_path: str, new_path: str, draws: int) -> None:
    known, table = LatencyModel.fit(Table.load(known_path)), Table.load(new_path)
    assert known.table
    networks = {arch: timing for arch, timing in table.networks.items() if arch in known.table.networks}
    calibration = [arch for arch in (Space.load(name).arch() for name in published()) if arch in networks][:3]
    judged = {arch: timing.min_ms for arch, timing in networks.items() if arch not in calibration}
    truth = np.array(list(judged.values()))
    timed = {kernel: timing.min_ms for kernel, timing in table.ops.items() if priced(known, kernel)}
    kernels = list(timed)

    def error(places: list[int]) -> float:
        model = LatencyModel.alike(known, {kernels[i]: timed[kernels[i]] for i in places}, table.name)
        model = model.calibrated({arch: table.networks[arch].min_ms for arch in calibration})
        found = np.array([model.predict(arch).value for arch in judged])
        return float(np.abs(found / truth - 1).mean())

    print(f"{known_path} -> {new_path}: {len(judged)} networks, {len(calibration)} others calibrate; {draws} draws\n")
    places = {kernel: i for i, kernel in enumerate(kernels)}

    def pick(pool: list[int]) -> list[int]:
        chosen = informative(known.prices, list(networks), max(COUNTS), calibration, [kernels[i] for i in pool])
        return [places[kernel] for kernel in chosen]

    curve(error, pick, len(kernels), draws)
    half = calibration + list(judged)[::2]
    full = LatencyModel.of_kernels(table).calibrated({arch: table.networks[arch].min_ms for arch in half})
    rest = list(judged)[1::2]
    whole = np.mean([abs(full.predict(arch).value / judged[arch] - 1) for arch in rest])
    print(
        f"\nits own whole table, {len(table.ops)} timings, calibrated on half of the networks, on the other half:"
        f" {whole:.1%}"
    )


def phones(folder: Path, known: str, new: str, draws: int) -> None:
    rows: list[Row] = []
    ms: list[float] = []
    for name in KINDS:
        (loads, before), (_, after) = distinct(folder, known, name), distinct(folder, new, name)
        found = fit(loads, before.tolist()).predict(loads)
        rows += [Row(name, float(before), load.sizes) for load, before in zip(loads, found, strict=True)]
        ms += after.tolist()
    truth, kinds = np.array(ms), np.array([row.kind for row in rows])

    def errors(places: list[int]) -> np.ndarray:
        """Absolute percentage error of each layer, nan where it was timed."""
        found = Correction.fit([rows[i] for i in places], truth[places]).predict(rows)
        found[places] = np.nan
        return np.abs(found / truth - 1)

    print(f"{known} -> {new}: {len(rows)} layers; {draws} draws\n")

    def pick(pool: list[int]) -> list[int]:
        targets = np.linspace(0, len(pool) - 1, TARGETS).astype(int)
        chosen = choose([rows[i] for i in pool], np.eye(len(pool))[targets], max(COUNTS))
        return [pool[i] for i in chosen]

    curve(lambda places: float(np.nanmean(errors(places))), pick, len(rows), draws)
    order = pick(list(range(len(rows))))
    print(f"\n| timings, chosen | {' | '.join(KINDS)} |\n|{'---|' * (len(KINDS) + 1)}")
    for count in COUNTS:
        found = errors(order[:count])
        print(f"| {count} | {' | '.join(f'{np.nanmean(found[kinds == name]):.2%}' for name in KINDS)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help="two tables, or the folder of phones' layers and two phones")
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()
    if len(args.what) == 3:
        phones(Path(args.what[0]), *args.what[1:], args.draws)
    else:
        tables(*args.what, args.draws)


if __name__ == "__main__":
    main()
