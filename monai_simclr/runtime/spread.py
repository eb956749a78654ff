"""The same work on many items, spread over workers behind the interface of `concurrent.futures.Executor`.

Calls and results are pickled as `multiprocessing` does it, between a process and its own children, or by a cluster that
the user names (`runtime/cluster.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import IO, Any

from monai_simclr.runtime.names import shown
from monai_simclr.runtime.signals import STOP_SIGNALS

_SERVE = "from monai_simclr.runtime.spread import serve; serve()"
_FAULTS = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}


class WorkerLostError(BrokenExecutor):
    """A worker process ended before it answered.

    Attributes:
        ending: the signal's name, as "SIGSEGV", or the exit status.
    """

    def __init__(self, ending: str, last_line: str = "") -> None:
        super().__init__(f"{ending}: {last_line}" if last_line else ending)
        self.ending, self.last_line = ending, last_line

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerLostError, (self.ending, self.last_line)


def map_chunks(
    work: Callable[[Sequence[Any]], Iterable[Any]],
    chunks: Iterable[Sequence[Any]],
    executor: Executor | None,
    blame: Callable[[Any, BaseException], Any],
    in_flight: int = 0,
    time_limit: float = 0.0,
    lost: type[BaseException] | tuple[type[BaseException], ...] = BrokenExecutor,
) -> Iterator[Any]:
    """Do `work` on chunks of items; results come as they are completed, in no order.

    A chunk whose worker was lost is submitted again, each of its items alone; an item that loses its worker once more
    is to blame. So a worker that was killed costs nothing, and a file that crashes its decoder costs only itself.

    Args:
        work: gives one result an item, in order; it can be pickled and is not defined in ``__main__``.
        chunks: items that one worker takes at a time; read as far as they are needed.
        executor: replaces lost workers by itself, as `ProcessWorkers` and Dask do; None works in this process.
        blame: makes the result of an item that lost its worker twice, or raises.
        in_flight: chunks that are submitted at a time; 0 for the executor's own `in_flight`, or 8.
        time_limit: seconds an item, after which SIGALRM ends the worker; 0 for no limit, as in this process.
        lost: what a future of the executor raises when its worker was lost.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor() as executor:
        ...     sorted(map_chunks(lambda chunk: [x * x for x in chunk], [[1, 2], [3]], executor, blame=print))
        [1, 4, 9]
    """
    if executor is None:
        for chunk in chunks:
            yield from work(chunk)
        return
    new: Iterator[tuple[Sequence[Any], bool]] = ((chunk, False) for chunk in chunks)
    again: deque[tuple[Sequence[Any], bool]] = deque()
    running: dict[Future[list[Any]], tuple[Sequence[Any], bool]] = {}
    done: SimpleQueue[Future[list[Any]]] = SimpleQueue()
    in_flight = in_flight or getattr(executor, "in_flight", 8)
    try:
        while True:
            while len(running) < in_flight and (task := again.popleft() if again else next(new, None)):
                future = executor.submit(_work, work, task[0], time_limit)
                running[future] = task
                future.add_done_callback(done.put)
            if not running:
                return
            future = done.get()
            chunk, is_second = running.pop(future)
            try:
                yield from future.result()
            except lost as error:
                if is_second:
                    yield blame(chunk[0], error)
                else:
                    again.extend(([item], True) for item in chunk)
    finally:
        for future in running:
            future.cancel()


def reason_of_loss(error: BaseException, path: str, time_limit: float) -> str:
    """What a file did to the process that read it, for its row.

    Args:
        error: as the `blame` of `map_chunks` gets it.
        path: of the file.
        time_limit: seconds, as `map_chunks` was given them.

    Raises:
        ChildProcessError: if the process was killed from outside.

    Example:
        >>> reason_of_loss(WorkerLostError("SIGSEGV"), "a.dcm", 300.0)
        'ended the decoder by SIGSEGV'
    """
    ending = error.ending if isinstance(error, WorkerLostError) else str(error)
    if ending == "SIGALRM":
        return f"took longer than {time_limit:.0f} s"
    if ending in _FAULTS:
        return f"ended the decoder by {ending}"
    raise ChildProcessError(
        f"a decoding process ended twice at {shown(path)} ({error}); is there enough memory? Run the same command "
        "again, with fewer workers"
    ) from error


def _work(work: Callable[[Sequence[Any]], Iterable[Any]], chunk: Sequence[Any], time_limit: float) -> list[Any]:
    """In a worker: the results of a chunk, with an alarm for each item."""
    if not time_limit:
        return list(work(chunk))
    results = []
    try:
        _alarm(time_limit)
        for result in work(chunk):
            results.append(result)
            _alarm(time_limit)
    finally:
        _alarm(0)
    return results


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


class ProcessWorkers(ThreadPoolExecutor):
    """Plain Python processes of one thread each, which a crash of one does not harm; a lost one is replaced.

    Not `multiprocessing`: its processes import the main module again, which is torch and MONAI in a training script
    and an endless loop in a script without ``if __name__ == "__main__"``. A process here imports what its work needs.

    Args:
        workers: number of processes; each is started when there is work for it.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.in_flight = 2 * workers
        self._of_thread = threading.local()
        self._processes: set[_Process] = set()
        self._guard, self._killed = threading.Lock(), False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function in a process; `WorkerLostError` is raised by the future of a process that ended."""
        return super().submit(self._call, (fn, args, kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with `cancel_futures` at once, whatever they are doing."""
        if cancel_futures:
            with self._guard:
                self._killed = True
                for process in self._processes:
                    process.kill()
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            for process in self._processes:
                process.close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.shutdown(cancel_futures=kind is not None)

    def _call(self, call: tuple[Any, ...]) -> Any:
        process = getattr(self._of_thread, "process", None)
        if process is None or process.ended:
            with self._guard:
                process = self._of_thread.process = _Process()
                self._processes.add(process)
                if self._killed:
                    process.kill()
        try:
            return process.call(call)
        finally:
            if process.ended:
                with self._guard:
                    self._processes.discard(process)


