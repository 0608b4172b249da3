"""Enqueuing tasks: what becomes a job, and what is refused."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from jobqueue import JobBundle, PayloadError, State
from jobqueue.queue_service import QueueService


def job_of(service: QueueService, result: Any) -> Any:
    return service.get_job(UUID(result.id))


def test_a_task_that_was_enqueued_is_ready(tasks: Any):
    """The result that is returned tells of a task that waits."""
    before = datetime.now(UTC)
    result = tasks.add.enqueue(1, b=2)
    assert (result.status, result.is_finished, result.attempts) == ("READY", False, 0)
    assert (result.args, result.kwargs, result.backend) == ([1], {"b": 2}, "default")
    assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
    assert (result.errors, result.worker_ids) == ([], [])
    assert before <= result.enqueued_at <= datetime.now(UTC)
    assert result.task == tasks.add


def test_a_task_is_a_job(tasks: Any, project_service: QueueService):
    """The job's type names the queue and the task, and the payload is the call."""
    job = job_of(project_service, tasks.report.enqueue())
    assert (job.type, job.priority) == ("task:reports:tests.fixtures.django_tasks.report", 7)
    assert (job.max_retry_count, job.state) == (0, State.AVAILABLE)
    assert job.payload == {
        "task": "tests.fixtures.django_tasks.report",
        "args": [],
        "kwargs": {},
        "backend": "default",
    }


def test_ids_differ(tasks: Any):
    """Each call is a job of its own."""
    assert tasks.add.enqueue(1).id != tasks.add.enqueue(1).id


def test_arguments_are_made_plain_json(tasks: Any):
    """Tuples are lists from the start, as they will be for the worker."""
    result = tasks.echo.enqueue((1, (2,)), mapping={"a": (3,)}, text=b"bytes")
    assert (result.args, result.kwargs) == ([[1, [2]]], {"mapping": {"a": [3]}, "text": "bytes"})


@pytest.mark.parametrize("value", [datetime(2030, 1, 1, tzinfo=UTC), object(), {1, 2}, UUID(int=1), b"\xff"])
def test_arguments_that_are_no_json_are_refused(tasks: Any, project_service: QueueService, value: object):
    """What the framework does not take for JSON is an error of the call; no job is added."""
    with pytest.raises((TypeError, ValueError)):
        tasks.echo.enqueue(value)
    with pytest.raises((TypeError, ValueError)):
        tasks.echo.enqueue(key=value)
    assert project_service.get_status().num_jobs == 0


@pytest.mark.parametrize("value", [float("nan"), "\0", "\ud800"])
def test_arguments_that_the_database_cannot_hold_are_refused(tasks: Any, value: object):
    """So is what PostgreSQL would refuse; the error names the place."""
    with pytest.raises(PayloadError, match=r"\$\.args\[0\]"):
        tasks.echo.enqueue(value)


def test_a_deferred_task_waits(tasks: Any, project_service: QueueService):
    """``run_after`` is when the job may start."""
    later = datetime.now(UTC) + timedelta(hours=1)
    result = tasks.add.using(run_after=later).enqueue(1)
    job = job_of(project_service, result)
    assert (job.start_at, job.state, result.status) == (later, State.SCHEDULED, "READY")
    assert result.task.run_after == later


