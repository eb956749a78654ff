"""How a command ends: one exit code for each kind of error, and the sentence that stands last on stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from monai_simclr.runtime.files import lacks_space
from monai_simclr.runtime.names import shown

_Handler = Callable[[int, FrameType | None], Any] | int | None

PREEMPTED = 75
"""Stopped by SIGTERM or SIGUSR1 after saving; the same command goes on (EX_TEMPFAIL of sysexits.h)."""

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""What clusters send before they take a machine away: SIGTERM, or SIGUSR1 (SLURM's ``--signal=USR1``)."""

INTERRUPTED = 130
"""Stopped by Ctrl-C, after saving in a training run."""


DATA = 3
"""Something is wrong with what was read: an archive, an index, a bundle, a file."""


class Preempted(Exception):  # noqa: N818 (an answer to a request, no error)
    """The run was asked to stop by one of `STOP_SIGNALS`, as clusters do, and has saved."""


class Stopped(BaseException):
    """One of `STOP_SIGNALS` came where nothing had to be saved first.

    It passes everything that makes a reason in a row of one file's error, as `KeyboardInterrupt` does.
    """


class SettingError(ValueError):
    """A setting that does not exist, or has a value that it cannot have: the user's slip, found before any work."""


EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, INTERRUPTED),
    (Preempted, PREEMPTED),
    (Stopped, PREEMPTED),
    (FileExistsError, 4),
    (PermissionError, 4),
    (FloatingPointError, 5),
    (SettingError, 2),
    (MemoryError, 6),
    (FileNotFoundError, 3),
    (IsADirectoryError, 3),
    (NotADirectoryError, 3),
    (ValueError, 3),
    (OSError, 6),
)
"""0 done; 1 our bug; 2 usage (typer's own) or configuration; 3 data; 4 output folder; 5 numerical; 6 resources.

The first that fits an error is its code."""

_SHARED_MEMORY = ("unable to write to file </torch", "unable to open shared memory", "unable to mmap")
_SHARED_REMEDY = "shared memory (/dev/shm) is full; lower num_workers, or give the container more (--shm-size)"

_RESOURCES = (
    *((words, _SHARED_REMEDY) for words in _SHARED_MEMORY),
    ("DataLoader worker", "killed, most often for lack of memory; lower num_workers or batch_size"),
    ("out of memory", "lower batch_size"),
    ("Connection closed by peer", "another rank ended; its own last line says why"),
    ("Connection reset by peer", "another rank ended; its own last line says why"),
    ("Socket closed", "another rank ended; its own last line says why"),
    ("Read error", "another rank ended; its own last line says why"),
    ("Timed out waiting", "another rank ended or hangs; its own last line says why"),
    ("Wait timeout", "another rank did not come; its own last line says why"),
    ("NCCL", "another rank ended, or the network between GPUs failed"),
)
"""`RuntimeError`s of torch that mean a lack of something (exit 6), by words in them, and what to do."""


_OTHER_VERSION = (
    "the config asks for what this monai_simclr does not have: a slip in it, or the bundle was copied from another "
    "version; make a new one with monai-simclr bundle, and move the old one's models there"
)


def root_cause(error: BaseException) -> BaseException:
    """The error behind the `RuntimeError` that MONAI's config parser wraps around everything.

    Example:
        >>> try:
        ...     try:
        ...         raise ValueError("no image is in the split 'test'")
        ...     except ValueError as inner:
        ...         raise RuntimeError("Failed to evaluate ConfigExpression") from inner
        ... except RuntimeError as wrapped:
        ...     root_cause(wrapped)
        ValueError("no image is in the split 'test'")
    """
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def exit_code(error: BaseException) -> int:
    """The exit code that an error deserves.

    Example:
        >>> exit_code(FloatingPointError("the loss is nan")), exit_code(KeyError("a bug of ours"))
        (5, 1)
        >>> exit_code(RuntimeError("gloo/transport/tcp/pair.cc:547: Connection closed by peer"))
        6
    """
    root = root_cause(error)
    if _remedy(root) or (isinstance(error, Exception) and lacks_space(error)):
        return 6
    if isinstance(root, OSError) and root.errno == errno.EROFS:
        return 4
    if _is_unknown_key(root):
        return 2
    if _is_of_another_version(error):
        return 3
    return next((code for kind, code in EXIT_CODES if isinstance(root, kind)), 1)


