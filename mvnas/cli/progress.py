"""Shows progress on standard error: a live bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from typing import Any

from mvnas.cli.output import print, printable

SELDOM = 10.0  # seconds between two lines of what is mostly done by then, such as reading images


class Bar:
    """A progress bar, or lines where standard error is no terminal; nothing if `silent`, as beside `--json`."""

    def __init__(self, silent: bool) -> None:
        self.silent, self.live = silent, sys.stderr.isatty()
        self.bar: Any = None
        self.last: object = None
        self.drawn = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def status(self, status: Any) -> None:
        """Show the progress of a search."""
        from mvnas.reports.lines import rests

        left = "" if status.left_seconds is None else f", {clock(status.left_seconds)} left"
        resting = f"{rests(status.resting)}, " if status.resting else ""
        told = (
            f"{status.failed} failed, {status.infeasible} over budget, {resting}best {status.best:.1%}, "
            f"{status.frontier} on the frontier{left}"
        )
        self._draw("trials", round(status.finished, 2), status.total, told, status.doing)

    def step(self, what: str, done: int, total: int) -> None:
        """Show the progress of a measurement."""
        if self.last is not None and self.live and self.bar is not None and self.bar.desc != what:
            self.bar.close()
            self.bar = None
        self._draw(what, done, total, "", "", every=max(1, total // 10))

    def seldom(self, what: str, done: int, total: int) -> None:
        """Show progress at most every SELDOM seconds, as of reading images; `total` is 0 if it is not known."""
        if time.monotonic() - self.drawn > SELDOM:
            self.drawn = time.monotonic()
            self._draw(what, done, total or None, "", "")

    def _draw(self, what: str, done: float, total: int | None, told: str, doing: str, *, every: int = 0) -> None:
        if self.silent:
            return
        if not self.live:
            if not doing and (what, done) != self.last and (not every or done % every == 0 or done == total):
                print(f"{what} {done:g}/{total or '?'}{'; ' if told else ''}{told}", file=sys.stderr, flush=True)
                self.last = (what, done)
            return
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(total=total, desc=printable(what, sys.stderr), dynamic_ncols=True, leave=True,
                            bar_format="{desc} {n:g}/{total_fmt} |{bar:12}| {postfix}")  # fmt: skip
        self.last = (what, done)
        self.bar.desc, self.bar.n, self.bar.total = printable(what, sys.stderr), done, total
        told = printable("; ".join(part for part in (told, doing) if part), sys.stderr)
        self.bar.set_postfix_str(told, refresh=False)
        self.bar.update(0) if doing else self.bar.refresh()


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, such as 12:05."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02}"
