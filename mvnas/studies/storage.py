"""Where a study is kept, a file or a database, and who may write it."""

from __future__ import annotations

import random
import sqlite3
import stat
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages._rdb import models
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from mvnas.errors import StudyError
from mvnas.studies import faults
from mvnas.studies.faults import lost, missing, readable
from mvnas.studies.place import file_of, sqlalchemy_url
from mvnas.studies.rows import Rows, Trials
from mvnas.system import disk

HEARTBEAT = 30  # seconds between two signs of life of a driver that shares a study
TRIES = 5  # to open a database that other drivers are setting up at the same time
PATIENCE = 10  # seconds to reach a database's server
TABLES = {*models.BaseModel.metadata.tables, "alembic_version"}  # of Optuna


def open_storage(place: str, orphaned: Callable[[Study, FrozenTrial], None], *, new: bool) -> Trials:
    """The storage of studies in a SQLite file, or at a database's URL; its tables are made if it may be `new`.

    Those who share a database have heartbeats; `orphaned` is called with each trial that was failed since its heartbeat
    had stopped.

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
        connect = partial(sqlite3.connect, path.resolve(), timeout=faults.TIMEOUT, check_same_thread=False)
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
                if not tries or lost(error):
                    raise
                time.sleep(random.random())
    weakref.finalize(storage, storage.engine.dispose)  # with its connections
    return Trials(storage, place, None if path is None else connect())


def _look(path: Path, new: bool) -> None:
    """Return if a file is a sound database that holds studies, or may hold the first one where it is `new`; it is left
    as it is.

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
        with closing(sqlite3.connect(path, timeout=faults.TIMEOUT)) as database:
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
        raise missing(str(path))


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
    busy = (
        f"a study must have one search at a time, but another process searches {place}; wait for it, or give it more"
        " --workers"
    )
    with disk.locked(path.with_name(f".{path.name[-200:]}.lock"), lambda: StudyError(busy)):
        yield
