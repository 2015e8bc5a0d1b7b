"""Predicted against measured latency of every published network.

    python benchmarks/zoo_latency.py latency_tables/genoa-1t [--below 15] [--markdown]

The table must hold passes of the networks, as `mvnas measure --space all` times them. Each network is predicted by a
model that is calibrated on networks of other systems only, so that nothing of its own system but the timings of single
ops is known. Beside it: a line through MACs, fitted to the same networks. `--below` leaves out networks of that many
million parameters or more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mvnas.latency.calibration import sittings
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table
from mvnas.measuring.holdout import Errors, by_macs
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published, systems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--below", type=float, default=np.inf)
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    table = Table.load(args.table)
    model = LatencyModel.of_kernels(table)
    truth = {arch: timing.min_ms for arch, timing in table.networks.items()}
    system, hours = systems(list(truth)), dict(zip(truth, sittings(table, truth), strict=True))
    rows, macs = [], []
    for name in published():
        arch = Space.load(name).arch()
        if arch.params >= args.below * 1e6:
            continue
        if arch not in truth:
            raise SystemExit(f"{args.table} must hold passes of {name}; make it with `mvnas measure --space all`")
        others = {other: ms for other, ms in truth.items() if system[other] != system[arch]}
        sitting = [hours[other] for other in others]
        rows.append((name, arch, model.calibrated(others, sitting).predict(arch)))
        macs.append(by_macs(others, [arch])[0])
    rule, end = ("| ", " |") if args.markdown else ("", "")
    between = " | " if args.markdown else "  "

    def show(*cells: str) -> None:
        print(rule + between.join([f"{cells[0]:24}", *(f"{cell:>14}" for cell in cells[1:])]) + end)

    show("network", "params", "predicted ms", "90 % interval", "measured ms", "error")
    if args.markdown:
        print("|---|" + "---:|" * 5)
    for name, arch, told in rows:
        show(name, f"{arch.params / 1e6:.2f} M", f"{told.value:.2f}", f"{told.low:.2f} .. {told.high:.2f}",
             f"{truth[arch]:.2f}", f"{told.value / truth[arch] - 1:+.1%}")  # fmt: skip
    measured = np.array([truth[arch] for _, arch, _ in rows])
    low, high = (np.array([getattr(told, end) for _, _, told in rows]) for end in ("low", "high"))
    print()
    for quality in (
        Errors.of("mvnas", measured, np.array([told.value for _, _, told in rows]), (low, high)),
        Errors.of("a line through MACs", measured, np.array(macs)),
    ):
        inside = (
            "" if quality.covered is None else f", {quality.covered:.0%} inside their interval of +-{quality.width:.1%}"
        )
        print(
            f"{quality.name}: {len(rows)} networks, MAPE {quality.mape:.1%}, within 5 % {quality.within_5:.0%}, "
            f"within 10 % {quality.within_10:.0%}, worst {quality.worst:.1%}, Kendall tau {quality.tau:.3f}{inside}"
        )


if __name__ == "__main__":
    main()
