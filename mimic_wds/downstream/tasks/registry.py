"""The tasks by name."""

from mimic_wds.downstream.dense import Dense
from mimic_wds.downstream.task import Task
from mimic_wds.downstream.tasks.depth import DEPTH
from mimic_wds.downstream.tasks.flow import Flow
from mimic_wds.downstream.tasks.normals import NORMALS
from mimic_wds.downstream.tasks.pose import Pose
from mimic_wds.downstream.tasks.probe import Probe
from mimic_wds.downstream.tasks.segmentation import SEGMENTATION
from mimic_wds.settings import nearest

TASKS: dict[str, Task] = {
    task.name: task for task in (Dense(DEPTH), Dense(NORMALS), Dense(SEGMENTATION), Pose(), Probe(), Flow())
}


def get_task(name: str) -> Task:
    """A task by its name. Raises ValueError for an unknown one."""
    if name not in TASKS:
        raise ValueError(f"task = {name!r} is unknown{nearest(name, list(TASKS))}")
    return TASKS[name]
