"""A real Dask cluster for tests: scheduler and workers are processes, and all they say goes through TLS."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A worker whose processes do what the file of the image's name in $DEEDS says, before they read the image.
SERVE = """
import os, signal, time
from monai_simclr.data import reading
from monai_simclr.runtime import spread
real = reading.read_radiograph
def read_radiograph(path, *settings):
    for name in ('every', os.path.basename(path)):
        deed = os.path.join(os.environ['DEEDS'], name)
        if os.path.exists(deed):
            exec(open(deed).read())
    return real(path, *settings)
reading.read_radiograph = read_radiograph
spread.serve()
"""
_WORKER = f"""
from monai_simclr.runtime import spread
spread._SERVE = "exec(" + repr({SERVE!r}) + ")"
from distributed.cli.dask_worker import main
main()
"""


class DaskCluster:
    """Scheduler and workers of one thread each; a worker that is lost ends every task that it had, at once.

    Args:
        folder: for certificates, logs and deeds.
        workers: that are started with it.
        settings: of Dask's configuration, as names of environment variables without DASK_DISTRIBUTED.
    """

    def __init__(self, folder: Path, workers: int = 3, **settings: str) -> None:
        pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl to make certificates with")
        self.folder, self.deeds, self.processes = folder, folder / "deeds", list[subprocess.Popen[bytes]]()
        self.deeds.mkdir(parents=True)
        key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        tls = {"CA_FILE": certificate}
        for role in ("SCHEDULER", "WORKER", "CLIENT"):
            tls |= {f"{role}__KEY": key, f"{role}__CERT": certificate}
        common = {
            **{f"COMM__TLS__{name}": value for name, value in tls.items()},
            "COMM__REQUIRE_ENCRYPTION": "true",
            "COMM__TIMEOUTS__CONNECT": "3s",
            "ADMIN__TICK__INTERVAL": "1s",
            "WORKER__PROFILE__ENABLED": "false",
            **settings,
        }
        self.environment = {f"DASK_DISTRIBUTED__{name}": value for name, value in common.items()}
        self.engine = f"dask+tls://127.0.0.1:{self.port}"
        self.scheduler = self.start_scheduler()
        for _ in range(workers):
            self.start_worker()

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        place = ["--host", "127.0.0.1", "--protocol", "tls", "--port", str(self.port)]
        self.scheduler = self._start("-m", "distributed.cli.dask_scheduler", *place, "--no-dashboard")
        return self.scheduler

    def start_worker(self) -> subprocess.Popen[bytes]:
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder)]
        return self._start("-c", _WORKER, f"tls://127.0.0.1:{self.port}", *options)

    def do(self, image: str, code: str) -> None:
        """Let decoding processes run a line of code before an image of this name, or before "every"."""
        (self.deeds / image).write_text(code)

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{len(self.processes)}.log", "wb") as log:
            environment = {**os.environ, **self.environment, "DEEDS": str(self.deeds)}
            process = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        return process


def await_lines(journal: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Wait until a journal has so many lines."""
    end = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < end:
        if journal.is_file() and journal.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    raise AssertionError(f"no {lines} lines in {journal}: {process.communicate()}")
