"""Run tasks on a Ray cluster: many machines, or this one."""

import importlib.util
import logging
import math
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from mimic_wds.executors.base import Failure
from mimic_wds.executors.jobs import ONE_THREAD, Death, Job, Jobs, call, environment, timed_out, work_through

if TYPE_CHECKING:
    from ray import ObjectRefGenerator

T = TypeVar("T")

#: How often deadlines and the size of the cluster are looked at, seconds.
LOOK_S, COUNT_S = 1.0, 10.0

#: How long a cluster may take to answer, seconds.
KNOCK_S = 10.0

#: How long cancelled tasks are waited for when the run stops, and how long an answer when one took too long, seconds.
STOPPED_WITHIN_S, CANCELLED_WITHIN_S = 2.0, 60.0

#: So many worker processes in a row may die before they begin their task, until the run is stopped.
MAX_DEATHS_AT_START = 20

#: Bytes of Ray's object store on a cluster started here. Next to nothing goes through it; Ray wants at least 75 MiB.
OBJECT_STORE_BYTES = 100 * 1024**2


class RayExecutor:
    """Runs tasks on the cluster at `address` ("auto", "HOST:PORT"), or on one started here when it is empty.

    Every machine needs the same version of this package and the same paths: tasks read and write a shared folder,
    nothing but their end comes back. A task takes one CPU of the cluster. workers = 0: as many tasks at once as the
    cluster has CPUs (machines may come and go), otherwise at most so many; a cluster started here has as many CPUs.
    A task that takes longer than `timeout_s` seconds is given up, measured from its start; 0 = no limit.

    A machine that is lost costs no task: those under way there are run again elsewhere. When the program is connected
    to a cluster already, that one is used, and stays connected. Raises ValueError when Ray is missing.
    """

    def __init__(self, address: str = "", workers: int = 0, timeout_s: float = 0.0) -> None:
        assert workers >= 0
        assert timeout_s >= 0
        if importlib.util.find_spec("ray") is None:
            raise ValueError("the executor 'ray' needs Ray: pip install 'mimic-wds[ray]'")
        self.address, self.workers = address, workers
        self.timeout_s = timeout_s or math.inf

    def run(self, function: Callable[[T], None], tasks: Iterable[T]) -> Iterator[tuple[T, Failure | None]]:
        """Run `function` on each task and yield it with its outcome as it ends: see `Executor.run`.

        Raises ValueError when there is no cluster at the address, RuntimeError when the cluster fails.
        """
        with _connection(self.address, self.workers) as is_own:
            crew = _Crew(function, 0 if is_own else self.workers, self.timeout_s)
            yield from work_through(crew, tasks, MAX_DEATHS_AT_START)


@dataclass
class _Flight(Generic[T]):
    """A job under way on the cluster."""

    job: Job[T]
    node: str = ""  #: Ray's name of the machine it runs on; empty = waits for one
    until_s: float = math.inf  #: on this process's clock: when it is over time
    cancelled_s: float = math.inf  #: when it was cancelled for that


class _Remote(Protocol[T]):
    """`_work` as Ray calls it."""

    def remote(self, function: Callable[[T], None], task: T) -> "ObjectRefGenerator":
        """Submit a task."""
        ...


