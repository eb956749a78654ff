"""How a command ends: one exit code for each kind of error, and the sentence that stands last on stderr."""

from __future__ import annotations

from monai_simclr.names import shown

__all__ = ["EXIT_CODES", "INTERRUPTED", "PREEMPTED", "Preempted", "SettingError", "exit_code", "last_line", "root_of"]

PREEMPTED = 75
"""Stopped by SIGTERM after saving; the same command goes on (EX_TEMPFAIL of sysexits.h)."""

INTERRUPTED = 130
"""Stopped by Ctrl-C, after saving in a training run."""


class Preempted(Exception):  # noqa: N818 (an answer to a request, no error)
    """The run was asked to stop by SIGTERM, as clusters do, and has saved."""


class SettingError(ValueError):
    """A setting that does not exist, or has a value that it cannot have: the user's slip, found before any work."""


EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, INTERRUPTED),
    (Preempted, PREEMPTED),
    (FileExistsError, 4),
    (PermissionError, 4),
    (FloatingPointError, 5),
    (SettingError, 2),
    (MemoryError, 6),
    (FileNotFoundError, 3),
    (NotADirectoryError, 3),
    (ValueError, 3),
    (OSError, 6),
)
"""0 done; 1 our bug; 2 usage (typer's own) or configuration; 3 data; 4 output folder; 5 numerical; 6 resources.

The first that fits an error is its code."""

_RESOURCES = (
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


def root_of(error: BaseException) -> BaseException:
    """The error behind the `RuntimeError` that MONAI's config parser wraps around everything.

    Example:
        >>> try:
        ...     try:
        ...         raise ValueError("no image is in the split 'test'")
        ...     except ValueError as inner:
        ...         raise RuntimeError("Failed to evaluate ConfigExpression") from inner
        ... except RuntimeError as wrapped:
        ...     root_of(wrapped)
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
    root = root_of(error)
    if _remedy(root):
        return 6
    if _is_unknown_key(root):
        return 2
    if _is_of_another_version(error):
        return 3
    return next((code for kind, code in EXIT_CODES if isinstance(root, kind)), 1)


def last_line(error: BaseException) -> str:
    """What stands last on stderr, on one line: the error's sentence, or that it is a bug of ours.

    Example:
        >>> last_line(ValueError("the index has no rows"))
        'ValueError: the index has no rows'
        >>> last_line(KeyboardInterrupt())
        'stopped by Ctrl-C; run the same command again'
    """
    return shown(_sentence(error))


def _sentence(error: BaseException) -> str:
    if _is_of_another_version(error):
        return f"{type(root_of(error)).__name__}: {str(root_of(error)).strip().rstrip('.')}; {_OTHER_VERSION}"
    error = root_of(error)
    if _is_unknown_key(error):
        guess = str(error.__cause__).split("?", maxsplit=1)[0]
        hint = f"; {guess[0].lower()}{guess[1:]}?" if "did you mean" in guess else ""
        return f"SettingError: the config has no part {error.args[0].removeprefix(_NO_KEY)!r}{hint}"
    if isinstance(error, KeyboardInterrupt | Preempted):
        return str(error) or "stopped by Ctrl-C; run the same command again"
    sentence = str(error).strip()
    if "DataLoader worker process" in sentence:  # torch puts the worker's whole traceback into the message
        sentence = sentence.splitlines()[-1]
        return sentence + _hint(error)
    if remedy := _remedy(error):
        return f"{type(error).__name__}: {sentence.splitlines()[0]}; {remedy}"
    return f"{type(error).__name__}: {sentence}{_hint(error)}"


_NO_KEY = "query key: "


def _is_unknown_key(error: BaseException) -> bool:
    """Whether an override is for a part that the config does not have: MONAI's words, before any step of ours."""
    return type(error) is KeyError and str(error.args[0]).startswith(_NO_KEY) and error.__cause__ is not None


def _is_of_another_version(error: BaseException) -> bool:
    """Whether a config names a part, or an argument of a part, that is not there (MONAI's own words)."""
    root = root_of(error)
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