def format_error(error: BaseException) -> str:
    """What stands last on stderr, on one line: the error's sentence, or that it is a bug of ours.

    Example:
        >>> format_error(ValueError("the index has no rows"))
        'ValueError: the index has no rows'
        >>> format_error(KeyboardInterrupt())
        'stopped by Ctrl-C; run the same command again'
    """
    return shown(_sentence(error))


def _sentence(error: BaseException) -> str:
    if _is_of_another_version(error):
        return f"{type(root_cause(error)).__name__}: {str(root_cause(error)).strip().rstrip('.')}; {_OTHER_VERSION}"
    error = root_cause(error)
    if isinstance(error, KeyboardInterrupt | Preempted | Stopped):
        return str(error) or _stopped_by("Ctrl-C", "")
    if _is_unknown_key(error):
        guess = str(error.__cause__).split("?", maxsplit=1)[0]
        hint = f"; {guess[0].lower()}{guess[1:]}?" if "did you mean" in guess else ""
        return f"SettingError: the config has no part {error.args[0].removeprefix(_NO_KEY)!r}{hint}"
    sentence = str(error).strip()
    if "DataLoader worker process" in sentence:  # torch puts the worker's whole traceback into the message
        sentence = sentence.splitlines()[-1]
        return sentence + _hint(error)
    if remedy := _remedy(error):
        return f"{type(error).__name__}: {sentence.splitlines()[0]}; {remedy}"
    if isinstance(error, Exception) and lacks_space(error) and "make room" not in sentence:
        first = sentence.splitlines()[0] if sentence else "nothing more is known"
        sentence = f"{first}; a disk is full: make room and run the same command again"
    return f"{type(error).__name__}: {sentence}{_hint(error)}"


_NO_KEY = "query key: "


def _is_unknown_key(error: BaseException) -> bool:
    """Whether an override is for a part that the config does not have: MONAI's words, before any step of ours."""
    return type(error) is KeyError and str(error.args[0]).startswith(_NO_KEY) and error.__cause__ is not None


def _is_of_another_version(error: BaseException) -> bool:
    """Whether a config names a part, or an argument of a part, that is not there (MONAI's own words)."""
    root = root_cause(error)
    if isinstance(root, ModuleNotFoundError):
        return "Cannot locate class or function path" in str(root)
    asked, _, named = str(root).partition("got an unexpected keyword argument ")
    given = str(error).splitlines()[0] if str(error) else ""
    _, _, keywords = given.partition("with keywords: ")
    return isinstance(root, TypeError) and bool(asked and named) and named.strip("'") in keywords.split(",")


def _hint(error: BaseException) -> str:
    return "" if exit_code(error) != 1 else "; this is a bug of ours, please report it with the traceback"


def _remedy(error: BaseException) -> str:
    """What to do about an error of torch that means a lack of something; "" for any other error."""
    if not isinstance(error, RuntimeError) or "in DataLoader worker process" in str(error):
        return ""
    return next((what for words, what in _RESOURCES if words in str(error)), "")


@contextlib.contextmanager
def stoppable(kept: str = "") -> Iterator[None]:
    """Within the block, end as soon as one of `STOP_SIGNALS` or Ctrl-C comes: with its code, and a sentence.

    It is for work that keeps what is done as it goes. In another thread than the main one nothing is done.

    Args:
        kept: what is not lost, for the sentence, as in "what is decoded is kept".
    """
    before = stop_at_once(kept)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before and hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) in _insisting:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _insisting.remove(signal.getsignal(signal.SIGALRM))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


_AGAIN = 3.0
"""Seconds after which a stop that nothing came of is asked for again."""

_insisting: list[_Handler] = []


def stop_at_once(kept: str = "") -> dict[int, _Handler]:
    """From now on, end as soon as one of `STOP_SIGNALS` or Ctrl-C comes; what was there before, by number.

    What a handler raises can be lost: C code that imports a module clears the error and goes on (NumPy and OpenCV do).
    So it is raised again until the block, or the process, has ended. Processes that are forked from this one, as a
    loader's workers are, leave the signals to it.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            return
        if hasattr(signal, "setitimer"):
            again: _Handler = lambda alarm, frame: stop(number, frame)  # noqa: E731
            _insisting[:] = [again]
            signal.signal(signal.SIGALRM, again)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt(_stopped_by("Ctrl-C", kept))
        raise Stopped(_stopped_by(signal.Signals(number).name, kept))

    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, stop) for number in (*STOP_SIGNALS, signal.SIGINT)}


def _stopped_by(name: str, kept: str) -> str:
    return f"stopped by {name}; {kept + ', ' if kept else ''}run the same command again"
