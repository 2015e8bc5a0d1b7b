"""Where a study is kept, a file or a database: Optuna's tables, read and written in bulk, who may write them, and what is said where that fails.

Optuna handles each row as an object, 430,000 of them for a study of 10,000 candidates (docs/scaling.md). What is overridden here is
private to Optuna 5.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
import warnings
import weakref
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy as copies
from functools import cache
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import and_, insert, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mvnas.errors import StudyError

HEARTBEAT = 30  # seconds between two signs of life of a driver that shares a study
DRAWN = -1  # stands for the id of a trial that is being drawn
TIMEOUT = 60.0  # seconds that a look at a file waits for another process that writes it
TRIES = 5  # to open a database that other drivers are setting up at the same time


class Rows(RDBStorage):
    """Optuna's storage, which reads and writes trials in bulk, and of those in training reads no more than whether they still are.

    Trials do not change until they end.
    """

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        table = models.TrialModel
        known = max(included_trial_ids, default=trial_id_greater_than)
        changed = or_(
            table.trial_id > max(known, trial_id_greater_than),
            and_(table.trial_id.in_(included_trial_ids), table.state != TrialState.RUNNING),
        )
        mine = [table.study_id == study_id, changed]
        with Session(self.engine) as database:
            rows: Sequence[Any] = database.scalars(select(table).where(*mine).order_by(table.trial_id)).all()
            if not rows:
                return []
            trials = {
                row.trial_id: FrozenTrial(
                    number=row.number,
                    state=row.state,
                    value=None,
                    datetime_start=row.datetime_start,
                    datetime_complete=row.datetime_complete,
                    params={},
                    distributions={},
                    user_attrs={},
                    system_attrs={},
                    intermediate_values={},
                    trial_id=row.trial_id,
                )
                for row in rows
            }

            def parts(of: Any, *columns: str) -> Iterator[tuple[FrozenTrial, Any]]:
                chosen = select(of.trial_id, *(getattr(of, column) for column in columns)).join(table).where(*mine)
                found = database.execute(chosen.order_by(next(iter(of.__table__.primary_key))))
                return ((trials[row[0]], row) for row in found if row[0] in trials)

            for trial, (_, name, value, text) in parts(
                models.TrialParamModel, "param_name", "param_value", "distribution_json"
            ):
                choice = _distribution(text)
                trial.distributions[name] = choice
                trial.params[name] = choice.to_external_repr(value)
            values: dict[int, dict[int, float]] = {}
            for trial, (_, objective, value, kind) in parts(models.TrialValueModel, "objective", "value", "value_type"):
                told = models.TrialValueModel.stored_repr_to_value(value, kind)
                values.setdefault(trial._trial_id, {})[objective] = told
            for identity, found in values.items():
                trials[identity].values = [found[objective] for objective in sorted(found)]
            for trial, (_, key, text) in parts(models.TrialUserAttributeModel, "key", "value_json"):
                trial.user_attrs[key] = json.loads(text)
            for trial, (_, key, text) in parts(models.TrialSystemAttributeModel, "key", "value_json"):
                trial.system_attrs[key] = json.loads(text)
            of = models.TrialIntermediateValueModel
            for trial, (_, step, value, kind) in parts(of, "step", "intermediate_value", "intermediate_value_type"):
                trial.intermediate_values[step] = of.stored_repr_to_intermediate_value(value, kind)
        return [trial for trial in trials.values() if states is None or trial.state in states]

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        made = template_trial
        if made is None or made.state.is_finished():
            return super()._get_prepared_new_trial(study_id, made, session)
        trial = models.TrialModel(study_id=study_id, state=made.state, datetime_start=made.datetime_start)
        session.add(trial)
        session.flush()
        params = [
            {
                "param_name": name,
                "param_value": choice.to_internal_repr(made.params[name]),
                "distribution_json": distribution_to_json(choice),
            }
            for name, choice in made.distributions.items()
        ]
        user, system = (
            [{"key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]
            for attrs in (made.user_attrs, made.system_attrs)
        )
        for table, rows in (
            (models.TrialParamModel, params),
            (models.TrialUserAttributeModel, user),
            (models.TrialSystemAttributeModel, system),
        ):
            if rows:
                session.execute(insert(table), [{"trial_id": trial.trial_id, **row} for row in rows])
        trial.number = trial.count_past_trials(session)
        return trial


@cache
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


class Trials(_CachedStorage):
    """Optuna's memory of the trials that were read; those of a file are not read again while nobody has written it."""

    def __init__(self, backend: RDBStorage, file: Path | None = None) -> None:
        super().__init__(backend)
        self._known: dict[
            int, tuple[int | None, list[FrozenTrial]]
        ] = {}  # of each study: when it was read, and in order
        self._file = file and sqlite3.connect(file, timeout=TIMEOUT, check_same_thread=False)
        if self._file:
            weakref.finalize(self, self._file.close)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        version: int | None = None
        if self._file:
            version = self._file.execute("PRAGMA data_version").fetchone()[0]  # changes with every commit of others
        when, trials = self._known.get(study_id, (None, []))
        if version is None or version != when:
            self._read_trials_from_remote_storage(study_id)
            known = self._studies[study_id].trials
            trials = [known[number] for number in sorted(known)]
            self._known[study_id] = version, trials
        trials = [trial for trial in trials if states is None or trial.state in states]
        return copies(trials) if deepcopy else trials


