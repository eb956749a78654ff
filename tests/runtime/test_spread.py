"""Work on chunks of items: every item has one result, whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from monai_simclr.runtime.spread import ProcessWorkers, WorkerLostError, map_chunks

CHUNKS = [[1, 2, 3], [4], [5, 6]]


def _square(chunk, at=0, deed=None, once=None):
    """Squares; at one item, something bad happens, or happens only the first time."""
    for item in chunk:
        if item == at and not (once and os.path.exists(once)):
            if once:
                Path(once).touch()
            deed()
        yield item * item


def _end_by(number):
    os.kill(os.getpid(), number)


def _fail(error):
    raise error


def _blame(item, error):
    return f"{item}: {error}"


@pytest.mark.parametrize("in_flight", [1, 8])
def test_every_item_has_one_result_with_any_executor(in_flight):
    squares = [1, 4, 9, 16, 25, 36]
    assert list(map_chunks(_square, CHUNKS, None, _blame)) == squares
    for kind in (ThreadPoolExecutor, ProcessWorkers):
        with kind(2) as executor:
            assert sorted(map_chunks(_square, CHUNKS, executor, _blame, in_flight)) == squares


def test_a_worker_that_is_killed_once_costs_nothing(tmp_path):
    work = partial(_square, at=2, deed=partial(_end_by, signal.SIGKILL), once=str(tmp_path / "once"))
    with ProcessWorkers(2) as executor:
        assert sorted(map_chunks(work, CHUNKS, executor, _blame)) == [1, 4, 9, 16, 25, 36]


_DRIVER = """
import os, sys, time
from monai_simclr.runtime.spread import ProcessWorkers
with ProcessWorkers(1) as executor:
    print(executor.submit(os.getpid).result(), flush=True)
    executor.submit(time.sleep, 600).result()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are looked up in /proc")
def test_a_worker_ends_with_the_process_that_started_it_in_the_middle_of_its_work():
    driver = subprocess.Popen([sys.executable, "-c", _DRIVER], stdout=subprocess.PIPE, text=True)
    worker = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{worker}/stat").read_text().split()[2]
        except OSError:
            return
        if state == "Z":  # nobody collects it in a container without an init
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker outlived its driver")


def test_only_the_item_that_ends_its_worker_is_to_blame():
    work = partial(_square, at=2, deed=partial(_end_by, signal.SIGSEGV))
    with ProcessWorkers(2) as executor:
        assert set(map_chunks(work, CHUNKS, executor, _blame)) == {1, 9, 16, 25, 36, "2: SIGSEGV"}


def test_an_item_that_takes_too_long_ends_its_worker():
    work = partial(_square, at=4, deed=partial(time.sleep, 60))
    with ProcessWorkers(2) as executor:
        found = set(map_chunks(work, CHUNKS, executor, _blame, time_limit=1.0))
    assert found == {1, 4, 9, 25, 36, "4: SIGALRM"}


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(28, "No space left on device"), OSError, r"\[Errno 28\] No space left on device"),
        (MemoryError("no room"), MemoryError, "no room"),
        (KeyError("a bug"), RuntimeError, r"(?s)Traceback .*_fail.*KeyError: 'a bug'"),
    ],
)
def test_an_error_in_a_process_is_raised_here(error, kind, text):
    with ProcessWorkers(1) as executor, pytest.raises(kind, match=text):
        list(map_chunks(partial(_square, at=5, deed=partial(_fail, error)), CHUNKS, executor, _blame))


def test_chunks_are_read_only_as_far_as_they_are_needed():
    read = []
    endless = (read.append(number) or [number] for number in range(1, 1000))
    with ThreadPoolExecutor(2) as executor:
        results = map_chunks(_square, endless, executor, _blame, in_flight=3)
        next(results)
        results.close()
    assert len(read) <= 4


class _KilledWorkerError(Exception):
    """As `distributed.KilledWorker`, which is not a `BrokenExecutor`."""


class _Losing(Executor):
    """Loses every call of an item in its own words."""

    def __init__(self, item):
        self.item = item

    def submit(self, fn, /, *arguments):
        future = Future()
        if self.item in arguments[1]:
            future.set_exception(_KilledWorkerError("worker-3"))
        else:
            future.set_result(fn(*arguments))
        return future


def test_an_executor_may_lose_workers_in_its_own_words():
    found = set(map_chunks(_square, CHUNKS, _Losing(6), _blame, lost=_KilledWorkerError))
    assert found == {1, 4, 9, 16, 25, "6: worker-3"}
    with pytest.raises(_KilledWorkerError):
        list(map_chunks(_square, CHUNKS, _Losing(6), _blame))


def test_leaving_by_an_error_ends_the_processes_at_once():
    started = time.monotonic()
    executor = ProcessWorkers(1)
    future = executor.submit(time.sleep, 60)
    time.sleep(0.5)
    with pytest.raises(KeyboardInterrupt), executor:
        raise KeyboardInterrupt
    assert time.monotonic() - started < 20
    assert isinstance(future.exception(), WorkerLostError)
