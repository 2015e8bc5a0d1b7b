"""How good a search is for its trainings: strategies replayed on networks that were all trained once.

    python benchmarks/search_efficiency.py [--table benchmarks/data/trained] [--seeds 20] [--trainings 200]
                                           [--strategies random,nsga2,tpe,gp,surrogate,rungs] [--out replays]

Prints the hypervolume after so many trainings, median and quartiles over seeds, as share of that of all recorded
networks, and how many trainings each strategy needs for what NSGA-II has at the end. The volume is that of accuracy
from 0 by latency up to the slowest recorded; only networks that were trained to the full length count. A training to a
lower rung counts as its share of the epochs. Only recorded networks can be chosen: all others are over the budget.
`record_trainings.py` makes the record.

Each replay goes to OUT.csv, and a run that is stopped continues where it was; after another record, length or strategy
name another OUT. OUT.png is the picture.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mvnas.latency.table import append, read_network
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.strategies import Context, Told, Validation, strategy

HERE = Path(__file__).parent
SHOWN = (10, 20, 30, 50, 70, 100, 150, 200)
NAMES = {
    "random": "random",
    "nsga2": "NSGA-II",
    "tpe": "TPE",
    "gp": "GP of Optuna",
    "surrogate": "surrogate",
    "rungs": "surrogate + rungs",
}
COLOURS = dict(zip(NAMES, ("#8C8C8C", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#0072B2"), strict=True))
Event = tuple[float, float, float]  # epochs spent so far, as trainings; accuracy at full length and latency


class Record(NamedTuple):
    """A space and what is known of its networks: latency in ms, and accuracy after each of `shares` of the training."""

    space: Space
    shares: tuple[float, ...]
    trained: Mapping[Arch, tuple[float, tuple[float, ...]]]
    validation: Validation

    @classmethod
    def load(cls, path: Path) -> Record:
        space, trained = Space.load(HERE / "tabular.yaml"), {}
        told = json.loads(path.with_suffix(".json").read_text())
        shares = tuple(told["rungs"])
        for row in csv.DictReader(path.with_suffix(".csv").open()):
            arch = read_network(row["network"], str(path))
            trained[arch] = (
                float(row["latency_ms"]),
                tuple(float(row[f"accuracy_{i}"]) for i in range(1, len(shares) + 1)),
            )
        classes = arch.blocks[-1].classes
        return cls(space.with_classes(classes), shares, trained, Validation(told["validation_images"], 1 / classes))

    def cost(self, arch: Arch) -> float:
        return self.trained[arch][0]

    def excess(self, arch: Arch) -> float:
        return float(arch not in self.trained)

    @property
    def worst(self) -> float:
        return max(latency for latency, _ in self.trained.values())

    @property
    def volume(self) -> float:
        """Hypervolume of all that was recorded, in ms."""
        return volume([(accuracies[-1], latency) for latency, accuracies in self.trained.values()], self.worst)


def volume(points: list[tuple[float, float]], worst: float) -> float:
    """Hypervolume of (accuracy, latency), in ms."""
    area, best = 0.0, 0.0
    for accuracy, latency in sorted(points, key=lambda point: point[1]):
        area += max(0.0, accuracy - best) * (worst - latency)
        best = max(best, accuracy)
    return area


def replay(name: str, record: Record, *, seed: int, trainings: int) -> Iterator[Event]:
    """The replay of a strategy, one training after another, as a search runs it."""
    shares = record.shares if name == "rungs" else (1.0,)
    context = Context(record.space, record.cost, record.excess, record.validation, shares, trainings, repeats=False)
    chooser = strategy({"rungs": "surrogate", "nsga2": "nsgaii"}.get(name, name))(context)
    history: list[Told] = []
    spent, candidates = 0.0, 0
    while proposal := chooser.next(history, (), seed):
        number = candidates if proposal.number is None else proposal.number
        candidates += proposal.number is None
        latency, accuracies = record.trained[record.space.at(proposal.picks)]
        share = shares[proposal.rung]
        accuracy = accuracies[record.shares.index(share)]
        spent += share - (shares[proposal.rung - 1] if proposal.rung else 0)
        history.append(Told(number, proposal.picks, proposal.rung, accuracy, proposal.notes))
        yield spent, accuracy if share == 1 else 0.0, latency


def curve(events: Iterator[Event], record: Record, trainings: int) -> list[float]:
    """Share of the record's hypervolume after 1, 2, ... trainings."""
    found: list[tuple[float, float]] = []
    areas: list[float] = []
    for spent, accuracy, latency in events:
        while len(areas) + 1 < spent - 1e-9 and len(areas) < trainings:
            areas.append(volume(found, record.worst))
        if len(areas) == trainings:
            break
        found.append((accuracy, latency))
    areas += [volume(found, record.worst)] * (trainings - len(areas))
    return [area / record.volume for area in areas]


