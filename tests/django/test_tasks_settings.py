"""The setting TASKS: what is wrong with it is said by the checks, or when a backend is first used."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from jobqueue import DuplicateHandlerError, Fixed, Registry, Waits

BACKEND = "jobqueue.contrib.django.tasks.JobQueueBackend"


@pytest.fixture
def with_tasks(tasks: Any) -> Callable[..., Any]:
    """Have other TASKS in a ``with`` block."""
    from django.test import override_settings

    def override(**backends: dict[str, Any]) -> Any:
        return override_settings(TASKS={alias: {"BACKEND": BACKEND, **params} for alias, params in backends.items()})

    return override


def found_ids(tasks: Any) -> list[str]:
    from jobqueue.contrib.django.tasks.registering import our_backends

    return [message.id for backend in our_backends() for message in backend.check()]


def test_the_settings_of_the_project_are_fine(tasks: Any):
    """Nothing is found by the checks."""
    from django.core.checks import run_checks

    assert [message for message in run_checks() if "jobqueue" in str(message.id)] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_retries": 3},
            r"TASKS\['default'\]\['OPTIONS'\]: 'max_retries' is no option: did you mean 'max_retry_count'",
        ),
        ({"zzz": 3}, "'zzz' is no option: there are max_retry_count, retry, timeout, atomic"),
        ({"max_retry_count": -1}, "max_retry_count must be 0 to"),
        ({"retry": 5}, "retry must be one of the policies"),
        ({"timeout": 5}, "'timeout' must be a timedelta, or None for no limit, not 5"),
        ({"timeout": timedelta(-1)}, "'timeout' must be a timedelta, or None for no limit, not datetime"),
        *(
            ({"atomic": value}, f"'atomic' must be True or False, or an alias of DATABASES, not {value!r}")
            for value in (5, None, "")
        ),
        ({3: 3}, "3 is no option: there are max_retry_count"),
        (None, "must be a dict, not None"),
    ],
)
def test_wrong_options_are_named(tasks: Any, framework: Any, with_tasks: Any, options: dict[str, Any], message: str):
    """An option that is none, or has a value that is none, is an error that names it."""
    with with_tasks(default={"OPTIONS": options}), pytest.raises(framework.InvalidTaskBackend, match=message):
        tasks.backend_of()


@pytest.mark.parametrize(
    ("queues", "message"),
    [
        ("default", "must be a list of names, not 'default'"),
        (None, "must be a list of names, not None"),
        (["default", 5], "must be a list of names, and 5 is none"),
    ],
)
def test_queues_are_several_names(tasks: Any, framework: Any, with_tasks: Any, queues: object, message: str):
    """One name is no list of them, though its letters are."""
    with with_tasks(default={"QUEUES": queues}), pytest.raises(framework.InvalidTaskBackend, match=message):
        tasks.backend_of()


def test_queues_that_no_type_can_have_are_found(tasks: Any, framework: Any, with_tasks: Any):
    """A queue's name is a part of types: what would break these is found by the checks, and refused for tasks."""
    with with_tasks(default={"QUEUES": ["default", "a:b", "", "x" * 41]}):
        assert found_ids(tasks) == ["jobqueue.E102"] * 3
        with pytest.raises(framework.InvalidTask, match="'a:b' cannot be a part of a job's type"):
            tasks.add.using(queue_name="a:b")


def test_backends_that_share_a_queue_are_alike(tasks: Any, with_tasks: Any):
    """The runs of a queue are treated alike, whoever has enqueued them: other wishes are found by the checks."""
    with with_tasks(default={}, other={"OPTIONS": {"timeout": timedelta(1)}}):
        assert found_ids(tasks) == ["jobqueue.E103"]
    with with_tasks(default={}, other={"OPTIONS": {"max_retry_count": 1}}):
        assert found_ids(tasks) == []
    with with_tasks(default={}, other={"OPTIONS": {"timeout": timedelta(1)}, "QUEUES": ["other"]}):
        assert found_ids(tasks) == []