class Notes:
    """A storage of trials that were read, which keeps what a sampler notes of the trial that it draws: that is yet to be made."""

    def __init__(self, storage: BaseStorage, trials: list[FrozenTrial]) -> None:
        self.storage, self.trials = storage, trials
        self.notes: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [trial for trial in self.trials if states is None or trial.state in states]
        return copies(trials) if deepcopy else trials

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id == DRAWN:
            self.notes[key] = value
        else:
            self.storage.set_trial_system_attr(trial_id, key, value)


def open_storage(place: str, orphaned: Callable[[Study, FrozenTrial], None]) -> BaseStorage:
    """The storage of studies in a SQLite file, or at a database's URL.

    Those who share a database have heartbeats; `orphaned` is called with each trial that was failed since its heartbeat had stopped.
    """
    if "://" not in place:
        path = Path(place).resolve()
        return Trials(Rows(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": TIMEOUT}}), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for _ in range(TRIES - 1):
            with suppress(SQLAlchemyError):  # where several drivers make its tables at a time, all but one fail
                return Trials(_shared(place, orphaned))
            time.sleep(random.random())
        return Trials(_shared(place, orphaned))


def _shared(place: str, orphaned: Callable[[Study, FrozenTrial], None]) -> RDBStorage:
    storage = Rows(
        place.replace("postgresql://", "postgresql+psycopg://"),  # else it depends on SQLAlchemy's version
        engine_kwargs={"pool_pre_ping": True},
        heartbeat_interval=HEARTBEAT,
        grace_period=4 * HEARTBEAT,
        heartbeat_stale_trial_callback=orphaned,
    )
    weakref.finalize(storage, storage.engine.dispose)  # with its connections
    return storage


@contextmanager
def owned(place: str) -> Iterator[None]:
    """Be the only process that writes the study in a file; a database may have many.

    Raises:
        StudyError: another process searches it, or its folder is not there.
    """
    if "://" in place:
        yield
        return
    import fcntl

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


@contextmanager
def written(place: str) -> Iterator[None]:
    """Turn what a full disk or a lost database says while a study is written into one sentence."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, StorageInternalError, OSError) as error:
        source = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        raise StudyError(
            f"a study must be written as it goes, but {place} cannot be: {str(source).splitlines()[0]}; the same command continues it"
        ) from error


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Turn a database's complaints into one sentence."""
    try:
        yield
    except KeyError:
        raise StudyError(f"{place} must hold a study of mvnas, but holds none; run the search first") from None
    except ImportError:
        raise StudyError(
            f"a study in a database needs its driver, but that of {place.partition(':')[0]} is not installed; "
            "pip install 'mvnas[postgres]' for PostgreSQL's"
        ) from None
    except (SQLAlchemyError, sqlite3.Error, StorageInternalError, RuntimeError) as error:
        told = str(getattr(error, "orig", error) or error).splitlines()[0]
        raise StudyError(f"a study must be a SQLite file or a database's URL, but {place} is not: {told}") from None
