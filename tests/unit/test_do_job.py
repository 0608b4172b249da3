"""Handlers run here and now: do_job."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import attrs
import pytest

from jobqueue.answers import Discard, Snooze
from jobqueue.errors import (
    HandlerNotFoundError,
)
from jobqueue.execution import do_job
from jobqueue.job_context import JobContext, current_job
from jobqueue.models import Job
from jobqueue.registry import Registry

NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)


class BadLuckError(Exception):
    """Anything that goes wrong."""


def claimed(payload=None, **columns):
    """Make a job as a worker has it."""
    job = Job.new("report", {} if payload is None else payload)
    return attrs.evolve(job, started_at=NOW, claim_id=uuid4(), **columns)


def raising(error):
    def fail():
        raise error

    return fail


class BadPolicy:
    def __init__(self, delay):
        self.delay = delay

    def delay_before(self, retry):
        if isinstance(self.delay, BaseException):
            raise self.delay
        return self.delay


@pytest.mark.parametrize("result", [5, None, Snooze(MINUTE), Discard("late")])
def test_do_job_returns_what_the_handler_returns(result):
    """Without a database, the result is returned as it is, steering values too; the job need not be claimed."""
    registry = Registry()
    registry.register("report", lambda ctx, job: (current_job(), job.payload, result))
    job = Job.new("report", [1])
    assert do_job(job, registry) == (job, [1], result)
    assert current_job() is None


@pytest.mark.parametrize("error", [BadLuckError("no"), SystemExit(2)])
def test_do_job_raises_what_the_handler_raises(error):
    """Without a database, an error is the caller's; no retry policy is asked."""
    registry = Registry()
    registry.handler("report", retry=BadPolicy(AssertionError("asked")))(raising(error))
    with pytest.raises(type(error)) as caught:
        do_job(attrs.evolve(Job.new("report", {}), max_retry_count=3), registry)
    assert caught.value is error


def test_do_job_has_the_handler_s_own_timeout():
    """The timeout of the handler is its deadline; there is no service whose timeout could apply."""
    registry = Registry()
    registry.register("service-s", lambda ctx, job: ctx.deadline)
    registry.handler("own", timeout=MINUTE)(deadline)
    assert do_job(Job.new("service-s", {}), registry) is None
    assert do_job(Job.new("own", {}), registry) > NOW


def deadline(ctx: JobContext):
    return ctx.deadline


def test_do_job_needs_a_handler():
    """A job of a type without a handler cannot be done."""
    with pytest.raises(HandlerNotFoundError, match="'report'"):
        do_job(Job.new("report", {}), Registry())
