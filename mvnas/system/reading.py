"""Reading JSON, CSV and text from elsewhere safely: bounded sizes, finite numbers, no key twice."""

from __future__ import annotations

import csv
import json
import os
import stat
from math import isfinite
from pathlib import Path
from typing import Any

from mvnas.errors import quoted

SMALL = 1 << 20  # bytes of a space, an architecture or the conditions of a table
LARGE = 16 << 20  # bytes of timings that were made elsewhere
DIGITS = 18  # of a whole number: what 64 bits hold


def read_text(path: Path, most: int = SMALL) -> str:
    """The text of a regular UTF-8 file of at most `most` bytes.

    Raises:
        OSError, ValueError: it cannot be read, is no regular file, is larger, or is not UTF-8.
    """
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most >> 20} MB")
    return content.decode("utf-8-sig")


def _open(path: str, flags: int) -> int:
    """Open a file without blocking, which a pipe without a writer would."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(text: str) -> Any:
    """Parse JSON with finite numbers, integers of at most 18 digits, and no key twice.

    Raises:
        ValueError: the text is anything else.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_mapping, parse_int=_whole, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, most: int = SMALL) -> Any:
    """Read a JSON file by `parse_json`.

    Raises:
        OSError, ValueError: it cannot be read or parsed.
    """
    return parse_json(read_text(path, most))


def read_rows(path: Path, *, appended: bool = False, most: int = LARGE) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, each with its line number.

    With `appended`, a last line without its end is left out: a kill cut it off.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    text = read_text(path, most)
    reader = csv.reader((text[: text.rfind("\n") + 1] if appended else text).splitlines())
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"row {reader.line_num}: {error}") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {quoted(twice)} is there twice")
    return found


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > DIGITS:
        raise ValueError(f"a whole number must have at most {DIGITS} digits, but one has {len(text.lstrip('-'))}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"a number must be finite, but got {quoted(text)}")
    return value
