"""Which engine spreads work over workers: processes of this machine, or a Dask cluster (``monai-simclr[cluster]``)."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.runtime.spread import ProcessWorkers, WorkerLostError, exchange_in_process, pack, unpack_answer

logger = logging.getLogger("monai_simclr.runtime")

ENVIRONMENT = "DASK_SCHEDULER_ADDRESS"
_ADDRESS = re.compile(r"dask(\+tls)?://(local|\S+:\d+)")
_LOCAL = "dask://local"
_NOISY = ("distributed.client", "distributed.utils", "tornado.application")  # tracebacks when a scheduler ends
# idle workers of Dask look at their clocks 50 times a second and at their stacks 100 times
_QUIET = {"distributed.admin.tick.interval": "1s", "distributed.worker.profile.enabled": False}


def check_engine(engine: str) -> None:
    """Check the name of an engine before any work.

    Args:
        engine: as for `open_executor`.

    Raises:
        SettingError: if there is no such engine, or Dask is needed and not installed.

    Example:
        >>> check_engine("processes")
        >>> check_engine("spark://host:7077")
        Traceback (most recent call last):
        monai_simclr.runtime.exit_codes.SettingError: there is no engine 'spark://host:7077'; there are processes, ...
    """
    if engine not in ("", "processes") and not _ADDRESS.fullmatch(engine):
        raise SettingError(
            f"there is no engine {engine!r}; there are processes, dask://HOST:PORT, dask+tls://HOST:PORT and {_LOCAL}"
        )
    by_dask = engine != "processes" and (engine or os.environ.get(ENVIRONMENT))
    if by_dask and importlib.util.find_spec("distributed") is None:
        name = engine or f"the environment variable {ENVIRONMENT}"
        raise SettingError(f"{name} needs Dask, which is not installed: pip install 'monai-simclr[cluster]'")


def open_executor(engine: str = "", workers: int = 2) -> AbstractContextManager[Executor | None]:
    """What does work for `map_chunks`, until it is left.

    Args:
        engine: "processes" of this machine; a Dask scheduler as "dask://HOST:PORT", or "dask+tls://HOST:PORT" with the
            certificates of Dask's own configuration; "dask://local", a cluster in this process, to try it. With "", a
            scheduler that DASK_SCHEDULER_ADDRESS names (``tls://HOST:PORT``), otherwise processes.
        workers: processes of this machine; 0 works in this process, unless `engine` names a cluster.

    Raises:
        SettingError: as `check_engine` does.
        ConnectionError: if no scheduler answers.

    Example:
        >>> from monai_simclr.runtime.spread import map_chunks
        >>> with open_executor("processes", workers=1) as executor:
        ...     list(map_chunks(sorted, [[2, 1]], executor, blame=print))
        [1, 2]
    """
    check_engine(engine)
    if engine.startswith("dask"):
        return DaskWorkers(engine, workers)
    address = os.environ.get(ENVIRONMENT, "")
    if not workers:
        return nullcontext()
    return DaskWorkers(address, workers) if address and not engine else ProcessWorkers(workers)


class DaskWorkers(Executor):
    """The workers of a Dask cluster, however many there are at a time; each works through a process of its own.

    Dask tries the task of a worker that was lost again on another one; only what loses its worker four times raises.
    What is passed is bytes to the worker, which it does not unpack, so that its log has no path of an archive.

    Args:
        address: as `engine` of `open_executor`, or as Dask writes it.
        workers: number of processes of "dask://local".
    """

    in_flight = 1000  # also keeps workers busy that join later

    def __init__(self, address: str, workers: int = 2) -> None:
        import dask
        from distributed import Client

        self._address = address.removeprefix("dask+").replace("dask://", "tcp://")
        if self._address.startswith("tls://"):
            _check_certificates()
        self._levels = {log: log.level for log in map(logging.getLogger, _NOISY)}
        for log in self._levels:
            log.setLevel(logging.CRITICAL)
        own: dict[str, Any] = {"address": self._address}
        if address == _LOCAL:
            own = {
                "processes": False,
                "n_workers": 1,
                "threads_per_worker": max(1, workers),
                "dashboard_address": "127.0.0.1:0",
            }
        try:
            with dask.config.set(_QUIET):
                self._client = Client(**own, set_as_default=False)
        except OSError as error:
            self._restore_levels()
            raise ConnectionError(
                f"no Dask scheduler can be reached at {self._address} ({error}); is it running, and does it speak "
                f"{self._address.partition(':')[0]}?"
            ) from error
        counts = self._client.nthreads()
        logger.info(f"{len(counts)} Dask workers of {sum(counts.values())} threads at {self._address}")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function in a process of a worker; raises `WorkerLostError` where it, or four workers, ended."""
        result: Future[Any] = Future()
        # not by Dask's own executor: a worker that ends with a result that was just fetched makes its futures raise
        task = self._client.submit(exchange_in_process, pack((fn, args, kwargs)), pure=False)
        task.add_done_callback(lambda task: self._hand_on(task, result))
        result.add_done_callback(lambda result: task.cancel() if result.cancelled() else None)
        return result

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what is not done there is given up."""
        self._client.close()
        self._restore_levels()

    def _restore_levels(self) -> None:
        for log, level in self._levels.items():
            log.setLevel(level)

    def _hand_on(self, task: Any, result: Future[Any]) -> None:
        """Give the answer of Dask's future to ours, in Dask's thread for that."""
        if not result.set_running_or_notify_cancel():
            return
        try:
            answer = task.result()
        except BaseException as error:
            result.set_exception(self._failure(task, error))
            return
        try:
            result.set_result(unpack_answer(answer))
        except BaseException as error:  # what the function raised
            result.set_exception(error)

    def _failure(self, task: Any, error: BaseException) -> BaseException:
        """What to raise where Dask has no answer: what fails when a scheduler ends is of many kinds."""
        if type(error).__name__ == "KilledWorker":
            return WorkerLostError("its Dask workers were lost, by it or beside it")
        if task.status == "error":
            return error
        return ConnectionError(f"the Dask scheduler at {self._address} ended; start it and run the same command again")


def _check_certificates() -> None:
    """Raise unless Dask's configuration has the certificates of a client."""
    from distributed.security import Security

    try:
        if Security().get_connection_args("client").get("ssl_context"):
            return
        problem: object = "they are not set"
    except OSError as error:
        problem = error
    raise SettingError(
        f"dask+tls:// needs the certificates of a client in Dask's configuration ({problem}): set distributed.comm.tls."
        "ca-file, distributed.comm.tls.client.cert and .key, as docs/how-to/at-scale.md shows"
    )
