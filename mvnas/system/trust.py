"""Which modules may be run because somebody names them: the one place where a dotted name becomes code.

Trusted is what the user names as code: a space's YAML, and `--data`, `--engine` and `--backend`. Files that come from elsewhere
(architectures, tables, reports, studies) may name only what comes with mvnas; what else they name is refused, until the user
says otherwise: `--trust` on the command line, `allow` in a program.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from mvnas.errors import MvnasError, TrustError, cut, plain, told

_allowed: set[str] = set()
_everything = False
_folders: list[str] = []
_run: dict[str, str] = {}  # what was imported here, by the file of it


def allow(*names: str) -> None:
    """Let files name these modules from now on, in this process."""
    _allowed.update(names)


def allow_all(yes: bool = True) -> None:
    """Let files name any module from now on, in this process; or no longer."""
    global _everything
    _everything = yes


def look_in(folder: str) -> None:
    """Find modules that are named from now on in this folder too, behind all that is installed.

    Nothing else is imported from there as long as no module is named: a folder of downloads may hold a `numexpr.py`.
    """
    _folders[:] = [folder]


def check(name: str) -> None:
    """Return if a file may name the module `name`: it was allowed, or the user's own word has run it in this process.

    Raises:
        TrustError: it may not.
    """
    if not (_everything or name in _allowed or name in _run):
        raise TrustError(
            f"a file must not run code that you did not name, but one names the module {told(name)}; if you know whose "
            "it is, give --trust (in a program, mvnas.system.trust.allow)"
        )


def module(name: str, error: type[MvnasError]) -> ModuleType:
    """The module of a dotted name that is trusted, as the user's folder has it or as it is installed.

    Raises:
        ModuleNotFoundError: there is none.
        MvnasError: an `error`, since it is there and cannot be imported.
    """
    sys.path += [folder for folder in _folders if folder not in sys.path]
    try:
        found = import_module(name)
    except (Exception, SystemExit) as failed:
        if isinstance(failed, MvnasError) or missing(failed, name):
            raise
        raise error(f"the module {name} must import, but raises {_said(failed)}") from failed
    _run[name] = found.__file__ or ""
    return found


def missing(failed: BaseException, name: str) -> bool:
    """Whether an import failed because there is no module `name`, and not because of what that module imports."""
    return isinstance(failed, ModuleNotFoundError) and f"{name}.".startswith(f"{failed.name}.")


def culprit(error: BaseException) -> str | None:
    """The line of a module named by the user in which an exception arose, with what it says; None if it did not arise there."""
    place, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename in _run.values():
            place = trace
        trace = trace.tb_next
    if place is None:
        return None
    name = next(name for name, file in _run.items() if file == place.tb_frame.f_code.co_filename)
    return f"the module {name} must do its part, but in line {place.tb_lineno} raises {_said(error)}"


def _said(error: BaseException) -> str:
    """An exception of somebody else's in a few words."""
    says = cut(plain(str(error).partition("\n")[0]), 150)
    return type(error).__name__ + (f": {says}" if says else "")
