"""Studies: the record of a search, which its driver or several write as they go, and which all else reads."""

from __future__ import annotations

import time
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, cast

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from mvnas.costs import cost
from mvnas.errors import SpaceError, StudyError
from mvnas.latency.model import Latency
from mvnas.spaces.rows import Picks
from mvnas.strategies import Asked, Key, Told, key_of
from mvnas.strategies.rungs import Point, Rungs, resting
from mvnas.studies.drivers import driver, gone
from mvnas.studies.expectations import Expectations, Training
from mvnas.studies.faults import damaged, readable
from mvnas.studies.files import StudyFiles
from mvnas.studies.place import NAME, file_of, masked
from mvnas.studies.rows import Trials
from mvnas.studies.score import Frontier, Score
from mvnas.studies.setup import Setup
from mvnas.studies.storage import open_storage
from mvnas.studies.trials import (
    accuracy_of,
    candidate_of,
    check_trial,
    counts,
    notes_of,
    picks_of,
    repeat_of,
    requeued,
    rung_of,
    score_of,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)

DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
SLACK = 1e-6  # of a number of full trainings, that is a sum of shares
RIVALS = 10  # candidates beside the frontier whose weights are kept, since they may come to be on it
RESTS = 10  # checkpoints that are kept of each rung, of those that are the next to be promoted


