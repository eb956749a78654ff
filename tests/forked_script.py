"""A script in a fork of this process, which has imported MONAI already: a new process needs seconds for that."""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path


def run_forked(script: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Like ``subprocess.run([sys.executable, script, ...], capture_output=True, text=True)``.

    Args:
        script: to run as ``__main__``.
        folder: for the files that hold what is printed.
        arguments: of the script.
    """
    printed = [folder / "stdout", folder / "stderr"]
    child = os.fork()
    if not child:
        _be(script, printed, arguments)
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:  # a time limit
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    said = [path.read_text(encoding="utf-8", errors="backslashreplace") for path in printed]
    return subprocess.CompletedProcess([str(script), *arguments], code, *said)


def _be(script: Path, printed: list[Path], arguments: tuple[str, ...]) -> None:
    code = 1
    try:
        for number, path in enumerate(printed, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        sys.argv = [str(script), *arguments]
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
