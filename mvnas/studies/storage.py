"""Where a study is kept, a file or a database: Optuna's tables, read and written in bulk, who may write them, and what is said where that fails.

Optuna handles each row as an object, 430,000 of them for a study of 10,000 candidates (docs/scaling.md). What is overridden here is
private to Optuna 5.
"""

from __future__ import annotations

import json
import random
import sqlite3
import stat
import time
import warnings
import weakref
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy as copies
from functools import cache, partial
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import and_, insert, or_, select
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from mvnas.errors import StudyError, plain
from mvnas.studies.place import file_of, masked, scrubbed, sqlalchemy_url
from mvnas.system import disk

HEARTBEAT = 30  # seconds between two signs of life of a driver that shares a study
TIMEOUT = 60.0  # seconds that a look at a file waits for another process that writes it
TRIES = 5  # to open a database that other drivers are setting up at the same time
PATIENCE = 10  # seconds to reach a database's server
TABLES = {*models.BaseModel.metadata.tables, "alembic_version"}  # of Optuna
TOLD = 120  # letters of what others say of a fault
DECODING = (ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, RuntimeError)


class Rows(RDBStorage):
    """Optuna's storage, which reads and writes trials in bulk, and of those in training reads no more than whether they still are.

    Trials do not change until they end.
    """

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except BaseException:
            if hasattr(self, "scoped_session"):
                self.scoped_session.remove()
                self.engine.dispose()
            raise

    @staticmethod
    def _fill_storage_url_template(template: str) -> str:
        return template  # whose braces are letters of a name

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
                try:
                    found = database.execute(chosen.order_by(next(iter(of.__table__.primary_key)))).all()
                except DECODING as error:  # of a row that nobody names
                    raise StorageInternalError(_reason(error)) from None
                return ((trials[row[0]], row) for row in found if row[0] in trials)

            values: dict[int, dict[int, float]] = {}
            trial = next(iter(trials.values()))
            try:
                for trial, (_, name, value, text) in parts(
                    models.TrialParamModel, "param_name", "param_value", "distribution_json"
                ):
                    choice = _distribution(text)
                    trial.distributions[name] = choice
                    trial.params[name] = choice.to_external_repr(value)
                for trial, (_, objective, value, kind) in parts(
                    models.TrialValueModel, "objective", "value", "value_type"
                ):
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
            except DECODING as error:
                raise ValueError(f"trial {trial.number}: {_reason(error)}") from error
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
    """Optuna's memory of the trials that were read; those of a file are not read again while nobody has written it.

    Each is checked by `check` when it is read.
    """

    def __init__(self, backend: RDBStorage, place: str, file: sqlite3.Connection | None = None) -> None:
        super().__init__(backend)
        self.check: Callable[[FrozenTrial], None] = lambda trial: None
        self._place = place
        self._known: dict[
            int, tuple[int | None, list[FrozenTrial]]
        ] = {}  # of each study: when it was read, and in order
        self._file = file
        if file:
            weakref.finalize(self, file.close)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        version: int | None = None
        when, trials = self._known.get(study_id, (None, []))
        with readable(self._place):
            if self._file:
                version = self._file.execute("PRAGMA data_version").fetchone()[0]  # changes with every commit of others
            if version is None or version != when:
                self._read_trials_from_remote_storage(study_id)
                known = self._studies[study_id].trials
                trials = [known[number] for number in sorted(known)]
                if trials and trials[-1].number != len(trials) - 1:
                    raise LookupError(f"of trials 0 to {trials[-1].number} there are {len(trials)}")
                self._known[study_id] = version, trials
        trials = [trial for trial in trials if states is None or trial.state in states]
        return copies(trials) if deepcopy else trials

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        for trial in trials:
            self.check(trial)
        super()._add_trials_to_cache(study_id, trials)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        with readable(self._place):
            return super().get_study_user_attrs(study_id)


def open_storage(place: str, orphaned: Callable[[Study, FrozenTrial], None], *, new: bool) -> Trials:
    """The storage of studies in a SQLite file, or at a database's URL; its tables are made if it may be `new`.

    Those who share a database have heartbeats; `orphaned` is called with each trial that was failed since its heartbeat had stopped.

    Raises:
        StudyError: there is none, or the place holds something else; nothing has changed.
    """
    path, tries = file_of(place), TRIES if new else 1
    if path is None:
        settings: dict[str, Any] = {"url": sqlalchemy_url(place), "engine_kwargs": {"pool_pre_ping": True}}
        if settings["url"].startswith("postgresql"):
            settings["engine_kwargs"]["connect_args"] = {"connect_timeout": PATIENCE}
    else:
        _look(path, new)
        # A connection by the file's name itself, in which nothing stands for something else, as it may in a URL.
        connect = partial(sqlite3.connect, path.resolve(), timeout=TIMEOUT, check_same_thread=False)
        settings = {"url": "sqlite://", "engine_kwargs": {"creator": connect, "poolclass": QueuePool}}
    settings |= {"heartbeat_interval": HEARTBEAT, "grace_period": 4 * HEARTBEAT, "skip_table_creation": not new}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        while True:
            tries -= 1
            try:
                storage = Rows(**settings, heartbeat_stale_trial_callback=orphaned)
                break
            except (DBAPIError, StorageInternalError) as error:  # where several drivers make its tables at a time
                if not tries or _lost(error):
                    raise
                time.sleep(random.random())
    weakref.finalize(storage, storage.engine.dispose)  # with its connections
    return Trials(storage, place, None if path is None else connect())