def test_moments_are_naive_without_time_zones(tasks: Any, project_service: QueueService):
    """Without USE_TZ moments are those of the project's TIME_ZONE, here and there."""
    from django.test import override_settings
    from django.utils import timezone

    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        timezone.get_default_timezone.cache_clear()
        result = tasks.add.using(run_after=datetime(2100, 1, 1, 9)).enqueue(1)  # noqa: DTZ001 - as above
        read = tasks.add.get_result(result.id)
        assert read.task.run_after == datetime(2100, 1, 1, 9)  # noqa: DTZ001
        assert read.enqueued_at.tzinfo is None
    timezone.get_default_timezone.cache_clear()
    assert job_of(project_service, result).start_at == datetime(2100, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("priority", [-100, 55, 100])
def test_the_priority_is_that_of_the_job(tasks: Any, project_service: QueueService, priority: int):
    """Priorities are stored as they are."""
    result = tasks.add.using(priority=priority).enqueue(1)
    assert job_of(project_service, result).priority == priority
    assert tasks.add.get_result(result.id).task.priority == priority


def test_a_task_is_enqueued_from_a_coroutine(tasks: Any, project_service: QueueService):
    """``aenqueue`` does what ``enqueue`` does."""
    result = asyncio.run(tasks.add.aenqueue(1, b=2))
    assert (result.args, result.kwargs, result.status) == ([1], {"b": 2}, "READY")
    assert job_of(project_service, result).payload["args"] == [1]


def test_an_asynchronous_task_is_enqueued(tasks: Any):
    """A coroutine function is a task like others."""
    assert tasks.add_later.enqueue(1, 2).status == "READY"


def test_the_backend_enqueues_too(tasks: Any):
    """``backend.enqueue(task, args, kwargs)`` is what a task calls."""
    result = tasks.backend_of().enqueue(tasks.add, [1], {"b": 2})
    assert (result.args, result.kwargs) == ([1], {"b": 2})


def test_retries_of_the_backend_are_those_of_the_job(tasks: Any, project_service: QueueService):
    """OPTIONS say how often the jobs of a backend are retried."""
    assert job_of(project_service, tasks.fail_until.enqueue(1)).max_retry_count == 2


def test_a_long_path_fits_into_the_type(tasks: Any):
    """Of a path that makes a type too long the beginning is kept, and a hash tells it from others."""
    from jobqueue.contrib.django.tasks.call import queue_of, type_of

    path = "project." + "x" * 100
    types = [type_of("reports", f"{path}.one"), type_of("reports", f"{path}.two")]
    assert all(len(name) == 100 and name.startswith("task:reports:project.xxx") for name in types)
    assert types[0] != types[1]
    assert queue_of(types[0]) == "reports"


def test_tasks_are_members_of_bundles(tasks: Any, project_service: QueueService):
    """``job_desc`` describes the call of a task for a bundle, or for what comes at its end."""
    from jobqueue.contrib.django.tasks import job_desc

    bundle = project_service.add_bundle(
        JobBundle.new(
            "import", [job_desc(tasks.add, 1), job_desc(tasks.add, 2, b=3)], on_stopped=job_desc(tasks.report)
        )
    )
    assert [job.payload["args"] for job in bundle.jobs] == [[1], [2]]
    assert tasks.add.get_result(str(bundle.jobs[1].id)).kwargs == {"b": 3}
    assert project_service.get_job_bundle(bundle.id).on_stopped.type.startswith("task:reports:")


def test_tasks_are_scheduled(tasks: Any, project_service: QueueService):
    """Its type and payload are what a schedule takes."""
    from jobqueue.contrib.django.tasks import job_desc

    desc = job_desc(tasks.add, 1, b=2)
    project_service.add_schedule("hourly", desc.type, desc.payload, every=timedelta(hours=1))
    result = tasks.add.get_result(str(project_service.run_schedule_now("hourly").id))
    assert (result.args, result.kwargs, result.status) == ([1], {"b": 2}, "READY")


def test_only_tasks_of_the_queue_are_described(tasks: Any, framework: Any):
    """The call of a task of another backend is no job."""
    from django.test import override_settings

    from jobqueue.contrib.django.tasks import job_desc

    immediate = f"{framework.Task.__module__.partition('.base')[0]}.backends.immediate.ImmediateBackend"
    with override_settings(TASKS={"default": {"BACKEND": immediate}}):
        with pytest.raises(framework.InvalidTask, match="which enqueues no jobs"):
            job_desc(tasks.add, 1)
        assert tasks.add.enqueue(1).return_value == 1
