"""Run tasks here, one by one: for debugging."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mimic_wds.executors.base import Failure

T = TypeVar("T")


class SerialExecutor:
    """Runs each task in this process, where a debugger and a profiler see it.

    There is no time limit and no protection: a task that hangs or crashes takes the whole run with it.
    """

    def run(self, function: Callable[[T], None], tasks: Iterable[T]) -> Iterator[tuple[T, Failure | None]]:
        """Run `function` on each task and yield (task, None). An exception of a task is raised."""
        for task in tasks:
            function(task)
            yield task, None
