"""Tasks, run by worker threads."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from jobqueue import State, WorkerPool
from jobqueue.queue_service import QueueService
from tests.fixtures.django_work import TASKS, finished
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

Work = Callable[..., WorkerPool]


def test_a_task_succeeds(tasks: Any, work: Work):
    """Its return value, its times and its worker are told."""
    result = tasks.add.enqueue(1, b=2)
    work()
    finished(result)
    assert (result.status, result.is_finished, result.return_value) == ("SUCCESSFUL", True, 3)
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    assert (result.attempts, result.errors) == (1, [])
    assert re.fullmatch(r".+:\d+:jobqueue-worker-\d+", result.worker_ids[0])


def test_a_task_without_a_result_returns_none(tasks: Any, work: Work):
    """None is a return value."""
    work()
    result = finished(tasks.nothing.enqueue())
    assert (result.status, result.return_value) == ("SUCCESSFUL", None)


def test_a_task_gets_its_arguments(tasks: Any, work: Work):
    """They arrive as the plain JSON that they were made."""
    work()
    result = finished(tasks.echo.enqueue(1, (2,), None, "ü", key={"a": [1.5, True]}))
    assert result.return_value == {"args": [1, [2], None, "ü"], "kwargs": {"key": {"a": [1.5, True]}}}


def test_a_task_fails(tasks: Any, work: Work):
    """The class and the traceback of its exception are told."""
    work()
    result = finished(tasks.fail.enqueue("broken"))
    assert (result.status, result.is_finished, result.attempts) == ("FAILED", True, 1)
    [error] = result.errors
    assert (error.exception_class_path, error.exception_class) == ("builtins.ValueError", ValueError)
    assert "in fail\n" in error.traceback
    assert error.traceback.endswith("ValueError: broken\n")
    assert result.finished_at is not None
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_the_class_of_an_error_is_found(tasks: Any, work: Work):
    """An application's exception is told by the path of its class."""
    work()
    [error] = finished(tasks.fail_with_our_error.enqueue()).errors
    assert error.exception_class is tasks.OurError


def test_a_task_that_would_end_the_process_fails(tasks: Any, work: Work):
    """SystemExit is a failure like others, and the worker goes on."""
    work(threads=1)
    assert finished(tasks.exit_process.enqueue()).errors[0].exception_class is SystemExit
    assert finished(tasks.add.enqueue(1)).return_value == 1


def test_an_asynchronous_task_is_run(tasks: Any, work: Work):
    """Coroutine functions are run in the worker's thread."""
    work()
    assert finished(tasks.add_later.enqueue(1, 2)).return_value == 3


def test_a_task_takes_its_context(tasks: Any, work: Work):
    """The context tells of the run: its number, its worker, and the result as far as it is known."""
    work()
    result = finished(tasks.tell.enqueue(5))
    assert result.return_value == {
        "attempt": 1,
        "id": result.id,
        "status": "RUNNING",
        "value": 5,
        "worker_ids": result.worker_ids,
        "args": [5],
        "path": "tests.fixtures.django_tasks.tell",
    }


def test_wrong_arguments_fail_the_task(tasks: Any, work: Work):
    """What the function does not take is found when it is called."""
    work()
    [error] = finished(tasks.add.enqueue(1, 2, 3)).errors
    assert error.exception_class is TypeError


@pytest.mark.parametrize(("what", "value"), [("tuple", [1, [2, 3]]), ("bytes", "text")])
def test_return_values_are_made_plain_json(tasks: Any, work: Work, what: str, value: object):
    """As arguments are."""
    work()
    assert finished(tasks.give.enqueue(what)).return_value == value


@pytest.mark.parametrize("what", ["object", "not utf-8", "nan", "null character"])
def test_return_values_that_are_no_json_fail_the_task(tasks: Any, work: Work, what: str):
    """A task whose result cannot be kept has failed."""
    work()
    result = finished(tasks.give.enqueue(what))
    assert result.status == "FAILED"
    assert len(result.errors) == 1


def test_a_task_is_running_meanwhile(tasks: Any, work: Work):
    """While it runs, its status, its beginning and its worker can be read."""
    tasks.started.clear()
    tasks.go_on.clear()
    work()
    result = tasks.hold_on.enqueue()
    assert tasks.started.wait(10)
    result.refresh()
    assert (result.status, result.is_finished, result.attempts) == ("RUNNING", False, 1)
    assert result.started_at is not None
    assert result.finished_at is None
    tasks.go_on.set()
    assert finished(result).return_value == "went on"


def test_a_task_is_retried(tasks: Any, work: Work):
    """With retries left, a task that has failed is ready again; each attempt has its error, and its worker."""
    work()
    result = finished(tasks.fail_until.enqueue(3))
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 3, 3)
    assert [error.traceback.splitlines()[-1] for error in result.errors] == [
        "ValueError: attempt 1",
        "ValueError: attempt 2",
    ]
    assert all("jobqueue-worker" in worker for worker in result.worker_ids)
    assert result.started_at < result.last_attempted_at < result.finished_at


def test_a_task_that_waits_for_a_retry_is_ready(tasks: Any, work: Work, project_service: QueueService):
    """Between two attempts, a task is neither running nor finished, and shows what went wrong."""
    result = tasks.fail_until.enqueue(9)
    with project_service.claim(["task:*"])[0] as claim:
        claim.fail(ValueError("first"))
    result.refresh()
    assert (result.status, result.is_finished, result.attempts, len(result.errors)) == ("READY", False, 1, 1)
    assert result.started_at == result.last_attempted_at
    assert result.finished_at is None


