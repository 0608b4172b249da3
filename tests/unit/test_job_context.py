"""What a running handler is told: timeout, interruption, lost claims, its bundle."""

from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import uuid4

import attrs
import pytest

from jobqueue.bundle import JobBundle, JobDesc
from jobqueue.errors import JobInterruptedError, JobQueueError, JobTimeoutError, LostClaimError
from jobqueue.job_context import JobContext, current_job, current_job_context
from jobqueue.models import Job

JOB = Job.new("report", {"year": 2024})
MINUTE = timedelta(minutes=1)


class BundleReader:
    """As much of a service as a context uses."""

    def __init__(self, bundle):
        self.bundle = bundle
        self.read = []

    def get_job_bundle(self, id):
        self.read.append(id)
        return self.bundle


def test_without_a_timeout_there_is_no_deadline():
    """A context without a timeout has no deadline, and check lets it go on."""
    context = JobContext(JOB)
    assert context.deadline is None
    context.check()


def test_the_deadline_is_an_aware_moment():
    """The deadline is the timeout from now, as an aware UTC datetime."""
    before = datetime.now(UTC)
    deadline = JobContext(JOB, timeout=MINUTE).deadline
    assert before + MINUTE <= deadline <= datetime.now(UTC) + MINUTE
    assert deadline.tzinfo is UTC


def test_a_deadline_beyond_the_calendar_is_its_end():
    """A timeout that no datetime can hold does not raise."""
    assert JobContext(JOB, timeout=timedelta.max).deadline == datetime.max.replace(tzinfo=UTC)


def test_the_timeout_is_measured_by_the_monotonic_clock(monkeypatch):
    """Check raises from the moment on at which the timeout is reached, and not before; the wall clock has no say."""
    clock = 1000.0
    monkeypatch.setattr("jobqueue.job_context.monotonic", lambda: clock)
    context = JobContext(JOB, timeout=MINUTE)
    clock = 1059.999
    context.check()
    clock = 1060.0
    with pytest.raises(JobTimeoutError, match=rf"job {JOB.id} \(report\) has reached its timeout of 0:01:00"):
        context.check()
    assert not context.is_cancelled


def test_an_interrupted_run_is_cancelled():
    """A run whose pool is stopping is cancelled, and told so by check; its claim is still its own."""
    context = JobContext(JOB)
    assert not context.is_cancelled
    context.interrupt()
    assert context.is_cancelled
    assert not context.is_lost
    with pytest.raises(JobInterruptedError, match=rf"job {JOB.id} \(report\)"):
        context.check()


def test_a_lost_claim_cancels_the_run():
    """A run whose claim is lost knows it, is cancelled, and is told so by check."""
    context = JobContext(JOB)
    assert not context.is_lost
    context.lose()
    assert context.is_lost
    assert context.is_cancelled
    with pytest.raises(LostClaimError, match=rf"job {JOB.id} \(report\)"):
        context.check()


def test_the_worst_news_is_told_first():
    """Of several reasons to stop, check names the lost claim before the interruption, that before the timeout."""
    context = JobContext(JOB, timeout=timedelta(0))
    with pytest.raises(JobTimeoutError):
        context.check()
    context.interrupt()
    with pytest.raises(JobInterruptedError):
        context.check()
    context.lose()
    with pytest.raises(LostClaimError):
        context.check()


def test_a_job_without_a_bundle_has_none():
    """A job that is in no bundle reads none, with or without a service."""
    assert JobContext(JOB).bundle() is None
    assert JobContext(JOB, service=BundleReader(None)).bundle() is None


def test_a_member_reads_its_bundle():
    """A member of a bundle reads that bundle."""
    bundle = JobBundle.new("year", [JobDesc({"month": 1}, type="month")])
    service = BundleReader(bundle)
    assert JobContext(bundle.jobs[0], service=service).bundle() is bundle
    assert service.read == [bundle.id]


def test_a_completion_job_reads_the_bundle_that_it_completes():
    """The bundle that a job completes goes before one that it is a member of."""
    completed, own = uuid4(), uuid4()
    service = BundleReader(object())
    JobContext(attrs.evolve(JOB, completes_bundle_id=completed, bundle_id=own), service=service).bundle()
    assert service.read == [completed]


def test_a_bundle_cannot_be_read_without_a_service():
    """A member that runs without a service is told why it has no bundle."""
    member = attrs.evolve(JOB, bundle_id=uuid4())
    with pytest.raises(JobQueueError, match="without a service"):
        JobContext(member).bundle()


def test_the_current_job_is_that_of_the_current_context():
    """Code that a handler calls knows the job; outside of handlers there is none."""

    def inside():
        current_job_context.set(JobContext(JOB))
        return current_job()

    assert copy_context().run(inside) is JOB
    assert current_job() is None


def test_a_claim_that_nobody_beats_for_runs_out():
    """A context is lost from the moment on at which others may take the job; a beat that gets through revives it."""
    context = JobContext(Job.new("t", 1))
    context.keep_until(monotonic() - 1)
    assert context.is_lost
    assert context.is_cancelled
    with pytest.raises(LostClaimError):
        context.check()
    context.keep_until(monotonic() + 60)
    assert not context.is_lost
    context.check()
