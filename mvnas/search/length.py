"""How long candidates are trained: how fast this machine trains them, and the length that fits into a time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from statistics import fmean

import torch

from mvnas import techniques
from mvnas.budgets.feasible import repair
from mvnas.data import Data, Split
from mvnas.engines import at_hand
from mvnas.errors import MvnasError, TrainingError
from mvnas.nn import build
from mvnas.search.problem import Problem
from mvnas.spaces.arch import Arch
from mvnas.studies.study import Study
from mvnas.system.machine import threads
from mvnas.training import Loop, Sampler, Schedule, Technique, Training, evaluate, initialise, trained_size
from mvnas.training.fit import CALIBRATION
from mvnas.training.numerics import memory, reproducible

LOCAL = ("processes", "inline")  # engines that train on this machine
DRAWN, TIMED = 12, 3  # networks within the budget that are drawn, and those of them that are timed
STEPS, SECONDS = 5, 0.6  # timed of a network at most, after one that is not
PATIENCE = 4.0  # seconds after which no other network is timed
SHARE = 0.9  # of a time that is planned; the rest is for what trainings do beside
MOST = 300.0  # epochs that a time chooses: a training in full


@dataclass(frozen=True)
class Pace:
    """Seconds that a candidate takes on this machine, on average: of an epoch, and beside its epochs.

    >>> Pace(epoch=20, beside=5).candidate(epochs=2)
    45
    """

    epoch: float
    beside: float

    def candidate(self, epochs: float) -> float:
        return self.beside + epochs * self.epoch

    def search(self, epochs: float, trials: float, workers: int = 1) -> float:
        """Seconds of so many candidates, of which `workers` are trained at a time."""
        return ceil(trials / workers) * self.candidate(epochs)


@dataclass(frozen=True)
class Length:
    """Epochs of a training that a time leaves to `trials` candidates, and how many candidates `fit` into it so."""

    epochs: float
    trials: int
    fit: int

    @property
    def told(self) -> str:
        """Why it is that long."""
        if self.fit < self.trials:
            return (
                f"shorter ones tell too little, so that about {self.fit} of {self.trials} candidates fit into the time"
            )
        return f"so that {self.trials} candidates fit into the time"


def fitted(pace: Pace, seconds: float, *, trials: int, default: float, workers: int = 1) -> Length:
    """The length of trainings by which `trials` candidates fit into some time: two digits of epochs.

    No shorter than the `default` length, since half of it leaves little but luck (docs/proxy.md) and fewer candidates
    tell more, and no longer than MOST epochs.

    >>> fitted(Pace(epoch=10, beside=5), 3600, trials=20, default=2)
    Length(epochs=15.0, trials=20, fit=20)
    """
    planned = SHARE * seconds
    epochs = (planned / ceil(trials / workers) - pace.beside) / pace.epoch
    epochs = max(default, min(MOST, _two_digits(epochs)))
    return Length(epochs, trials, max(1, min(trials, workers * int(planned / pace.candidate(epochs)))))


def _two_digits(epochs: float) -> float:
    """A number rounded down to two digits."""
    if epochs <= 0:
        return 0.0
    unit = 10.0 ** (floor(log10(epochs)) - 1)
    return float(f"{floor(epochs / unit + 1e-9) * unit:.2g}")


def spoken(seconds: float) -> str:
    """A time as people say it.

    >>> spoken(43), spoken(900), spoken(8000)
    ('43 s', '15 minutes', '2.2 hours')
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.2g} hours"


def told(pace: Pace, epochs: float, *, trials: float | None, seconds: float | None = None, workers: int = 1) -> str:
    """How long a search of so many candidates will take, or how many will be trained in so many seconds, in words.

    >>> told(Pace(epoch=20, beside=5), 2, trials=20)
    '20 candidates of about 45 s each: about 15 minutes on this machine'
    >>> told(Pace(epoch=20, beside=5), 2, trials=None, seconds=7200)
    'candidates of about 45 s each: about 160 of them in 2 hours on this machine'
    """
    each = pace.candidate(epochs)
    total = None if trials is None else pace.search(epochs, trials, workers)
    if total is not None and (seconds is None or total <= seconds):
        return f"{trials:g} candidates of about {spoken(each)} each: about {spoken(total)} on this machine"
    assert seconds is not None
    count = max(1, int(seconds / each) * workers)
    return f"candidates of about {spoken(each)} each: about {count} of them in {spoken(seconds)} on this machine"


def kept(place: str) -> Study | None:
    """The study at a place, whose length a search goes on with; None if there is none that can be read."""
    try:
        return Study.load(place)
    except MvnasError:
        return None  # what is wrong with it, `search` says


