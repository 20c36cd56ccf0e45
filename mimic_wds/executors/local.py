"""Run tasks on the processes of this machine.

Each worker is a `concurrent.futures` pool of a single process. A pool that breaks then says which task broke it, the
others never share a lock or a pipe with a process that was killed, and a task that hangs is ended by killing its
process. A pool of many processes, of the standard library or of pebble 5, is lost as a whole when one of them is
killed at the wrong moment (while it starts, or while it takes a task).
"""

import ctypes
import math
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Generic, TypeVar

from mimic_wds.executors.base import Failure
from mimic_wds.executors.jobs import ONE_THREAD, Death, Job, Jobs, call, environment, timed_out, work_through

T = TypeVar("T")

#: Linux, prctl(2): the signal that this process gets when the thread that started it ends.
PR_SET_PDEATHSIG = 1

#: How long killed processes are waited for. They are gone in milliseconds, unless the kernel waits for a disk.
KILLED_WITHIN_S = 2.0

#: So many processes per worker may die before their first task, one after the other, until the run is stopped.
MAX_DEATHS_AT_START = 3


class LocalExecutor:
    """Runs tasks on `workers` processes of their own (also for workers=1), started afresh, never forked.

    A task that takes longer than `timeout_s` seconds is given up, measured without the start of its process; 0 = no
    limit. max_tasks_per_worker > 0 renews a process after that many tasks, for libraries that leak memory.
    Call `run` in a thread that lives as long as the run: the workers die with it.
    """

    def __init__(self, workers: int, timeout_s: float = 0.0, max_tasks_per_worker: int = 0) -> None:
        assert workers >= 1
        assert timeout_s >= 0
        assert max_tasks_per_worker >= 0
        self.workers = workers
        self.timeout_s = timeout_s or math.inf
        self.max_tasks_per_worker = max_tasks_per_worker or math.inf

    def run(self, function: Callable[[T], None], tasks: Iterable[T]) -> Iterator[tuple[T, Failure | None]]:
        """Run `function` on each task and yield it with its outcome as it ends: see `Executor.run`.

        `function` and the tasks must be picklable. Raises RuntimeError when the processes die as they start.
        """
        crew = _Crew(function, self.workers, self.timeout_s, self.max_tasks_per_worker)
        return work_through(crew, tasks, MAX_DEATHS_AT_START * self.workers)


class _Crew(Generic[T]):
    """Up to `size` workers, each started when there is a job for it."""

    def __init__(self, function: Callable[[T], None], size: int, timeout_s: float, max_tasks: float) -> None:
        self._function, self._size, self._timeout_s, self._max_tasks = function, size, timeout_s, max_tasks
        self._workers: list[_Worker[T]] = []

    def fill(self, jobs: Jobs[T]) -> bool:
        """Give every idle worker a job as long as there are any; True while anyone works."""
        idle = [worker for worker in self._workers if worker.job is None]
        while (idle or len(self._workers) < self._size) and (job := jobs.take()) is not None:
            if not idle:
                idle.append(_Worker(self._max_tasks))
                self._workers.append(idle[0])
            idle.pop(0).give(self._function, job)
        return any(worker.job is not None for worker in self._workers)

    def ended(self) -> Iterator[tuple[Job[T], Failure | Death | None]]:
        """Wait until workers are done, have died or are over time, and give their jobs."""
        busy = [worker for worker in self._workers if worker.job is not None]
        left_s = min(worker.left_s(self._timeout_s) for worker in busy)
        wait([worker.done for worker in busy], None if left_s == math.inf else max(0.0, left_s), FIRST_COMPLETED)
        for worker in busy:
            if worker.done.done() or worker.left_s(self._timeout_s) <= 0:
                yield worker.finish(self._timeout_s)

    def stop(self) -> None:
        """Kill all processes, then wait for all."""
        for worker in self._workers:
            worker.kill()
        until = time.monotonic() + KILLED_WITHIN_S
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))


class _Worker(Generic[T]):
    """A process that runs one job after the other; it is started with the first job, and again after a death."""

    def __init__(self, max_tasks: float) -> None:
        self.job: Job[T] | None = None
        self.done: Future[None] = Future()
        self._ready: Future[None] = Future()
        self._max_tasks, self._tasks = max_tasks, 0
        self._started_s = math.inf
        self._context = _RememberedProcess()
        self._pool: ProcessPoolExecutor | None = None

    def give(self, function: Callable[[T], None], job: Job[T]) -> None:
        """Start on `job`. Raises what pickling raises."""
        self.job = job
        pickled = pickle.dumps((function, job.task))  # here: inside the pool an error would look like a dead process
        if self._tasks >= self._max_tasks:
            self.kill()
        if self._pool is None:
            self._start()
        else:
            self._started_s = time.monotonic()
        assert self._pool is not None
        self._tasks += 1
        try:
            self.done = self._pool.submit(_call, pickled)
        except BrokenProcessPool as error:  # killed before it could begin
            self.done = self._ready = Future()
            self.done.set_exception(error)

    def _start(self) -> None:
        self._tasks, self._started_s = 0, math.inf
        self._pool = ProcessPoolExecutor(1, self._context, _prepare, (os.getpid(),))
        with environment(ONE_THREAD), _interrupts_held_back():  # both of which the process inherits
            self._ready = self._pool.submit(_be_ready)
        self._ready.add_done_callback(self._start_clock)

    def _start_clock(self, ready: Future[None]) -> None:
        self._started_s = time.monotonic()

    def left_s(self, timeout_s: float) -> float:
        """How many seconds the job still has; all of them as long as the process starts."""
        return min(self._started_s + timeout_s - time.monotonic(), timeout_s)

    def finish(self, timeout_s: float) -> tuple[Job[T], Failure | Death | None]:
        """Give back the job with what became of it, and be idle. Raises the exception of the task."""
        assert self.job is not None
        job, self.job = self.job, None
        if not self.done.done():
            self.kill()
            self.join(KILLED_WITHIN_S)  # so that it writes nothing any more
            return job, timed_out(timeout_s)
        try:
            self.done.result()
        except BrokenProcessPool:
            self.kill()
            return job, Death.IN_TASK if self._ready.done() and not self._ready.exception() else Death.AT_START
        return job, None

    def kill(self) -> None:
        """End the process, whatever it does."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self._context.kill()
            pool.shutdown(wait=False, cancel_futures=True)

    def join(self, timeout_s: float) -> None:
        """Wait until the killed process is gone."""
        self._context.join(timeout_s)


class _RememberedProcess(SpawnContext):
    """Starts processes and remembers the last one: a pool does not give away its processes."""

    def __init__(self) -> None:
        self.process: SpawnProcess | None = None

    def Process(self, *args: object, **kwargs: object) -> SpawnProcess:  # type: ignore[override]
        """A process that is not started yet."""
        self.process = SpawnProcess(*args, **kwargs)  # type: ignore[arg-type]
        return self.process

    def kill(self) -> None:
        """Kill the process if it was started."""
        if self.process is not None and self.process.pid is not None:
            self.process.kill()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        if self.process is not None and self.process.pid is not None:
            self.process.join(timeout_s)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches the whole terminal; a process that starts inside does not see it, not even before `_prepare`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(parent: int) -> None:
    """A worker leaves Ctrl-C to its parent, which then kills it, and dies with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):  # not Linux: workers end when the pipe from their parent closes
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could take us along
        os._exit(1)


def _be_ready() -> None:
    """The first task of a process: done when it has started."""


def _call(pickled: bytes) -> None:
    """Run the pickled (function, task)."""
    call(*pickle.loads(pickled))
