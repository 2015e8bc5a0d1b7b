"""How far the accuracy of a search can be trusted: searches replayed on networks that were all really trained.

    python benchmarks/accuracy_bar.py RECORD... [--accel DIR] [--strategies random,tpe,nsgaii,surrogate] [--seeds 20]
                                      [--trainings 100] [--workers 2] [--out accuracy_bar]

Records, by name:

- `accel:0.3`, `accel:1.3`, `accel:2.6`: Accel-NASBench (arXiv:2404.08005; its files are in DIR), 5,138 networks trained
  on ImageNet. Truth is their top-1, a training's score is it with noise of so many points, latency that of an FPGA.
- `seeds`: 117 networks of the same space. Truth is the mean of three full trainings, a score that of a short one.
- `digits`: benchmarks/data/trained.csv. Truth is what the model of accuracy expects of each of the 1,002 networks by
  all of them, a score is it with the noise that it finds.
- `photos`: benchmarks/data/photos.csv. Truth is the test accuracy of long trainings, a score the validation accuracy of
  a short one; a third one of the same network is drawn between the two that there are.

Each replay is a study of its own under one of five bounds of latency, percentiles of the record. After 10, 20, 50, ...
trainings it reports a pick, the best within the bound, and a frontier: by the luckiest score of each network, or by
what the model expects. Told of these are

- loss: true accuracy of the best network within the bound less that of the pick, in points;
- volume: hypervolume of the reported frontier by true accuracy, as share of that of all networks within the bound;
- tau of what is expected to the truth, of all networks within the bound and of the best third of them;
- covered: share of the frontier's and of all trained networks' 90 % intervals that hold the truth, and their width in
  points; not where scores are of other trainings than the truth.

Each replay goes to OUT.csv, and a run that is stopped continues where it was. Tables are of means over the five bounds,
with quartiles over seeds.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import kendalltau

from mvnas.accuracy import AccuracyModel, Features, Groups
from mvnas.latency.table import append, read_network
from mvnas.spaces.arch import Arch
from mvnas.spaces.rows import Picks
from mvnas.spaces.space import Space
from mvnas.strategies import Context, Told, Validation, key_of, strategy

HERE = Path(__file__).parent
BOUNDS = (10, 25, 50, 75, 90)  # percentiles of latency
COUNTS = (10, 20, 50, 100, 200)  # trainings after which a study reports
REPORTS = ("luckiest", "expected")
FIELDS = {"blockN_expand": "expand", "blockN_kernel": "kernel", "blockN_layers": "repeat", "blockN_se": "se"}
COLUMNS = ("record", "strategy", "seed", "bound", "trainings", "networks", "report", "loss", "volume", "tau",
           "tau_third", "covered_frontier", "covered", "width", "seconds")  # fmt: skip

Score = Callable[[int, int, np.random.Generator], float]  # of a network's training, by its number and its repeat's


@dataclass(frozen=True)
class Record:
    """Networks that were all trained: points of a space, with what is true of each and how a training's score is drawn.

    `same` says that scores are of trainings as long as the truth.
    """

    space: Space
    points: Sequence[Picks]
    truth: np.ndarray
    latency: np.ndarray
    score: Score
    validation: Validation
    same: bool = True

    def places(self) -> dict[Any, int]:
        """Number of each network."""
        return {key_of(picks): i for i, picks in enumerate(self.points)}


class Study(NamedTuple):
    """A replayed study: scores of each network that was trained, in the order in which they were."""

    scores: Mapping[int, list[float]]


def accel(folder: Path, noise: float) -> Record:
    """Accel-NASBench, with noise of so many points on a training's score."""
    space = Space.load(HERE / "accel_nasbench.yaml")
    rows = [row for row in _rows(folder / "accel_nasbench.csv.gz") if row["zcu102_ms"]]
    rows = list({key_of(_point(row, space)): row for row in rows}.values())
    truth = np.array([float(row["top1"]) / 100 for row in rows])
    _check(space, rows)

    def score(place: int, repeat: int, generator: np.random.Generator) -> float:
        return float(np.clip(truth[place] + noise / 100 * generator.normal(), 0, 1))

    latency = np.array([float(row["zcu102_ms"]) for row in rows])
    return Record(space, [_point(row, space) for row in rows], truth, latency, score, Validation(50_000, 0.001))


