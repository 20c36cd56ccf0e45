"""What an engine promises, and how one is chosen by name."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from mimic_wds.settings import nearest

T = TypeVar("T")

#: The engines by name.
NAMES = ("serial", "local", "ray")


@dataclass(frozen=True)
class Failure:
    """Why a task was given up. It is an outcome of that task alone; the others run on."""

    reason: Literal["worker_died", "timeout"]
    message: str  #: for people


class Executor(Protocol):
    """Runs a function on many tasks, and survives tasks that crash or hang."""

    def run(self, function: Callable[[T], None], tasks: Iterable[T]) -> Iterator[tuple[T, Failure | None]]:
        """Run `function` on each task; yield (task, None) when it is done, (task, Failure) when it was given up.

        Tasks are started in the order given and pulled from the iterator only as workers need them (at most about two
        per worker are held); they come back as they end. A task whose process died is run once more, then given up; one
        that takes too long is given up at once. So `function` must leave nothing half-done under a final name, and
        may find what a first attempt left.

        An exception of `function` (a fault of the code, a full disk) stops the run and is raised here with its own
        type. After it, after KeyboardInterrupt and when the iterator is closed no worker is left.
        """
        ...


def make_executor(
    name: str, *, workers: int = 0, timeout_s: float = 0.0, address: str = "", max_tasks_per_worker: int = 0
) -> Executor:
    """The engine called `name`: "serial", "local" or "ray".

    workers: how many tasks run at once; 0 = one per core ("local") or all that the cluster has room for ("ray").
    timeout_s: seconds that a task may take; 0 = no limit. address ("ray"): of a running cluster; empty = one is
    started here. max_tasks_per_worker ("local"): renew a process after so many tasks; 0 = never.
    Raises ValueError for an unknown name, a negative number, or Ray missing.
    """
    if name not in NAMES:
        raise ValueError(f"unknown executor {name!r}{nearest(name, list(NAMES))}")
    for what, value in (("workers", workers), ("timeout_s", timeout_s), ("max_tasks_per_worker", max_tasks_per_worker)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{what} must be 0 or more, got {value}")
    if name == "serial":
        from mimic_wds.executors.serial import SerialExecutor

        return SerialExecutor()
    if name == "local":
        from mimic_wds.executors.local import LocalExecutor

        return LocalExecutor(workers or os.cpu_count() or 1, timeout_s, max_tasks_per_worker)
    from mimic_wds.executors.ray import RayExecutor

    return RayExecutor(address, workers, timeout_s)
