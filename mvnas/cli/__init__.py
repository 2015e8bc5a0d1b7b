"""The command line: `main` runs a verb of `mvnas/cli/verbs/` and turns errors and interrupts into exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from mvnas import __version__
from mvnas.cli import verbs
from mvnas.cli.output import print
from mvnas.errors import MvnasError
from mvnas.system import trust
from mvnas.system.disk import private_folder, refused
from mvnas.system.stop import Interrupt, Stop

CACHES = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "torchinductor"}  # of libraries that look for a home
ORDER = ("search", "space", "predict", "front", "plot", "rank", "verify", "export", "measure", "fit")  # then others


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb: 0 on success, 2 on a user's mistake, 130 when interrupted, 143 when terminated."""
    args = parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads crawl where anything else runs beside them
    warnings.filterwarnings("ignore")
    stop = Stop()
    status = 0
    try:
        with stop.listening(last=argv is None):
            _run(args)
            _flush()
    except KeyboardInterrupt as error:
        status = getattr(error, "status", Interrupt().status)
    except BrokenPipeError:
        _drop_output()
    except Exception as error:
        if not stop.asked:  # else third parties have made another error of the interrupt
            if not isinstance(error, MvnasError | OSError):
                raise
            print(f"mvnas: {' '.join(str(_told(error)).splitlines())}", file=sys.stderr)
            with suppress(OSError, MvnasError):
                _flush()
            return 2
    if status or stop.asked:
        print("mvnas: interrupted; the same command continues where it was", file=sys.stderr)
        return status or stop.interrupt.status
    return 0


def _told(error: MvnasError | OSError) -> MvnasError:
    """What is said of an error; of a place, if nothing nearer has told of it."""
    if isinstance(error, MvnasError):
        return error
    return refused(error, error.filename or "standard output, or a file that is written,", "there to use")


def _flush() -> None:
    """Print what waits to be printed.

    Raises:
        FileError: standard output takes no more.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise refused(error, "standard output") from None


def _drop_output() -> None:
    """Have what is still to be printed go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: argparse.Namespace) -> None:
    """Run the verb, with what the user trusts; what a module of the user's raises is told in a sentence."""
    trust.allow_all(args.trust)
    _give_caches()
    with suppress(OSError):  # the folder may be gone
        trust.look_in(os.getcwd())  # where blocks and data of the user's own are
    try:
        args.run(args)
    except Exception as error:
        said = None if isinstance(error, MvnasError) else trust.culprit(error)
        if said is None:
            raise
        raise MvnasError(said) from error


def _give_caches() -> None:
    """Give libraries a folder for their caches where there is no home folder: they would fail or complain."""
    with suppress(RuntimeError):  # neither HOME nor an entry for the user
        if os.access(Path.home(), os.W_OK):
            return
    with suppress(MvnasError):
        for variable, name in CACHES.items():
            os.environ.setdefault(variable, str(private_folder() / name))


class _Parser(argparse.ArgumentParser):
    """A parser that prints as all else here does."""

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, file=file or sys.stderr, end="")


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs; what it parses has the function `run` of the verb."""
    top = _Parser(
        prog="mvnas",
        description="Find the most accurate MobileViT-class network that fits your budget on your device.",
    )
    top.add_argument("--version", action="version", version=f"mvnas {__version__}")
    made = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    names = {file.name for file in iter_modules(verbs.__path__) if not file.name.startswith("_")}
    for name in [*ORDER, *sorted(names - {*ORDER})]:
        _add(made, name)
    return top


def _add(verbs: Any, name: str) -> None:
    """Add the verb of a file, with the options that all have."""
    file = import_module(f"mvnas.cli.verbs.{name}")
    about = str(file.__doc__).partition("\n")[0]
    verb = verbs.add_parser(name, help=about[0].lower() + about[1:].rstrip("."), description=about)
    verb.set_defaults(run=file.run)
    verb.add_argument(
        "--trust", action="store_true", help="let files, such as a study, name modules of yours, which are then run"
    )
    if getattr(file, "FIGURES", True):
        verb.add_argument("--json", action="store_true", help="print plain data")
    file.options(verb)
