"""Wishes to stop, by signals: Ctrl-C (SIGINT), and SIGTERM from service managers, batch systems and shutdowns."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

WEIGHTS = {signal.SIGINT: 1, signal.SIGTERM: 2}  # how much each asks: what a system sends is not sent twice
MOST = 2  # signals while all is being tidied up, after which this process ends as it is
LOST = 0.2  # seconds between two looks at whether an interrupt is still on its way
LATE = 1.0  # seconds after which it should have come through


class Interrupt(KeyboardInterrupt):
    """A signal asked this process to stop."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number

    @property
    def status(self) -> int:
        """What a process exits with for it, as shells tell it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number


class Stop:
    """The wish to stop, of the user or the system. Up to `patience` it is only counted; beyond, it is raised where the process is.

    An `Interrupt` that is raised can be lost: Python drops what is raised while it tidies an object up, and so does native code that
    calls back, or whoever catches everything. It is raised again then, until it comes through.
    """

    def __init__(self, patience: int = 0) -> None:
        self.patience = patience
        self.asked = 0
        self.number: int = signal.SIGINT
        self._raised: weakref.ref[Interrupt] | None = None
        self._ignored = 0
        self._over = False

    @property
    def interrupt(self) -> Interrupt:
        """What to raise for it."""
        return Interrupt(self.number)

    @contextmanager
    def listening(self, *, last: bool = False) -> Iterator[Stop]:
        """Hear signals. After the `last` time a signal ends the process at once, and in silence: nothing is left to be tidied up."""
        if threading.current_thread() is not threading.main_thread():  # which alone hears them
            yield self
            return
        before = {number: signal.signal(number, self._heard) for number in WEIGHTS}
        hook = sys.unraisablehook
        sys.unraisablehook = self._told(hook)
        try:
            yield self
        finally:
            self._over = True
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if last or handler is None else handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            return
        again = self._raised is not None and self._raised() is None
        if self._raised is None or not again:
            self.asked += WEIGHTS[signal.Signals(number)]
            self.number = number
        if self.asked <= self.patience:
            return
        if self._raised is not None and not again:  # it is on its way; who asks on does not want to wait for a tidy end
            self._ignored += 1
            if self._ignored >= MOST:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        raised = self.interrupt
        first, self._raised = self._raised is None, weakref.ref(raised)
        if first:
            _thread.start_new_thread(self._watch, ())  # without the locks of `threading`, which may be held here
        try:
            raise raised
        finally:
            del raised  # else its traceback, which has this frame, would keep it for ever

    def _watch(self) -> None:
        """Ask again where what was raised is gone and this process is not stopping."""
        main = threading.main_thread().ident
        since = time.monotonic()
        while not self._over:
            time.sleep(LOST)
            if time.monotonic() - since > LATE:
                gc.collect()  # it may be gone but for a circle of references
            if not self._over and self._raised and self._raised() is None and main:
                signal.pthread_kill(main, self.number)

    def _told(self, hook: Any) -> Any:
        """A hook for what Python drops, that says nothing of interrupts."""

        def told(dropped: Any) -> None:
            if not isinstance(dropped.exc_value, Interrupt):
                hook(dropped)

        return told
