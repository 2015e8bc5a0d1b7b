"""Studies: the one file a search leaves, and what can be read from it."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from mvnas.arch import FLOAT, Arch, kind_of
from mvnas.errors import StudyError
from mvnas.latency import Latency
from mvnas.ops import State
from mvnas.score import COSTS, Frontier, Score, objectives
from mvnas.strategy import Asked, Told

optuna.logging.set_verbosity(optuna.logging.ERROR)

NAME = "mvnas"
HEARTBEAT = 30  # seconds between two signs of life of a driver that shares a study
Key = tuple[tuple[str, Any], ...]
DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]


@dataclass(frozen=True)
class Setup:
    """What a study remembers and every command that continues it must agree with.

    `marks` identify the contents behind the names, so that an edited space, other images or a re-measured table show.
    """

    budget: str
    space: str
    data: str
    device: str
    schedule: Mapping[str, Any]
    seed: int
    factor: float
    classes: tuple[str, ...]
    note: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)
    objective: str = "latency"

    @property
    def costs(self) -> tuple[str, ...]:
        """What is predicted of each candidate: latency, and the objective if it is another."""
        return tuple(dict.fromkeys(("latency", self.objective)))

    def check(self, wanted: Setup, study: str) -> None:
        """Return if a command that wants `wanted` may continue this study.

        Raises:
            StudyError: it contradicts the study; the message names the difference.
        """
        have, want = asdict(self), asdict(wanted)
        for key in ("budget", "objective", "space", "device", "schedule", "seed", "data"):
            same = self.marks.get(key) == wanted.marks.get(key) if key in self.marks else have[key] == want[key]
            if same:
                continue
            change = f"{key} was {have[key]} and is {want[key]}"
            if have[key] == want[key]:
                change = f"the content of {key} {have[key]} has changed since"
            raise StudyError(
                f"the study {study} must be continued as it began, but {change}; repeat its command or name another --study"
            )


class Study:
    """A search's record on disk: candidates, what became of them, and the weights of those on the frontier."""

    def __init__(self, place: str, record: optuna.Study, model: Latency | None = None) -> None:
        self.place = place
        self.record = record
        self.model = model
        self._scored: dict[int, Score] = {}  # what never changes once it is there
        self._keys: dict[int, Key] = {}

    def on(self, model: Latency) -> Study:
        """The same study with its costs predicted by `model`, for example of another device than it searched for."""
        return Study(self.place, self.record, model)

    @classmethod
    def load(cls, place: str) -> Study:
        """The study in a SQLite file, or at a database's URL.

        Raises:
            StudyError: there is none, or the file is something else.
        """
        if "://" not in place and not Path(place).is_file():
            raise StudyError(
                f"a study must be a file that `mvnas search` wrote, but there is no {place}; run the search first"
            )
        with _readable(place):
            study = cls(place, optuna.load_study(study_name=NAME, storage=_storage(place)))
        if "setup" not in study.record.user_attrs:
            raise StudyError(f"{place} must be a study of mvnas, but holds another one")
        return study

    @classmethod
    def begin(cls, place: str, setup: Setup, sampler: optuna.samplers.BaseSampler | None = None) -> Study:
        """The study at `place`, made if it is not there.

        Raises:
            StudyError: it is there, and began in another way.
        """
        with _readable(place):
            record = optuna.create_study(
                study_name=NAME,
                storage=_storage(place),
                directions=DIRECTIONS,
                sampler=sampler,
                load_if_exists=True,
            )
        study = cls(place, record)
        if "setup" in record.user_attrs:
            study.setup.check(setup, place)
        else:
            record.set_user_attr("setup", asdict(setup))
            _name(record, ("accuracy", COSTS[setup.objective][0]))
        return study

    @property
    def setup(self) -> Setup:
        data = self.record.user_attrs["setup"]
        return Setup(**{**data, "classes": tuple(data["classes"])})

    @property
    def device(self) -> str:
        """What costs are predicted for."""
        return self.model.device if self.model else self.setup.device

    @property
    def folder(self) -> Path:
        """Where the study's files lie: beside its own, or here if it is in a database elsewhere."""
        return Path(".") if "://" in self.place else Path(self.place).parent

    def weights(self, number: int) -> Path:
        """File of a candidate's trained weights."""
        stem = NAME if "://" in self.place else Path(self.place).stem
        return self.folder / f"{stem}.weights" / f"{number}.safetensors"

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.record.get_trials(deepcopy=False, states=states or None)

    def scores(self) -> list[Score]:
        """Every finished candidate, in order."""
        for trial in self.trials(TrialState.COMPLETE):
            if trial.number not in self._scored:
                self._scored[trial.number] = self._score(trial)
        return [self._scored[number] for number in sorted(self._scored)]

    @property
    def finished(self) -> int:
        """Candidates that were scored, or failed by their own fault."""
        return len(self.trials(TrialState.COMPLETE)) + len(self.failures())

    @property
    def running(self) -> int:
        """Candidates in training, anywhere."""
        return len(self.trials(TrialState.RUNNING))

    @property
    def seen(self) -> set[Key]:
        """The picks of every candidate so far."""
        for trial in self.trials():
            if trial.number not in self._keys and trial.params:
                self._keys[trial.number] = key_of(trial.params)
        return set(self._keys.values())

    @property
    def told(self) -> list[Told]:
        """Every finished candidate, as strategies are told of it."""
        scored = [Told(trial.number, trial.params, 0, trial.values[0]) for trial in self.trials(TrialState.COMPLETE)]
        failed = [
            Told(trial.number, trial.params, 0, None)
            for trial in self.trials(TrialState.FAIL)
            if "reason" in trial.user_attrs
        ]
        return scored + failed

    @property
    def asked(self) -> list[Asked]:
        """Every candidate in training, as strategies are told of it."""
        return [Asked(trial.number, trial.params, 0) for trial in self.trials(TrialState.RUNNING)]

    def surplus(self, trial: Trial, total: int | None) -> bool:
        """Whether a trial that was just asked for is one too many, or another driver's already."""
        others = [
            t
            for t in self.trials()
            if t.number < trial.number and (t.state != TrialState.FAIL or "reason" in t.user_attrs)
        ]
        same = any(t.params == trial.params for t in others if t.state != TrialState.WAITING)
        return same or (total is not None and len(others) >= total)

    def _score(self, trial: FrozenTrial) -> Score:
        known = trial.user_attrs
        setup = self.setup
        arch = Arch.from_json(known["arch"])
        precision = "" if arch.precision == FLOAT else f", at {arch.precision}"
        sources = {
            "accuracy": f"measured on held-out images of {setup.data}, {setup.schedule['epochs']:g} epochs of training{precision}",
            **dict.fromkeys(setup.costs, f"predicted for {self.device}{precision}"),
        }
        costs = {"latency_ms": trial.values[1]}  # an older study tells it nowhere else
        costs |= {name: known[name] for cost in setup.costs for name in COSTS[cost] if name in known}
        if self.model:
            costs = predicted(arch, self.model, setup.costs)
        return Score(
            arch=arch,
            accuracy=trial.values[0],
            params=arch.params,
            macs=arch.macs,
            memory_bytes=arch.memory_bytes,
            number=trial.number,
            name=known.get("name", ""),
            sources=sources,
            **costs,
        )

    def failures(self) -> dict[int, str]:
        """Number and reason of every candidate that failed."""
        failed = self.trials(TrialState.FAIL)
        return {t.number: t.user_attrs["reason"] for t in failed if "reason" in t.user_attrs}

    def infeasible(self) -> int:
        """How many candidates were over the budget and never trained."""
        return sum(trial.user_attrs.get("infeasible", 0) for trial in self.trials())

    def frontier(self) -> Frontier:
        return Frontier.of(self.scores(), objectives(self.setup.objective))

    def pick(self, what: str) -> Score:
        """The finished candidate `knee`, `best`, `fastest`, or that of a trial's number.

        Raises:
            StudyError: there is no such candidate.
        """
        scores = self.scores()
        if not what.isdigit():
            return self.frontier().pick(what)
        found = [score for score in scores if score.number == int(what)]
        if not found:
            reason = self.failures().get(int(what))
            why = f"failed: {reason}" if reason else "is not there"
            raise StudyError(
                f"the trial to pick must have finished, but {what} {why}; finished: {_ranges([s.number for s in scores])}"
            )
        return found[0]

    def recover(self, ours: Container[int] = ()) -> None:
        """Put candidates that nobody trains any more back at the head of the queue; `ours` are those that this process trains.

        A file has one owner, so that all others are dead. Drivers that share a database are known by host and process, and by
        their heartbeats.
        """
        for trial in self.trials(TrialState.RUNNING):
            here = trial.user_attrs.get("host", socket.gethostname()) == socket.gethostname()
            dead = not self.shared or (here and not _alive(trial.user_attrs.get("pid", 0)))
            if trial.number not in ours and dead:
                self.retry(trial)
        if self.shared:
            optuna.storages.fail_stale_trials(self.record)  # tells `_queue` of each

    def retry(self, trial: FrozenTrial) -> None:
        """Give up an interrupted trial, and queue its candidate anew if it had been drawn."""
        with suppress(ValueError):  # another driver was faster
            self.record.tell(trial.number, state=TrialState.FAIL)
            _queue(self.record, trial)

    def beat(self, numbers: Iterable[int]) -> None:
        """Tell other drivers that these trials are in training."""
        if self.shared:
            storage = cast(BaseHeartbeat, self.record._storage)
            for number in numbers:
                storage.record_heartbeat(self.trials()[number]._trial_id)

    @property
    def shared(self) -> bool:
        """Whether the study is in a database, which several drivers may use."""
        return "://" in self.place

    def save_weights(self, number: int, state: State) -> None:
        """Keep a candidate's weights."""
        save_whole(state, self.weights(number))

    def keep_weights(self) -> None:
        """Remove the weights of candidates that are no longer on the frontier."""
        kept = {self.weights(score.number) for score in self.frontier().scores}
        for path in self.weights(0).parent.glob("*.safetensors"):
            if path not in kept:
                path.unlink()


