"""Error of a new device's model against the number of its timings: chosen ones against random draws.

    python benchmarks/few_timings.py KNOWN NEW [--draws 20]

KNOWN and NEW are tables of two devices; NEW holds many timings, of which few are used, and networks: three calibrate, the
others judge. Error is the mean absolute percentage error over networks.
"""

from __future__ import annotations

import argparse
import random

import numpy as np

from mvnas.graph import Kernel
from mvnas.latency import LatencyModel, kind
from mvnas.space import Space, published
from mvnas.table import Table
from mvnas.transfer import informative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("known")
    parser.add_argument("new")
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()
    known, table = LatencyModel.fit(Table.load(args.known)), Table.load(args.new)
    calibration = [arch for arch in (Space.load(name).arch() for name in published()) if arch in table.networks][:3]
    judged = {arch: timing.min_ms for arch, timing in table.networks.items() if arch not in calibration}
    truth = np.array(list(judged.values()))
    timed = {kernel: timing.min_ms for kernel, timing in table.ops.items() if kind(kernel) in known.rates}
    runs = dict.fromkeys(timed, 0)
    for arch in table.networks:
        for block in arch.summaries:
            for kernel, count in block.kernels:
                if kernel in runs:
                    runs[kernel] += count

    def error(chosen: list[Kernel]) -> float:
        model = LatencyModel.alike(known, {kernel: timed[kernel] for kernel in chosen}, table.name)
        model = model.calibrated({arch: table.networks[arch].min_ms for arch in calibration})
        found = np.array([model.predict(arch).ms for arch in judged])
        return float(np.abs(found / truth - 1).mean())

    generator = random.Random(0)
    print(f"{args.known} -> {args.new}: {len(judged)} networks, {len(calibration)} others calibrate\n")
    print("| timings | chosen | random: best | median | worst |\n|---|---|---|---|---|")
    order = informative(known, {kernel: max(count, 1) for kernel, count in runs.items()}, 100)
    for count in (5, 10, 20, 50, 100):
        draws = sorted(error(generator.sample(list(timed), count)) for _ in range(args.draws))
        print(
            f"| {count} | {error(order[:count]):.1%} | {draws[0]:.1%} | {draws[len(draws) // 2]:.1%} | {draws[-1]:.1%} |"
        )
    full = LatencyModel.of_kernels(table).calibrated(
        {a: table.networks[a].min_ms for a in calibration + list(judged)[::2]}
    )
    rest = list(judged)[1::2]
    whole = np.mean([abs(full.predict(arch).ms / judged[arch] - 1) for arch in rest])
    print(
        f"\nits own whole table, {len(table.ops)} timings, calibrated on half of the networks, on the other half: {whole:.1%}"
    )


if __name__ == "__main__":
    main()
