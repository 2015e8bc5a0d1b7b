"""Blocks: the pieces that networks are made of. A file's name is the name used in search spaces; its class `Block` is
the block.

A block is a frozen dataclass whose fields are its hyper-parameters, each a possible search dimension, and whose call
takes a value to a value. Further values that it takes are what it reads of earlier blocks (`taps`). Ops with weights
have a role each (`Op.__call__`), which is the same whatever the fields are: weights are named by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, lru_cache
from inspect import Parameter, getdoc, signature
from math import inf
from typing import Any, cast, get_type_hints

from mvnas.errors import SpaceError, quoted, unknown
from mvnas.ops import Value
from mvnas.system import trust
from mvnas.system.plugins import load_class

Block = Callable[..., Value]

LARGEST = 1_000_000  # value of a field: no mobile network has as many channels, classes or pixels in a row
REPEATS = 100  # layers of a block, and blocks of a stage; the published networks have 15 at most
COUNTED = ("layers", "repeat")
RESERVED = ("block", "repeat", "taps", "output")  # what a stage says beside a block's fields
Settings = tuple[tuple[str, Any], ...]  # values of fields by name


def block_class(kind: str) -> type:
    """Class of the block `kind`: `Block` of a module of mvnas.blocks, or if the name is dotted of any module that is
    trusted.

    Raises:
        SpaceError: there is no such module, or it defines no `Block`.
        TrustError: it is not trusted.
    """
    if "." in kind:
        trust.check(kind)
    return _block_class(kind)


@cache
def _block_class(kind: str) -> type:
    made: type = load_class("block", kind, __name__, "Block", SpaceError)
    if not is_dataclass(made):
        raise SpaceError(f"a block must be a dataclass, but {made.__module__}.Block is none")
    for field in fields(made):
        if field.name in RESERVED:
            raise SpaceError(
                f"a block must have no field {field.name}, which stages say, but {made.__module__}.Block has"
            )
    return made


def check_field(kind: str, key: str, value: object) -> None:
    """Check that blocks of `kind` have the field `key`, and that it may hold `value`.

    Raises:
        SpaceError: there is no such field, or the value has the wrong type, or is too large, or neither positive nor
            the default.
    """
    known = _fields(kind)
    if key not in known:
        raise SpaceError(unknown("key", key, (*known, *RESERVED)))
    wanted, default = known[key]
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    if not fits or isinstance(value, bool) != (wanted is bool):
        raise SpaceError(f"{key} must be of type {wanted.__name__}, but got {quoted(value)}")
    if wanted in (int, float) and value != default:
        check_size(key, value)


def check_size(key: str, value: Any) -> None:
    """Check that a number is positive, and no larger than networks need.

    Raises:
        SpaceError: it is not.
    """
    if not 0 < value < inf:
        raise SpaceError(f"{key} must be positive and finite, but got {quoted(value)}")
    most = REPEATS if key in COUNTED else LARGEST
    if value > most:
        raise SpaceError(f"{key} must be {most:,} at most, but got {quoted(value)}")


@cache
def _fields(kind: str) -> dict[str, tuple[type, Any]]:
    """The type of each field of a block of `kind`, and its default: MISSING if it has none."""
    made = block_class(kind)
    types = get_type_hints(made)
    return {field.name: (types[field.name], field.default) for field in fields(made)}


def check_complete(kind: str, keys: Any) -> None:
    """Check that `keys` name all fields of a block of `kind` that have no default.

    Raises:
        SpaceError: one is missing.
    """
    for name, (_, default) in _fields(kind).items():
        if default is MISSING and name not in keys:
            raise SpaceError(f"must have the key {name!r}, but has only {', '.join(map(str, keys)) or 'none'}")


@cache
def taps_of(kind: str) -> tuple[int, float]:
    """How many outputs of earlier blocks a block of `kind` reads beside the one before it: at least and at most."""
    _, _, *others = signature(block_class(kind).__call__).parameters.values()  # after itself and the one before it
    given = [one for one in others if one.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    least = sum(one.default is Parameter.empty for one in given)
    return least, inf if any(one.kind is Parameter.VAR_POSITIONAL for one in others) else len(given)


def check_taps(kind: str, count: int) -> None:
    """Check that a block of `kind` can read the outputs of `count` earlier blocks.

    Raises:
        SpaceError: it reads more or fewer.
    """
    least, most = taps_of(kind)
    if not least <= count <= most:
        reads = f"{least}" if least == most else f"{least} or more" if most == inf else f"{least} to {most}"
        raise SpaceError(f"taps must name as many stages as the block {kind} reads, {reads}, but name {count}")


def rules(kind: str) -> str:
    """What a block of `kind` refuses, as its docstring says under Raises; empty if it says nothing."""
    _, _, raises = (getdoc(block_class(kind)) or "").partition("SpaceError: ")
    return " ".join(raises.split())


@lru_cache(maxsize=1 << 14)
def built(kind: str, settings: Settings) -> Block:
    """The block `kind` with fields that have been checked."""
    return cast(Block, block_class(kind)(**dict(settings)))


def make(kind: str, settings: Settings) -> Block:
    """The block `kind` with these fields, from wherever they come.

    Raises:
        SpaceError: there is no such block or field, or a field holds what it must not, or is missing.
        TrustError: it is a module that is not trusted.
    """
    return _make(kind, settings, tuple([type(value) for _, value in settings]))  # True is no 1


@lru_cache(maxsize=1 << 14)
def _make(kind: str, settings: Settings, types: tuple[type, ...]) -> Block:
    for key, value in settings:
        check_field(kind, key, value)
    check_complete(kind, dict(settings))
    return cast(Block, block_class(kind)(**dict(settings)))


def kind_of(part: Block) -> str:
    """The name a block has in a YAML file."""
    return type(part).__module__.removeprefix(f"{__name__}.")
