"""Options that several verbs have, and parsers of their values."""

from __future__ import annotations

import argparse

from mvnas.latency import DEFAULT_TABLE

STUDY = "mvnas.db"


def device(to: argparse.ArgumentParser, default: str | None = DEFAULT_TABLE) -> None:
    """Add `--device`, a latency table; without a default it is the one of the study."""
    meant = default or "the one it searched for"
    to.add_argument(
        "--device",
        default=default,
        metavar="TABLE",
        help=f"latency table: a shipped name or a folder, or some of different precisions with commas ({meant})",
    )


def longer(to: argparse.ArgumentParser) -> None:
    """Add the options of verbs that train a study's candidates again."""
    to.add_argument("--longer", type=count, default=4, metavar="K", help="times the study's epochs (%(default)s)")
    moved(to)
    to.add_argument("--engine", metavar="MODULE", help="the search's, if it was a module of yours")


def moved(to: argparse.ArgumentParser) -> None:
    """Add the options of verbs that read a study's images again."""
    to.add_argument("--data", metavar="PATH", help="where the study's images are now")
    to.add_argument("--skip-broken", action="store_true", help="leave out images that do not decode, as the search did")


def count(text: str) -> int:
    """Parse a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but got {text}")
    return value


def positive(text: str) -> float:
    """Parse a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive, but got {text}")
    return value


def pair(text: str) -> tuple[str, str]:
    """Parse KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, but got {text!r}")
    return key, value


def duration(text: str) -> float:
    """Parse a time such as 90s, 30m or 2h into seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        return positive(text[:-1]) * units[text[-1:]]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 30m or 2h, but got {text!r}") from None
