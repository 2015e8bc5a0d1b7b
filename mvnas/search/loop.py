"""The loop: asks a strategy for candidates, has them trained, and remembers everything in one study."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from mvnas.budgets.feasible import repair
from mvnas.costs import estimates
from mvnas.engines import Doing, Done, Engine, Event, Failed, Job, Step, engine, seed_of
from mvnas.errors import StudyError, unknown
from mvnas.search.problem import Problem, check_predictions
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Picks
from mvnas.strategies.rungs import shares
from mvnas.strategies.strategy import Proposal, Surrogate
from mvnas.studies.record import candidate_of, describe, key_of, picks_of, rung_of
from mvnas.studies.storage import HEARTBEAT, owned, written
from mvnas.studies.study import SLACK, Study
from mvnas.system.marks import mark
from mvnas.system.stop import Stop
from mvnas.training import Schedule

TRIALS = 20
STRATEGY = "surrogate"  # all others are samplers of Optuna
TICK = 0.25  # seconds between two looks at what the user and other drivers do
PATIENCE = 2  # how often a search may be asked to stop before it is interrupted where it is
TOLD = 160  # characters of what was raised that a sentence quotes
STOPPING = "; finishing what runs, Ctrl-C again stops at once"
WALKS = 50  # attempts at a candidate that fits and is new, before the space counts as exhausted


@dataclass(frozen=True)
class Status:
    """Where a search stands, for whoever shows it.

    `finished` of `total` are trainings as full lengths; `resting` are candidates by the share of it that they were trained.
    """

    finished: float
    failed: int
    infeasible: int
    total: int | None
    best: float
    frontier: int
    left_seconds: float | None
    resting: Mapping[str, int]
    doing: str = ""


def search(
    problem: Problem,
    *,
    study: str = "mvnas.db",
    trials: int | None = None,
    seconds: float | None = None,
    strategy: str = STRATEGY,
    trainer: Engine | None = None,
    show: Callable[[Status], None] = lambda status: None,
    stop: Stop | None = None,
) -> Study:
    """Run or continue a study until it has `trials` scored or failed candidates, or for `seconds`; either may be None.

    With rungs `trials` are full trainings, and one from rung to rung counts as much as lies between: candidates are more, and the
    last training may go beyond by a part.

    Candidates are chosen by `strategy`, `surrogate` or a sampler of Optuna, after the published networks that fit.

    They are trained by `trainer`, or in one process beside this one; as many run at a time as it has slots. With one
    slot and one seed a study is the same, trial for trial, however often it was interrupted.

    Asked once to `stop`, what runs is finished and nothing new begins; asked twice, all stops at once.

    Raises:
        StudyError: the study began in another way, another process searches it, the strategy is unknown, the images or the disk are
            gone, or candidates in a row failed alike by what may be the machine's fault. Such candidates are not charged.
        KeyboardInterrupt: the user stopped it; the candidates in training will be the next ones when it is continued.
    """
    total = trials if trials is not None or seconds is not None else TRIALS
    if strategy != STRATEGY:
        make_sampler(strategy, 0, total)  # a typo should not wait for the study
        if len(shares(problem.setup.rungs)) > 1:
            raise StudyError(f"rungs need the strategy {STRATEGY}, but got {strategy}; leave out one of the two")
    with owned(study):
        record = Study.begin(study, problem.scored_by(trainer))
        record.check_points(problem.space.choices)
        check_predictions(record, problem)
        record.recover()
        runner = trainer or engine("processes", problem.images)
        try:
            with written(study):
                run = _Run(problem, record, runner, strategy, total, seconds, show, stop or Stop())
                run.run()
                record.exhausted = run.exhausted
        finally:
            if trainer is None:
                runner.close()
    return record


class ExhaustedError(Exception):
    """No candidate is left that fits the budget and is new."""


class _Training(NamedTuple):
    """A candidate in training."""

    name: str
    cost: float  # what is minimised beside accuracy
    picks: Picks
    rung: int


class _Run:
    """One run of the loop: asks for candidates, has them trained, and tells of them."""

    def __init__(
        self,
        problem: Problem,
        study: Study,
        trainer: Engine,
        strategy: str,
        total: int | None,
        seconds: float | None,
        show: Callable[[Status], None],
        stop: Stop,
    ) -> None:
        self.problem, self.study, self.trainer, self.strategy = problem, study, trainer, strategy
        self.total, self.seconds, self.show, self.stop = total, seconds, show, stop
        self.begun = self.beaten = time.monotonic()
        self.before = study.finished
        self.running: dict[int, _Training] = {}
        self.doubtful: dict[
            int, str
        ] = {}  # what has failed, by its own fault or the machine's, since a training last came through
        self.exhausted = False
        self.infeasible = 0
        self.shares = (*study.rungs.values(),)
        self.surrogate = Surrogate(problem.space, problem.cost, self.excess, problem.validation, shares=self.shares)
        self.scout = None if strategy == STRATEGY else make_sampler(strategy, 0, total)
        self.base = self.status()

    def run(self) -> None:
        """Train until the total is reached, time is over, nothing is left, or the user stops it."""
        try:
            self.tell_user()
            while True:
                while not self.stop.asked and len(self.running) < self.trainer.slots:
                    turn, lengths = self.study.begun
                    if not self.goes_on(lengths):
                        break
                    self.begin(turn)
                if not self.running:
                    if self.doubtful and not self.stop.asked and not self.goes_on(self.study.begun[1]):
                        raise self.doubt([*self.doubtful.values()][-1])
                    if self.stop.asked or not self.goes_on(self.study.finished):
                        for number in [*self.doubtful]:
                            self.give_up(number)
                        return
                events = self.trainer.wait(TICK)
                for event in events:
                    if self.stop.asked < PATIENCE or not isinstance(
                        event, Failed
                    ):  # whoever stops us may have stopped it
                        self.take(event)
                if not (self.running or events):  # others train the last ones, or there is no slot
                    time.sleep(TICK)
                if self.stop.asked >= PATIENCE:
                    raise self.stop.interrupt
                self.beat()
        except BaseException:
            for number in [*self.running, *self.doubtful]:
                self.give_up(number)
            raise

    def goes_on(self, beside: float) -> bool:
        """Whether there is to be another training beside so many full ones."""
        over = self.seconds is not None and time.monotonic() - self.begun > self.seconds
        return not (over or self.exhausted) and (self.total is None or beside < self.total - SLACK)

    def excess(self, arch: Arch) -> float:
        """How far a network is over the budget; those that are, are counted."""
        excess = self.problem.excess(arch)
        self.infeasible += excess > 0
        return excess

    def begin(self, turn: int) -> None:
        """Ask for a candidate and have it trained; `turn` trainings have begun before it."""
        problem, study = self.problem, self.study
        try:
            (picks, rung, before), notes, queued = self.draw(int(mark(str(problem.setup.seed), str(turn)), 16) % 2**31)
        except ExhaustedError:
            self.exhausted = True
            return
        arch = problem.space.at(picks)
        costs = estimates(arch, problem.model, problem.setup.costs)
        name = next((name for name, its in problem.baselines.items() if its == picks), "")
        attrs = {"arch": arch.to_json(), "infeasible": self.infeasible, **({"name": name} if name else {})}
        if len(self.shares) > 1:
            attrs |= {"rung": rung} | ({} if before is None else {"candidate": before})
        self.infeasible = 0
        number = study.ask(picks, problem.space.choices, notes, attrs | describe(arch, costs), problem.excess(arch))
        if queued:
            study.drop(queued.number)
        if study.surplus(number, self.total):  # of several drivers another was faster
            study.drop(number)
            return
        job = Job(
            arch,
            Schedule(**problem.setup.schedule),
            problem.setup.factor,
            seed_of(arch, problem.setup.seed),
            until=self.shares[rung],
            begin=study.files.checkpoint(picks, rung - 1) if rung else None,
        )
        self.running[number] = _Training(name, costs[problem.setup.objective].value, picks, rung)
        self.trainer.start(number, job)

    def draw(self, seed: int) -> tuple[Proposal, Mapping[str, Any], FrozenTrial | None]:
        """What to train next: what was interrupted, a published network, or what the strategy chooses.

        With it come what a sampler notes of its trial, and the trial that waited for it in the queue.

        Raises:
            ExhaustedError: nothing new is left within the budget.
        """
        problem, study = self.problem, self.study
        if self.scout:
            base = make_sampler(self.strategy, seed, self.total)
            study.record.sampler = Affordable(problem, study, base, seed, self.excess, self.scout)
            picks, notes, queued = study.draw(study.record.sampler)
            return Proposal(picks, 0), notes, queued
        queued = study.queued
        if queued:
            before = candidate_of(queued) if rung_of(queued) else None
            return Proposal(picks_of(queued), rung_of(queued), before), {}, queued
        seen = study.seen
        first = next((its for its in problem.baselines.values() if key_of(its) not in seen), None)
        proposal = Proposal(first, 0) if first else self.surrogate.next(study.told, study.asked, problem.setup.seed)
        if proposal is None:
            raise ExhaustedError
        return proposal, {}, None

    def take(self, event: Event) -> None:
        """Take in what has happened to a candidate.

        Whose fault a doubtful failure is, others show: it is the candidate's once another one comes through, and the machine's
        if the next one fails alike.

        Raises:
            StudyError: the machine is at fault.
        """
        if isinstance(event, Step | Doing):
            name = self.running[event.key].name
            told = f"trial {event.key}{f' ({name})' if name else ''} "
            if isinstance(event, Step):
                told += f"step {event.step}/{event.steps} loss {event.loss:.2f}"
            else:
                told += event.what + (f" {event.done}" + (f"/{event.total}" if event.total else "")) * bool(event.done)
            others = f", {len(self.running) - 1} others" if len(self.running) > 1 else ""
            self.show(replace(self.base, doing=told + others + (STOPPING if self.stop.asked else "")))
            return
        if isinstance(event, Failed) and event.broken:
            raise StudyError(
                f"a search must have its images and its disk, but {event.reason}; the same command continues it"
            )
        study, training = self.study, self.running[event.key]
        if isinstance(event, Failed) and event.doubtful:
            alike = event.reason in self.doubtful.values()
            self.doubtful[event.key] = event.reason
            del self.running[event.key]
            if alike:
                raise self.doubt(event.reason)
            return
        if isinstance(event, Done):
            for number, reason in self.doubtful.items():
                study.tell(number, reason=reason)
            self.doubtful = {}
        if isinstance(event, Failed):
            study.tell(event.key, reason=event.reason)
        elif training.rung < len(self.shares) - 1:
            if event.trained.checkpoint:
                study.files.save_checkpoint(training.picks, training.rung, event.trained.checkpoint)
            study.rest(event.key, training.rung, event.trained.quality, seconds=event.trained.seconds)
        else:
            study.files.save_weights(event.key, event.trained.state)
            study.tell(event.key, [event.trained.quality, training.cost], seconds=event.trained.seconds)
            study.keep_weights()
        del self.running[event.key]
        if len(self.shares) > 1:
            study.keep_checkpoints()
            self.exhausted = False  # whoever rests now may go on
        self.tell_user()

    def give_up(self, number: int) -> None:
        """Put a candidate in training back at the head of the queue."""
        with suppress(Exception):  # where the disk is gone, the next run does it
            self.study.retry(self.study.trials()[number])
        self.running.pop(number, None)
        self.doubtful.pop(number, None)

    def doubt(self, reason: str) -> StudyError:
        """What to say where candidates failed, whoever's fault it is, and none came through since."""
        short = reason if len(reason) <= TOLD else f"{reason[:TOLD]}..."
        return StudyError(
            f"trainings must run, but the last failed, and no other has since come through: {short}; "
            "mend the cause, then the same command continues it"
        )

    def beat(self) -> None:
        """Tell other drivers now and then that this one is alive, and take over from those that are not."""
        if time.monotonic() - self.beaten > HEARTBEAT / 2:
            self.beaten = time.monotonic()
            ours = [*self.running, *self.doubtful]
            self.study.beat(ours)
            self.study.recover(ours=ours)

    def tell_user(self) -> None:
        self.base = self.status()
        self.show(self.base)

    def status(self) -> Status:
        trials = self.study.trials()
        accuracies = [trial.values[0] for trial in trials if trial.state == TrialState.COMPLETE]
        finished = self.study.finished
        spent = time.monotonic() - self.begun
        left = [] if self.seconds is None else [self.seconds - spent]
        if self.total is not None and finished > self.before:
            left.append(spent / (finished - self.before) * (self.total - finished))
        return Status(
            finished=finished,
            failed=sum("reason" in trial.user_attrs for trial in trials),
            infeasible=sum(trial.user_attrs.get("infeasible", 0) for trial in trials),
            total=self.total,
            best=max(accuracies, default=0.0),
            frontier=len(self.study.frontier().scores),
            left_seconds=min(left, default=None),
            resting=self.study.resting,
        )


