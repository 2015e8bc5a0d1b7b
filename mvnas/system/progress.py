"""The type of functions that are told how far something that takes long has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is done, how much of it, and of how much: 0 if that is not known


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""
