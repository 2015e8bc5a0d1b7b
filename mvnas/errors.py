"""The errors a user can cause. Each message says what must hold, what was got and what to do."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import category

CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of what is not seen, but done
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
}  # what to do where a package is missing that `pip install mvnas` may leave out
LISTED = 60, 100  # characters of the options that it lists, where one of them is a near miss and where none is


class MvnasError(Exception):
    """A mistake that the user can mend; the command line prints its one sentence and exits with 2.

    What is too long for a sentence is cut in the middle: what must hold comes first, and what to do last.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(cut(message))


class TrustError(MvnasError):
    """A file from elsewhere that names code, which the user did not."""


class SpaceError(MvnasError):
    """A search space, block or architecture that is not legal."""


class BudgetError(MvnasError):
    """A budget that cannot be read, or that no point of the space meets."""


class DataError(MvnasError):
    """Images or labels that cannot be trained on."""


class TableError(MvnasError):
    """A latency table that is missing, damaged or too small to fit."""


class UnmeasuredError(TableError):
    """An op that lies outside what a latency table has measured."""


class FileError(MvnasError):
    """A place that cannot be written, or whose file system does not do what is needed."""


class EnergyError(MvnasError):
    """Energy that cannot be read: no counter, no permission, or a power log that does not tell."""


class StudyError(MvnasError):
    """A study that is missing, or that a command contradicts."""


class TrainingError(MvnasError):
    """A candidate whose training failed, for example with a loss that is not a number."""


class ExportError(MvnasError):
    """An exported file that could not be made, or whose numbers differ from torch's."""


def plain(text: str) -> str:
    r"""A text from elsewhere as a terminal may show it: what would move its cursor, or turn lines around, is escaped.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(ascii(letter)[1:-1] if category(letter) in CONTROLS else letter for letter in text)


def lacking(what: str, module: str | None) -> str:
    """Sentence for `what` that needs a package which is not installed.

    Only our own extras are advised: what else is on the index under the name of a module may be anybody's.

    >>> lacking("the backend onnx", "onnxruntime")
    "the backend onnx needs the package onnxruntime, which is not installed; pip install 'mvnas[onnx]'"
    """
    advice = MISSING.get((module or "").partition(".")[0])
    return f"{what} needs the package {module}, which is not installed{f'; {advice}' if advice else ''}"


def cut(text: str, most: int = LONGEST) -> str:
    """A text of at most so many characters: what is too much is left out in the middle, and not of what it says to do in the end.

    >>> cut("a" * 99 + "z" * 99, 20)
    'aaaaaaaaa ... zzzzzz'
    """
    if len(text) <= most:
        return text
    advice = len(text.rpartition("; ")[2]) if "; " in text else 0
    end = max((most - 5) * 2 // 5, min(advice + 2, most * 2 // 3))
    return f"{text[: most - 5 - end]} ... {text[len(text) - end :]}"


class _Short(reprlib.Repr):
    """A representation of bounded depth and length, of numbers of any size."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 64 else f"a number of {x.bit_length()} bits"


def told(value: object, most: int = 60) -> str:
    """A value of somebody else's in a few words, however large or deep it is.

    >>> told("a" * 99, 20), told([[0] * 9] * 99, 20), told(10**5000)
    ("'aaaaaaaa ... aaaaa'", '[[0, 0, 0 ... , ...]', 'a number of 16610 bits')
    """
    return cut(repr(value[:LONGEST]) if isinstance(value, str) else _Short().repr(value), most)


def unknown(kind: str, name: object, options: Iterable[object]) -> str:
    """Sentence for a `name` that is none of `options`: the near miss, then some of the list, less of it where there is a near miss.

    >>> unknown("block", "mobilvit", ["head", "mobilevit"])
    "unknown block 'mobilvit'; did you mean 'mobilevit'? known: head, mobilevit"
    """
    known = sorted(str(option) for option in options)
    text = str(name)[:LONGEST] if isinstance(name, str) else told(name)
    near = get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = known
    while len(", ".join(listed)) > LISTED[not near]:
        listed = listed[:-1]
    others = f" and {len(known) - len(listed)} others" if len(listed) < len(known) else ""
    return f"unknown {kind} {told(text)}; {hint}known: {', '.join(listed) or 'none'}{others}"