def test_the_app_has_to_be_installed(tasks: Any):
    """Without it nobody would run the tasks."""
    from django.test import modify_settings

    with modify_settings(INSTALLED_APPS={"remove": "jobqueue.contrib.django"}):
        assert found_ids(tasks) == ["jobqueue.E101", "jobqueue.E101"]


def test_any_queue_is_served_where_none_is_named(tasks: Any, with_tasks: Any):
    """With empty QUEUES a task may name any; one handler covers them all."""
    from jobqueue.contrib.django.tasks import register_tasks

    registry = Registry()
    with with_tasks(default={"QUEUES": []}):
        register_tasks(registry)
        assert tasks.add.using(queue_name="anything").enqueue(1).task.queue_name == "anything"
    assert registry.registered_job_types() == ["task:*"]


def test_handlers_are_as_options_say(tasks: Any, with_tasks: Any):
    """``timeout`` and ``atomic`` are those of the queue's handler."""
    from jobqueue.contrib.django.tasks import register_tasks

    registry = Registry()
    with with_tasks(default={"OPTIONS": {"timeout": timedelta(seconds=7), "atomic": True}}):
        register_tasks(registry)
    handler = registry.find("task:default:x")
    assert handler is not None
    assert (handler.timeout, handler.atomic) == (timedelta(seconds=7), True)


def test_handlers_are_registered_once(tasks: Any):
    """What is registered already is passed over, also while worker threads run."""
    from jobqueue.contrib.django.tasks import register_tasks

    registry = Registry()
    register_tasks(registry)
    registry.freeze()
    register_tasks(registry)


def test_a_handler_of_the_project_is_not_replaced(tasks: Any):
    """Whoever has a handler of his own for a queue's pattern is told."""
    from jobqueue.contrib.django.tasks import register_tasks

    registry = Registry()
    registry.register("task:default:*", lambda context, job: None)
    with pytest.raises(DuplicateHandlerError, match="task:default"):
        register_tasks(registry)


def test_policies_of_options_go_with_the_job(tasks: Any, with_tasks: Any, project_service: Any):
    """``retry`` is stored with each job."""
    with with_tasks(default={"OPTIONS": {"max_retry_count": 3, "retry": Fixed(timedelta(minutes=1))}}):
        job = project_service.get_job(UUID(tasks.add.enqueue(1).id))
    assert (job.max_retry_count, job.retry_policy) == (3, Fixed(timedelta(minutes=1)))


def test_the_app_registers_the_queues(tasks: Any, with_tasks: Any):
    """When Django is set up, the queues of TASKS get their handlers; backends that are no job queues need none."""
    from django.test import override_settings

    from jobqueue.contrib.django.task_queues import register_task_queues

    registry = Registry()
    with override_settings(TASKS={"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}):
        register_task_queues(registry)
    assert registry.registered_job_types() == []
    with with_tasks(default={"QUEUES": ["mail"]}):
        register_task_queues(registry)
    assert registry.registered_job_types() == ["task:mail:*"]


@pytest.mark.parametrize(
    ("said", "count", "policy"),
    [
        ({}, 2, Fixed(timedelta(0))),
        ({"max_retry_count": 5}, 5, Fixed(timedelta(0))),
        ({"retry": Fixed(timedelta(1))}, 2, Fixed(timedelta(1))),
        ({"retry": Waits([timedelta(1)] * 3)}, 3, Waits([timedelta(1)] * 3)),
        ({"max_retry_count": 0}, 0, Fixed(timedelta(0))),
    ],
)
def test_what_a_task_says_goes_before_options(
    tasks: Any, project_service: Any, said: dict[str, Any], count: int, policy: Any
):
    """How often a task is retried, and when, it may say itself; what it leaves open, OPTIONS say."""
    result = replace(tasks.fail_until, **said).enqueue(1)
    job = project_service.get_job(UUID(result.id))
    assert (job.max_retry_count, job.retry_policy) == (count, policy)
