"""Run tasks on a pool of processes: each at most once, finished ones handed back as they finish."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

PR_SET_PDEATHSIG = 1

#: Environment variables that the BLAS libraries numpy is built with read when they are loaded.
BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_all(function: Callable[[T], None], tasks: Sequence[T], workers: int) -> Iterator[T]:
    """Run `function` on every task and yield the tasks as they finish (in any order).

    workers = 1 runs them here. An exception of a task stops the run and is raised; so does the death of a worker,
    as RuntimeError naming the tasks that were under way.
    """
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            function(task)
            yield task
        return
    context = multiprocessing.get_context("spawn")  # forked children inherit OpenCV's and BLAS's threads half-alive
    pool = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_start_worker)
    try:
        with _one_blas_thread():  # workers inherit the environment when the first task is submitted
            yield from _in_pool(pool, function, tasks, workers)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Processes started inside use one thread for matrix products: the processes themselves fill the cores."""
    before = {name: os.environ.get(name) for name in BLAS_THREADS}
    os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _in_pool(pool: ProcessPoolExecutor, function: Callable[[T], None], tasks: Sequence[T], workers: int) -> Iterator[T]:
    """Keep two tasks per worker in the queue, so that a million tasks need no memory here."""
    waiting, running = iter(tasks), dict[Future[None], T]()
    while True:
        while len(running) < 2 * workers and (task := next(waiting, None)) is not None:
            running[pool.submit(function, task)] = task
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            try:
                future.result()
            except BrokenProcessPool:
                names = ", ".join(str(getattr(t, "scene", t)) for t in [task, *running.values()][: workers + 1])
                raise RuntimeError(
                    f"a worker process died (out of memory, killed, or crashed in a decoder) near one of: {names}. "
                    "What is finished is kept: continue with --resume"
                ) from None
            yield task


def _start_worker() -> None:
    """Workers die at once on Ctrl-C and with their parent, so that a killed build leaves no process behind."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with suppress(OSError, AttributeError):  # not Linux: workers end when the pipe from their parent closes
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
