"""How good a table's latency model is on random networks of every shipped space, and what its 90 % intervals cover of
each.

    python benchmarks/space_coverage.py latency_tables/genoa-1t SITTING --seed 1 [--each 16] [--hybrid 40] [--part 1/2]
    python benchmarks/space_coverage.py latency_tables/genoa-1t SITTING
    python benchmarks/space_coverage.py latency_tables/genoa-1t SITTING --add

The first times random networks of every space in three interleaved passes on this machine, by the clock that tables are
made with, and keeps them in benchmarks/data/spaces/SITTING.csv: one row a network, with the fastest run of each pass.
With `--part` only that part of them, so that a sitting can be cut into processes of a few minutes. The second judges
the table by them: truth is the fastest pass. Networks that the table holds are left out. The third has them calibrate
it from then on.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mvnas.backends import of_table
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import NETWORKS_COLUMNS, Table, Timing, append, read_network, timing_row, write_network
from mvnas.measuring.clock import cpu, now
from mvnas.measuring.holdout import Errors
from mvnas.measuring.measure import measure_networks
from mvnas.measuring.protocol import Protocol
from mvnas.spaces.arch import Arch
from mvnas.spaces.reading import names
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published
from mvnas.system.disk import write_text

DATA = Path(__file__).parent / "data" / "spaces"
PROTOCOL = Protocol(
    network_patience=1.5
)  # seconds of waiting for a quiet host, of a table's 6: so many networks take long
COLUMNS = ("space", "network", "pass_1_ms", "pass_2_ms", "pass_3_ms", "reference_ms", "time")


def drawn(seed: int, each: int, hybrid: int) -> dict[Arch, str]:
    """So many distinct random networks of each space and of `hybrid`, spaces in turn, with the space of each."""
    generator, found = random.Random(f"spaces {seed}"), dict[Arch, str]()
    wanted = {name: hybrid if name == "hybrid" else each for name in names() if name not in published()}
    spaces = {name: Space.load(name) for name in wanted}
    for turn in range(max(wanted.values())):
        for name in [name for name, count in wanted.items() if turn < count]:
            size = len(found)
            while len(found) == size:
                found.setdefault(spaces[name].sample(lambda _, values: generator.choice(values)), name)
    return found


def time_networks(table: Table, archs: Mapping[Arch, str], file: Path) -> None:
    """Append the passes of networks to the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        passes = measure_networks(
            list(archs),
            of_table(table.device),
            folder=Path(folder),
            protocol=PROTOCOL,
            progress=lambda what, done, total: print(what, done, total, flush=True) if done % 50 == 0 else None,
        )
    fresh = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        for arch, timings in passes.items():
            best = sorted(timings, key=lambda timing: timing.min_ms)[:3]
            ms = [f"{timing.min_ms:.5g}" for timing in timings if timing in best][:3]
            writer.writerow([archs[arch], write_network(arch), *ms, f"{best[0].reference_ms:.4g}", best[0].time])


def add(table: Table, file: Path) -> None:
    """Append the networks of a file to a table as an import does: one pass of each, the fastest, whose median was
    not kept.
    """
    _, timed, rows = read(file)
    for (arch, ms), row in zip(timed.items(), rows, strict=True):
        timing = Timing(ms, ms, 1, float(row["reference_ms"]), row["time"])
        line = {"network": write_network(arch), "pass": 1} | timing_row(timing)
        append(table.path / "networks.csv", NETWORKS_COLUMNS, line)
    digest = sha256(file.read_bytes()).hexdigest()
    source = {
        "file": f"benchmarks/data/spaces/{file.name}",
        "sha256": digest,
        "networks": len(timed),
        "time": now(),
    }
    told = dict(table.device) | {"imported": [*table.device.get("imported", []), source]}
    write_text(table.path / "device.json", json.dumps(told, indent=2) + "\n")


def read(file: Path) -> tuple[dict[Arch, str], dict[Arch, float], list[dict[str, str]]]:
    """Space and ms of each network of a file, and its rows."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    archs = [read_network(row["network"], str(file)) for row in rows]
    ms = [min(float(row[f"pass_{turn}_ms"]) for turn in (1, 2, 3)) for row in rows]
    return dict(zip(archs, [row["space"] for row in rows], strict=True)), dict(zip(archs, ms, strict=True)), rows


def show(row: Errors, count: int, shift: float) -> str:
    tau = "" if row.tau is None else f"{row.tau:.3f}"
    return (
        f"| {row.name} | {count} | {row.mape:.1%} | {row.within_5:.0%} | {row.worst:.1%} | {tau} | {shift:+.1%} "
        f"| {row.covered:.0%} | ±{row.width:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("sitting")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--each", type=int, default=16)
    parser.add_argument("--hybrid", type=int, default=40)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--add", action="store_true")
    args = parser.parse_args()
    table, file = Table.load(args.table), DATA / f"{args.sitting}.csv"
    if args.seed is not None:
        part, parts = map(int, args.part.split("/"))
        archs = [*drawn(args.seed, args.each, args.hybrid).items()]
        time_networks(table, dict(archs[part - 1 :: parts]), file)
        print(f"timed on {cpu()}")
        return
    if args.add:
        add(table, file)
        return
    space, timed, rows = read(file)
    known = [arch for arch in timed if arch not in table.passes]
    truth, told = np.array([timed[arch] for arch in known]), LatencyModel.fit(table).predict_each(known)
    reference = np.array([float(row["reference_ms"]) for row in rows])
    of = np.array([space[arch] for arch in known])
    print(
        f"{table.name} of {table.device['date']}, {len(table.ops)} ops, {len(table.passes)} networks; judged by"
        f" {len(known)} networks of {min(row['time'] for row in rows)} to {max(row['time'] for row in rows)}; reference"
        f" ops {reference.min():.3f} to {reference.max():.3f} ms there, median {np.median(reference):.3f}, and"
        f" {np.median([timing.reference_ms for timing in table.ops.values()]):.3f} in the table\n"
    )
    print("| space | networks | MAPE | within 5 % | worst | Kendall tau | measured by predicted | covered | interval |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in [*dict.fromkeys(sorted(of)), "all"]:
        some = (of == name) | (name == "all")
        row = Errors.of(name, truth[some], told.value[some], (told.low[some], told.high[some]))
        print(show(row, int(some.sum()), float(np.exp(np.log(truth / told.value)[some].mean()) - 1)))


if __name__ == "__main__":
    main()
