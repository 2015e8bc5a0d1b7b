"""Errors that a user can cause: each message says what must hold, what was got and what to do.

Functions below build such messages, and shorten texts from elsewhere in them.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import category

CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories of characters that act and are not visible
LONGEST = 300  # characters of a message
MISSING = {
    "ai_edge_litert": "pip install 'mvnas[tflite]'",
    "ai_edge_quantizer": "pip install 'mvnas[int8]'",
    "coremltools": "docs/platforms.md tells where it is",
    "flatbuffers": "pip install 'mvnas[tflite]'",
    "onnx": "pip install 'mvnas[onnx]'",
    "onnxruntime": "pip install 'mvnas[onnx]'",
    "psycopg": "pip install 'mvnas[postgres]'",
    "ray": "pip install 'mvnas[ray]'",
}  # optional package -> how to get it
LISTED = 60, 100  # characters of listed options, with a near miss and without


class MvnasError(Exception):
    """Base of all errors that a user can correct; the command line prints the message and exits with 2.

    A message over 300 characters is cut in the middle: what must hold comes first, and what to do last.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(cut(message))


class TrustError(MvnasError):
    """A file from elsewhere names code that the user did not name."""


class SpaceError(MvnasError):
    """A search space, a block, an op or an architecture is not valid."""


class BudgetError(MvnasError):
    """A budget cannot be parsed, or no network of the space is within it."""


class CostError(MvnasError):
    """A cost that there is none of, or that is not declared as costs are."""


class DataError(MvnasError):
    """Images or labels cannot be read or trained on."""


class TableError(MvnasError):
    """A latency table is missing, damaged or too small to fit a model."""


class UnmeasuredError(TableError):
    """An op has no price: it lies outside of the kinds and sizes that a latency table holds."""


class FileError(MvnasError):
    """A file or folder cannot be written, or its file system lacks something."""


class EnergyError(MvnasError):
    """Energy cannot be measured: no counter, no permission, or an incomplete power log."""


class StudyError(MvnasError):
    """A study is missing or damaged, or a command contradicts its setup."""


class TrainingError(MvnasError):
    """The training of a candidate failed, for example because its loss is not a number."""


class ExportError(MvnasError):
    """A file could not be exported, or its outputs differ from torch's."""


def plain(text: str) -> str:
    r"""Escape control characters of a text from elsewhere, so that a terminal shows it safely.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(ascii(letter)[1:-1] if category(letter) in CONTROLS else letter for letter in text)


def lacking(what: str, module: str | None) -> str:
    """Message for `what` that needs a package which is not installed.

    Only our own extras are advised: a package on the index with the name of a module may be anybody's.

    >>> lacking("the backend onnx", "onnxruntime")
    "the backend onnx needs the package onnxruntime, which is not installed; pip install 'mvnas[onnx]'"
    """
    advice = MISSING.get((module or "").partition(".")[0])
    return f"{what} needs the package {module}, which is not installed{f'; {advice}' if advice else ''}"


def cut(text: str, most: int = LONGEST) -> str:
    """Shorten a text to `most` characters in the middle; the advice after the last semicolon is kept.

    >>> cut("a" * 99 + "z" * 99, 20)
    'aaaaaaaaa ... zzzzzz'
    """
    if len(text) <= most:
        return text
    advice = len(text.rpartition("; ")[2]) if "; " in text else 0
    end = max((most - 5) * 2 // 5, min(advice + 2, most * 2 // 3))
    return f"{text[: most - 5 - end]} ... {text[len(text) - end :]}"


class _Short(reprlib.Repr):
    """A `reprlib.Repr` that also shortens huge integers."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 64 else f"a number of {x.bit_length()} bits"


def quoted(value: object, most: int = 60) -> str:
    """The `repr` of a value from elsewhere in at most `most` characters, however large or deep it is.

    >>> quoted("a" * 99, 20), quoted([[0] * 9] * 99, 20), quoted(10**5000)
    ("'aaaaaaaa ... aaaaa'", '[[0, 0, 0 ... , ...]', 'a number of 16610 bits')
    """
    return cut(repr(value[:LONGEST]) if isinstance(value, str) else _Short().repr(value), most)


def unknown(kind: str, name: object, options: Iterable[object]) -> str:
    """Message for a `name` that is not among `options`: the nearest one, if any, and some of the list.

    >>> unknown("block", "mobilvit", ["head", "mobilevit"])
    "unknown block 'mobilvit'; did you mean 'mobilevit'? known: head, mobilevit"
    """
    known = sorted(str(option) for option in options)
    text = str(name)[:LONGEST] if isinstance(name, str) else quoted(name)
    near = get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = known
    while len(", ".join(listed)) > LISTED[not near]:
        listed = listed[:-1]
    others = f" and {len(known) - len(listed)} others" if len(listed) < len(known) else ""
    return f"unknown {kind} {quoted(text)}; {hint}known: {', '.join(listed) or 'none'}{others}"
