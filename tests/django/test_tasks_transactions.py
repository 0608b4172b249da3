"""Tasks are enqueued in the transaction that is open."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from jobqueue.queue_service import QueueService
from tests.fixtures.django_work import TASKS, finished


def number_of_jobs(project: str) -> int:
    """Count the jobs that others see."""
    with psycopg.connect(project) as connection:
        row = connection.execute("select count(*) from worker.job").fetchone()
    assert row is not None
    return int(row[0])


def _rolled_back(task: Any, value: int) -> Any:
    """Enqueue a task in a block, a savepoint if it is an inner one, that is rolled back."""
    from django.db import transaction

    with transaction.atomic():
        result = task.enqueue(value)
        transaction.set_rollback(True)
    return result


def test_a_task_is_committed_with_the_transaction(tasks: Any, project: str):
    """Nobody sees it before; from then on it is there."""
    from django.db import transaction

    with transaction.atomic():
        tasks.add.enqueue(1)
        assert number_of_jobs(project) == 0
    assert number_of_jobs(project) == 1


def test_a_task_is_rolled_back_with_the_transaction(tasks: Any, project: str, framework: Any):
    """It never was."""
    result = _rolled_back(tasks.add, 1)
    assert number_of_jobs(project) == 0
    with pytest.raises(framework.TaskResultDoesNotExist):
        result.refresh()


def test_a_task_is_rolled_back_with_a_savepoint(tasks: Any, project: str):
    """An inner block that fails takes its tasks with it, and no others."""
    from django.db import transaction

    with transaction.atomic():
        kept = tasks.add.enqueue(1)
        _rolled_back(tasks.add, 2)
    assert number_of_jobs(project) == 1
    assert tasks.add.get_result(kept.id).args == [1]


def test_a_result_is_read_in_the_transaction(tasks: Any):
    """Who has enqueued a task sees it before the commit."""
    from django.db import transaction

    with transaction.atomic():
        result = tasks.add.enqueue(1)
        result.refresh()
        assert result.status == "READY"


def test_without_a_transaction_a_task_is_there_at_once(tasks: Any, project: str):
    """In autocommit it is committed by itself."""
    tasks.add.enqueue(1)
    assert number_of_jobs(project) == 1


def test_on_commit_is_not_needed_and_does_no_harm(tasks: Any, project: str):
    """What the documentation of the framework recommends works as well."""
    from functools import partial

    from django.db import transaction

    with transaction.atomic():
        transaction.on_commit(partial(tasks.add.enqueue, 1))
    assert number_of_jobs(project) == 1


def test_refused_arguments_leave_the_transaction_usable(tasks: Any, project: str):
    """What is wrong with a call is found before anything is sent."""
    from django.db import transaction

    with transaction.atomic():
        with pytest.raises(TypeError):
            tasks.echo.enqueue(object())
        tasks.echo.enqueue(1)
    assert number_of_jobs(project) == 1


def test_a_coroutine_enqueues_at_once(tasks: Any, project: str):
    """There are no transactions in asynchronous code."""
    asyncio.run(tasks.add.aenqueue(1))
    assert number_of_jobs(project) == 1


def test_a_task_that_is_atomic_enqueues_in_its_transaction(
    tasks: Any, project_service: QueueService, work: Callable[..., Any]
):
    """With the option ``atomic``, what a task does is rolled back when it fails: the tasks that it enqueued, too."""
    from django.test import override_settings

    with override_settings(TASKS={**TASKS, "default": {**TASKS["default"], "OPTIONS": {"atomic": "default"}}}):
        work()
        result = finished(tasks.enqueue_and_fail.enqueue())
        assert result.errors[0].exception_class is ValueError
        assert project_service.get_status().num_jobs == 1
        another = finished(tasks.enqueue_another.enqueue(5))
        assert finished(tasks.add.get_result(another.return_value)).return_value == 6
