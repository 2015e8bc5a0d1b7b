"""How many workers a driver keeps busy, and what a long study costs: the real loop and study, trainings by simulation.

    python benchmarks/scaling.py [--workers 1 16 64 256] [--asks 200] [--trials 10000] [--seconds 60 | --csv FILE]
    [--cpu]

A simulated engine trains nothing: a training takes a time drawn from an exponential distribution, or from the column
`seconds` of a CSV, on a clock that jumps from event to event, and on which all that the driver does takes as long as it
really took. With `--cpu` that is the driver's processor time alone, for a machine that others use; else all that
passed, waits for the disk included. Weights are zeros of each network's size, written as in a search. The study of
`--trials` is written into the database directly, from architectures within the budget, and is then searched and
reported. `Surrogate.next` is timed on it whatever strategy is named.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import insert

from mvnas.budgets.feasible import repair
from mvnas.costs import estimates, to_json
from mvnas.engines import Done, Job
from mvnas.reports.json import summary_json
from mvnas.reports.plot import plot
from mvnas.reports.tables import frontier_table
from mvnas.search import Problem, search
from mvnas.search.problem import from_names
from mvnas.spaces.arch import Arch
from mvnas.spaces.rows import Picks
from mvnas.strategies import Told, key_of, strategy
from mvnas.studies.study import Study
from mvnas.training import Trained

BUDGET = "6M-params"
POPULATION = 50  # of NSGA-II in a study this long


@dataclass
class Simulated:
    """An engine whose trainings take times on a clock of its own."""

    slots: int
    times: Iterator[float]
    timer: Callable[[], float]
    now: float = 0.0
    trainings: list[tuple[float, float]] = field(default_factory=list)  # begin and end of each
    asks: list[float] = field(default_factory=list)  # seconds from one look at the study to a training begun
    tells: list[float] = field(default_factory=list)
    _ends: list[tuple[float, int, Job]] = field(default_factory=list)
    _last: float | None = None

    def passed(self) -> float:
        """Seconds of the driver's work since last asked, which the clock goes on by."""
        now = self.timer()
        spent = 0.0 if self._last is None else now - self._last
        self._last = now
        self.now += spent
        return spent

    def start(self, key: int, job: Job) -> None:
        self.asks.append(self.passed())
        end = self.now + next(self.times)
        heapq.heappush(self._ends, (end, key, job))
        self.trainings.append((self.now, end))

    def told(self, status: object) -> None:
        """Called when the driver has taken in a result and shown it."""
        self.tells.append(self.passed())

    def wait(self, seconds: float) -> Sequence[Done]:
        self.passed()
        if not self._ends:
            return []
        end, key, job = heapq.heappop(self._ends)
        self.now = max(self.now, end)
        state = {"weights": torch.zeros(job.arch.params)}
        trained = Trained(accuracy(job.arch), state, steps=1, seconds=1.0, images=1)
        self._last = self.timer()
        return [Done(key, trained)]

    def close(self) -> None:
        self._ends = []

    @property
    def busy(self) -> float:
        """Share of the workers' time in training, from when all were first busy until the last training began."""
        begin, end = self.trainings[self.slots - 1][0], self.trainings[-1][0]
        inside = sum(max(0.0, min(b, end) - max(a, begin)) for a, b in self.trainings)
        return inside / (self.slots * (end - begin))


def accuracy(arch: Arch) -> float:
    """A made-up accuracy: it grows with size, and has luck in it."""
    luck = random.Random(repr(arch)).gauss(0, 0.02)
    return min(1.0, max(0.0, 0.9 - 0.5 * (1e6 / arch.params) ** 0.5 + luck))