def seeds(folder: Path) -> Record:
    """The networks of Accel-NASBench that were trained thrice, briefly and in full; multiply-accumulates stand for
    latency.
    """
    space = Space.load(HERE / "accel_nasbench.yaml")
    rows = _rows(folder / "accel_nasbench_seeds.csv.gz")
    full, short = (
        np.array([[float(row[f"{run}_top1_seed{seed}"]) / 100 for seed in (1, 2, 3)] for row in rows])
        for run in ("full", "short")
    )

    def score(place: int, repeat: int, generator: np.random.Generator) -> float:
        return float(short[place, repeat % 3])

    costs = np.array([float(row["macs_millions"]) for row in rows])
    points = [_point(row, space) for row in rows]
    return Record(space, points, full.mean(1), costs, score, Validation(50_000, 0.001), same=False)


def digits() -> Record:
    """Our record of digits, smoothed by the model of accuracy."""
    space = Space.load(HERE / "tabular.yaml").with_classes(10)
    rows = list(csv.DictReader((HERE / "data" / "trained.csv").open()))
    points = [_located(space, row["network"]) for row in rows]
    latency = np.array([float(row["latency_ms"]) for row in rows])
    validation = Validation(602, 0.1)
    groups = _features(space, points, latency)
    model = AccuracyModel.fit(groups, [[float(row["accuracy_2"])] for row in rows], validation)
    truth, _ = model.predict(groups, np.arange(len(rows)))
    noise = model.noise**0.5

    def score(place: int, repeat: int, generator: np.random.Generator) -> float:
        true = np.log(truth[place] / (1 - truth[place]))
        return float(np.round(602 / (1 + np.exp(-true - noise * generator.normal()))) / 602)

    return Record(space, points, truth, latency, score, validation)


def photos(run: str = "short") -> Record:
    """Our record of photographs, with scores of one of its runs."""
    space = Space.load(HERE / "photos.yaml").with_classes(10)
    told: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for row in csv.DictReader((HERE / "data" / "photos.csv").open()):
        told.setdefault(row["network"], {})[row["run"], row["seed"]] = row
    whole = {network: rows for network, rows in told.items() if {("long", "0"), ("long", "1"), (run, "1")} <= {*rows}}
    points = [_located(space, network) for network in whole]
    truth = np.array(
        [np.mean([float(rows["long", seed]["test_accuracy"]) for seed in "01"]) for rows in whole.values()]
    )
    scores = np.array([[float(rows[run, seed]["accuracy"]) for seed in "01"] for rows in whole.values()])
    apart = float(np.mean(np.diff(scores) ** 2 / 2) ** 0.5)

    def score(place: int, repeat: int, generator: np.random.Generator) -> float:
        return float(scores[place, repeat] if repeat < 2 else scores[place].mean() + apart * generator.normal())

    costs = np.array([space.at(picks).macs / 1e6 for picks in points])
    return Record(space, points, truth, costs, score, Validation(1962, 0.1), same=False)


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def _point(row: Mapping[str, str], space: Space) -> dict[str, Any]:
    """A row of Accel-NASBench as a point of the space."""
    picks = {}
    for stage in range(7):
        for field, name in FIELDS.items():
            value = int(row[field.replace("N", str(stage))])
            picks[f"{stage + 1}.mbconv.{name}"] = ("input" if value else "") if name == "se" else value
    return {name: picks[name] for name in space.choices}


