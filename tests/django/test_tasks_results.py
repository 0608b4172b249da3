"""Results of tasks, read back."""

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jobqueue import Job
from jobqueue.queue_service import QueueService
from tests.fixtures.django_work import TASKS


def test_a_result_is_read_by_its_id(tasks: Any):
    """A task, and a backend, read what has become of an id."""
    enqueued = tasks.add.enqueue(1, b=2)
    for read in (tasks.add.get_result(enqueued.id), tasks.backend_of().get_result(enqueued.id)):
        assert (read.id, read.status, read.args, read.kwargs) == (enqueued.id, "READY", [1], {"b": 2})
        assert (read.task, read.backend) == (tasks.add, "default")


def test_a_result_is_read_from_a_coroutine(tasks: Any):
    """``aget_result`` and ``arefresh`` do what the others do."""
    enqueued = tasks.add.enqueue(1)

    async def read() -> Any:
        result = await tasks.add.aget_result(enqueued.id)
        await result.arefresh()
        return result

    assert asyncio.run(read()).id == enqueued.id


@pytest.mark.parametrize("unknown", ["01a20523-0871-779a-b772-cc86c88c4db6", "no uuid", "", None, 1])
def test_an_unknown_id_has_no_result(tasks: Any, framework: Any, unknown: object):
    """Whatever is no id of a task raises TaskResultDoesNotExist."""
    with pytest.raises(framework.TaskResultDoesNotExist):
        tasks.add.get_result(unknown)


def test_a_job_that_is_no_task_has_no_result(tasks: Any, framework: Any, project_service: QueueService):
    """Nor have other jobs, whatever their type."""
    jobs = project_service.add_jobs([Job.new("mail", {"task": "x"}), Job.new("task:default:x", {"other": 1})])
    for job in jobs:
        with pytest.raises(framework.TaskResultDoesNotExist):
            tasks.backend_of().get_result(str(job.id))


def test_a_deleted_job_has_no_result(tasks: Any, framework: Any, project_service: QueueService):
    """What was deleted is not there for refresh, either."""
    result = tasks.add.enqueue(1)
    project_service.delete_job(UUID(result.id))
    with pytest.raises(framework.TaskResultDoesNotExist):
        result.refresh()


def test_the_result_of_another_task_is_a_mismatch(tasks: Any):
    """A task reads its own results only."""
    result = tasks.report.enqueue()
    with pytest.raises(Exception, match="does not match") as raised:
        tasks.add.get_result(result.id)
    assert type(raised.value).__name__ == "TaskResultMismatch"
    with pytest.raises(Exception, match="does not match"):
        asyncio.run(tasks.add.aget_result(result.id))


def test_a_task_keeps_how_it_was_enqueued(tasks: Any):
    """What is read back says what ``using`` had said."""
    result = tasks.add.using(priority=-5, queue_name="reports").enqueue(1)
    read = tasks.add.get_result(result.id)
    assert (read.task.priority, read.task.queue_name) == (-5, "reports")
    assert read.task == result.task


def test_any_backend_reads_all_results(tasks: Any):
    """Backends share the queue; a result names the backend it was enqueued with."""
    result = tasks.fail_until.enqueue(1)
    assert tasks.backend_of("default").get_result(result.id).backend == "patient"


def test_a_cancelled_task_has_failed(tasks: Any, project_service: QueueService):
    """The framework knows no cancelling: such a task has failed, with an error that says why, and never ran."""
    result = tasks.add.enqueue(1)
    assert project_service.cancel_job(UUID(result.id))
    result.refresh()
    assert (result.status, result.attempts, result.started_at) == ("FAILED", 0, None)
    assert result.finished_at is not None
    [error] = result.errors
    assert error.traceback == "cancelled"
    assert error.exception_class.__name__ == "CancelledError"


def test_there_is_no_return_value_before_the_end(tasks: Any):
    """Before a task has finished, its return value cannot be asked for."""
    with pytest.raises(ValueError, match="not finished yet"):
        _ = tasks.add.enqueue(1).return_value


@pytest.mark.parametrize(
    "path",
    [
        *("tests.fixtures.django_tasks.gone", "tests.gone.task", "tests.fixtures.django_tasks._plain"),
        *("misplaced.act", "uninstalled.act", "broken.act", "ending.act"),
    ],
)
def test_the_result_of_a_task_that_is_gone_is_read(
    tasks: Any, framework: Any, project_service: QueueService, path: str, monkeypatch: Any, tmp_path: Path
):
    """A result outlives the function; its task names that, and can be neither called nor enqueued."""
    (tmp_path / "misplaced.py").write_text(
        "from tests.fixtures.django_tasks import task\n@task(queue_name='gone')\ndef act(): ..."
    )
    (tmp_path / "uninstalled.py").write_text("raise RuntimeError('is not in INSTALLED_APPS')")
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "ending.py").write_text("raise SystemExit('SECRET_KEY is not set')")
    monkeypatch.syspath_prepend(tmp_path)
    job = project_service.enqueue("task:default:gone", {"task": path, "args": [1]})
    [claim] = project_service.claim(["task:default:gone"])
    with claim:
        claim.finish("done")
    read = tasks.backend_of().get_result(str(job.id))
    assert (read.return_value, read.args, read.task.module_path) == ("done", [1], path)
    assert asyncio.run(tasks.backend_of().aget_result(str(job.id))).is_finished
    read.refresh()
    with pytest.raises(ImportError, match=re.escape(f"task {path!r} cannot be called here: ")):
        read.task.call(1)
    with pytest.raises(framework.InvalidTask):
        read.task.enqueue(1)


def test_results_outlive_their_settings(tasks: Any, framework: Any, project_service: QueueService):
    """A result is read, and refreshed, where neither its queue nor its backend is in TASKS any more."""
    from django.test import override_settings

    ids = [tasks.report.enqueue().id, tasks.add.using(backend="patient", queue_name="patient").enqueue(1).id]
    with override_settings(TASKS={"default": {**TASKS["default"], "QUEUES": ["default"]}}):
        results = [tasks.backend_of().get_result(id) for id in ids]
        for result in results:
            result.refresh()
    assert [(each.task.queue_name, each.backend, each.status) for each in results] == [
        ("reports", "default", "READY"),
        ("patient", "patient", "READY"),
    ]