def test_retries_end(tasks: Any, work: Work):
    """After the last one, the task has failed."""
    work()
    result = finished(tasks.fail_until.enqueue(9))
    assert (result.status, result.attempts, len(result.errors)) == ("FAILED", 3, 3)


def test_what_was_reset_is_as_good_as_new(tasks: Any, work: Work, project_service: QueueService):
    """Attempts are counted from the reset on; the errors before stay on record."""
    result = tasks.fail.enqueue("broken")
    with project_service.claim(["task:*"])[0] as claim:
        claim.fail(ValueError("first"))
    project_service.reset_job(UUID(result.id))
    result.refresh()
    assert (result.status, result.attempts, len(result.errors), result.started_at) == ("READY", 0, 1, None)
    work()
    assert (finished(result).attempts, len(result.errors)) == (1, 2)


def test_priorities_decide(tasks: Any, work: Work):
    """Of tasks that are ready, those of higher priority run first."""
    results = [tasks.add.using(priority=priority).enqueue(1) for priority in (-100, 0, 100, 50)]
    work(threads=1)
    ended = [finished(result) for result in results]
    in_order = sorted(ended, key=lambda result: (result.started_at, -result.task.priority))
    assert [result.task.priority for result in in_order] == [100, 50, 0, -100]


def test_a_deferred_task_is_not_run_before(tasks: Any, work: Work, project_service: QueueService):
    """It waits for its moment, while others pass it by; moved to now, it runs."""
    from django.utils import timezone

    later = tasks.add.using(run_after=timezone.now() + timedelta(hours=1), priority=100).enqueue(1)
    work()
    finished(tasks.add.enqueue(2))
    later.refresh()
    assert (later.status, later.attempts) == ("READY", 0)
    project_service.reschedule_job(UUID(later.id), None)
    assert finished(later).return_value == 1
    assert later.task.run_after is not None


def test_a_task_enqueues_another(tasks: Any, work: Work):
    """Tasks enqueue tasks."""
    work()
    first = finished(tasks.enqueue_another.enqueue(5))
    assert finished(tasks.add.get_result(first.return_value)).return_value == 6


def test_a_task_works_on_the_database(tasks: Any, work: Work):
    """Tasks use the ORM's connections as views do."""
    work()
    assert finished(tasks.ask_database.enqueue()).return_value == 42


def test_a_lane_is_for_a_queue(tasks: Any, work: Work):
    """Threads can be reserved for a queue, or for a part of its tasks."""
    work(threads=2, lanes={"task:reports:*": 1})
    assert finished(tasks.report.enqueue()).return_value == "done"


def test_a_worker_serves_the_queues_it_is_told(tasks: Any, project_service: QueueService):
    """Who has handlers for one queue only leaves the tasks of the others alone."""
    from jobqueue import Registry
    from jobqueue.contrib.django.tasks import register_tasks

    registry = Registry()
    register_tasks(registry)
    assert registry.registered_job_types() == ["task:default:*", "task:patient:*", "task:reports:*"]
    registry.unregister("task:default:*")
    other, report = tasks.add.enqueue(1), tasks.report.enqueue()
    with WorkerPool(project_service, registry, threads=1):
        finished(report)
    other.refresh()
    assert (report.status, other.status) == ("SUCCESSFUL", "READY")


def test_a_task_snoozes(tasks: Any, work: Work, project_service: QueueService):
    """What handlers may return, tasks may, too: Snooze runs the task again later."""
    work()
    result = tasks.give.enqueue("snooze")
    wait_until(lambda: project_service.get_job(UUID(result.id)).run_count == 1)
    result.refresh()
    assert (result.status, result.attempts, result.errors) == ("READY", 1, [])


def test_a_task_is_discarded(tasks: Any, work: Work, project_service: QueueService):
    """Discard cancels the job, which the framework knows as a failure."""
    work()
    result = finished(tasks.give.enqueue("discard"))
    assert (result.status, result.attempts, result.errors[0].traceback) == ("FAILED", 1, "not worth it")
    assert project_service.get_job(UUID(result.id)).state == State.CANCELLED


def test_a_task_runs_whatever_has_become_of_its_backend(tasks: Any, work: Work):
    """What was enqueued with an alias that TASKS does not have any more is run by whoever serves its queue."""
    from django.test import override_settings

    result = tasks.add.using(backend="patient", queue_name="patient").enqueue(1)
    with override_settings(TASKS={"default": {**TASKS["default"], "QUEUES": ["default", "patient"]}}):
        work()
        assert finished(tasks.backend_of().get_result(result.id)).return_value == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.fixtures.django_tasks.gone", "'tests.fixtures.django_tasks' has no 'gone'"),
        ("tests.fixtures.no_module.task", "No module named 'tests.fixtures.no_module'"),
        ("tests.fixtures.django_tasks._plain", "is no task, but function"),
        ("os.system", "is no task, but builtin_function_or_method"),
        ("nothing", "is not the path of a task"),
    ],
)
def test_what_is_no_task_is_not_called(tasks: Any, work: Work, project_service: QueueService, path: str, message: str):
    """A job whose payload names no task fails, with an error that says so."""
    work()
    job = wait_for_end(project_service, project_service.enqueue("task:default:x", {"task": path, "args": ["true"]}))
    assert job.state == State.FAILED
    assert message in (job.error_msg or "")
