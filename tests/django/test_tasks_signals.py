"""The signals of the Tasks framework."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fixtures.django_work import finished


@pytest.fixture
def heard(framework: Any) -> Iterator[list[tuple[str, Any, Any]]]:
    """What receivers hear: the signal, the sender and the status."""
    heard: list[tuple[str, Any, Any]] = []
    receivers = []
    for name in ("task_enqueued", "task_started", "task_finished"):

        def receive(sender: Any, task_result: Any, name: str = name, **_: Any) -> None:
            heard.append((name, sender, str(task_result.status)))

        getattr(framework, name).connect(receive)
        receivers.append((getattr(framework, name), receive))
    yield heard
    for signal, receive in receivers:
        signal.disconnect(receive)


def test_enqueuing_is_told(tasks: Any, heard: list[Any]):
    """``task_enqueued`` is sent by the class of the backend, in the process that enqueues."""
    tasks.add.enqueue(1)
    assert heard == [("task_enqueued", type(tasks.backend_of()), "READY")]


def test_a_task_that_is_refused_is_not_told(tasks: Any, heard: list[Any]):
    """Nothing was enqueued."""
    with pytest.raises(TypeError):
        tasks.add.enqueue(object())
    assert heard == []


def test_success_is_told(tasks: Any, work: Callable[[], Any], heard: list[Any]):
    """``task_started`` comes before the run, and ``task_finished`` after it."""
    result = tasks.add.enqueue(1)
    work()
    finished(result)
    assert [(name, status) for name, _, status in heard] == [
        ("task_enqueued", "READY"),
        ("task_started", "RUNNING"),
        ("task_finished", "SUCCESSFUL"),
    ]


def test_failure_is_told_once(tasks: Any, work: Callable[[], Any], heard: list[Any]):
    """A task that is retried starts again and again, and finishes once."""
    result = tasks.fail_until.enqueue(9)
    work()
    finished(result)
    assert [(name, status) for name, _, status in heard][1:] == [
        ("task_started", "RUNNING"),
        ("task_started", "RUNNING"),
        ("task_started", "RUNNING"),
        ("task_finished", "FAILED"),
    ]


def test_the_receivers_of_the_end_see_the_result(tasks: Any, framework: Any, work: Callable[[], Any]):
    """What ``task_finished`` tells has the return value, or the error."""
    seen: list[Any] = []

    def receive(task_result: Any, **_: Any) -> None:
        seen.append(task_result)

    framework.task_finished.connect(receive)
    try:
        work()
        finished(tasks.add.enqueue(1))
        finished(tasks.fail.enqueue("broken"))
    finally:
        framework.task_finished.disconnect(receive)
    assert seen[0].return_value == 1
    assert seen[0].finished_at is not None
    assert [error.exception_class for error in seen[1].errors] == [ValueError]


def test_a_receiver_that_fails_does_no_harm(
    tasks: Any, framework: Any, work: Callable[[], Any], caplog: pytest.LogCaptureFixture
):
    """What a receiver raises in a worker is logged, and the task goes on."""

    def receive(**_: Any) -> None:
        raise ValueError("of a receiver")

    framework.task_started.connect(receive)
    framework.task_finished.connect(receive)
    try:
        work()
        with caplog.at_level(logging.ERROR):
            assert finished(tasks.add.enqueue(1)).return_value == 1
    finally:
        framework.task_started.disconnect(receive)
        framework.task_finished.disconnect(receive)
    assert "of a receiver" in caplog.text
