"""Importing modules by name, and which names may be imported: all other modules import plug-ins by `module`.

Names that the user gives are trusted: those in a space's YAML, and options such as `--data` or `--engine`. Names in
files from elsewhere (architectures, tables, reports, studies) are not, and `check` refuses them unless they come with
mvnas or the user allows them: by `--trust` on the command line, or `allow` in a program.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from mvnas.errors import MvnasError, TrustError, cut, plain, quoted

_allowed: set[str] = set()
_everything = False
_folders: list[str] = []
_run: dict[str, str] = {}  # modules that were imported here -> their files


def allow(*names: str) -> None:
    """Trust these modules from now on, in this process."""
    _allowed.update(names)


def allow_all(yes: bool = True) -> None:
    """Trust every module from now on, in this process; or, with False, no longer."""
    global _everything
    _everything = yes


def look_in(folder: str) -> None:
    """Search this folder too, after everything installed, when a module is imported by name.

    It is not on the path before that: a folder of downloads may hold a `numexpr.py` that a library would import.
    """
    _folders[:] = [folder]


def check(name: str) -> None:
    """Check that a file from elsewhere may name the module `name`: it was allowed, or the user has named it before.

    Raises:
        TrustError: it may not.
    """
    if not (_everything or name in _allowed or name in _run):
        raise TrustError(
            f"a file must not run code that you did not name, but one names the module {quoted(name)}; if you know"
            " whose it is, give --trust (in a program, mvnas.system.trust.allow)"
        )


def module(name: str, error: type[MvnasError]) -> ModuleType:
    """Import a trusted module by its dotted name, from what is installed or from the user's folder.

    Raises:
        ModuleNotFoundError: there is no such module.
        MvnasError: of the class `error`: the module exists but raises when it is imported.
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
    """A sentence that blames a module of the user's for an exception, with its line; None if none was involved."""
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
    """Type and message of an exception, cut to a few words."""
    says = cut(plain(str(error).partition("\n")[0]), 150)
    return type(error).__name__ + (f": {says}" if says else "")
