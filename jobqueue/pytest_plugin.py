"""The pytest plugin of jobqueue: fixtures for tests of applications."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest

from jobqueue.backends import connect
from jobqueue.context import current_service, use_service
from jobqueue.errors import NotInitializedError
from jobqueue.models import Job
from jobqueue.service import Service
from jobqueue.testing import Clock, Drained, drain, enqueued_jobs, joining, synchronous_jobs


@pytest.fixture
def jobqueue_connection() -> object:
    """What the test's transaction is open on: override it, if it is not what the service joins by itself."""
    return None


@pytest.fixture
def jobqueue_service(jobqueue_connection: object) -> Iterator[Service]:
    """The service of the test: the application's own, if it has one, or else one with a queue in memory, just for it.

    All that the test does with it is a part of the transaction on `jobqueue_connection`.
    """
    with ExitStack() as stack:
        try:
            service = current_service()
        except NotInitializedError:
            service = stack.enter_context(closing(connect("memory://")))
        stack.enter_context(use_service(service))
        stack.enter_context(joining(jobqueue_connection, service=service))
        yield service


@pytest.fixture
def jobqueue_clock() -> Iterator[Clock]:
    """A clock that stands still until the test moves it, in force for the test."""
    with Clock() as clock:
        yield clock


@pytest.fixture
def jobqueue_drain(jobqueue_service: Service) -> Callable[..., Drained]:
    """``jobqueue.testing.drain`` for `jobqueue_service`, in the test's transaction."""
    return partial(drain, service=jobqueue_service)


@pytest.fixture
def jobqueue_enqueued(jobqueue_service: Service) -> Callable[..., list[Job]]:
    """``jobqueue.testing.enqueued_jobs`` for `jobqueue_service`, in the test's transaction."""
    return partial(enqueued_jobs, service=jobqueue_service)


@pytest.fixture
def jobqueue_synchronous() -> Iterator[None]:
    """Jobs are run when they are added, for the length of the test: ``jobqueue.testing.synchronous_jobs``."""
    with synchronous_jobs():
        yield
