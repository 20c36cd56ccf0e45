"""What a death costs a task."""

import pytest

from mimic_wds.executors.jobs import Death, Job, Jobs


def jobs() -> Jobs[str]:
    return Jobs(iter("abc"), max_deaths_at_start=3)


def test_a_task_that_died_comes_next_and_is_given_up_the_second_time():
    todo = jobs()
    first = todo.take()
    assert todo.died(first, Death.IN_TASK) is None
    assert [todo.take().task for _ in range(3)] == ["a", "b", "c"]
    assert todo.take() is None
    assert todo.died(first, Death.IN_TASK).reason == "worker_died"
    assert todo.take() is None


def test_lost_machines_and_deaths_at_start_are_not_held_against_a_task():
    todo, job = jobs(), Job("x")
    for _ in range(19):
        assert todo.died(job, Death.OF_MACHINE) is None
        assert todo.died(job, Death.AT_START) is None
    assert todo.died(job, Death.IN_TASK) is None
    assert todo.died(job, Death.OF_MACHINE).message == "the machine was lost 20 times while it worked on this"


def test_processes_that_only_ever_die_at_their_start_stop_the_run():
    todo = jobs()
    assert todo.died(Job("a"), Death.AT_START) is None
    assert todo.died(Job("b"), Death.AT_START) is None
    with pytest.raises(RuntimeError, match="die as they start"):
        todo.died(Job("c"), Death.AT_START)
