"""The search: an ask/tell loop over Optuna that trains what fits the budget and remembers everything in one study."""

from __future__ import annotations

import os
import random
import socket
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from mvnas.arch import FLOAT, Arch
from mvnas.budget import Budget, check_feasible, price, repair
from mvnas.datasets import Data, load
from mvnas.errors import MvnasError, StudyError, unknown
from mvnas.latency import Latency, latency
from mvnas.score import COSTS
from mvnas.space import Picks, Space, options, published
from mvnas.study import Setup, Study, predicted
from mvnas.table import DEVICE, load_each
from mvnas.training import Schedule, factor_for

TRIALS = 20
SAMPLER = "NSGAIISampler"
WALKS = 50  # attempts at a candidate that fits and is new, before the space counts as exhausted


@dataclass(frozen=True)
class Status:
    """Where a search stands, for whoever shows it."""

    done: int
    failed: int
    infeasible: int
    total: int | None
    best: float
    frontier: int
    left_seconds: float | None
    doing: str = ""


@dataclass(frozen=True)
class Task:
    """Everything a search needs, resolved: what to search, for what, on what, and how candidates are scored."""

    space: Space
    budget: Budget
    data: Data
    model: Latency
    setup: Setup

    @classmethod
    def prepare(
        cls,
        budget: str,
        *,
        space: str = "mobilevit",
        data: str = "digits",
        device: str = DEVICE,
        schedule: Schedule | None = None,
        epochs: float | None = None,
        seed: int = 0,
        skip_broken: bool = False,
        objective: str = "latency",
    ) -> Task:
        """The task that names and paths describe; `schedule` is the default one of `epochs` where none is given.

        `objective`, latency or energy, is what is minimised beside accuracy.

        Raises:
            MvnasError: something is not there, not legal, or no network can meet the budget.
        """
        if objective not in COSTS:
            raise StudyError(unknown("objective", objective, COSTS))
        tables = load_each(device)
        model = latency(tables)
        if objective == "energy":
            _ = model.energy  # a table without it should not wait for the data
        choices = Space.load(space)
        if choices.precision == FLOAT:
            choices = choices.with_precisions([table.precision for table in tables])
        Budget.parse(budget, lambda name: price(Space.load(name).arch(), model))  # a typo should not wait for the data
        images = load(data, skip_broken=skip_broken)
        choices = choices.with_classes(len(images.classes))
        bounds = Budget.parse(
            budget, lambda name: price(Space.load(name).arch().with_classes(len(images.classes)), model)
        )
        check_feasible(bounds, choices, model, seed=seed)
        setup = Setup(
            budget=budget,
            space=space,
            data=data,
            device=device,
            schedule=asdict(schedule or Schedule(epochs=epochs or default_epochs(len(images.train.labels)))),
            seed=seed,
            factor=factor_for(images.side),
            classes=images.classes,
            note=images.note,
            objective=objective,
            marks={
                "space": _mark(repr((choices.stages, choices.resolution, choices.precision))),
                "data": images.fingerprint,
                "device": _mark(*(file.read_text() for table in tables for file in sorted(table.path.glob("*.csv")))),
            },
        )
        return cls(choices, bounds, images, model, setup)

    def excess(self, arch: Arch) -> float:
        """How far a network is over the budget; 0 if it fits."""
        return self.budget.excess(price(arch, self.model))

    def baselines(self) -> dict[str, Picks]:
        """Published networks that are points of the space and fit the budget, from small to large."""
        found = {}
        for name in published():
            arch = Space.load(name).arch().with_classes(len(self.data.classes))
            arch = replace(arch, precision=options(self.space.precision)[0])
            picks = self.space.locate(arch)
            if picks is not None and self.excess(arch) == 0:
                found[name] = (arch.params, picks)
        return {name: found[name][1] for name in sorted(found, key=lambda name: found[name][0])}


def search(
    task: Task,
    *,
    study: str = "mvnas.db",
    trials: int | None = None,
    seconds: float | None = None,
    sampler: str = SAMPLER,
    show: Callable[[Status], None] = lambda status: None,
) -> Study:
    """Run or continue a study until it has `trials` scored or failed candidates, or for `seconds`; either may be None.

    Raises:
        StudyError: the study began in another way, or the sampler is unknown.
        KeyboardInterrupt: the user stopped it; the candidate in training will be the next one when it is continued.
    """
    begun = time.monotonic()
    total = trials if trials is not None or seconds is not None else TRIALS
    record = Study.begin(study, task.setup)
    record.recover()
    sampling = Affordable(task, record, make_sampler(sampler, task.setup.seed + len(record.trials()), total))
    record.record.sampler = sampling
    if not record.trials():
        for name, picks in task.baselines().items():
            record.record.enqueue_trial(dict(picks), user_attrs={"name": name})
    run = _Run(task, record, sampling, total, begun, seconds, show)
    while run.goes_on():
        try:
            trial = record.record.ask()
            picks = {name: trial.suggest_categorical(name, values) for name, values in task.space.choices.items()}
        except ExhaustedError:
            record.recover()
            break
        run.candidate(trial, task.space.at(picks))
    return record


def default_epochs(images: int) -> float:
    """Length of a candidate's training where the user says nothing: 2 epochs, or 8,000 images if these are fewer.

    A candidate on small data takes seconds, one on photos minutes, on a CPU; `--epochs` sets any other length.
    """
    return min(2.0, round(8000 / images, 3))


class ExhaustedError(Exception):
    """No candidate is left that fits the budget and is new."""