def lasting(problem: Problem, epochs: float) -> Problem:
    """The problem with trainings of so many epochs."""
    return replace(problem, setup=replace(problem.setup, schedule={**problem.setup.schedule, "epochs": epochs}))


def pace(problem: Problem, *, workers: int = 1) -> Pace | None:
    """How fast candidates are trained in processes of this machine, by a few steps of some within the budget.

    They are TIMED of DRAWN random networks, one of each stratum by MACs, or the middle one where that takes long.
    Nothing that a search draws or trains follows from it. None where nothing was timed: a loss needs what a technique
    prepares first, or no network trains.
    """
    made = techniques.techniques(problem.setup.technique)
    if any(_own(one, "prepare") and _own(one, "loss") for one in made):
        return None
    paces, begun = list[Pace](), time.monotonic()
    with _threads(threads(workers)):
        for arch in _typical(problem):
            if time.monotonic() - begun < PATIENCE:
                with suppress(TrainingError):
                    paces.append(_pace(problem, arch, made))
    return Pace(fmean(one.epoch for one in paces), fmean(one.beside for one in paces)) if paces else None


def worth_telling(problem: Problem) -> bool:
    """Whether a training takes more steps than it takes to tell how long it will take."""
    schedule = problem.setup.schedule
    return bool(schedule["epochs"] * len(problem.data.train) > TIMED * STEPS * schedule["batch"])


def _typical(problem: Problem) -> list[Arch]:
    """Networks within the budget, one of each stratum by MACs, the middle one first."""
    generator, space = random.Random(0), problem.space
    drawn = []
    for _ in range(DRAWN if space.choices else 1):
        picks = {name: generator.choice(values) for name, values in space.choices.items()}
        within, excess, _ = repair(picks, space, problem.excess, generator)
        if not excess:
            drawn.append(space.at(within))
    drawn.sort(key=lambda arch: arch.macs)
    count = min(TIMED, len(drawn))
    places = sorted(range(count), key=lambda i: abs(2 * i + 1 - count))
    return [drawn[(2 * i + 1) * len(drawn) // (2 * count)] for i in places]


def _pace(problem: Problem, arch: Arch, made: Sequence[Technique]) -> Pace:
    """How fast one network is trained.

    Raises:
        TrainingError: it cannot be.
    """
    setup, data, device = problem.setup, problem.data, torch.device(at_hand())
    schedule = Schedule(**setup.schedule)
    for technique in made:
        schedule = technique.schedule(schedule)
    sizes: tuple[tuple[int, int], ...] = ((arch.resolution, schedule.batch),)
    for technique in made:
        sizes = technique.sizes(sizes, arch.resolution, schedule.batch)
    some = _few(data, schedule.batch)
    with memory(), reproducible(device, 0):
        module = build(arch.graph())
        initialise(module, 0)
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        long = replace(schedule, epochs=4 * STEPS)
        training = Training(module, some, problem.task, long, arch.resolution, setup.factor, 0)
        # Other sizes are left out: the first steps at each take longer, and all are of about as many pixels.
        step = _step(Loop(training, [one for one in made if not (_own(one, "sizes") or _own(one, "prepare"))]))
        side = trained_size(arch.resolution, setup.factor)
        for _ in range(2):
            begun = time.perf_counter()
            evaluate(module, some.val, side=side, batch=schedule.batch, task=problem.task)
            judged = (time.perf_counter() - begun) / len(some.val)
    steps = len(Sampler(len(data.train), sizes, epochs=4, seed=0)) / 4
    return Pace(steps * step, judged * (len(data.val) + min(CALIBRATION, len(data.train))))


def _own(technique: Technique, hook: str) -> bool:
    """Whether a technique overrides a hook."""
    return getattr(type(technique), hook) is not getattr(Technique, hook)


def _few(data: Data, batch: int) -> Data:
    """A part of a data set that is large enough for steps of all sizes."""

    def part(split: Split) -> Split:
        return Split(split.images[: 4 * batch], split.targets[: 4 * batch])

    return replace(data, train=part(data.train), val=Split(data.val.images[:batch], data.val.targets[:batch]))


def _step(loop: Loop) -> float:
    """Seconds of a step, without the first."""
    begun = now = time.perf_counter()
    for number, _ in enumerate(loop.run(1 + STEPS)):
        now = time.perf_counter()
        if not number:
            first, begun = now - begun, now
        elif now - begun > SECONDS or first > 2 * SECONDS:
            break
    return (now - begun) / number


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with as many threads as a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