@contextmanager
def owned(place: str) -> Iterator[None]:
    """Be the only process that writes the study in a file; a database may have many.

    Raises:
        StudyError: another process searches it, or its folder is not there.
    """
    if "://" in place:
        yield
        return
    path = Path(place)
    if not path.parent.is_dir():
        raise StudyError(f"the folder of a study must exist, but {path.parent} does not; make it first")
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StudyError(
                f"a study must have one search at a time, but another process searches {place}; wait for it, or give it more --workers"
            ) from None
        try:
            yield
        finally:
            if path.exists() and path.stat().st_size == 0:  # nothing has begun
                path.unlink()


def save_whole(state: State, path: Path) -> None:
    """Write weights to a file, whole or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(exist_ok=True)
    save_file(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def key_of(picks: Mapping[str, Any]) -> Key:
    """Picks in a form that sets can hold."""
    return tuple(sorted(picks.items()))


def predicted(arch: Arch, model: Latency, costs: Iterable[str]) -> dict[str, float]:
    """What `model` predicts of a network, by the names of Score's fields: `costs` of COSTS with their intervals.

    Raises:
        UnmeasuredError: the model does not know one of the ops.
        TableError: energy is asked for, and the model's table has none.
    """
    found: dict[str, float] = {}
    for cost in costs:
        estimate = (model.energy if cost == "energy" else model).predict(arch)
        found |= dict(zip(COSTS[cost], (estimate.ms, estimate.low_ms, estimate.high_ms), strict=True))
    return found


def _name(record: optuna.Study, values: Sequence[str]) -> None:
    """Name the values of trials, as Optuna's own tools show them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        record.set_metric_names(list(values))