def make_sampler(name: str, seed: int, trials: int | None) -> BaseSampler:
    """The Optuna sampler `name`; a genetic one gets a population that lets it evolve within `trials`.

    Raises:
        StudyError: Optuna has no such sampler, or it cannot be made from a seed alone.
    """
    known = [word for word in optuna.samplers.__all__ if word.endswith("Sampler") and not word.startswith("Base")]
    if name not in known:
        raise StudyError(unknown("strategy", name, [STRATEGY, *known]))
    settings: dict[str, Any] = {"seed": seed}
    if name.startswith("NSGA"):
        settings["population_size"] = max(6, min(50, (trials or 100) // 3))
    elif name == "TPESampler":
        settings["multivariate"] = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return getattr(optuna.samplers, name)(**settings)  # type: ignore[no-any-return]
    except (TypeError, ImportError) as error:
        says = str(error).partition("\n")[0]
        raise StudyError(f"a sampler must be made from a seed alone, but {name} is not: {says}") from None


class Affordable(BaseSampler):
    """Any sampler, led into the budget: a draw that is over it, or not new, walks to a near point that fits.

    The published networks that fit come first. The architectures over budget on the way are costed, which takes about a
    millisecond each, and never trained. A `scout`, the same sampler made earlier, remembers which choices it may relate, for
    which it looks at every trial once.
    """

    def __init__(
        self,
        problem: Problem,
        study: Study,
        base: BaseSampler,
        seed: int,
        excess: Callable[[Arch], float],
        scout: BaseSampler | None = None,
    ) -> None:
        self.problem, self.study, self.base, self.excess = problem, study, base, excess
        self.scout = scout or base
        self.generator = random.Random(seed)
        self.space = {name: CategoricalDistribution(values) for name, values in problem.space.choices.items()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self.space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        picks = self._draw(study, trial)  # even if not used: a sampler notes to which generation a trial belongs
        if "fixed_params" in trial.system_attrs:
            return dict(trial.system_attrs["fixed_params"])
        seen = self.study.seen
        for first in self.problem.baselines.values():
            if key_of(first) not in seen:
                return dict(first)
        for _ in range(WALKS):
            picks, excess, _ = repair(picks, self.problem.space, self.excess, self.generator)
            if excess == 0 and key_of(picks) not in seen:
                return picks
            if not self.space:
                break
            name = self.generator.choice(self.problem.space.active(picks))
            picks = picks | {name: self.generator.choice(self.space[name].choices)}
        raise ExhaustedError

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """A point of the space as the base sampler draws it."""
        part = self.scout.infer_relative_search_space(study, trial)
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
