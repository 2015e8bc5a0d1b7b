"""Stopping tidily on signals: Ctrl-C (SIGINT), and SIGTERM from service managers, batch systems and shutdowns."""

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

WEIGHTS = {signal.SIGINT: 1, signal.SIGTERM: 2}  # SIGTERM counts as two: systems send it once only
MOST = 2  # further signals during the tidying up, after which the process ends at once
LOST = 0.2  # seconds between two checks whether a raised interrupt was lost
LATE = 1.0  # seconds after which it should have arrived


class Interrupt(KeyboardInterrupt):
    """Raised where the process is when a signal asks it to stop; a KeyboardInterrupt that knows its signal."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number

    @property
    def status(self) -> int:
        """The exit status of a process that stops for it, as in shells: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


class Stop:
    """Counts signals that ask to stop, so that a loop may look at `asked`; beyond `patience` they raise `Interrupt`.

    A raised `Interrupt` can be lost: Python drops exceptions of destructors, and so do callbacks of native code and
    code that catches everything. Then it is raised again, until it arrives.
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
        """The exception for the last signal."""
        return Interrupt(self.number)

    @contextmanager
    def listening(self, *, last: bool = False) -> Iterator[Stop]:
        """Handle signals within the context. With `last` a later signal ends the process at once and silently."""
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
        """Send the signal again where its exception is gone and the process still runs."""
        main = threading.main_thread().ident
        since = time.monotonic()
        while not self._over:
            time.sleep(LOST)
            if time.monotonic() - since > LATE:
                gc.collect()  # it may be gone but for a circle of references
            if not self._over and self._raised and self._raised() is None and main:
                signal.pthread_kill(main, self.number)

    def _told(self, hook: Any) -> Any:
        """A `sys.unraisablehook` that is silent about interrupts."""

        def told(dropped: Any) -> None:
            if not isinstance(dropped.exc_value, Interrupt):
                hook(dropped)

        return told
