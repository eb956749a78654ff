"""How a command ends: one exit code for each kind of error, and the sentence that stands last on stderr."""

from __future__ import annotations

__all__ = ["EXIT_CODES", "INTERRUPTED", "PREEMPTED", "exit_code", "last_line", "root_of"]

PREEMPTED = 75
"""Stopped by SIGTERM after saving; the same command goes on (EX_TEMPFAIL of sysexits.h)."""

INTERRUPTED = 130
"""Stopped by Ctrl-C."""

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, INTERRUPTED),
    (FileExistsError, 4),
    (PermissionError, 4),
    (FloatingPointError, 5),
    (MemoryError, 6),
    (FileNotFoundError, 3),
    (NotADirectoryError, 3),
    (ValueError, 3),
    (OSError, 6),
)
"""0 done; 1 our bug; 2 usage (typer's own); 3 data; 4 output folder; 5 numerical; 6 resources; the first that fits."""


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
    """
    return next((code for kind, code in EXIT_CODES if isinstance(root_of(error), kind)), 1)


def last_line(error: BaseException) -> str:
    """What stands last on stderr: the error's sentence, or that it is a bug of ours.

    Example:
        >>> last_line(ValueError("the index has no rows"))
        'ValueError: the index has no rows'
        >>> last_line(KeyboardInterrupt())
        'stopped by Ctrl-C; run the same command again'
    """
    error = root_of(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C; run the same command again"
    hint = "" if exit_code(error) != 1 else "; this is a bug of ours, please report it with the traceback"
    return f"{type(error).__name__}: {error}{hint}"