def _check(space: Space, rows: Sequence[Mapping[str, str]]) -> None:
    """Return if the space has the parameters that the record tells of some of its networks."""
    for row in rows[:: len(rows) // 20]:
        params = space.at(_point(row, space)).params / 1e6
        assert abs(params / float(row["params_millions"]) - 1) < 0.01, (params, row["params_millions"])


def _located(space: Space, network: str) -> Picks:
    found = space.locate(read_network(network, "the record"))
    assert found is not None
    return found


def _features(space: Space, points: Sequence[Picks], latency: np.ndarray) -> Groups:
    """What the model of accuracy sees of all networks of a record."""
    archs = [space.at(picks) for picks in points]
    costs = np.array([(ms, arch.params, arch.macs) for ms, arch in zip(latency, archs, strict=True)], float)
    return Features(space.choices).at(points, costs)


@cache
def record(name: str, folder: Path) -> tuple[Record, Groups]:
    """A record by its name, with the features of its networks."""
    kind, _, setting = name.partition(":")
    made = {
        "accel": lambda: accel(folder, float(setting)),
        "seeds": lambda: seeds(folder),
        "digits": digits,
        "photos": lambda: photos(setting or "short"),
    }[kind]()
    return made, _features(made.space, made.points, made.latency)


def replay(name: str, its: Record, *, seed: int, bound: float, trainings: int) -> Iterator[Study]:
    """A study under a bound of latency, after each of its trainings."""
    places = its.places()
    archs = {its.space.at(picks): i for i, picks in enumerate(its.points)}

    def cost(arch: Arch) -> float:
        return float(its.latency[archs[arch]])

    def excess(arch: Arch) -> float:
        return max(0.0, cost(arch) / bound - 1) if arch in archs else 1.0

    within = [picks for picks, ms in zip(its.points, its.latency, strict=True) if ms <= bound]
    context = Context(its.space, cost, excess, its.validation, trials=trainings, listed=within)
    chooser, history = strategy(name)(context), list[Told]()
    scores: dict[int, list[float]] = {}
    for _ in range(trainings):
        proposal = chooser.next(history, (), seed)
        if proposal is None:
            return
        place = places[key_of(proposal.picks)]
        number = len(scores) if proposal.number is None else proposal.number
        score = its.score(place, proposal.repeat, np.random.default_rng((seed, place, proposal.repeat)))
        scores.setdefault(place, []).append(score)
        history.append(Told(number, proposal.picks, 0, score, proposal.notes, proposal.repeat))
        yield Study({place: list(of) for place, of in scores.items()})


def reported(study: Study, its: Record, groups: Groups, bound: float) -> Iterator[dict[str, Any]]:
    """What each way of reporting makes of a study."""
    trained = np.array([*study.scores])
    within = np.flatnonzero(its.latency <= bound)
    model = AccuracyModel.fit(groups.rows(trained), [*study.scores.values()], its.validation)
    places = np.full(len(its.truth), -1)
    places[trained] = np.arange(len(trained))
    expected = model.expect(groups.rows(within), places[within])
    best, third = its.truth[within].max(), its.truth[within] >= np.quantile(its.truth[within], 2 / 3)
    order = {
        "tau": round(float(kendalltau(expected.mean, its.truth[within]).statistic), 4),
        "tau_third": round(float(kendalltau(expected.mean[third], its.truth[within][third]).statistic), 4),
    }
    known = model.expect(groups.rows(trained), places[trained])
    holds = (known.low <= its.truth[trained]) & (its.truth[trained] <= known.high)
    whole = volume(its.truth[within], its.latency[within], bound)
    luckiest = np.array([max(of) for of in study.scores.values()])
    for report, qualities in zip(REPORTS, (luckiest, known.mean), strict=True):
        front = frontier(qualities, its.latency[trained])
        part = volume(its.truth[trained[front]], its.latency[trained[front]], bound)
        row: dict[str, Any] = {
            "report": report,
            "loss": round(100 * float(best - its.truth[trained[qualities.argmax()]]), 4),
            "volume": round(part / whole, 5),
        }
        if report == "expected":
            row |= order
            if its.same:
                row |= {
                    "covered_frontier": round(float(holds[front].mean()), 4),
                    "covered": round(float(holds.mean()), 4),
                    "width": round(100 * float((known.high - known.low).mean()), 3),
                }
        yield row


def frontier(quality: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Places of the networks that no other beats."""
    best, found = -np.inf, []
    for place in np.lexsort((-quality, cost)):
        if quality[place] > best:
            best = quality[place]
            found.append(place)
    return np.array(found)


def volume(quality: np.ndarray, cost: np.ndarray, worst: float) -> float:
    """Hypervolume of quality from 0 by cost up to `worst`."""
    area, best = 0.0, 0.0
    for place in np.argsort(cost, kind="stable"):
        area += max(0.0, quality[place] - best) * (worst - cost[place])
        best = max(best, float(quality[place]))
    return area


def rows_of(name: str, chosen: str, seed: int, percentile: int, folder: Path, trainings: int) -> list[dict[str, Any]]:
    """The rows of one replay."""
    its, groups = record(name, folder)
    bound, begun, found = float(np.percentile(its.latency, percentile)), time.process_time(), []
    study = None
    for count, study in enumerate(replay(chosen, its, seed=seed, bound=bound, trainings=trainings), 1):
        if count in COUNTS or count == trainings:
            where = {"record": name, "strategy": chosen, "seed": seed, "bound": percentile, "trainings": count}
            spent = round(time.process_time() - begun, 2)
            found += [
                {**where, "networks": len(study.scores), "seconds": spent, **row}
                for row in reported(study, its, groups, bound)
            ]
    return found


def show(path: Path, names: Sequence[str], strategies: Sequence[str]) -> None:
    """Print the tables."""
    rows = list(csv.DictReader(path.open()))
    for name in names:
        print(f"\n{name}\n")
        heads = ("strategy", "trainings", "report", "loss", "volume %", "tau", "of the best third",
                 "frontier covered %", "trained covered %", "width", "networks")  # fmt: skip
        print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
        for chosen in strategies:
            for count in COUNTS:
                for report in REPORTS:
                    mine = [
                        row
                        for row in rows
                        if (row["record"], row["strategy"], row["report"]) == (name, chosen, report)
                        and int(row["trainings"]) == count
                    ]
                    if mine:
                        cells = [
                            _told(mine, *column)
                            for column in (("loss", 2, 1), ("volume", 2, 100), ("tau", 2, 1), ("tau_third", 2, 1),
                                           ("covered_frontier", 0, 100), ("covered", 0, 100), ("width", 1, 1),
                                           ("networks", 0, 1))
                        ]  # fmt: skip
                        print(f"| {chosen} | {count} | {report} | {' | '.join(cells)} |")


def _told(rows: Sequence[Mapping[str, str]], column: str, digits: int, times: float) -> str:
    """Mean over bounds of each seed: mean over seeds, and quartiles."""
    by_seed: dict[str, list[float]] = {}
    for row in rows:
        if row[column]:
            by_seed.setdefault(row["seed"], []).append(times * float(row[column]))
    if not by_seed:
        return ""
    means = [float(np.mean(values)) for values in by_seed.values()]
    low, high = np.percentile(means, (25, 75))
    return f"{np.mean(means):.{digits}f} ({low:.{digits}f} .. {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", metavar="RECORD")
    parser.add_argument("--accel", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--strategies", default="random,tpe,nsgaii,surrogate")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("accuracy_bar"))
    args = parser.parse_args()
    path, chosen = args.out.with_suffix(".csv"), args.strategies.split(",")
    done = set()
    if path.exists():
        done = {
            tuple(row[name] for name in ("record", "strategy", "seed", "bound")) for row in csv.DictReader(path.open())
        }
    left = [
        (name, one, seed, bound, args.accel, args.trainings)
        for seed in range(args.seeds)
        for name in args.records
        for one in chosen
        for bound in BOUNDS
        if (name, one, str(seed), str(bound)) not in done
    ]
    with ProcessPoolExecutor(args.workers) as pool:
        for count, rows in enumerate(pool.map(rows_of, *zip(*left, strict=True)) if left else (), 1):
            for row in rows:
                append(path, COLUMNS, row)
            print(f"{count}/{len(left)}", end="\r", flush=True)
    show(path, args.records, chosen)


if __name__ == "__main__":
    main()
