"""SIGTERM and SIGINT as a wish to stop, to be granted at a good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from monai_simclr.exits import Preempted

__all__ = ["StopSignals"]


class StopSignals:
    """Catch SIGTERM and SIGINT between `catch` and `release`; in another thread than the main one, do nothing.

    Attributes:
        received: number of the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def catch(self) -> None:
        """Keep what comes in `received` instead of stopping at once; a second SIGINT stops at once."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self.received = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)

    def release(self) -> None:
        """Put back what was before `catch`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def leave(self, number: int, saved: str) -> NoReturn:
        """End as a signal asks: `Preempted` for SIGTERM, `KeyboardInterrupt` for SIGINT.

        Example:
            >>> StopSignals().leave(signal.SIGTERM, "saved; run the same command to go on")
            Traceback (most recent call last):
            monai_simclr.exits.Preempted: stopped by SIGTERM, saved; run the same command to go on
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt(f"stopped by Ctrl-C, {saved}")
        raise Preempted(f"stopped by SIGTERM, {saved}")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt("stopped by Ctrl-C, at once; what was saved before goes on with the same command")
        self.received = number
