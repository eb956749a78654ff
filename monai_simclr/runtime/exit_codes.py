"""How a command ends: one exit code for each kind of error, and the last line on stderr."""

from __future__ import annotations

import errno

from monai_simclr.runtime.files import NoSpaceError, lacks_space
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.signals import Preempted, Stopped, stop_message

DATA = 3
"""Something is wrong with what was read: an archive, an index, a bundle, a file."""


class SettingError(ValueError):
    """A setting that does not exist, or has an impossible value: a user's mistake, detected before any work."""


EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, 130),
    (Preempted, 75),
    (Stopped, 75),
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
"""0 success; 1 a bug of ours; 2 usage (typer's own) or configuration; 3 data; 4 output folder; 5 numerical; 6
resources; 75 stopped by a signal of the cluster, the same command resumes (EX_TEMPFAIL of sysexits.h); 130 Ctrl-C.

The first match is an error's code."""

_SHARED_MEMORY = "shared memory (/dev/shm) is full; lower num_workers, or give the container more (--shm-size)"
_OTHER_RANK = "another rank ended; its own last line says why"
_RESOURCES = {
    **dict.fromkeys(
        ("unable to write to file </torch", "unable to open shared memory", "unable to mmap"), _SHARED_MEMORY
    ),
    "DataLoader worker": "killed, most often for lack of memory; lower num_workers or batch_size",
    "out of memory": "lower batch_size",
    **dict.fromkeys(
        ("Connection closed by peer", "Connection reset by peer", "Socket closed", "Read error"), _OTHER_RANK
    ),
    "Timed out waiting": "another rank ended or hangs; its own last line says why",
    "Wait timeout": "another rank did not come; its own last line says why",
    "NCCL": "another rank ended, or the network between GPUs failed",
}
"""torch has one `RuntimeError` for many things: words of those that mean a lack of resources, and what to do."""

_OTHER_VERSION = (
    "the config asks for what this monai_simclr does not have: a slip in it, or the bundle was copied from another "
    "version; make a new one with monai-simclr bundle, and move the old one's models there"
)
_UNKNOWN_KEY = "query key: "


def root_cause(error: BaseException) -> BaseException:
    """The error behind the `RuntimeError` that MONAI's config parser wraps around everything.

    Example:
        >>> wrapped = RuntimeError("Failed to evaluate ConfigExpression")
        >>> wrapped.__cause__ = ValueError("no image is in the split 'test'")
        >>> root_cause(wrapped)
        ValueError("no image is in the split 'test'")
    """
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def exit_code(error: BaseException) -> int:
    """The exit code of an error.

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
    """The last line on stderr: the error's message, or that it is a bug of ours.

    Example:
        >>> format_error(ValueError("the index has no rows"))
        'ValueError: the index has no rows'
        >>> format_error(KeyboardInterrupt())
        'stopped by Ctrl-C; run the same command again'
    """
    root = root_cause(error)
    message, name = str(root).strip(), type(root).__name__
    bug = "; this is a bug of ours, please report it with the traceback" if exit_code(root) == 1 else ""
    first = message.splitlines()[0] if message else "nothing more is known"
    if _is_of_another_version(error):
        line = f"{name}: {message.rstrip('.')}; {_OTHER_VERSION}"
    elif isinstance(root, KeyboardInterrupt | Preempted | Stopped):
        line = str(root) or stop_message()
    elif _is_unknown_key(root):
        guess = str(root.__cause__).split("?", maxsplit=1)[0]
        hint = f"; {guess[0].lower()}{guess[1:]}?" if "did you mean" in guess else ""
        line = f"SettingError: the config has no part {root.args[0].removeprefix(_UNKNOWN_KEY)!r}{hint}"
    elif "DataLoader worker process" in message:  # torch puts the worker's whole traceback into the message
        line = message.splitlines()[-1] + bug
    elif remedy := _remedy(root):
        line = f"{name}: {first}; {remedy}"
    elif isinstance(root, Exception) and lacks_space(root) and not isinstance(root, NoSpaceError):
        line = f"{name}: {first}; a disk is full: make room and run the same command again"
    else:
        line = f"{name}: {message}{bug}"
    return shown(line)


def _is_unknown_key(error: BaseException) -> bool:
    """Whether an override is below a part that the config does not have: MONAI's own words, before any step of ours."""
    return type(error) is KeyError and str(error.args[0]).startswith(_UNKNOWN_KEY) and error.__cause__ is not None


def _is_of_another_version(error: BaseException) -> bool:
    """Whether a config names a part, or an argument of a part, that does not exist (MONAI's own words)."""
    root = root_cause(error)
    if isinstance(root, ModuleNotFoundError):
        return "Cannot locate class or function path" in str(root)
    asked, _, named = str(root).partition("got an unexpected keyword argument ")
    keywords = str(error).partition("\n")[0].partition("with keywords: ")[2]
    return isinstance(root, TypeError) and bool(asked and named) and named.strip("'") in keywords.split(",")


def _remedy(error: BaseException) -> str:
    """What to do about an error of torch that means a lack of resources; "" for any other error."""
    if not isinstance(error, RuntimeError) or "in DataLoader worker process" in str(error):
        return ""
    return next((remedy for words, remedy in _RESOURCES.items() if words in str(error)), "")
