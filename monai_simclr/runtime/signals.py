"""SIGTERM, SIGUSR1 and Ctrl-C as requests to stop: at once (`stoppable`), or after saving (`StopSignals`)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

_Handler = Callable[[int, FrameType | None], Any] | int | None

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""What clusters send before they take a machine away: SIGTERM, or SIGUSR1 (SLURM's ``--signal=USR1``)."""

_RETRY_SECONDS = 3.0
_retry_handler: _Handler = None


class Preempted(Exception):  # noqa: N818 (a request was granted, nothing failed)
    """The run was asked to stop by one of `STOP_SIGNALS`, as clusters do, and has saved."""


class Stopped(BaseException):
    """One of `STOP_SIGNALS` came where nothing had to be saved first.

    Like `KeyboardInterrupt`, it passes through code that records the error of a single file and continues.
    """


class StopSignals:
    """Catch SIGTERM, SIGUSR1 and SIGINT between `catch` and `release`; does nothing outside the main thread.

    Attributes:
        received: number of the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.received, self._owner, self._saved = 0, 0, ""
        self._before: dict[int, _Handler] = {}

    def catch(self) -> None:
        """Record a signal in `received` instead of stopping; a second SIGINT stops at once."""
        if not self._before:
            self.received, self._owner = 0, os.getpid()
            self._before = _install(self._receive)

    def release(self) -> None:
        """Restore the handlers from before `catch`."""
        _restore(self._before)
        self._before = {}

    @contextlib.contextmanager
    def at_once(self, saved: str) -> Iterator[None]:
        """Within the block, where nothing is left to save, `leave` as soon as a signal comes."""
        self._saved = saved
        try:
            if self.received:
                self.leave(self.received, saved)
            yield
        finally:
            self._saved = ""

    def leave(self, number: int, saved: str) -> NoReturn:
        """Raise `Preempted` for SIGTERM and SIGUSR1, `KeyboardInterrupt` for SIGINT.

        Example:
            >>> StopSignals().leave(signal.SIGTERM, "saved; run the same command to resume")
            Traceback (most recent call last):
            monai_simclr.runtime.signals.Preempted: stopped by SIGTERM, saved; run the same command to resume
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt(f"stopped by Ctrl-C, {saved}")
        raise Preempted(f"stopped by {signal.Signals(number).name}, {saved}")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a loader's worker, forked from the process that is asked too
            return
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt("stopped by Ctrl-C, at once; the same command resumes from what was saved before")
        self.received = number
        if self._saved:
            self.leave(number, self._saved)


@contextlib.contextmanager
def stoppable(kept: str = "") -> Iterator[None]:
    """Within the block, raise `Stopped` or `KeyboardInterrupt` as soon as a signal comes.

    For work that keeps its results as it goes. Does nothing outside the main thread.

    Args:
        kept: what is not lost, for the message, as in "what is decoded is kept".
    """
    before = stop_at_once(kept)
    try:
        yield
    finally:
        _restore(before)
        if before and _retry_handler is not None and signal.getsignal(signal.SIGALRM) is _retry_handler:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


def stop_at_once(kept: str = "") -> dict[int, _Handler]:
    """From now on, raise as `stoppable` does; returns the handlers from before, by number.

    What a handler raises can be lost: C code that imports a module clears the error and continues (NumPy and OpenCV
    do). So it is raised again until the block, or the process, has ended. Processes that are forked from this one, as a
    loader's workers are, leave the signals to it.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        global _retry_handler
        if os.getpid() != owner:
            return
        if hasattr(signal, "setitimer"):
            _retry_handler = lambda alarm, frame: stop(number, frame)  # noqa: E731
            signal.signal(signal.SIGALRM, _retry_handler)
            signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)
        if number == signal.SIGINT:
            raise KeyboardInterrupt(stop_message("Ctrl-C", kept))
        raise Stopped(stop_message(signal.Signals(number).name, kept))

    return _install(stop)


def ignore_stops() -> None:
    """From now on, let no signal change how this process ends; for the last line before `os._exit`."""
    _install(signal.SIG_IGN)
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _install(handler: _Handler) -> dict[int, _Handler]:
    """Set the handler of all signals that ask for a stop; the previous ones, none outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in (*STOP_SIGNALS, signal.SIGINT)}


def _restore(handlers: dict[int, _Handler]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def stop_message(name: str = "Ctrl-C", kept: str = "") -> str:
    """The message of a stop at once."""
    return f"stopped by {name}; {kept + ', ' if kept else ''}run the same command again"
