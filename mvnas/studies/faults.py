"""What is said, in a sentence, where the file or the database of a study fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, ProgrammingError, SQLAlchemyError

from mvnas.errors import StudyError, plain
from mvnas.studies.place import file_of, masked, scrubbed

TIMEOUT = 60.0  # seconds that a look at a file waits for another process that writes it
TOLD = 120  # letters of what others say of a fault
DECODING = (ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, RuntimeError)


@contextmanager
def written(place: str) -> Iterator[None]:
    """Turn what a full disk or a lost database says while a study is written into one sentence."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, StorageInternalError, OSError) as error:
        raise _fault(place, error) or StudyError(
            f"a study must be written as it goes, but {masked(place)} cannot be: {_told(place, error)}; the same"
            " command continues it"
        ) from error


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Turn what is said of a study that cannot be read into one sentence."""
    try:
        yield
    except NoSuchModuleError:
        raise StudyError(
            "a study must be a file, or in a database at a URL like postgresql://USER@HOST/BASE, but got"
            f" {masked(place)}"
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
            raise missing(place) from None
        raise _fault(place, error) or damaged(place, _told(place, error)) from error


def damaged(place: str, what: str) -> StudyError:
    """What is said of a study that holds what no search has written."""
    return StudyError(
        f"a study must be as a search wrote it, but {masked(place)} is not: {what}; take a copy of it from before"
    )


def missing(place: str) -> StudyError:
    """The error of a place that holds no study."""
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
    if file_of(place) is None and lost(error):
        return StudyError(
            f"a database must answer, but {name} does not: {_told(place, error)}; see to its server and its URL"
        )
    return None


def _beneath(error: BaseException) -> BaseException:
    """SQLAlchemy's error behind one of Optuna's."""
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error


def lost(error: BaseException) -> bool:
    """Whether a database's server was not reached."""
    found = _beneath(error)
    return isinstance(found, DBAPIError) and found.statement is None


def _source(error: BaseException) -> BaseException:
    """The error of a database's driver behind another one."""
    found: BaseException = getattr(_beneath(error), "orig", None) or error
    return found


def _told(place: str, error: BaseException) -> str:
    """What an error says, in a few words without passwords and control characters."""
    return plain(scrubbed(reason(_source(error)), place).strip().partition("\n")[0])[:TOLD]


def reason(error: BaseException) -> str:
    """What an error says of itself."""
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