class _Process:
    """One process of `serve`."""

    def __init__(self) -> None:
        self.ended = False
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {_SERVE}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **_ONE_THREAD},
        )

    def call(self, call: tuple[Any, ...]) -> Any:
        """The result of a function, its args and keywords; raises what it raised, or `WorkerLostError`."""
        return unpack_answer(self.exchange(pack(call)))

    def exchange(self, call: bytes) -> bytes:
        """The answer to a call, both as they go through the pipes; raises `WorkerLostError`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            _send(self.process.stdin, call)
            return _receive(self.process.stdout)
        except (OSError, EOFError):
            raise self.close() from None

    def kill(self) -> None:
        with suppress(OSError):
            self.process.kill()

    def close(self) -> WorkerLostError:
        """Let it end, since its stdin is over; how it ended, with the last line that it wrote to stderr."""
        self.ended = True
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read()[-4000:].decode(errors="replace").split("\n")
        self.errors.close()
        last_line = next((line for line in reversed(lines) if line.strip()), "")
        return WorkerLostError(signal.Signals(-status).name if status < 0 else f"exit status {status}", last_line)


_OF_THREAD = threading.local()


def exchange_in_process(call: bytes) -> bytes:
    """In a worker of another engine: the answer to a call by a process of this thread's own.

    So a crash of a decoder ends that process and not the worker, and the worker answers its scheduler meanwhile.

    Args:
        call: a function, its args and its keywords by `pack`.

    Returns:
        For `unpack_answer`.
    """
    process: _Process | None = getattr(_OF_THREAD, "process", None)
    if process is None or process.ended:
        process = _OF_THREAD.process = _Process()
    try:
        return process.exchange(call)
    except WorkerLostError as error:
        return pack((error, None))


def serve() -> None:
    """Be a process of `ProcessWorkers`: calls come on stdin, results go to stdout.

    It ends when stdin does, and within a second of the process that started it, also in the middle of a call. What
    libraries print goes to stderr. Ctrl-C, SIGTERM and SIGUSR1 are left to the process that started it.
    """
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    answer: tuple[BaseException | None, Any]
    with suppress(EOFError, BrokenPipeError):
        while True:
            function, args, kwargs = ForkingPickler.loads(_receive(sys.stdin.buffer))
            try:
                answer = None, function(*args, **kwargs)
            except (OSError, MemoryError) as error:
                answer = error, None
            except Exception:
                answer = RuntimeError(traceback.format_exc()), None
            _send(answers, pack(answer))
    sys.stderr.flush()
    os._exit(0)  # a regular end takes apart all that is imported: two seconds of a worker that has MONAI


def _end_with(parent: int) -> None:
    """End this process when the one that started it has ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def pack(message: Any) -> bytes:
    """A call or an answer as bytes."""
    return bytes(ForkingPickler.dumps(message))


def unpack_answer(content: bytes) -> Any:
    """The result of a call; raises what the call raised."""
    error, result = ForkingPickler.loads(content)
    if error is not None:
        raise error
    return result


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(8, "little") + content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """The next message; raises EOFError where the other process ended, also within a message."""
    length = int.from_bytes(pipe.read(8), "little")
    content = pipe.read(length)
    if not length or len(content) < length:
        raise EOFError
    return content
