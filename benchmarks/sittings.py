"""How far networks of one sitting lie from a table of another, and what share of them the table's intervals hold.

    python benchmarks/sittings.py 8963119 66aacd6 09af450 72f7a2a a17816e 1d70e58 74d3ab3

Arguments are commits of this repository, of which latency_tables/ and benchmarks/held_out/ are read. Each table, fitted
by the code of today, judges the held-out networks of its device: those timed minutes after it and those of other
sittings, with the conformal interval alone and with what sittings add. A shift is the mean of log measured / predicted.
At last sittings are drawn anew: 100 of a sitting's networks, with replacement, about a shift drawn from those of all
others.
"""

from __future__ import annotations

import argparse
import subprocess
import tarfile
from datetime import datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from mvnas.latency.calibration import NORMAL
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table, read_passes
from mvnas.measuring.holdout import Passes, fastest

ROOT = Path(__file__).parents[1]
FOLDERS = ("latency_tables", "benchmarks/held_out")
NEAR = 0.25  # hours between the last timings of a table and of networks timed right after it, at most
DRAWS = 2000


class Pair(NamedTuple):
    """A table and networks: hours between them, log errors (n,), and half widths of the interval in logarithms."""

    device: str
    timed: str
    hours: float
    errors: np.ndarray
    alone: float
    widened: float

    def covers(self) -> tuple[float, float]:
        return tuple(float((np.abs(self.errors) <= width).mean()) for width in (self.alone, self.widened))  # type: ignore[return-value]


def last(passes: Passes) -> datetime:
    return datetime.fromisoformat(max(timing.time for timings in passes.values() for timing in timings))


def pairs(commits: list[str], folder: Path) -> list[Pair]:
    """Every table with every sitting of networks of its device."""
    tables: dict[tuple[str, datetime], Table] = {}
    networks: dict[tuple[str, datetime], Passes] = {}
    for commit in commits:
        archive = subprocess.run(["git", "-C", ROOT, "archive", commit, *FOLDERS], check=True, capture_output=True)
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
            files.extractall(folder / commit, filter="data")
        for path in sorted((folder / commit / FOLDERS[1]).iterdir()):
            device = path.name.partition(".")[0]  # later sittings have a number
            passes, table = read_passes(path), Table.load(folder / commit / FOLDERS[0] / device)
            networks[device, last(passes)] = passes
            tables[device, last(table.passes)] = table
    found = []
    for (device, made), table in tables.items():
        model = LatencyModel.fit(table)
        alone = (model.calibration.spread**2 - (NORMAL * model.calibration.shift) ** 2) ** 0.5
        for (other, timed), passes in networks.items():
            if other == device:
                hours = (timed - made).total_seconds() / 3600
                errors = np.log(fastest(passes) / model.predict_each(list(passes)).value)
                found.append(Pair(device, f"{made:%H:%M}", hours, errors, alone, model.calibration.spread))
    return found


def show(name: str, some: list[Pair]) -> None:
    shifts = np.array([pair.errors.mean() for pair in some])
    square, count = (shifts**2).sum(), len(shifts)
    low, high = (np.sqrt(square / chi2.ppf(q, count)) for q in (0.95, 0.05))
    alone, widened = np.array([pair.covers() for pair in some]).T
    print(
        f"{name}: {count} pairs; deviation of the shift {np.sqrt(square / count):.2%} (90 %, were they independent:"
        f" {low:.2%} to {high:.2%}); covered alone {alone.mean():.1%} ({alone.min():.0%} to {alone.max():.0%}), with"
        f" sittings {widened.mean():.1%} ({widened.min():.0%} to {widened.max():.0%})"
    )


def redrawn(some: list[Pair]) -> None:
    """What intervals cover of sittings like those seen, each about a shift that another sitting had."""
    generator = np.random.default_rng(0)
    rows = []
    for i, pair in enumerate(some):
        shifts = [other.errors.mean() for j, other in enumerate(some) if j != i]
        drawn = generator.choice(pair.errors - pair.errors.mean(), (DRAWS, 100))
        drawn += (generator.choice(shifts, DRAWS) * generator.choice([-1, 1], DRAWS))[:, None]
        rows.append([(np.abs(drawn) <= width).mean(1) for width in (pair.alone, pair.widened)])
    for told, covered in zip(("alone", "with sittings"), np.hstack(rows), strict=True):
        low, high = np.quantile(covered, (0.05, 0.95))
        print(
            f"drawn anew, {told}: {covered.mean():.1%} of networks covered; of 100 of one sitting {low:.0%} to"
            f" {high:.0%} (9 in 10 sittings), and {((covered >= 0.85) & (covered <= 0.95)).mean():.0%} of sittings lie"
            " in 85 to 95 %"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="+")
    with TemporaryDirectory() as folder:
        found = pairs(parser.parse_args().commits, Path(folder))
    print(
        "| table | made | networks, hours later | shift | scatter | alone | with sittings"
        " |\n|---|---|---|---|---|---|---|"
    )
    for pair in found:
        alone, widened = pair.covers()
        print(
            f"| {pair.device} | {pair.timed} | {pair.hours:+.1f} | {pair.errors.mean():+.2%} | {pair.errors.std():.2%} "
            f"| covers {alone:.0%}, ±{pair.alone:.1%} | covers {widened:.0%}, ±{pair.widened:.1%} |"
        )
    near = [pair for pair in found if 0 <= pair.hours <= NEAR]
    print()
    show("timed right after the table", near)
    show("other sittings", [pair for pair in found if pair not in near])
    redrawn(near)


if __name__ == "__main__":
    main()
