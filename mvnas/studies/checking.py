"""Plain data that files tell, held to the kinds it must be of, with texts that a terminal may show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from math import inf
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from mvnas.errors import StudyError, plain

SHOWN = 60  # letters of a value that is told


def fields_of(kind: type, told: object, name: str) -> dict[str, Any]:
    """What plain data tells of the fields of a dataclass, with texts that a terminal may show; `name` is what it is
    called.

    Raises:
        StudyError: a newer mvnas wrote it, or nobody did.
    """
    if not isinstance(told, Mapping):
        raise StudyError(f"{name} must be an object, but is {shown(told)}")
    kinds, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    if more := [str(key) for key in told if key not in known]:
        raise StudyError(f"this mvnas does not know {shown(', '.join(more))} of {name}; a newer one may")
    for key, one in known.items():
        if key not in told and one.default is MISSING and one.default_factory is MISSING:
            raise StudyError(f"{name} must tell {key}, but does not")
        if key in told and not fits(told[key], kinds[key]):
            raise StudyError(f"{key} of {name} must be of another kind, but is {shown(told[key])}")
    values: dict[str, Any] = shown_texts(told)
    return values


def fits(value: object, kind: Any) -> bool:
    """Whether plain data is of a kind: text, whole number, finite number, or some of these."""
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(fits(part, get_args(kind)[0]) for part in value)
    if get_origin(kind) is not None:
        return isinstance(value, Mapping) and all(fits(part, get_args(kind)[1]) for part in value.values())
    if kind in (int, float):
        wanted = int if kind is int else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool) and -inf < value < inf
    return kind is Any or isinstance(value, kind)


def shown_texts(value: Any) -> Any:
    """Plain data whose texts may be shown."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {shown_texts(key): shown_texts(part) for key, part in value.items()}
    return [shown_texts(part) for part in value] if isinstance(value, list) else value


def shown(value: object) -> str:
    """What was found in place of something else."""
    told = plain(value if isinstance(value, str) else repr(value))
    return told if len(told) <= SHOWN else f"{told[:SHOWN]}..."
