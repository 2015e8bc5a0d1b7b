"""The question of a search: what is searched, for what budget, on what images, and how candidates are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mvnas import tasks, techniques
from mvnas.accuracy import Validation
from mvnas.budgets import Budget
from mvnas.budgets.feasible import check_feasible
from mvnas.costs import Price, cost, estimates, to_json
from mvnas.data import Data, data_marks, load
from mvnas.engines import Engine, Images, is_built_in, module_of
from mvnas.errors import StudyError, unknown
from mvnas.latency import DEFAULT_TABLE
from mvnas.latency.model import MODEL, Latencies, Latency, latency
from mvnas.latency.table import Table, load_each
from mvnas.spaces.arch import FLOAT, Arch
from mvnas.spaces.rows import Picks, options
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published
from mvnas.strategies import Context
from mvnas.strategies.rungs import Rungs
from mvnas.studies.setup import BUILT_IN, SCORES, SHORT, SUPERNET, Setup
from mvnas.studies.study import Study
from mvnas.system.marks import code_mark, mark
from mvnas.system.progress import Progress
from mvnas.training import Schedule, factor_for

LOOKS, SAME = 20, 1e-3  # trials whose predictions are compared with the study's, and how near they must be
FULL = Rungs()


@dataclass(frozen=True)
class Problem:
    """Everything a search needs, resolved: what to search, for what, on what, and how candidates are scored."""

    space: Space
    budget: Budget
    data: Data
    model: Latency
    setup: Setup
    skip_broken: bool = False
    task: tasks.Task = field(default_factory=tasks.task)

    @classmethod
    def of(
        cls,
        space: Space,
        budget: Budget,
        data: Data,
        model: Latency,
        *,
        schedule: Schedule | None = None,
        rungs: Rungs = FULL,
        objective: str = "latency",
        seed: int = 0,
        skip_broken: bool = False,
        task: str = tasks.DEFAULT,
        metric: str | None = None,
        technique: str = techniques.DEFAULT,
        scores: str = SHORT,
    ) -> Problem:
        """The problem of finding networks of `space` within `budget` that are good at `task` and cheap by `model`.

        The heads of the space become those of the task and the data. A space of float32 is searched at each precision
        that the model has a table of. `schedule` is the default one, of a length that suits the data, where none is
        given; `objective` is the name of the cost that is minimised beside quality. `metric` is the name of one of the
        task's, by default of the one that suits the data. Task and technique are names, and
        the data is read again by its name, with `skip_broken`, since trainings run in processes of their own.

        Raises:
            MvnasError: no network can meet the budget, or one of the names is of nothing.
        """
        aim = tasks.task(task)
        technique = _scored_by(technique, scores, rungs)
        own = techniques.techniques(technique)
        cost(objective).check(model)
        aim.check(data)
        aim = aim.by(metric or aim.suited(data)[0], data)
        tables = _tables(model)
        if space.precision == FLOAT:
            space = space.with_precisions([table.precision for table in tables])
        space = aim.space(space, data)
        for one in own:
            one.check(space)
        check_feasible(budget, space, model, seed=seed)
        setup = Setup(
            budget=budget.text,
            space=space.name,
            data=data.name,
            device=",".join(table.place for table in tables),
            schedule=(schedule or Schedule(epochs=aim.epochs(data))).to_json(),
            seed=seed,
            factor=factor_for(data.side),
            classes=data.classes,
            note=data.note,
            objective=objective,
            rungs=str(rungs),
            judged=len(data.val),
            chance=aim.chance(data),
            flip=data.flip,
            task=task,
            metric=aim.metric.to_json(),
            technique=technique,
            scores=scores,
            marks=_marks(space, tables, model)
            | _cost_marks(budget, objective)
            | data_marks(data)
            | tasks.marks(task)
            | techniques.marks(technique),
        )
        return cls(space, budget, data, model, setup, skip_broken, aim)

    def excess(self, arch: Arch) -> float:
        """How far a network is over the budget; 0 if it fits."""
        return self.budget.excess(Price(arch, self.model))

    def scored_by(self, trainer: Engine | None) -> Setup:
        """The setup of this problem with its candidates trained by `trainer`: one of ours, or the user's with a mark of
        its code.
        """
        if trainer is None or is_built_in(trainer):
            return replace(self.setup, engine=BUILT_IN)
        name = self.setup.engine if "." in self.setup.engine else module_of(trainer)
        return replace(self.setup, engine=name, marks={**self.setup.marks, "engine": code_mark(name)})

    @property
    def length(self) -> str:
        """How long candidates are trained, in words."""
        return self.task.length(self.setup.schedule["epochs"], self.data)

    @property
    def validation(self) -> Validation:
        """What qualities are measured on."""
        return self.setup.validation

    def context(self, trials: int | None) -> Context:
        """What a strategy is made from, where the study is to have so many full trainings."""
        shares = Rungs.parse(self.setup.rungs).shares
        repeats = self.setup.scores == SHORT  # others are the same each time
        return Context(self.space, self.cost, self.excess, self.validation, shares, trials, repeats)

    @property
    def images(self) -> Images:
        """What workers load."""
        return Images(self.setup.data, self.skip_broken, self.setup.flip)

    def cost(self, arch: Arch) -> float:
        """What is minimised beside accuracy, of a network, such as ms of latency."""
        return Price(arch, self.model)[self.setup.objective]

    @cached_property
    def baselines(self) -> dict[str, Picks]:
        """Published networks that are points of the space and fit the budget, from small to large."""
        found = {}
        for name in published():
            arch = self.task.arch(Space.load(name).arch(), self.data)
            arch = replace(arch, precision=options(self.space.precision)[0])
            picks = self.space.locate(arch)
            if picks is not None and self.excess(arch) == 0:
                found[name] = (arch.params, picks)
        return {name: found[name][1] for name in sorted(found, key=lambda name: found[name][0])}


def from_names(
    budget: str,
    *,
    space: str = "mobilevit",
    data: str = "digits",
    device: str = DEFAULT_TABLE,
    schedule: Schedule | None = None,
    epochs: float | None = None,
    batch: int | None = None,
    lr: float | None = None,
    clip: float | None = None,
    seed: int = 0,
    skip_broken: bool = False,
    objective: str = "latency",
    rungs: str = "1",
    engine: str = BUILT_IN,
    flip: bool | None = None,
    task: str = tasks.DEFAULT,
    metric: str | None = None,
    technique: str = techniques.DEFAULT,
    scores: str = SHORT,
    tell: Progress | None = None,
) -> Problem:
    """The problem that names and paths describe; `schedule` is the default one with the fields that are given where
    none is.

    `objective` is the name of the cost that is minimised beside accuracy; `rungs` are shares of the full training
    length; `engine` is the name of what `search` is to be given as trainer. `flip` says whether images are mirrored in
    training; None: unless their source says no. `task` is what networks are for, `metric` what they are judged by, None
    for what suits the images, `technique` what trainings do beyond plain. `tell` is called while images are read: with
    what, how many of them, and of how many.

    Raises:
        MvnasError: something is not there, not legal, or no network can meet the budget.
    """
    cost(objective)  # a typo should not wait for the data
    ladder = Rungs.parse(rungs)
    given: dict[str, Any] = {"epochs": epochs, "batch": batch, "lr": lr, "clip": clip}
    fields = {**techniques.defaults(technique), **{name: value for name, value in given.items() if value is not None}}
    Schedule(**fields)
    aim = tasks.task(task)
    technique = _scored_by(technique, scores, ladder)
    own = techniques.techniques(technique)
    model = latency(load_each(device))
    cost(objective).check(model)  # nor should a table without it
    choices = Space.load(space)
    for one in own:
        one.check(choices)
    Budget.parse(budget, lambda name: Price(Space.load(name).arch(), model))  # nor a typo in this
    images = load(data, skip_broken=skip_broken, flip=flip, tell=tell)
    aim.check(images)
    aim.by(metric or aim.suited(images)[0], images)
    bounds = Budget.parse(budget, lambda name: Price(aim.arch(Space.load(name).arch(), images), model))
    problem = Problem.of(
        choices,
        bounds,
        images,
        model,
        schedule=schedule or Schedule(**{"epochs": aim.epochs(images), **fields}),
        rungs=ladder,
        objective=objective,
        seed=seed,
        skip_broken=skip_broken,
        task=task,
        metric=metric,
        technique=technique,
        scores=scores,
    )
    return replace(problem, setup=replace(problem.setup, device=device, engine=engine))


def _scored_by(technique: str, scores: str, rungs: Rungs) -> str:
    """The techniques of a study whose candidates have such scores.

    Raises:
        StudyError: there are no such scores, or candidates that nobody trains are to rest.
    """
    if scores not in SCORES:
        raise StudyError(unknown("scores", scores, SCORES))
    if scores != SHORT and len(rungs.shares) > 1:
        raise StudyError(f"candidates that a supernet scores are not trained, so that rungs must be 1, but are {rungs}")
    if scores == SHORT or any(one.name == SUPERNET for one in techniques.named(technique)):
        return technique
    return SUPERNET if technique == techniques.NONE else f"{technique},{SUPERNET}"


def _tables(model: Latency) -> list[Table]:
    """The tables that a model was fitted to, of each precision, but those that they are like."""
    models = model.models.values() if isinstance(model, Latencies) else [model]
    return [one.table for one in models if one.table]


def _marks(space: Space, tables: Sequence[Table], model: Latency) -> dict[str, str]:
    """Marks of what the names of a space and a device stand for."""
    return {
        "space": mark(repr((space.rows, space.resolution, space.precision))),
        **_code_marks("space", space.kinds),
        "device": mark(*(table.rows for table in tables)),
        "device.model": mark(f"model {MODEL}", *(table.contents for table in model.tables)),
    }


def _code_marks(name: str, modules: Iterable[str]) -> dict[str, str]:
    """A mark of the code of those of some names that are modules of the user's, if there are any."""
    own = sorted({module for module in modules if "." in module})
    return {f"{name}.code": mark(*map(code_mark, own))} if own else {}


def _cost_marks(budget: Budget, objective: str) -> dict[str, str]:
    """Marks of the user's own costs in a budget, or as an objective, if there are any."""
    bound = _code_marks("budget", [bound.cost for bound in budget.bounds])
    minimised = _code_marks("objective", [objective])
    bound |= {"budget": mark(budget.text)} if bound else {}
    return bound | minimised | ({"objective": mark(objective)} if minimised else {})


def check_predictions(study: Study, problem: Problem) -> None:
    """Return if the problem predicts of candidates of the study what was predicted of them, whatever has changed since.

    Raises:
        StudyError: it predicts something else.
    """
    trials = [trial for trial in study.trials() if "arch" in trial.user_attrs]
    for trial in trials[:: len(trials) // LOOKS + 1]:
        now = estimates(problem.space.at(trial.params), problem.model, problem.setup.predicted)
        for name, value in to_json(now).items():
            before = trial.user_attrs.get(name, value)
            if abs(value / before - 1) > SAME:
                raise StudyError(
                    f"the study {study.place} must be continued as it began, but what is predicted for "
                    f"{problem.setup.device} has changed since: "
                    f"{name} of trial {trial.number} was {before:.4g} and is {value:.4g}; name another --study"
                )