def _look(path: Path, new: bool) -> None:
    """Return if a file is a sound database that holds studies, or may hold the first one where it is `new`; it is left as it is.

    Raises:
        StudyError: it is not there, is something else, or holds something else.
    """
    size = _size(path)
    if size is None and not new:
        raise StudyError(
            f"a study must be a file that `mvnas search` wrote, but there is no {path}; run the search first"
        )
    tables: set[str] = set()
    if size:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise StudyError(
                    f"a study must be a SQLite file, but {path} is another kind of file; name another place"
                )
        with closing(sqlite3.connect(path, timeout=TIMEOUT)) as database:
            (told,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if told != "ok":
                raise sqlite3.DatabaseError(told.splitlines()[-1])
            rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in rows if not name.startswith("sqlite_")}
    if tables - TABLES and TABLES - tables:
        raise StudyError(
            f"a study must be in a file of its own, but {path} holds tables of something else; name another place"
        )
    if TABLES - tables and not new:
        raise _none(str(path))


def _size(path: Path) -> int | None:
    """Bytes of a file; None if it is not there.

    Raises:
        StudyError: it is something else than a file.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise StudyError(f"a study must be a file, but {path} is {kind}; name another place")
    return found.st_size


@contextmanager
def owned(place: str) -> Iterator[None]:
    """Be the only process that writes the study in a file; a database may have many.

    The lock is a hidden file beside the study. On the study's own file nobody but SQLite holds any.

    Raises:
        StudyError: another process searches it, or its folder is not there.
        FileError: the folder cannot be written, or has no locks.
    """
    path = file_of(place)
    if path is None:
        yield
        return
    path = path.resolve()  # a study has one lock, whatever it is called
    with readable(place):
        _size(path)
    if not path.parent.is_dir():
        raise StudyError(f"the folder of a study must exist, but {path.parent} does not; make it first")
    busy = f"a study must have one search at a time, but another process searches {place}; wait for it, or give it more --workers"
    with disk.locked(path.with_name(f".{path.name[-200:]}.lock"), lambda: StudyError(busy)):
        yield


@contextmanager
def written(place: str) -> Iterator[None]:
    """Turn what a full disk or a lost database says while a study is written into one sentence."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, StorageInternalError, OSError) as error:
        raise _fault(place, error) or StudyError(
            f"a study must be written as it goes, but {masked(place)} cannot be: {_told(place, error)}; the same command continues it"
        ) from error


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Turn what is said of a study that cannot be read into one sentence."""
    try:
        yield
    except NoSuchModuleError:
        raise StudyError(
            f"a study must be a file, or in a database at a URL like postgresql://USER@HOST/BASE, but got {masked(place)}"
        ) from None
    except ImportError:
        raise StudyError(
            f"a study in a database needs its driver, but that of {place.partition(':')[0]} is not installed; "
            "pip install 'mvnas[postgres]' for PostgreSQL's"
        ) from None
    except OSError as error:
        raise StudyError(
            f"a study must be readable, but {masked(place)} is not: {error.strerror or error}; name another place"
        ) from error
    except (SQLAlchemyError, sqlite3.Error, StorageInternalError, *DECODING) as error:
        if isinstance(error, RuntimeError) and "table schema" in str(error):
            raise StudyError(
                f"{masked(place)} must have the tables of the Optuna that is installed, but another version made them; "
                "install that one, or name another place"
            ) from None
        if isinstance(_beneath(error), ProgrammingError):  # a database without the tables
            raise _none(place) from None
        raise _fault(place, error) or damaged(place, _told(place, error)) from error


def damaged(place: str, what: str) -> StudyError:
    """What is said of a study that holds what no search has written."""
    return StudyError(
        f"a study must be as a search wrote it, but {masked(place)} is not: {what}; take a copy of it from before"
    )


def _none(place: str) -> StudyError:
    return StudyError(f"{masked(place)} must hold a study of mvnas, but holds none; run the search first")


def _fault(place: str, error: Exception) -> StudyError | None:
    """What is said of a place that is in use or out of reach; None if it is reached, and something else is wrong."""
    source = _source(error)
    code = getattr(source, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    name = masked(place)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StudyError(
            f"a study must be free, but another program has held {name} for {TIMEOUT:g} s; end what uses it"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StudyError(
            f"a study must be readable and writable, but {name} is not: {_told(place, error)}; see to its rights"
        )
    if file_of(place) is None and _lost(error):
        return StudyError(
            f"a database must answer, but {name} does not: {_told(place, error)}; see to its server and its URL"
        )
    return None


def _beneath(error: BaseException) -> BaseException:
    """SQLAlchemy's error behind one of Optuna's."""
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error


def _lost(error: BaseException) -> bool:
    """Whether a database's server was not reached."""
    found = _beneath(error)
    return isinstance(found, DBAPIError) and found.statement is None


def _source(error: BaseException) -> BaseException:
    """The error of a database's driver behind another one."""
    found: BaseException = getattr(_beneath(error), "orig", None) or error
    return found


def _told(place: str, error: BaseException) -> str:
    """What an error says, in a few words without passwords and control characters."""
    return plain(scrubbed(_reason(_source(error)), place).strip().partition("\n")[0])[:TOLD]


def _reason(error: BaseException) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