class Study:
    """A search's record on disk: candidates, what became of them, and the weights of those on the frontier.

    `place` is as it may be told and kept: of a database's URL without its password.

    Raises:
        StudyError: what it says of itself was not written by a search.
    """

    def __init__(self, place: str, record: optuna.Study, model: Latency | None = None) -> None:
        self.place = masked(place)
        self.record = record
        self.model = model
        self.exhausted = (
            False  # whether the search that gave it ended since it found no other network within the budget
        )
        self._observed: dict[int, Score] = {}  # of each candidate that finished, by its first training alone
        self._trainings: dict[int, Training] = {}  # full ones, by the number of their trial
        self._scores: dict[int, Score] = {}
        self._frontier = Frontier(())
        self._numbers: dict[Key, list[int]] = {}  # of the trials of each point
        self._read = 0  # trials among them
        self._settled, self._spent = 0, (0, 0.0)  # leading trials that have finished, and what they come to
        self._met: set[int] = set()
        self._ended: dict[int, Told | None] = {}  # of each trial that has finished; None if it does not count
        with readable(place):
            told, directions = record.user_attrs, record.directions
        if "setup" not in told:
            raise StudyError(
                f"{self.place} must hold a study of mvnas, but holds one of another program; name another place"
            )
        if directions != DIRECTIONS:
            raise damaged(place, "it must maximise the first of two values and minimise the second")
        self._began_as = told["setup"]
        try:
            self.setup = Setup.read(told["setup"])
        except StudyError as error:
            raise damaged(place, str(error)) from None
        self._expectations = Expectations(self.setup.objective, self.setup.validation)
        cast(Trials, record._storage).check = partial(_check, self.place, self.setup)

    def __repr__(self) -> str:
        return f"Study({self.place!r})"

    def on(self, model: Latency) -> Study:
        """The same study with its costs predicted by `model`, for example of another device than it searched for."""
        return Study(self.place, self.record, model)

    @classmethod
    def load(cls, place: str) -> Study:
        """The study in a SQLite file, or at a database's URL.

        Raises:
            StudyError: there is none, or the file is something else.
        """
        with readable(place):
            storage = open_storage(place, _queue, new=False)
            try:
                record = optuna.load_study(study_name=NAME, storage=storage)
            except KeyError:
                raise StudyError(
                    f"{masked(place)} must hold a study of mvnas, but holds others of Optuna; run the search first"
                ) from None
        return cls(place, record)

    @classmethod
    def begin(cls, place: str, setup: Setup) -> Study:
        """The study at `place`, made if it is not there.

        Raises:
            StudyError: it is there, and began in another way.
        """
        with readable(place):
            storage = open_storage(place, _queue, new=True)
            try:
                record = optuna.create_study(study_name=NAME, storage=storage, directions=DIRECTIONS)
            except DuplicatedStudyError:
                record = optuna.load_study(study_name=NAME, storage=storage)
                if "setup" not in record.user_attrs:
                    time.sleep(1)  # another driver has just made it, or was killed there
            known = record.user_attrs
            fresh = not known and record.directions == DIRECTIONS and not record.get_trials(deepcopy=False)
            if fresh:  # no other program's of the same name
                _name(record, (setup.quality.label, cost(setup.objective).keys[0]))
                record.set_user_attr("setup", asdict(setup))
        study = cls(place, record)
        study.setup.check(setup, study.place)
        return study

    @cached_property
    def rungs(self) -> dict[str, float]:
        """The rungs as shares of the full training length, by their names."""
        rungs = Rungs.parse(self.setup.rungs)
        return dict(zip(rungs.names, rungs.shares, strict=True))

    @property
    def device(self) -> str:
        """What costs are predicted for."""
        return self.model.device if self.model else self.setup.device

    @cached_property
    def files(self) -> StudyFiles:
        """The files beside the study."""
        return StudyFiles(self.place, self._began_as)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.record.get_trials(deepcopy=False, states=states or None)

    def scores(self) -> list[Score]:
        """Every finished candidate, in order, with the quality that is expected of it."""
        self.frontier()
        return sorted(self._scores.values(), key=lambda score: score.number)

    @property
    def finished(self) -> float:
        """Trainings that have ended, by score or by their own fault, in full lengths: one from rung to rung is as
        much as lies between.
        """
        return self._counted(self.trials())[1] - self._sum(self.trials(TrialState.RUNNING))[1]

    @property
    def begun(self) -> tuple[int, float]:
        """Trainings that have finished or run anywhere: their number, and how many full lengths they come to."""
        return self._counted(self.trials())

    def _counted(self, trials: Sequence[FrozenTrial]) -> tuple[int, float]:
        """The same of the first trials."""
        settled = self._settled
        while settled < len(trials) and trials[settled].state.is_finished():
            settled += 1
        self._spent = self._sum(trials[self._settled : settled], *self._spent)
        self._settled = settled
        return self._sum(trials[settled:], *self._spent)

    def _sum(self, trials: Iterable[FrozenTrial], count: int = 0, lengths: float = 0.0) -> tuple[int, float]:
        """How many of the trials were asked for and how many full lengths these are, beside what there is."""
        upper = (*self.rungs.values(),)
        lower = (0.0, *upper)
        for trial in filter(counts, trials):
            rung = rung_of(trial)
            count, lengths = count + 1, lengths + upper[rung] - (0.0 if repeat_of(trial) else lower[rung])
        return count, lengths

    @property
    def seen(self) -> Container[Key]:
        """The picks of every candidate so far."""
        return self._known(self.trials()).keys()

    @property
    def told(self) -> list[Told]:
        """Every training that has ended, as strategies are told of it."""
        ended = self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        for trial in ended:
            if trial.number not in self._ended:
                told = accuracy_of(trial), notes_of(trial), repeat_of(trial)
                new = Told(candidate_of(trial), trial.params, rung_of(trial), *told)
                self._ended[trial.number] = new if counts(trial) else None
        return [one for trial in ended if (one := self._ended[trial.number])]

    @property
    def asked(self) -> list[Asked]:
        """Every candidate in training, as strategies are told of it."""
        running = self.trials(TrialState.RUNNING)
        return [
            Asked(candidate_of(trial), trial.params, rung_of(trial), notes_of(trial), repeat_of(trial))
            for trial in running
        ]

    @property
    def resting(self) -> dict[str, int]:
        """How many candidates rest at each rung short of the full length, by the names of these."""
        finished, begun = self._ladder() if len(self.rungs) > 1 else ([], [])
        rests = [len(below.keys() - above) for below, above in zip(finished[:-1], begun[1:], strict=True)]
        return dict(zip(self.rungs, rests, strict=False))

    def _ladder(self) -> tuple[list[dict[int, Point]], list[set[int]]]:
        """Accuracy and cost of the candidates that finished each rung, and the numbers of those that began it."""
        key = cost(self.setup.objective).keys[0]
        finished: list[dict[int, Point]] = [{} for _ in self.rungs]
        begun: list[set[int]] = [set() for _ in self.rungs]
        for trial in filter(counts, self.trials()):
            if repeat_of(trial):
                continue
            candidate, rung, accuracy = candidate_of(trial), rung_of(trial), accuracy_of(trial)
            begun[rung].add(candidate)
            if accuracy is not None:
                finished[rung][candidate] = accuracy, trial.user_attrs[key]
        return finished, begun

    def _known(self, trials: Sequence[FrozenTrial]) -> dict[Key, list[int]]:
        """Numbers of the trials of each point."""
        for trial in trials[self._read :]:
            self._numbers.setdefault(key_of(picks_of(trial)), []).append(trial.number)
            self._read += 1
        return self._numbers

    @property
    def queued(self) -> FrozenTrial | None:
        """What waits at the head of the queue."""
        return next(iter(self.trials(TrialState.WAITING)), None)

    def ask(
        self,
        picks: Picks,
        choices: Mapping[str, Sequence[Any]],
        notes: Mapping[str, Any],
        attrs: Mapping[str, Any],
        excess: float,
    ) -> int:
        """Number of a new trial, in training; it is there whole or not at all, so that no other driver takes it for
        another.
        """
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(picks),
            distributions={name: CategoricalDistribution(values) for name, values in choices.items()},
            user_attrs={**driver(), **attrs},
            system_attrs=dict(notes),
            constraints={"budget": excess},
        )
        storage = self.record._storage
        identity = storage.create_new_trial(self.record._study_id, trial)
        number: int = next(trial.number for trial in reversed(self.trials()) if trial._trial_id == identity)
        self.beat([number])
        return number

    def surplus(self, number: int, total: int | None) -> bool:
        """Whether a trial that was just asked for is one too many, or another driver's already."""
        trials = self.trials()
        twins = self._known(trials)[key_of(trials[number].params)]
        mine = rung_of(trials[number]), repeat_of(trials[number])
        same = any(
            counts(trials[other]) and (rung_of(trials[other]), repeat_of(trials[other])) == mine
            for other in twins
            if other < number
        )
        return same or (total is not None and self._counted(trials[:number])[1] > total - SLACK)

    def tell(self, number: int, values: Sequence[float] | None = None, **attrs: Any) -> None:
        """Write what became of a trial, failed where it has no `values`; if another driver gave it up for dead, it
        stays so.
        """
        with self._told(number, attrs):
            self.record.tell(number, values, state=TrialState.FAIL if values is None else TrialState.COMPLETE)

    def rest(self, number: int, rung: int, accuracy: float, **attrs: Any) -> None:
        """Write that a trial has reached its rung, short of the full length; Optuna calls that pruned."""
        with self._told(number, attrs):
            storage, identity = self.record._storage, self._identity(number)
            storage.set_trial_intermediate_value(identity, rung, accuracy)
            storage.set_trial_state_values(identity, TrialState.PRUNED)

    @contextmanager
    def _told(self, number: int, attrs: Mapping[str, Any]) -> Iterator[None]:
        """Write attributes of a trial, and what else is to be told of it, unless another driver has given it up."""
        try:
            for key, value in attrs.items():
                self.record._storage.set_trial_user_attr(self._identity(number), key, value)
            yield
        except (ValueError, UpdateFinishedTrialError):
            if self.trials()[number].state == TrialState.RUNNING:
                raise

    def _identity(self, number: int) -> int:
        """The database's number of a trial."""
        return self.record._storage.get_trial_id_from_study_id_trial_number(self.record._study_id, number)

    def check_points(self, choices: Mapping[str, Sequence[Any]]) -> None:
        """Return if all candidates are points of a space with these choices.

        Raises:
            StudyError: one is not.
        """
        for trial in self.trials():
            if not counts(trial) and trial.state != TrialState.WAITING and trial.state != TrialState.RUNNING:
                continue
            _check_point(self.place, trial, choices)

    def failures(self) -> dict[int, str]:
        """Number and reason of every candidate that failed."""
        failed = self.trials(TrialState.FAIL)
        return {t.number: t.user_attrs["reason"] for t in failed if "reason" in t.user_attrs}

    def infeasible(self) -> int:
        """How many candidates were over the budget and never trained."""
        return sum(trial.user_attrs.get("infeasible", 0) for trial in self.trials())

    def frontier(self) -> Frontier:
        """The frontier of every finished candidate, by the quality that is expected of it."""
        trials = self.trials(TrialState.COMPLETE)
        if len(trials) > len(self._trainings):
            choices = _choices(trials[0])
            for trial in trials:
                if trial.number not in self._trainings:
                    _check_point(self.place, trial, choices)
                    candidate = candidate_of(trial)
                    self._trainings[trial.number] = Training(candidate, trial.params, trial.values[0])
                    if not repeat_of(trial):
                        self._observed[candidate] = self._score(trial)
                    elif candidate not in self._observed:
                        raise damaged(self.place, f"trial {trial.number} repeats a candidate that has not finished")
            self._scores = self._expectations.of(self._observed, self._in_order(), choices)
            self._frontier = Frontier.of(self._scores.values(), [self.setup.objective])
        return self._frontier

    @property
    def explained(self) -> float | None:
        """Share of the differences between qualities that choices and costs explain (R2, cross-validated); None of too
        few candidates.
        """
        self.frontier()
        if not self._trainings:
            return None
        first = self.trials(TrialState.COMPLETE)[0]
        return self._expectations.explained(self._observed, self._in_order(), _choices(first))

    def _in_order(self) -> list[Training]:
        """Full trainings in the order in which they were begun."""
        return [self._trainings[number] for number in sorted(self._trainings)]

    def candidate(self, number: int) -> Score | None:
        """The score of the candidate with the number of the first of its trials; None if it has none."""
        self.frontier()
        return self._scores.get(number)

    def _score(self, trial: FrozenTrial) -> Score:
        try:
            return score_of(trial, self.setup, self.model)
        except (StudyError, SpaceError) as error:
            raise damaged(self.place, f"trial {trial.number}: {error}") from None

    def pick(self, what: str) -> Score:
        """The finished candidate `knee`, `best`, `fastest`, or that of a trial's number.

        Raises:
            StudyError: there is no such candidate.
        """
        scores = self.scores()
        if not what.isdigit():
            return self.frontier().pick(what)
        trials = self.trials()
        again = int(what) < len(trials) and repeat_of(trials[int(what)])
        mine = self.candidate(candidate_of(trials[int(what)])) if again else None
        found = [score for score in scores if score.number == (mine.number if mine else int(what))]
        if not found:
            reason = self.failures().get(int(what))
            why = f"failed: {reason}" if reason else "is not there"
            raise StudyError(
                f"the trial to pick must have finished, but {what} {why}; finished:"
                f" {_ranges([s.number for s in scores])}"
            )
        return found[0]

    def recover(self, ours: Container[int] = ()) -> None:
        """Put candidates that nobody trains any more back at the head of the queue; `ours` are those that this process
        trains.

        A file has one owner, so that all others are dead. Drivers that share a database are known by ids of their own
        and by their heartbeats; that a process is gone can be seen only from where it ran.
        """
        running = self.trials(TrialState.RUNNING)
        new = {trial.number for trial in running} - self._met
        self.beat(new)  # of a driver that may have died before it could
        self._met |= new
        for trial in running:
            if trial.number not in ours and (not self.shared or gone(trial.user_attrs)):
                self.retry(trial)
        if self.shared:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                optuna.storages.fail_stale_trials(self.record)  # tells `_queue` of each

    def retry(self, trial: FrozenTrial) -> None:
        """Give up an interrupted trial, and queue its candidate anew if it had been drawn."""
        if self.drop(trial.number):
            _queue(self.record, trial)

    def drop(self, number: int) -> bool:
        """Fail a trial that does not count; False if another driver was faster."""
        try:
            return self.record._storage.set_trial_state_values(self._identity(number), TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False

    def beat(self, numbers: Iterable[int]) -> None:
        """Tell other drivers that these trials are in training."""
        if self.shared:
            storage = cast(BaseHeartbeat, self.record._storage)
            for number in numbers:
                storage.record_heartbeat(self._identity(number))

    @property
    def shared(self) -> bool:
        """Whether the study is in a database, which several drivers may use."""
        return file_of(self.place) is None

    def keep_weights(self) -> None:
        """Remove the weights of candidates that are not on the frontier and will hardly be; those in training may be
        about to be told.
        """
        numbers = [trial.number for trial in self.trials(TrialState.RUNNING)]
        front, scores = self.frontier(), self.scores()
        kept = [*front.scores, *front.rivals(scores, RIVALS)]
        self.files.keep_weights([*numbers, *(score.number for score in kept)])

    def keep_checkpoints(self) -> None:
        """Remove the checkpoints that nobody needs soon: kept are those of the RESTS next to be promoted from each
        rung, and of what trains.
        """
        trials = self.trials()
        needed: list[tuple[Picks, int]] = [
            (trials[candidate].params, rung)
            for rung, candidates in enumerate(resting(*self._ladder()))
            for candidate in candidates[:RESTS]
        ]
        for trial in self.trials(TrialState.RUNNING, TrialState.WAITING):
            needed += [(picks_of(trial), rung_of(trial) - below) for below in (0, 1)]
        self.files.keep_checkpoints(needed)


def _check(place: str, setup: Setup, trial: FrozenTrial) -> None:
    """Return if a trial of the study at `place` tells what a search tells.

    Raises:
        StudyError: it does not.
    """
    try:
        check_trial(trial, setup)
    except StudyError as error:
        raise damaged(place, f"trial {trial.number}: {error}") from None


def _name(record: optuna.Study, values: Sequence[str]) -> None:
    """Name the values of trials, as Optuna's own tools show them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        record.set_metric_names(list(values))


def _queue(record: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the candidate of an interrupted trial anew, if it had been drawn."""
    waiting = requeued(trial)
    if waiting:
        record.add_trial(waiting)


def _check_point(place: str, trial: FrozenTrial, choices: Mapping[str, Sequence[Any]]) -> None:
    """Return if a trial is of a point of the space with these choices.

    Raises:
        StudyError: it is not.
    """
    picks = picks_of(trial)
    for name, options in choices.items():
        if name not in picks or picks[name] not in options:
            raise damaged(place, f"trial {trial.number} has none of the options of {name}")


def _choices(trial: FrozenTrial) -> dict[str, Sequence[Any]]:
    """The options of each choice of the space that a trial is a point of."""
    choices = {name: cast(CategoricalDistribution, its).choices for name, its in trial.distributions.items()}
    return dict(sorted(choices.items()))


def _ranges(numbers: list[int]) -> str:
    """Numbers for people: 0-3, 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs) or "none"
