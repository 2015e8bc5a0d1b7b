"""Printing texts from elsewhere safely to a terminal, a log or a shell; nothing else in the package prints."""

from __future__ import annotations

import builtins
import os
import re
import shlex
import sys
from typing import TextIO

from mvnas.errors import plain

SECRET = re.compile(r"(://[^/\s:@]*:)\S*(?=@)|(?<=[?&]password=)[^&\s]*")  # the password in a database's URL


def print(*parts: object, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print what may be anybody's text; all that is printed here, since it takes the name of Python's own.

    Control characters are escaped, and so is what the terminal's encoding does not have; passwords of databases are
    masked.
    """
    stream = file or sys.stdout
    builtins.print(printable(" ".join(map(str, parts)), stream), file=stream, end=end, flush=flush)


def printable(text: str, stream: TextIO) -> str:
    """A text with control characters escaped, passwords masked, and what `stream` cannot encode escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = SECRET.sub(r"\1***", "\n".join(map(plain, text.split("\n"))))
    return text.encode(encoding, "backslashreplace").decode(encoding)


def shell_word(path: object) -> str:
    """A path as an argument in a shell's command, also where the terminal cannot show it."""
    text = str(path)
    if printable(text, sys.stdout) == text or SECRET.search(text):
        return shlex.quote(text)
    letters = (
        chr(byte) if byte < 128 and (chr(byte).isalnum() or chr(byte) in "/._-") else f"\\{byte:03o}"
        for byte in os.fsencode(text)
    )
    return f"$'{''.join(letters)}'"


def many(count: int) -> str:
    """A number of networks in a few figures, however large it is."""
    return f"{count:.3g}" if count < 10**300 else f"10^{len(str(count)) - 1}"
