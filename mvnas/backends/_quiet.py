"""Third parties' chatter, kept out of sight."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from tempfile import TemporaryFile
from typing import IO, cast

TAIL = 500  # characters of the chatter that an error may quote


@contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Keep output, logs and warnings out of sight, native code's too; yields a function to read its end."""
    written = StringIO()
    level = logging.root.manager.disable
    with _file() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            with _descriptors_to(file), redirect_stdout(written), redirect_stderr(written):
                yield lambda: (_content(file) + written.getvalue())[-TAIL:].strip()
        finally:
            logging.disable(level)


def _file() -> IO[bytes]:
    """A file for the chatter; where there is no place for one, it is lost."""
    try:
        return cast(IO[bytes], TemporaryFile())
    except OSError:
        return open(os.devnull, "w+b")


@contextmanager
def _descriptors_to(file: IO[bytes]) -> Iterator[None]:
    """Send what is written to the descriptors of standard output and error to `file`."""
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        yield
    finally:
        for stream in streams:
            stream.flush()
        for target, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, target)
            os.close(saved)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