def describe(arch: Arch, costs: Mapping[str, float]) -> dict[str, Any]:
    """What Optuna's own tools show of a candidate: its blocks in a line, its sizes, and the costs that `predicted` gave.

    >>> from mvnas.space import Space
    >>> describe(Space.load("mobilevit_xxs").arch(), {})["architecture"][:70]
    '256 px: stem 16, inverted_residual 16 expand 2, inverted_residual 24 s'
    """
    runs = [(part, len(list(same))) for part, same in groupby(map(_told, arch.blocks))]
    return {
        "architecture": f"{arch.resolution} px: " + ", ".join(f"{n}x {part}" if n > 1 else part for part, n in runs),
        "precision": arch.precision,
        "params": arch.params,
        "macs": arch.macs,
        "memory_bytes": arch.memory_bytes,
        **costs,
    }


def _told(part: Any) -> str:
    """A block in words: its first field, and the others where they are not their default."""
    first, *rest = fields(part)
    others = [
        f"{field.name} {getattr(part, field.name)}" for field in rest if getattr(part, field.name) != field.default
    ]
    return " ".join([kind_of(part), str(getattr(part, first.name)), *others])


def _storage(place: str) -> RDBStorage:
    """The storage of a study; drivers that share one have heartbeats, and each can put a dead one's candidates back."""
    if "://" not in place:
        return RDBStorage(f"sqlite:///{Path(place).resolve()}", engine_kwargs={"connect_args": {"timeout": 60}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(
            place,
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT,
            grace_period=4 * HEARTBEAT,
            heartbeat_stale_trial_callback=_queue,
        )


def _queue(record: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the candidate of an interrupted trial anew, with all that its sampler noted of it, if it had been drawn."""
    picks = trial.params if "arch" in trial.user_attrs else trial.system_attrs.get("fixed_params")
    if picks:
        noted = {name: told for name, told in trial.system_attrs.items() if "constraint" not in name}
        record.add_trial(
            optuna.trial.create_trial(state=TrialState.WAITING, system_attrs=noted | {"fixed_params": picks})
        )


@contextmanager
def written(place: str) -> Iterator[None]:
    """Turn what a full disk or a lost database says while a study is written into one sentence."""
    import sqlalchemy.exc

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, StorageInternalError, OSError) as error:
        source = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        raise StudyError(
            f"a study must be written as it goes, but {place} cannot be: {str(source).splitlines()[0]}; the same command continues it"
        ) from error


@contextmanager
def _readable(place: str) -> Iterator[None]:
    """Turn a database's complaints into one sentence."""
    import sqlalchemy.exc

    try:
        yield
    except KeyError:
        raise StudyError(f"{place} must hold a study of mvnas, but holds none; run the search first") from None
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, StorageInternalError, RuntimeError, ImportError) as error:
        told = str(getattr(error, "orig", error) or error).splitlines()[0]
        raise StudyError(f"a study must be a SQLite file or a database's URL, but {place} is not: {told}") from None


def _alive(pid: int) -> bool:
    """Whether another process of this machine has the number `pid`; 0 is nobody's."""
    if pid in (0, os.getpid()):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ranges(numbers: list[int]) -> str:
    """Numbers for people: 0-3, 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs) or "none"