class _Run:
    """One run of the loop: trains candidates and tells of them."""

    def __init__(
        self,
        task: Task,
        study: Study,
        sampling: Affordable,
        total: int | None,
        begun: float,
        seconds: float | None,
        show: Callable[[Status], None],
    ) -> None:
        self.task, self.study, self.sampling, self.total, self.show = task, study, sampling, total, show
        self.begun, self.seconds = begun, seconds
        self.before = len(study.scores()) + len(study.failures())

    def goes_on(self) -> bool:
        status = self.status()
        self.show(status)
        over = self.seconds is not None and time.monotonic() - self.begun > self.seconds
        return not over and (self.total is None or status.done + status.failed < self.total)

    def status(self, doing: str = "") -> Status:
        scores, failed = self.study.scores(), len(self.study.failures())
        finished = len(scores) + failed
        spent = time.monotonic() - self.begun
        left = [] if self.seconds is None else [self.seconds - spent]
        if self.total is not None and finished > self.before:
            left.append(spent / (finished - self.before) * (self.total - finished))
        return Status(
            done=len(scores),
            failed=failed,
            infeasible=self.study.infeasible(),
            total=self.total,
            best=max((score.accuracy for score in scores), default=0.0),
            frontier=len(self.study.frontier().scores),
            left_seconds=min(left, default=None),
            doing=doing,
        )

    def candidate(self, trial: Trial, arch: Arch) -> None:
        """Train one candidate and tell what became of it; whatever goes wrong in it is its own failure."""
        costs = predicted(arch, self.task.model, self.task.setup.costs)
        for key, value in {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "arch": arch.to_json(),
            "infeasible": self.sampling.take_infeasible(),
            **costs,
        }.items():
            trial.set_user_attr(key, value)
        trial.set_constraint("budget", self.task.excess(arch))
        try:
            accuracy, seconds = self.train(arch, trial)
        except KeyboardInterrupt:
            self.study.retry(self.study.record.trials[trial.number])
            raise
        except Exception as error:
            told = str(error) if isinstance(error, MvnasError) else f"{type(error).__name__}: {error}"
            trial.set_user_attr("reason", told)
            self.study.record.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr("seconds", seconds)
        self.study.record.tell(trial, [accuracy, costs[COSTS[self.task.setup.objective][0]]])
        self.study.keep_weights()

    def train(self, arch: Arch, trial: Trial) -> tuple[float, float]:
        """Held-out accuracy of a candidate, at its precision, and the seconds that took; its weights are kept beside the study."""
        from safetensors.torch import save_file

        from mvnas.job import Job, seed_of, train

        task = self.task
        name = trial.user_attrs.get("name", "")
        base = self.status()

        def progress(step: int, steps: int, loss: float) -> None:
            doing = f"trial {trial.number}{f' ({name})' if name else ''} step {step}/{steps} loss {loss:.2f}"
            self.show(Status(**{**asdict(base), "doing": doing}))

        job = Job(arch, Schedule(**task.setup.schedule), task.setup.factor, seed_of(arch, task.setup.seed))
        trained = train(job, task.data, progress=progress)
        path = self.study.weights(trial.number)
        path.parent.mkdir(exist_ok=True)
        save_file(trained.state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        return trained.accuracy, trained.seconds


def make_sampler(name: str, seed: int, trials: int | None) -> BaseSampler:
    """The Optuna sampler `name`; a genetic one gets a population that lets it evolve within `trials`.

    Raises:
        StudyError: Optuna has no such sampler, or it cannot be made from a seed alone.
    """
    known = [word for word in optuna.samplers.__all__ if word.endswith("Sampler") and not word.startswith("Base")]
    if name not in known:
        raise StudyError(unknown("sampler", name, known))
    settings: dict[str, Any] = {"seed": seed}
    if name.startswith("NSGA"):
        settings["population_size"] = max(6, min(50, (trials or 100) // 3))
    elif name == "TPESampler":
        settings["multivariate"] = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return getattr(optuna.samplers, name)(**settings)  # type: ignore[no-any-return]
    except TypeError as error:
        raise StudyError(f"a sampler must be made from a seed alone, but {name} is not: {error}") from None


class Affordable(BaseSampler):
    """Any sampler, led into the budget: a draw that is over it, or not new, walks to a near point that fits.

    The architectures over budget on the way are costed, which takes about a millisecond each, counted, and never trained.
    """

    def __init__(self, task: Task, study: Study, base: BaseSampler) -> None:
        self.task, self.study, self.base = task, study, base
        self.generator = random.Random(f"{task.setup.seed} {len(study.trials())}")
        self.space = {name: CategoricalDistribution(values) for name, values in task.space.choices.items()}
        self.infeasible = 0

    def take_infeasible(self) -> int:
        """Architectures found over budget since last asked."""
        count, self.infeasible = self.infeasible, 0
        return count

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self.space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if "fixed_params" in trial.system_attrs:
            return dict(trial.system_attrs["fixed_params"])
        seen = {_key(other.params) for other in self.study.trials() if other.params}
        picks = self._draw(study, trial)
        for _ in range(WALKS):
            picks, excess, over = repair(picks, self.task.space, self.task.excess, self.generator)
            self.infeasible += over
            if excess == 0 and _key(picks) not in seen:
                return picks
            if not self.space:
                break
            name = self.generator.choice(list(self.space))
            picks = picks | {name: self.generator.choice(self.space[name].choices)}
        raise ExhaustedError

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """A point of the space as the base sampler draws it."""
        part = self.base.infer_relative_search_space(study, trial)
        drawn = self.base.sample_relative(study, trial, part)
        return {
            name: drawn[name] if name in drawn else self.base.sample_independent(study, trial, name, options)
            for name, options in self.space.items()
        }

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.base.before_trial(study, trial)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self.base.reseed_rng()


def _key(picks: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(picks.items()))


def _mark(*texts: str) -> str:
    return sha256("\0".join(texts).encode()).hexdigest()[:16]