def replays(args: argparse.Namespace, record: Record) -> dict[str, np.ndarray]:
    """Curves of each strategy, (seeds, trainings), from the file and, where it lacks some, from replays."""
    path = args.out.with_suffix(".csv")
    done: dict[tuple[str, int], list[float]] = {}
    if path.exists():
        for row in csv.DictReader(path.open()):
            done[row["strategy"], int(row["seed"])] = [float(share) for share in row["volumes"].split()]
    curves = {}
    for name in args.strategies.split(","):
        for seed in range(args.seeds):
            if (name, seed) in done:
                continue
            begun = time.monotonic()
            done[name, seed] = curve(replay(name, record, seed=seed, trainings=args.trainings), record, args.trainings)
            volumes = " ".join(f"{share:.5f}" for share in done[name, seed])
            append(path, ("strategy", "seed", "volumes"), {"strategy": name, "seed": seed, "volumes": volumes})
            print(f"{name} {seed}: {time.monotonic() - begun:.1f} s", flush=True)
        curves[name] = np.array([done[name, seed] for seed in range(args.seeds)])
    return curves


def show(curves: Mapping[str, np.ndarray], trainings: int) -> None:
    """Print the tables."""
    counts = [count for count in SHOWN if count <= trainings]
    print(f"\n| trainings | {' | '.join(map(str, counts))} |\n|{'---|' * (len(counts) + 1)}")
    for name, areas in curves.items():
        low, middle, high = np.percentile(100 * areas, (25, 50, 75), axis=0)
        cells = [f"{middle[i - 1]:.1f} ({low[i - 1]:.1f} .. {high[i - 1]:.1f})" for i in counts]
        print(f"| {NAMES[name]} | {' | '.join(cells)} |")
    if "nsga2" not in curves:
        return
    aim = np.median(curves["nsga2"][:, -1])
    print(
        f"\ntrainings until {aim:.2%}, the median of NSGA-II after {trainings}\n\n| | median | quartiles | seeds"
        f" |\n{'|---' * 4}|"
    )
    for name, areas in curves.items():
        reached = areas >= aim
        needed = np.where(reached.any(1), reached.argmax(1) + 1.0, np.inf)
        low, middle, high = np.percentile(needed, (25, 50, 75), method="higher")
        print(f"| {NAMES[name]} | {middle:.0f} | {low:.0f} .. {high:.0f} | {reached.any(1).sum()} of {len(areas)} |")


def draw(curves: Mapping[str, np.ndarray], path: Path, title: str) -> None:
    """The picture: medians as lines, quartiles as bands."""
    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, areas in curves.items():
        low, middle, high = np.percentile(100 * areas, (25, 50, 75), axis=0)
        counts = np.arange(1, len(middle) + 1)
        axes.plot(counts, middle, color=COLOURS[name], linewidth=1.6, label=NAMES[name])
        axes.fill_between(counts, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.set_xlabel("trainings, parts of one as shares of its epochs")
    axes.set_ylabel("hypervolume, % of that of all networks")
    axes.set_ylim(bottom=min(np.median(areas[:, 9]) for areas in curves.values()) * 100 - 2, top=100.5)
    axes.set_title(title, fontsize=10)
    axes.grid(True, color="#E5E5E5", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5, frameon=False, loc="lower right")
    figure.savefig(path, dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=HERE / "data" / "trained")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trainings", type=int, default=200)
    parser.add_argument("--strategies", default=",".join(NAMES))
    parser.add_argument("--out", type=Path, default=Path("replays"))
    args = parser.parse_args()
    record = Record.load(args.table)
    print(f"{len(record.trained)} of {record.space.size} networks, {args.seeds} seeds")
    curves = replays(args, record)
    show(curves, args.trainings)
    title = f"{len(record.trained)} trained networks, {args.seeds} seeds: median and quartiles"
    draw(curves, args.out.with_suffix(".png"), title)


if __name__ == "__main__":
    main()
