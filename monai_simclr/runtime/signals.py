"""SIGTERM, SIGUSR1 and SIGINT as a wish to stop, to be granted at a good moment."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from monai_simclr.runtime.exit_codes import STOP_SIGNALS, Preempted


class StopSignals:
    """Catch SIGTERM, SIGUSR1 and SIGINT between `catch` and `release`; in another thread than the main one, do nothing.

    Attributes:
        received: number of the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.received, self._owner, self._saved = 0, 0, ""
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def catch(self) -> None:
        """Keep what comes in `received` instead of stopping at once; a second SIGINT stops at once."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self.received, self._owner = 0, os.getpid()
        for number in (*STOP_SIGNALS, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)

    def release(self) -> None:
        """Put back what was before `catch`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @contextlib.contextmanager
    def at_once(self, saved: str) -> Iterator[None]:
        """Within the block, a pause in which nothing is to be saved, `leave` as soon as a signal comes."""
        self._saved = saved
        try:
            if self.received:
                self.leave(self.received, saved)
            yield
        finally:
            self._saved = ""

    def leave(self, number: int, saved: str) -> NoReturn:
        """End as a signal asks: `Preempted` for SIGTERM and SIGUSR1, `KeyboardInterrupt` for SIGINT.

        Example:
            >>> StopSignals().leave(signal.SIGTERM, "saved; run the same command to go on")
            Traceback (most recent call last):
            monai_simclr.runtime.exit_codes.Preempted: stopped by SIGTERM, saved; run the same command to go on
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt(f"stopped by Ctrl-C, {saved}")
        raise Preempted(f"stopped by {signal.Signals(number).name}, {saved}")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a loader's worker, forked from the process that is asked too
            return
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt("stopped by Ctrl-C, at once; what was saved before goes on with the same command")
        self.received = number
        if self._saved:
            self.leave(number, self._saved)
