"""What can be a task of the job queue, and what cannot."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import Fixed


def test_a_task_has_the_defaults_of_the_framework(tasks: Any):
    """Without arguments, the decorator makes a task of priority 0, for the queue and the backend ``default``."""
    task = tasks.add
    assert (task.priority, task.queue_name, task.backend, task.run_after) == (0, "default", "default", None)
    assert (task.name, task.module_path) == ("add", "tests.fixtures.django_tasks.add")


def test_a_task_is_still_its_function(tasks: Any):
    """A task can be called here and now, an asynchronous one too; no job is involved."""
    assert tasks.add.call(1, b=2) == 3
    assert tasks.add_later.call(1, 2) == 3


def test_a_task_has_what_its_decorator_said(tasks: Any):
    """Priority and queue are those of the decorator."""
    assert (tasks.report.priority, tasks.report.queue_name) == (7, "reports")


def test_using_makes_another_task(tasks: Any):
    """``using`` changes what it is given, and leaves the task as it is."""
    later = datetime.now(UTC) + timedelta(hours=1)
    other = tasks.add.using(priority=10, queue_name="reports", run_after=later)
    assert (other.priority, other.queue_name, other.run_after) == (10, "reports", later)
    assert (tasks.add.priority, tasks.add.queue_name, tasks.add.run_after) == (0, "default", None)


def test_a_task_is_frozen(tasks: Any):
    """The attributes of a task cannot be set."""
    with pytest.raises(AttributeError):
        tasks.add.priority = 5


def test_the_backend_supports_everything(tasks: Any):
    """It can defer, run coroutines, read results from anywhere, and go by priorities."""
    backend = tasks.backend_of()
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


@pytest.mark.parametrize("priority", [-100, 0, 100])
def test_priorities_go_from_minus_to_plus_a_hundred(tasks: Any, priority: int):
    """The bounds are priorities, too."""
    assert tasks.add.using(priority=priority).priority == priority


@pytest.mark.parametrize("priority", [-101, 101, 1.5])
def test_other_priorities_are_refused(tasks: Any, framework: Any, priority: float):
    """What is beyond the bounds, or no whole number, is invalid."""
    with pytest.raises(framework.InvalidTask, match="whole number"):
        tasks.add.using(priority=priority)


def test_a_queue_that_is_not_among_queues_is_refused(tasks: Any, framework: Any):
    """The queue has to be one of QUEUES of the backend."""
    with pytest.raises(framework.InvalidTask, match="'elsewhere' is not valid"):
        tasks.add.using(queue_name="elsewhere")


def test_an_unknown_backend_is_refused(tasks: Any, framework: Any):
    """The backend has to be one of TASKS."""
    with pytest.raises(framework.InvalidTaskBackend, match="nowhere"):
        tasks.add.using(backend="nowhere")


def test_a_naive_moment_is_refused(tasks: Any, framework: Any):
    """With USE_TZ, ``run_after`` has to be aware."""
    with pytest.raises(framework.InvalidTask, match="aware"):
        tasks.add.using(run_after=datetime(2030, 1, 1))  # noqa: DTZ001 - which is under test


def test_a_function_within_a_function_is_refused(tasks: Any, framework: Any):
    """A task has to be at the level of a module: workers find it by its path."""

    def local() -> None:
        """Not found by anybody else."""

    with pytest.raises(framework.InvalidTask, match="module level"):
        tasks.task(local)
    with pytest.raises(framework.InvalidTask, match="module level"):
        tasks.task(lambda: None)


def test_what_is_no_function_is_refused(tasks: Any, framework: Any):
    """Neither a built-in function nor an object that can be called is a task."""
    for value in (len, object()):
        with pytest.raises((framework.InvalidTask, TypeError)):
            tasks.task(value)


def test_a_context_needs_a_parameter_of_that_name(tasks: Any, framework: Any):
    """``takes_context`` is for functions whose first parameter is called ``context``."""
    with pytest.raises(framework.InvalidTask, match="context"):
        tasks.task(takes_context=True)(tasks._plain)


def test_a_task_that_has_another_name_cannot_be_enqueued(tasks: Any, framework: Any):
    """A function that is no task under its own name would not be found by a worker: that is said at once."""
    with pytest.raises(framework.InvalidTask, match=r"django_tasks\._plain' is no task, but function: decorate it"):
        tasks.renamed.enqueue(1)


def test_a_static_method_cannot_be_enqueued(tasks: Any, framework: Any):
    """It would not be found by a worker, either."""
    with pytest.raises(framework.InvalidTask, match="No worker could find"):
        tasks.task(tasks.Holder.method).enqueue()


def test_a_task_can_be_copied(tasks: Any):
    """A copy is equal."""
    assert copy.deepcopy(tasks.report) == tasks.report


def test_a_task_says_how_it_is_retried(tasks: Any):
    """``max_retry_count`` and ``retry`` of the decorator go before those of OPTIONS."""
    if not tasks.DECORATOR_PASSES_ON:
        pytest.skip("the decorator of Django 6.0 takes nothing that is not Django's")
    policy = Fixed(timedelta(0))
    described = tasks.task(max_retry_count=4, retry=policy)(tasks.module_function)
    assert (described.max_retry_count, described.retry) == (4, policy)


@pytest.mark.parametrize("wrong", [{"max_retry_count": -1}, {"retry": "often"}, {"max_retry_count": "3"}])
def test_wrong_retries_are_refused(tasks: Any, framework: Any, wrong: dict[str, Any]):
    """What jobs could not be added with is invalid where the task is defined."""
    if not tasks.DECORATOR_PASSES_ON:
        pytest.skip("the decorator of Django 6.0 takes nothing that is not Django's")
    with pytest.raises(framework.InvalidTask, match=next(iter(wrong))):
        tasks.task(**wrong)(tasks.module_function)