def fill(study: Study, problem: Problem, count: int) -> None:
    """Write `count` finished trials, different ones within the budget, into an empty study's database."""
    generator = random.Random(0)
    seen: set[Any] = set()
    choices = {name: CategoricalDistribution(values) for name, values in problem.space.choices.items()}
    told = {name: distribution_to_json(choice) for name, choice in choices.items()}
    rows: dict[Any, list[dict[str, Any]]] = {}

    def row(model: Any, **columns: Any) -> None:
        rows.setdefault(model, []).append(columns)

    while len(seen) < count:
        drawn: Picks = {name: generator.choice(choice.choices) for name, choice in choices.items()}
        picks, excess, over = repair(drawn, problem.space, problem.excess, generator)
        if excess > 0 or key_of(picks) in seen:
            continue
        number = len(seen)
        seen.add(key_of(picks))
        arch = problem.space.at(picks)
        costs = to_json(estimates(arch, problem.model, problem.setup.costs))
        identity = number + 1
        row(models.TrialModel, trial_id=identity, number=number, study_id=study.record._study_id,
            state=TrialState.COMPLETE)  # fmt: skip
        for name, pick in picks.items():
            row(models.TrialParamModel, trial_id=identity, param_name=name,
                param_value=choices[name].to_internal_repr(pick), distribution_json=told[name])  # fmt: skip
        for objective, value in enumerate((accuracy(arch), costs["latency_ms"])):
            row(models.TrialValueModel, trial_id=identity, objective=objective, value=value,
                value_type=models.TrialValueModel.TrialValueType.FINITE)  # fmt: skip
        attrs = {"host": "h", "pid": 1, "arch": arch.to_json(), "infeasible": over, **costs, "seconds": 60.0}
        for key, value in attrs.items():
            row(models.TrialUserAttributeModel, trial_id=identity, key=key, value_json=json.dumps(value))
        notes = {"NSGAIISampler:generation": number // POPULATION, "constraints:budget": 0.0}
        for key, value in notes.items():
            row(models.TrialSystemAttributeModel, trial_id=identity, key=key, value_json=json.dumps(value))
    with study.record._storage._backend.engine.begin() as database:  # type: ignore[attr-defined]
        for model, columns in rows.items():
            database.execute(insert(model), columns)


def took(timer: Callable[[], float], work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begun = timer()
    work()
    return timer() - begun


def told(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{1e3 * median(ordered):8.1f} {1e3 * ordered[int(0.95 * (len(ordered) - 1))]:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--asks", type=int, default=200, help="trainings beyond those that fill the workers")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="mean length of a training")
    parser.add_argument("--strategy", default="NSGAIISampler")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    timer = time.process_time if args.cpu else time.perf_counter
    generator = random.Random(0)
    if args.csv:
        lengths = [float(line["seconds"]) for line in csv.DictReader(args.csv.open())]
    else:
        lengths = [generator.expovariate(1 / args.seconds) for _ in range(10_000)]
    problem = from_names(BUDGET)
    print(f"trainings of {fmean(lengths):.0f} s on average; {'processor' if args.cpu else 'wall'} ms of the driver")
    print(f"{'trials':>8} {'workers':>8} {'busy':>8}   {'ask':>8} {'95 %':>8}   {'tell':>8} {'95 %':>8}")

    def run(folder: Path, place: str, workers: int, before: int) -> None:
        times = (generator.choice(lengths) for _ in itertools.count())
        engine = Simulated(workers, times, timer)
        total = before + workers + args.asks
        search(problem, study=place, trials=total, strategy=strategy(args.strategy), trainer=engine, show=engine.told)
        print(
            f"{before:8} {workers:8} {engine.busy:8.1%}   {told(engine.asks[1:])}   {told(engine.tells[1:])}",
            flush=True,
        )

    with TemporaryDirectory() as name:
        folder = Path(name)
        for workers in args.workers:
            run(folder, str(folder / f"{workers}.db"), workers, 0)
        if not args.trials:
            return
        place = str(folder / "long.db")
        fill(Study.begin(place, problem.scored_by(Simulated(1, iter(()), timer))), problem, args.trials)
        run(folder, place, max(args.workers, default=1), args.trials)
        begun = timer()
        study = Study.load(place)
        parts = {
            "read and score": lambda: study.scores(),
            "frontier_table": lambda: frontier_table(study),
            "summary_json": lambda: json.dumps(summary_json(study)),
            "plot": lambda: plot(study, folder / "frontier.png"),
        }
        for part, work in parts.items():
            print(f"{part:>16} {took(timer, work):6.2f} s")
        print(f"{'in all':>16} {timer() - begun:6.2f} s, {len(study.scores())} candidates")
        surrogate, history = strategy("surrogate")(replace(problem.context(None), repeats=False)), study.told
        proposing = []
        for number in range(len(history), len(history) + args.asks):
            begun = timer()
            proposal = surrogate.next(history, (), 0)
            proposing.append(timer() - begun)
            assert proposal
            history.append(Told(number, proposal.picks, 0, accuracy(problem.space.at(proposal.picks))))
        first, *others = proposing
        print(f"{'Surrogate.next':>16} {first:6.2f} s at first, when all are costed, then ms {told(others)}, "
              f"on average {1e3 * fmean(others):.1f}, at most {1e3 * max(others):.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
