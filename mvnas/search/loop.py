"""The loop: asks a strategy for candidates, has them trained, and remembers everything in one study."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial

from mvnas import strategies
from mvnas.costs import estimates
from mvnas.engines import Doing, Done, Engine, Event, Failed, Job, Step, engine, seed_of
from mvnas.errors import StudyError
from mvnas.search.problem import Problem, check_predictions
from mvnas.search.status import Status
from mvnas.spaces.arch import Arch
from mvnas.spaces.rows import Picks
from mvnas.strategies import Maker, Noting, Proposal, Strategy, key_of
from mvnas.studies.faults import written
from mvnas.studies.prepared import prepared
from mvnas.studies.setup import SHORT, SUPERNET
from mvnas.studies.storage import HEARTBEAT, owned
from mvnas.studies.study import SLACK, Study
from mvnas.studies.trials import candidate_of, describe, notes_of, picks_of, repeat_of, rung_of
from mvnas.system.stop import Stop
from mvnas.training import Schedule

TRIALS = {SHORT: 20, SUPERNET: 200}  # candidates where nothing is said, by what their scores are of
TICK = 0.25  # seconds between two looks at what the user and other drivers do
PATIENCE = 2  # how often a search may be asked to stop before it is interrupted where it is
TOLD = 160  # characters of what was raised that a sentence quotes
STOPPING = "; finishing what runs, Ctrl-C again stops at once"


def search(
    problem: Problem,
    *,
    study: str = "mvnas.db",
    trials: int | None = None,
    seconds: float | None = None,
    strategy: Maker | None = None,
    trainer: Engine | None = None,
    show: Callable[[Status], None] = lambda status: None,
    stop: Stop | None = None,
) -> Study:
    """Run or continue a study until it has `trials` scored or failed candidates, or for `seconds`; either may be None.

    With rungs `trials` are full trainings, and one from rung to rung counts as much as lies between: candidates are
    more, and the last training may go beyond by a part.

    Candidates are chosen, after the published networks that fit, by what `strategy` makes of a `strategies.Context`: a
    class of yours, or `strategies.strategy(name)`; None is the surrogate. A study may be continued with another
    strategy.

    They are trained by `trainer`, or in one process beside this one; as many run at a time as it has slots. With one
    slot and one seed a study is the same, trial for trial, however often it was interrupted.

    Asked once to `stop`, what runs is finished and nothing new begins; asked twice, all stops at once.

    Raises:
        StudyError: the study began in another way, another process searches it, the strategy cannot search it, the
            images or the disk are gone, or candidates in a row failed alike by what may be the machine's fault. Such
            candidates are not charged.
        KeyboardInterrupt: the user stopped it; the candidates in training will be the next ones when it is continued.
    """
    total = trials if trials is not None or seconds is not None else TRIALS[problem.setup.scores]
    looked = _Looked(problem)
    context = replace(problem.context(total), excess=looked.excess)
    chooser = strategies.made(strategy or strategies.strategy(strategies.DEFAULT), context)
    with owned(study):
        record = Study.begin(study, problem.scored_by(trainer))
        record.check_points(problem.space.choices)
        check_predictions(record, problem)
        record.recover()
        runner = trainer or engine("processes", problem.images)
        try:
            with written(study):
                run = _Run(problem, record, runner, chooser, looked, total, seconds, show, stop or Stop())
                run.artifacts = prepared(
                    record, problem.data, space=problem.space, excess=problem.excess, tell=run.preparing
                )
                run.run()
                record.exhausted = run.exhausted
        finally:
            if trainer is None:
                runner.close()
    return record


class _Looked:
    """Counts the networks over the budget that a strategy looks at, which are never trained."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.infeasible = problem, 0

    def excess(self, arch: Arch) -> float:
        """How far a network is over the budget."""
        excess = self.problem.excess(arch)
        self.infeasible += excess > 0
        return excess


class _Training(NamedTuple):
    """A candidate in training."""

    name: str
    cost: float  # what is minimised beside accuracy
    picks: Picks
    rung: int
    candidate: int | None  # of which it is another training, from another seed; None if it is the first


