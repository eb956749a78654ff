"""Processes that decode: plain Python processes of `decoding.serve`, each with a thread here that feeds it.

Not `multiprocessing`: its processes import the main module again, which is torch and MONAI in a training script and an
endless loop in a script without ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from queue import SimpleQueue
from typing import Any

from monai_simclr.data.decoding import PixelFile, Record, file_identity
from monai_simclr.runtime.names import shown

TIME_LIMIT = 300.0
"""Seconds that one image may take before its process is ended and the image rejected."""

_CHUNK = 8  # images that a process is given at a time, so that it never waits for the next
_SERVE = "from monai_simclr.data.decoding import serve; serve()"
_FAULTS = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"}


def decoded(tasks: Iterable[tuple[int, str]], start: dict[str, Any], workers: int) -> Iterator[Record]:
    """Decode images, in no order.

    Args:
        tasks: rows and paths.
        start: arguments of `PixelFile`.
        workers: processes; 0 decodes in this one.

    Yields:
        One record an image, when its pixels are written.

    Raises:
        ChildProcessError: if a process dies twice on one image without a fault of its own (out of memory, killed).
        OSError: if the pixels cannot be written.
    """
    if workers == 0:
        target = PixelFile(**start)
        try:
            for row, path in tasks:
                yield target.decode(row, path)
        finally:
            target.close()
        return
    pool = _Pool(iter(tasks), start)
    threads = [threading.Thread(target=pool.feed, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield from pool.results(len(threads))
    finally:
        pool.stop()
        for thread in threads:
            thread.join()


class _Pool:
    """What the feeding threads share: the tasks that are left, the processes, and where results go."""

    def __init__(self, tasks: Iterator[tuple[int, str]], start: dict[str, Any]) -> None:
        self.tasks, self.start = tasks, start
        self.found: SimpleQueue[Record | BaseException | None] = SimpleQueue()
        self.lock, self.stopped = threading.Lock(), False
        self.processes: set[_Process] = set()

    def results(self, threads: int) -> Iterator[Record]:
        """Records until every thread has ended; an error of a thread is raised here."""
        while threads:
            item = self.found.get()
            if item is None:
                threads -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    def feed(self) -> None:
        """Run one process until no task is left (the work of one thread)."""
        try:
            self._feed()
        except BaseException as error:
            self.found.put(error)
        finally:
            self.found.put(None)

    def stop(self) -> None:
        """End all processes now."""
        with self.lock:
            self.stopped = True
            for process in self.processes:
                process.kill()

    def _feed(self) -> None:
        again: set[int] = set()
        waiting: deque[tuple[int, str]] = deque()
        process: _Process | None = None
        try:
            while not self.stopped:
                if not waiting:
                    waiting.extend(self._next())
                if not waiting:
                    return
                process = process or self._begin()
                if self._work(process, waiting):
                    continue
                ended, process = process, None
                self._end(ended)
                if not self.stopped:
                    self._blame(ended, waiting, again)
        finally:
            if process is not None:
                self._end(process)

    def _next(self) -> list[tuple[int, str]]:
        with self.lock:
            return list(islice(self.tasks, _CHUNK))

    def _begin(self) -> _Process:
        with self.lock:
            process = _Process(self.start)
            self.processes.add(process)
            if self.stopped:
                process.kill()
            return process

    def _end(self, process: _Process) -> None:
        process.close()
        with self.lock:
            self.processes.discard(process)

    def _work(self, process: _Process, waiting: deque[tuple[int, str]]) -> bool:
        """Whether the process answered for all that was waiting; what it has answered for is taken out."""
        if not process.send(list(waiting)):
            return False
        while waiting:
            record = process.receive()
            if record is None:
                return False
            self.found.put(record)
            waiting.popleft()
        return True

    def _blame(self, process: _Process, waiting: deque[tuple[int, str]], again: set[int]) -> None:
        """Say what the first image that was not answered for has done to the process, and go on without it."""
        row, path = waiting[0]
        how = process.ending()
        if how in _FAULTS or how == "SIGALRM":
            reason = f"took longer than {TIME_LIMIT:.0f} s" if how == "SIGALRM" else f"ended the decoder by {how}"
            self.found.put(Record(row, *file_identity(path), "", -1, reason))
            waiting.popleft()
        elif row in again:
            raise ChildProcessError(
                f"a decoding process ended twice at {shown(path)} ({how}{process.stderr_tail}); is there enough "
                f"memory? Run the same command again, with fewer workers"
            )
        again.add(row)


class _Process:
    """One process of `decoding.serve`."""

    def __init__(self, start: dict[str, Any]) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.stderr_tail = ""
        code = f"import sys; sys.path[:] = {sys.path!r}; {_SERVE}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.send([{**start, "seconds": TIME_LIMIT}])

    def receive(self) -> Record | None:
        """The next record, None when the process has ended.

        Raises:
            OSError, MemoryError, RuntimeError: what the process says that went wrong.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        answer = json.loads(line)
        if isinstance(answer, list):
            return Record(*answer)
        if answer["kind"] == "OSError":
            raise OSError(answer["errno"], answer["text"])
        raise MemoryError(answer["text"]) if answer["kind"] == "MemoryError" else RuntimeError(answer["text"])

    def kill(self) -> None:
        """End it now."""
        with suppress(OSError):
            self.process.kill()

    def close(self) -> None:
        """Let it end: its stdin is over. What it said last on stderr is for the sentence of an error."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.process.wait()
        self.errors.seek(0)
        said = [line for line in self.errors.read()[-4000:].decode(errors="replace").split("\n") if line.strip()]
        self.stderr_tail = f": {said[-1]}" if said else ""
        self.errors.close()

    def ending(self) -> str:
        """How it ended: a signal's name, or its exit status."""
        status = self.process.returncode
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def send(self, messages: list[Any]) -> bool:
        """Hand it its settings, then tasks; whether it took them."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
            self.process.stdin.flush()
        except OSError:
            return False
        return True
