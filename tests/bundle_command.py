"""The command line of a bundle's config, as a user types it; by torchrun where there are several ranks.

A process that imports MONAI needs seconds before it does anything. `Forked` runs a command in a fork of a process that
has made its imports, with its own exit code, signals and output; a few tests start new processes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_EVERYTHING = """
import pkgutil
import monai.bundle, monai_simclr
for module in pkgutil.walk_packages(monai_simclr.__path__, "monai_simclr."):
    if not module.name.startswith(("monai_simclr.__main__", "monai_simclr.cli", "monai_simclr.bundles")):
        __import__(module.name)
"""
STORE = "import monai_simclr.cli.app, monai_simclr.cli.store, monai_simclr.data, monai_simclr.data.store"
"""What ``monai-simclr store`` imports, for `Forked`."""
_SERVER = """
import gc, json, os, runpy, signal, sys
sys.path.append(sys.argv[1])
exec(sys.argv[2])
gc.set_threshold(20_000, 20, 20)
gc.freeze()  # else the last collection of each fork, of all that is imported, is 2 s of its time
print("ready", flush=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
for line in sys.stdin:
    if os.fork():
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    call = json.loads(line)
    if child := os.fork():
        print(child, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with open(call["ended"] + ".part", "w") as file:
            file.write(str(code))
        os.rename(call["ended"] + ".part", call["ended"])
        os._exit(0)
    os.setsid()
    for number, path in enumerate((os.devnull, call["stdout"], call["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY), number)
    os.chdir(call["folder"])
    os.environ.update(call["environment"])
    sys.argv = call["words"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    break
"""


def bundle_command(config: str, *more: str, ranks: int = 1, launcher: str = "torch.distributed.run") -> list[str]:
    launch = ["-m", launcher, "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    return [sys.executable, "-W", "ignore", *launch, "-m", "monai.bundle", "run", "--config_file", config, *more]


@functools.cache
def _server(imports: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "ignore", "-c", _SERVER, str(Path(__file__).parent), imports]
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


class Forked:
    """``python -W ignore -m MODULE ...`` in a fork of a process that has made its imports; like a `subprocess.Popen`.

    Attributes:
        pid: of the command, and of its process group.
        returncode: None until `communicate` has returned.
    """

    def __init__(
        self, folder: Path, output: Path, command: list[str], *, imports: str = _EVERYTHING, **environment: str
    ) -> None:
        """Args: the folder to be in, a new or empty one for what is printed, a command, its imports, more variables."""
        output.mkdir(exist_ok=True)
        self._printed, self._ended = [output / "stdout", output / "stderr"], output / "ended"
        self._ended.unlink(missing_ok=True)
        call: dict[str, Any] = dict(zip(("stdout", "stderr"), map(str, self._printed), strict=True))
        words = command[command.index("-m") + 1 :]
        call |= {"folder": str(folder), "environment": environment, "words": words, "ended": str(self._ended)}
        server = _server(imports)
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps(call), file=server.stdin, flush=True)
        self.returncode: int | None = None
        self.pid = int(server.stdout.readline())

    def poll(self) -> int | None:
        """None while it runs."""
        if self.returncode is None and self._ended.exists():
            self.returncode = int(self._ended.read_text())
        return self.returncode

    def communicate(self, timeout: float = 600.0) -> tuple[str, str]:
        """Wait for the end; what was printed to stdout and stderr."""
        end = time.monotonic() + timeout
        try:
            while self.poll() is None:
                if time.monotonic() > end:
                    raise subprocess.TimeoutExpired(str(self._printed[0].parent), timeout)
                time.sleep(0.005)
        except BaseException:
            self.kill()
            raise
        there = [path.read_bytes() if path.exists() else b"" for path in self._printed]  # not if killed that early
        said = [content.decode("utf-8", "backslashreplace") for content in there]
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """To the command alone, not to what it started."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and what it started, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