class _Run:
    """One run of the loop: asks for candidates, has them trained, and tells of them."""

    def __init__(
        self,
        problem: Problem,
        study: Study,
        trainer: Engine,
        strategy: Strategy,
        looked: _Looked,
        total: int | None,
        seconds: float | None,
        show: Callable[[Status], None],
        stop: Stop,
    ) -> None:
        self.problem, self.study, self.trainer, self.strategy = problem, study, trainer, strategy
        self.looked, self.total, self.seconds, self.show, self.stop = looked, total, seconds, show, stop
        self.begun = self.beaten = time.monotonic()
        self.before = study.finished
        self.running: dict[int, _Training] = {}
        # What has failed, by its own fault or the machine's, since a training last came through.
        self.doubtful: dict[int, str] = {}
        self.exhausted = False
        self.artifacts: tuple[str | None, ...] = ()  # what techniques have prepared
        self.shares = (*study.rungs.values(),)
        self.base = self.status()

    def run(self) -> None:
        """Train until the total is reached, time is over, nothing is left, or the user stops it."""
        try:
            self.tell_user()
            while True:
                self.fill()
                if not self.running and self.over():
                    return
                events = self.trainer.wait(TICK)
                for event in events:
                    # Whoever stops us at once may have stopped it.
                    if self.stop.asked < PATIENCE or not isinstance(event, Failed):
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

    def preparing(self, what: str, done: int, total: int) -> None:
        """Tell what a technique does before the first training, which ends where the user asks."""
        if self.stop.asked:
            raise self.stop.interrupt
        self.show(replace(self.base, doing=f"preparing trainings: {what} {done}/{total}"))

    def fill(self) -> None:
        """Begin trainings while there are slots for them."""
        while not self.stop.asked and len(self.running) < self.trainer.slots and self.goes_on(self.study.begun[1]):
            self.begin()

    def over(self) -> bool:
        """Whether the search has ended, where nothing is in training here.

        Raises:
            StudyError: the last trainings failed, maybe by the machine's fault.
        """
        if self.doubtful and not self.stop.asked and not self.goes_on(self.study.begun[1]):
            raise self.doubt([*self.doubtful.values()][-1])
        if not self.stop.asked and self.goes_on(self.study.finished):
            return False
        for number in [*self.doubtful]:
            self.give_up(number)
        return True

    def goes_on(self, beside: float) -> bool:
        """Whether there is to be another training beside so many full ones."""
        over = self.seconds is not None and time.monotonic() - self.begun > self.seconds
        return not (over or self.exhausted) and (self.total is None or beside < self.total - SLACK)

    def begin(self) -> None:
        """Ask for a candidate and have it trained."""
        study = self.study
        proposal, queued = self.choose()
        if proposal is None:
            self.exhausted = True
            return
        arch = self.problem.space.at(proposal.picks)
        number, training = self.ask(proposal, arch)
        if queued:
            study.drop(queued.number)
        if study.surplus(number, self.total):  # of several drivers another was faster
            study.drop(number)
            return
        setup, rung = self.problem.setup, proposal.rung
        short = setup.scores == SHORT  # else nothing is trained, and all are calibrated on the same images
        job = Job(
            arch,
            Schedule(**setup.schedule),
            setup.factor,
            seed_of(arch, setup.seed, proposal.repeat) if short else setup.seed,
            until=self.shares[rung] if short else 0.0,
            begin=study.files.checkpoint(proposal.picks, rung - 1) if rung and not proposal.repeat else None,
            task=setup.task,
            metric=setup.quality.name,
            techniques=self.problem.setup.technique,
            artifacts=self.artifacts,
        )
        self.running[number] = training
        self.trainer.start(number, job)

    def choose(self) -> tuple[Proposal | None, FrozenTrial | None]:
        """What to train next: what was interrupted, a published network, or what the strategy chooses; None if nothing
        is left.

        With what was interrupted comes the trial that waited for it in the queue.
        """
        problem, study = self.problem, self.study
        seed, history, pending = problem.setup.seed, study.told, study.asked
        queued, seen = study.queued, study.seen
        first = next((its for its in problem.baselines.values() if key_of(its) not in seen), None)
        if queued is None and first is None:
            proposal = self.strategy.next(history, pending, seed)
            return proposal and strategies.check(proposal, problem.context(self.total), history, pending), None
        notes = self.strategy.notes(history, pending, seed) if isinstance(self.strategy, Noting) else {}
        if queued is None:
            return Proposal(first or {}, notes=notes), None
        repeat = repeat_of(queued)
        before = candidate_of(queued) if rung_of(queued) or repeat else None
        return Proposal(picks_of(queued), rung_of(queued), before, {**notes, **notes_of(queued)}, repeat), queued

    def ask(self, proposal: Proposal, arch: Arch) -> tuple[int, _Training]:
        """The number of a new trial of a candidate, and what is in training by it."""
        problem, picks = self.problem, proposal.picks
        costs = estimates(arch, problem.model, problem.setup.costs)
        name = next((name for name, its in problem.baselines.items() if its == picks), "")
        attrs: dict[str, Any] = {"arch": arch.to_json(), "infeasible": self.looked.infeasible}
        self.looked.infeasible = 0
        if name:
            attrs["name"] = name
        if len(self.shares) > 1:
            attrs["rung"] = proposal.rung
        if proposal.number is not None:
            attrs["candidate"] = proposal.number
        if proposal.repeat:
            attrs["repeat"] = proposal.repeat
        attrs |= describe(arch, costs)
        number = self.study.ask(picks, problem.space.choices, proposal.notes, attrs, problem.excess(arch))
        again = proposal.number if proposal.repeat else None
        return number, _Training(name, costs[problem.setup.objective].value, picks, proposal.rung, again)

    def take(self, event: Event) -> None:
        """Take in what has happened to a candidate.

        Raises:
            StudyError: the machine is at fault.
        """
        if isinstance(event, Step | Doing):
            self.show_doing(event)
            return
        if isinstance(event, Failed):
            if not self.fail(event):
                return
        else:
            self.finish(event)
        del self.running[event.key]
        if len(self.shares) > 1:
            self.study.keep_checkpoints()
            self.exhausted = False  # whoever rests now may go on
        self.tell_user()

    def show_doing(self, event: Step | Doing) -> None:
        """Show the user what a training does."""
        name = self.running[event.key].name
        told = f"trial {event.key}{f' ({name})' if name else ''} "
        if isinstance(event, Step):
            told += f"step {event.step}/{event.steps} loss {event.loss:.2f}"
        else:
            told += event.what + (f" {event.done}" + (f"/{event.total}" if event.total else "")) * bool(event.done)
        others = f", {len(self.running) - 1} others" if len(self.running) > 1 else ""
        self.show(replace(self.base, doing=told + others + (STOPPING if self.stop.asked else "")))

    def fail(self, event: Failed) -> bool:
        """Write that a candidate has failed; False if that may be the machine's fault, which others will show.

        It is the candidate's once another one comes through, and the machine's if the next one fails alike.

        Raises:
            StudyError: the machine is at fault.
        """
        if event.broken:
            raise StudyError(
                f"a search must have its images and its disk, but {event.reason}; the same command continues it"
            )
        if not event.doubtful:
            self.study.tell(event.key, reason=event.reason)
            return True
        alike = event.reason in self.doubtful.values()
        self.doubtful[event.key] = event.reason
        del self.running[event.key]
        if alike:
            raise self.doubt(event.reason)
        return False

    def finish(self, event: Done) -> None:
        """Write what a training came to, and that those that failed before it did so by their own fault."""
        study, training, trained = self.study, self.running[event.key], event.trained
        for number, reason in self.doubtful.items():
            study.tell(number, reason=reason)
        self.doubtful = {}
        if training.rung < len(self.shares) - 1:
            if trained.checkpoint:
                study.files.save_checkpoint(training.picks, training.rung, trained.checkpoint)
            study.rest(event.key, training.rung, trained.quality, seconds=trained.seconds)
        else:
            before = None if training.candidate is None else study.candidate(training.candidate)
            if before is None or trained.quality > before.quality.kept:
                study.files.save_weights(before.number if before else event.key, trained.state)
            told = {"measures": dict(trained.measures)} if trained.measures else {}
            study.tell(event.key, [trained.quality, training.cost], seconds=trained.seconds, **told)
            study.keep_weights()

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
        """Show where the search stands."""
        self.base = self.status()
        self.show(self.base)

    def status(self) -> Status:
        """Where the search stands."""
        finished, spent = self.study.finished, time.monotonic() - self.begun
        left = [] if self.seconds is None else [self.seconds - spent]
        if self.total is not None and finished > self.before:
            left.append(spent / (finished - self.before) * (self.total - finished))
        return Status.of(self.study, self.total, min(left, default=None))
