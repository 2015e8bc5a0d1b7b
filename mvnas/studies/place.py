"""Where a study is: a file's name or a database's URL. What is told of a URL never holds its password."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from mvnas.errors import StudyError

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SECRET = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)([^&]*)", re.IGNORECASE)  # of a query
HIDDEN = "***"
NAME = "mvnas"  # of our study among those of Optuna that a place may hold
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}  # what SQLAlchemy calls them


def file_of(place: str) -> Path | None:
    """The file of a study that `place` names; None if it is the URL of a database, which several drivers may use.

    A URL begins with its scheme. sqlite:///FILE is that file.

    Raises:
        StudyError: a URL of SQLite names no file.
    """
    if not URL.match(place):
        return Path(place)
    scheme, _, rest = place.partition("://")
    if scheme.lower().partition("+")[0] != "sqlite":
        return None
    if not rest.startswith("/") or rest in ("/", "/:memory:") or "?" in rest:
        raise StudyError(f"a study in SQLite must be named by its file alone, but got {place}; give the file's name")
    return Path(unquote(rest[1:]))


def sqlalchemy_url(place: str) -> str:
    """The URL of a database as SQLAlchemy reads it, with the driver that is installed.

    Raises:
        StudyError: it cannot be read, or could be read in two ways.
    """
    scheme, _, rest = place.partition("://")
    address = rest.partition("@")[2] if "@" in rest else rest
    server, _, base = address.partition("?")[0].partition("/")
    if "@" in server + base:
        raise StudyError(
            "a password in a database's URL must have its special characters encoded, such as @ as %40, but"
            f" {masked(place)} has two @"
        )
    port = server.rpartition("]")[2].partition(":")[2]
    if port and not port.isdigit():
        raise StudyError(
            f"a database must be at a URL like postgresql://USER@HOST:PORT/BASE, but the port of {masked(place)} is no"
            " number"
        )
    return f"{DRIVERS.get(scheme.lower(), scheme)}://{rest}"


def masked(place: str) -> str:
    """A place as it may be told: a URL has no password, and a file's name is as it is.

    >>> masked("postgresql://me:secret@host:5432/base?sslpassword=secret")
    'postgresql://me:***@host:5432/base?sslpassword=***'
    """
    if not URL.match(place):
        return place
    scheme, _, rest = place.partition("://")
    login, at, address = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    hidden = f"{user}{colon and ':' + HIDDEN}{at}"
    if not at and not re.match(r"(\[[^]]*\]|[^:/?]*)(:\d*)?([/?]|$)", address):  # what was meant for a password
        address = f"{address.partition(':')[0]}:{HIDDEN}"
    return f"{scheme}://{hidden}" + SECRET.sub(rf"\1{HIDDEN}", address)


def scrubbed(text: str, place: str) -> str:
    """What somebody says of a place, without its password."""
    if not URL.match(place):
        return text
    login, at, address = place.partition("://")[2].rpartition("@")
    words = [login.partition(":")[2]] if at else []
    words += [told for _, told in SECRET.findall(address)]
    words += [told for _, told in parse_qsl("&".join(key + told for key, told in SECRET.findall(address)))]
    text = text.replace(place, masked(place))
    for word in sorted({*words, *map(unquote, words)} - {""}, key=len, reverse=True):
        text = text.replace(word, HIDDEN)
    return text