class _Crew(Generic[T]):
    """The jobs under way: at most `size`, or twice the CPUs of the cluster for size 0."""

    def __init__(self, function: Callable[[T], None], size: int, timeout_s: float) -> None:
        import ray

        self._function, self._size, self._timeout_s = function, size, timeout_s
        remote = ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": ONE_THREAD})
        self._remote: _Remote[T] = remote(_work)
        self._flights: dict[ObjectRefGenerator, _Flight[T]] = {}
        self._room, self._counted_s = size, -math.inf

    def fill(self, jobs: Jobs[T]) -> bool:
        """Submit jobs while there is room."""
        while len(self._flights) < self._count_room() and (job := jobs.take()) is not None:
            self._flights[self._remote.remote(self._function, job.task)] = _Flight(job)
        return bool(self._flights)

    def _count_room(self) -> int:
        import ray

        if self._size == 0 and time.monotonic() > self._counted_s + COUNT_S:
            # twice: the next is there when one ends, and a cluster that grows by demand sees some
            self._room = max(2, 2 * int(ray.cluster_resources().get("CPU", 0)))
            self._counted_s = time.monotonic()
        return self._room

    def ended(self) -> Iterator[tuple[Job[T], Failure | Death | None]]:
        """Wait a second or until something happens, and give the jobs that have ended."""
        import ray

        flights = list(self._flights)
        ready, _ = ray.wait(flights, num_returns=1, timeout=LOOK_S, fetch_local=False)
        if ready:  # the others that are ready by now; one call for each would cost the square of their number
            ready, _ = ray.wait(flights, num_returns=len(flights), timeout=0, fetch_local=False)
        for ref in ready:
            yield from self._news(ref)
        for ref, flight in list(self._flights.items()):
            yield from self._check_time(ref, flight)

    def _news(self, ref: "ObjectRefGenerator") -> Iterator[tuple[Job[T], Failure | Death | None]]:
        """The job has begun, or it has ended."""
        import ray

        flight = self._flights[ref]
        try:
            node = ray.get(next(ref))
        except ray.exceptions.RayError as error:
            del self._flights[ref]
            is_late = flight.cancelled_s < math.inf
            yield flight.job, timed_out(self._timeout_s) if is_late else _death(error, flight.node)
            return
        if flight.node:
            del self._flights[ref]
            yield flight.job, None
        else:
            flight.node, flight.until_s = node, time.monotonic() + self._timeout_s

    def _check_time(self, ref: "ObjectRefGenerator", flight: _Flight[T]) -> Iterator[tuple[Job[T], Failure]]:
        """Cancel a job that is over time; it has ended when the cluster says so, or has not answered for long."""
        import ray

        now_s = time.monotonic()
        if now_s > flight.until_s and flight.cancelled_s == math.inf:
            flight.cancelled_s = now_s
            ray.cancel(ref, force=True)
        if now_s > flight.cancelled_s + CANCELLED_WITHIN_S:
            del self._flights[ref]
            yield flight.job, timed_out(self._timeout_s)

    def stop(self) -> None:
        """Cancel all jobs and wait a moment for their ends."""
        import ray

        if not self._flights or not ray.is_initialized():
            return
        for ref in self._flights:
            ray.cancel(ref, force=True)
        ray.wait(list(self._flights), num_returns=len(self._flights), timeout=STOPPED_WITHIN_S, fetch_local=False)
        self._flights.clear()


def _work(function: Callable[[T], None], task: T) -> Iterator[str]:
    """Run the task on the cluster. Yields the name of the machine as it begins, and once more at its end."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    yield node
    call(function, task)
    yield node


def _death(error: Exception, node: str) -> Death:
    """Which death an error of Ray tells of; `node` = machine that had begun. Raises all other errors.

    An exception of the task is raised as itself.
    """
    from ray import exceptions, nodes

    if isinstance(error, exceptions.RayTaskError):
        if isinstance(error.cause, exceptions.RaySystemError):
            raise RuntimeError(
                "a machine of the Ray cluster cannot load the task; install the same version of mimic-wds on all of "
                f"them: {error.cause}"
            ) from error
        raise error.cause from error  # which tells where
    if isinstance(error, exceptions.NodeDiedError):
        return Death.OF_MACHINE
    if not isinstance(error, exceptions.WorkerCrashedError | exceptions.OutOfMemoryError):
        raise RuntimeError(f"the Ray cluster failed: {error}") from error
    if not node:
        return Death.AT_START
    alive = any(known["NodeID"] == node and known["Alive"] for known in nodes())
    return Death.IN_TASK if alive else Death.OF_MACHINE


@contextmanager
def _connection(address: str, workers: int) -> Iterator[bool]:
    """Be connected to a cluster inside; True when it was started for this."""
    import ray

    if ray.is_initialized():
        yield False
        return
    try:
        if address:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
        else:
            _start_cluster(workers)
    except OSError as error:
        raise ValueError(
            f"no Ray cluster at {address!r} ({error}); expected 'auto' or HOST:PORT of 'ray start --head'"
        ) from None
    try:
        yield not address
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError when nothing answers at HOST:PORT: Ray itself would try for minutes, then end the program."""
    host, separator, port = address.rpartition(":")
    if separator:
        try:
            socket.create_connection((host, int(port)), KNOCK_S).close()
        except ValueError:
            raise OSError("not HOST:PORT") from None


def _start_cluster(workers: int) -> None:
    """A cluster of this machine alone, which ends with this process."""
    import ray

    with environment({"RAY_USAGE_STATS_ENABLED": "0"}):
        ray.init(
            "local",
            num_cpus=workers or None,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
