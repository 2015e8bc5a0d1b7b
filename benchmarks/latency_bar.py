"""How good a table's latency model is on random networks that it has never seen, beside what other tools would say.

    python benchmarks/latency_bar.py latency_tables/genoa-1t [--networks 100] [--sitting 2]

Networks of 1 to 8 million parameters at 160 to 320 px are timed in three interleaved passes on the machine of the table
and kept in benchmarks/held_out/, so that only the first run takes minutes; truth is the fastest pass. Where that folder
is complete the machine is not asked. The first sitting follows the table at once; each `--sitting` more times the same
networks again, hours or days later, since an interval must hold then too.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from math import isqrt
from pathlib import Path

import numpy as np

from mvnas.backends import of_table
from mvnas.errors import UnmeasuredError
from mvnas.graph import Kernel
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table, read_passes
from mvnas.measuring.holdout import OURS, Errors, Passes, fastest, judge
from mvnas.measuring.measure import measure_networks
from mvnas.ops import Map, Tokens
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space

HELD_OUT = Path(__file__).parent / "held_out"


def unseen(space: Space, table: Table, count: int) -> list[Arch]:
    """Random networks of 1 to 8 million parameters that the table does not hold."""
    generator, found = random.Random("held out"), dict[Arch, None]()
    while len(found) < count:
        arch = space.sample(lambda name, options: generator.choice(options))
        if 1e6 <= arch.params <= 8e6 and arch not in table.passes:
            found[arch] = None
    return list(found)


def split(name: str, table: Table, thin: Table, passes: Passes) -> Errors | str:
    """Errors on `passes` of a model of the timings in `thin`, within the domain of the whole table.

    Networks of `thin` that it has too few timings to price do not calibrate.
    """
    whole, model = LatencyModel.of_kernels(table), LatencyModel.of_kernels(thin)
    rates = {kind: rate._replace(domain=whole.prices.rates[kind].domain) for kind, rate in model.prices.rates.items()}
    model = replace(model, prices=replace(model.prices, rates=rates))
    try:
        model.prices.networks(list(passes))
        model = model.calibrated({arch: t.min_ms for arch, t in thin.networks.items() if priced(model, arch)})
        rows = [model.predict(arch) for arch in passes]
    except UnmeasuredError as error:
        return f"| {name} | refused: {str(error).split('; ')[0]} |"
    bounds = np.array([r.low for r in rows]), np.array([r.high for r in rows])
    return Errors.of(f"{name} ({len(rows)} networks)", fastest(passes), np.array([r.value for r in rows]), bounds)


def priced(model: LatencyModel, arch: Arch) -> bool:
    try:
        return model.prices.network(arch)[0] > 0
    except UnmeasuredError:
        return False


def sides(kernel: Kernel) -> set[int]:
    """Sides of the square maps, in pixels of the map, that a kernel works on."""
    return {
        isqrt(s.h * s.w) if isinstance(s, Map) else isqrt(s.p * s.n) for s in kernel[1] if isinstance(s, Map | Tokens)
    }


def splits(table: Table, passes: Passes) -> list[Errors | str]:
    """Splits that hurt: kernels of a resolution, or of a transformer width, taken out of the table."""
    rows: list[Errors | str] = []
    for side in (160, 192, 224, 256, 288, 320):
        theirs = {side >> k for k in range(1, 6)}
        ops = {k: t for k, t in table.ops.items() if not sides(k) & theirs}
        thin = replace(table, ops=ops, passes={a: t for a, t in table.passes.items() if a.resolution != side})
        rows.append(
            split(f"resolution {side} unseen", table, thin, {a: t for a, t in passes.items() if a.resolution == side})
        )
    for width in (64, 96, 120, 144, 192, 240):

        def wide(arch: Arch, width: int = width) -> bool:
            return any(getattr(block, "dim", 0) == width for block in arch.blocks)

        ops = {k: t for k, t in table.ops.items() if not any(isinstance(s, Tokens) and s.c == width for s in k[1])}
        thin = replace(table, ops=ops, passes={a: t for a, t in table.passes.items() if not wide(a)})
        rows.append(
            split(f"transformer width {width} unseen", table, thin, {a: t for a, t in passes.items() if wide(a)})
        )
    kindless = {k: t for k, t in table.ops.items() if "Attention" not in type(k[0]).__name__}
    rows.append(split("attention unseen", table, replace(table, ops=kindless), passes))
    return rows


def show(row: Errors) -> str:
    interval = "" if row.covered is None else f"covers {row.covered:.0%}, ±{row.width:.1%}"
    return (
        f"| {row.name} | {row.mape:.1%} | {row.within_5:.0%} | {row.within_10:.0%} | {row.worst:.1%} | {row.tau:.3f} "
        f"| {interval} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--space", default="mobilevit")
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--sitting", type=int, default=1)
    args = parser.parse_args()
    table = Table.load(args.table)
    folder = HELD_OUT / (f"{table.name}.{args.sitting}" if args.sitting > 1 else table.name)
    archs = unseen(Space.load(args.space), table, args.networks)
    passes = read_passes(folder)
    if any(len(passes.get(arch, ())) < 3 for arch in archs):
        runtime = of_table(table.device)
        passes = measure_networks(
            archs,
            runtime,
            folder=folder,
            progress=lambda what, done, total: print(what, done, total) if done % 50 == 0 else None,
        )
    passes = {arch: passes[arch] for arch in archs}
    truth = fastest(passes)
    millions = [arch.params / 1e6 for arch in archs]
    print(
        f"{table.name}: {table.device['cpu']}, {table.device['backend']} {table.device['precision']},"
        f" {table.device['threads']} thread(s)"
    )
    print(
        f"{len(table.ops)} op timings, {len(table.passes)} networks to calibrate on, {len(archs)} held out: "
        f"{min(millions):.1f} to {max(millions):.1f} M parameters, {truth.min():.1f} to {truth.max():.1f} ms\n"
    )
    print(
        "| predictor | MAPE | within 5 % | within 10 % | worst | Kendall tau | 90 % interval"
        " |\n|---|---|---|---|---|---|---|"
    )
    for row in judge(table, passes):
        print(show(replace(row, name=f"**{row.name}**") if row.name == OURS else row))
    predicted = LatencyModel.fit(table).predict_each(archs).value
    kept = [(truth[predicted <= bound] <= bound).mean() for bound in predicted]
    print(
        f"\nof the networks predicted within a bound, {np.mean(kept):.1%} are, on average over the predictions as"
        " bounds"
    )
    print(
        "\n| kernels taken out of the table | MAPE | within 5 % | within 10 % | worst | Kendall tau | 90 % interval"
        " |\n|---|---|---|---|---|---|---|"
    )
    for told in splits(table, passes):
        print(told if isinstance(told, str) else show(told))


if __name__ == "__main__":
    main()
