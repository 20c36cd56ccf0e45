"""The dense tasks by name."""

from mimic_wds.downstream.tasks.base import DenseTask
from mimic_wds.downstream.tasks.depth import DEPTH
from mimic_wds.downstream.tasks.normals import NORMALS
from mimic_wds.downstream.tasks.segmentation import SEGMENTATION
from mimic_wds.settings import nearest

DENSE_TASKS: dict[str, DenseTask] = {task.name: task for task in (DEPTH, NORMALS, SEGMENTATION)}


def dense_task(name: str) -> DenseTask:
    """A task by its name. Raises ValueError for an unknown one."""
    if name not in DENSE_TASKS:
        raise ValueError(f"task = {name!r} is unknown{nearest(name, list(DENSE_TASKS))}")
    return DENSE_TASKS[name]
