"""The errors a user can cause. Each message says what must hold, what was got and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import category

CONTROLS = ("Cc", "Cf", "Zl", "Zp")  # Unicode's categories of what is not seen, but done


class MvnasError(Exception):
    """A mistake that the user can mend; the command line prints its one sentence and exits with 2."""


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


def unknown(kind: str, name: object, options: Iterable[object]) -> str:
    """Sentence for a `name` that is none of `options`: the near miss, then the list.

    >>> unknown("block", "mobilvit", ["head", "mobilevit"])
    "unknown block 'mobilvit'; did you mean 'mobilevit'? known: head, mobilevit"
    """
    known = sorted(str(option) for option in options)
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {str(name)!r}; {hint}known: {', '.join(known) or 'none'}"


def plain(text: str) -> str:
    r"""A text from elsewhere as a terminal may show it: what would move its cursor, or turn lines around, is escaped.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(ascii(letter)[1:-1] if category(letter) in CONTROLS else letter for letter in text)
