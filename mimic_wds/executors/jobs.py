"""What the engines with workers share: which task is next, what a death costs it, and what runs inside a worker."""

import os
import pickle
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

import cv2

from mimic_wds.executors.base import Failure

T = TypeVar("T")

#: Environment of every worker: one thread for matrix products (the BLAS libraries numpy is built with read these when
#: they are loaded), since the workers themselves fill the cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

#: A task is given up when its process has died so often.
MAX_DEATHS = 2

#: A task is given up when so many machines were lost under it. Machines that are taken back every two hours cost a
#: task of ten minutes one start in twelve; twenty in a row mean that the task itself brings them down.
MAX_LOST_MACHINES = 20


class Death(Enum):
    """How a process came to its end."""

    AT_START = auto()  #: before it had begun the task
    IN_TASK = auto()
    OF_MACHINE = auto()  #: together with its machine, which is not the task's fault


@dataclass
class Job(Generic[T]):
    """A task and what has happened to it."""

    task: T
    deaths: int = 0  #: of its process
    lost_machines: int = 0


class Crew(Protocol[T]):
    """The workers of one engine."""

    def fill(self, jobs: "Jobs[T]") -> bool:
        """Start jobs while there is room and there are any. True while any job is under way."""
        ...

    def ended(self) -> Iterator[tuple[Job[T], Failure | Death | None]]:
        """Wait for an end (or a moment), and give the jobs that have ended. Raises the exception of a task."""
        ...

    def stop(self) -> None:
        """End all workers at once, whatever they do."""
        ...


@dataclass
class Jobs(Generic[T]):
    """What is to be done: the tasks that are to be run again, then the others, pulled one at a time."""

    tasks: Iterator[T]
    max_deaths_at_start: int  #: in a row, until the run is stopped
    deaths_at_start: int = 0  #: in a row
    again: deque[Job[T]] = field(default_factory=deque)

    def take(self) -> Job[T] | None:
        """The next job, or None when there is none left."""
        if self.again:
            return self.again.popleft()
        return next((Job(task) for task in self.tasks), None)

    def died(self, job: Job[T], death: Death) -> Failure | None:
        """Put the job of a process that died back, or give it up. Raises RuntimeError when none gets to work at all."""
        if death is Death.AT_START:
            self.deaths_at_start += 1
            if self.deaths_at_start >= self.max_deaths_at_start:
                raise RuntimeError("the worker processes die as they start; run with the executor 'serial' to see why")
        else:
            self.deaths_at_start = 0
        job.deaths += death is Death.IN_TASK
        job.lost_machines += death is Death.OF_MACHINE
        if job.deaths >= MAX_DEATHS:
            return Failure("worker_died", "the worker process died twice (out of memory, or a crash in a decoder)")
        if job.lost_machines >= MAX_LOST_MACHINES:
            return Failure("worker_died", f"the machine was lost {MAX_LOST_MACHINES} times while it worked on this")
        self.again.append(job)
        return None


def work_through(crew: Crew[T], tasks: Iterable[T], max_deaths_at_start: int) -> Iterator[tuple[T, Failure | None]]:
    """Let the crew do all tasks: the loop behind `Executor.run`."""
    jobs = Jobs(iter(tasks), max_deaths_at_start)
    try:
        while crew.fill(jobs):
            for job, outcome in crew.ended():
                if isinstance(outcome, Death):
                    outcome = jobs.died(job, outcome)
                    if outcome is None:  # it will be run again
                        continue
                crew.fill(jobs)  # before the caller is busy with this one
                yield job.task, outcome
    finally:
        crew.stop()


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def timed_out(timeout_s: float) -> Failure:
    """The failure of a task that was stopped after `timeout_s` seconds."""
    return Failure("timeout", f"took longer than {timeout_s:g} s")


def call(function: Callable[[T], None], task: T) -> None:
    """Run function(task) inside a worker.

    OpenCV's own threads would compete with the other workers: it gets one. Exceptions that would not arrive in the
    caller as what they are become RuntimeErrors with the traceback as their text.
    """
    cv2.setNumThreads(1)
    try:
        function(task)
    except BaseException as error:
        if isinstance(error, Exception) and survives_pickling(error):
            raise
        raise RuntimeError("".join(traceback.format_exception(error))) from None


def survives_pickling(error: BaseException) -> bool:
    """Whether an exception arrives in another process as what it is (one with its own __init__ often does not)."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False
