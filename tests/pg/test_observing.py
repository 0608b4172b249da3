"""Observers: what they hear of jobs that really run, and what they can do no harm to."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any, TypeVar

import pytest

import jobqueue
from jobqueue import Discard, JobQueueError, Registry, Snooze, State
from jobqueue.events import (
    COMMITTED_EVENTS,
    LOCAL_EVENTS,
    ClaimLost,
    Connected,
    JobBundleStopped,
    JobRescued,
    JobsAdded,
    JobStarted,
    JobStopped,
    ObservedEvent,
    RunEnded,
)
from jobqueue.outcomes import Claimant
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import FAST_DEATH, Workers, wait_for_end

T = TypeVar("T", bound=ObservedEvent)


class Observed(list[ObservedEvent]):
    """What an observer was told, in order."""

    def of(self, kind: type[T]) -> list[T]:
        """Return those of a kind."""
        return [event for event in self if isinstance(event, kind)]


@pytest.fixture
def observed() -> Observed:
    return Observed()


def test_a_run_is_told_of_from_start_to_end(workers: Workers, registry: Registry, observed: Observed) -> None:
    """An observer hears of the start and the end of a run, and of the job that has stopped, once each."""
    registry.handler("t")(lambda value: value)
    service = workers.service()
    service.add_observer(observed.append, JobStarted, RunEnded, JobStopped)
    workers.start_on(service, registry)
    job = service.enqueue("t", {"value": 1})
    wait_for_end(service, job)
    wait_until(lambda: len(observed) == 3)
    [started], [ended], [stopped] = observed.of(JobStarted), observed.of(RunEnded), observed.of(JobStopped)
    assert started.job == ended.job == job
    assert started.waited is not None
    assert timedelta(0) <= started.waited < timedelta(seconds=10)
    assert (ended.kind, ended.error_type) == ("finished", None)
    assert timedelta(0) <= ended.took < timedelta(seconds=10)
    assert (stopped.id, stopped.will_retry) == (job.id, False)
    assert observed.index(started) < observed.index(ended)


def raise_error(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("run", "kind", "error_type"),
    [
        (lambda: raise_error(KeyError("x")), "failed", "builtins.KeyError"),
        (lambda: Discard("no"), "discarded", None),
        (lambda: Snooze(timedelta(hours=1)), "snoozed", None),
    ],
)
def test_every_end_of_a_run_is_told(
    workers: Workers,
    registry: Registry,
    observed: Observed,
    run: Callable[[], Any],
    kind: str,
    error_type: str | None,
) -> None:
    """What became of the run is in the event, with the class of its error."""
    registry.handler("t")(run)
    service = workers.service()
    service.add_observer(observed.append, RunEnded)
    workers.start_on(service, registry)
    job = service.enqueue("t", {})
    wait_until(lambda: observed)
    [ended] = observed.of(RunEnded)
    assert (ended.job, ended.kind, ended.error_type) == (job, kind, error_type)


def test_what_an_atomic_handler_has_committed_is_told(workers: Workers, registry: Registry, observed: Observed) -> None:
    """The end of a run whose outcome was saved with its work is told as any other."""
    registry.handler("t", atomic=True)(lambda: None)
    service = workers.service()
    service.add_observer(observed.append, RunEnded)
    workers.start_on(service, registry)
    job = service.enqueue("t", {})
    wait_until(lambda: observed)
    assert [(ended.job, ended.kind) for ended in observed.of(RunEnded)] == [(job, "finished")]


def test_a_lost_claim_is_told_once(workers: Workers, registry: Registry, observed: Observed) -> None:
    """When a running job is cancelled, the process that had claimed it tells of the lost claim, and no other does."""
    running, over = threading.Event(), threading.Event()

    @registry.handler("t")
    def wait() -> None:
        running.set()
        over.wait(10)

    service, other, heard_elsewhere = workers.service(), workers.service(), Observed()
    service.add_observer(observed.append, ClaimLost)
    other.add_observer(heard_elsewhere.append, ClaimLost, JobStopped)
    workers.start_on(service, registry)
    workers.start_on(other, Registry())
    job = service.enqueue("t", {})
    assert running.wait(10)
    claim_id = service.get_job(job.id).claim_id
    service.cancel_job(job.id)
    wait_until(lambda: observed and heard_elsewhere)
    over.set()
    wait_until(lambda: service.get_job(job.id).state is State.CANCELLED)
    assert observed == [ClaimLost(id=job.id, claim_id=claim_id)]
    assert heard_elsewhere.of(ClaimLost) == []


def test_a_rescue_is_told(workers: Workers, observed: Observed) -> None:
    """Whoever takes up a job whose worker has fallen silent tells of it."""
    service = workers.service(**FAST_DEATH)
    job = service.enqueue("t", {})
    with closing(service.store.for_workers(lock_timeout=timedelta(seconds=1))) as silent:
        assert silent.claim_jobs(["t"], 1, Claimant(name="gone", lease=FAST_DEATH["dead_for"])) == (job,)
    service.add_observer(observed.append, JobRescued)
    workers.start_on(service, Registry())
    wait_until(lambda: observed, 20)
    assert observed == [JobRescued(id=job.id, type="t", claimed_by="gone", rescue_count=1, failed=False)]


def test_a_bundle_that_has_stopped_is_told(workers: Workers, registry: Registry, observed: Observed) -> None:
    """What is committed elsewhere is heard, too, by a service without any worker."""
    registry.handler("t")(lambda: None)
    service = workers.service()
    service.add_observer(observed.append, JobBundleStopped)
    workers.start(registry)
    bundle = service.add_bundle(jobqueue.JobBundle.new("b", [jobqueue.JobDesc({}, type="t")]))
    wait_until(lambda: observed)
    assert [event.id for event in observed.of(JobBundleStopped)] == [bundle.id]


def test_an_observer_that_fails_harms_nobody(
    workers: Workers, registry: Registry, observed: Observed, caplog: pytest.LogCaptureFixture
) -> None:
    """What an observer raises is logged and told; the job runs, and the next observer hears of it."""
    errors: list[BaseException] = []
    registry.handler("t")(lambda: None)
    service = workers.service()
    service.set_on_error(errors.append)
    service.add_observer(lambda _: raise_error(ValueError("broken")), *LOCAL_EVENTS)
    service.add_observer(observed.append, *LOCAL_EVENTS)
    workers.start_on(service, registry)
    with caplog.at_level(logging.ERROR, "jobqueue"):
        job = service.enqueue("t", {})
        assert wait_for_end(service, job).succeeded
        wait_until(lambda: observed.of(RunEnded))
    assert {str(error) for error in errors} == {"broken"}
    assert "an observer failed on JobStarted" in caplog.text


# --- without a database


@pytest.fixture
def service() -> Iterator[Any]:
    with closing(jobqueue.connect("memory://", origin="tests")) as service:
        yield service


def test_what_is_added_is_told(service: Any, observed: Observed) -> None:
    """Jobs are told of as they were stored, however they were added; a bundle's members together."""
    service.add_observer(observed.append, JobsAdded)
    enqueued = service.enqueue("t", 1)
    added = service.add_job(jobqueue.Job.new("t", 2))
    several = service.add_jobs([jobqueue.Job.new("t", 3), jobqueue.Job.new("u", 4)])
    bundle = service.add_bundle(jobqueue.JobBundle.new("b", [jobqueue.JobDesc(5, type="t")]))
    assert [event.jobs for event in observed.of(JobsAdded)] == [
        (enqueued,),
        (added,),
        (*several,),
        bundle.jobs,
    ]
    assert all(job.origin == "tests" for event in observed.of(JobsAdded) for job in event.jobs)


def test_what_is_refused_is_not_told(service: Any, observed: Observed) -> None:
    """Jobs that were not added are not told of."""
    job = service.enqueue("t", 1)
    service.add_observer(observed.append)
    with pytest.raises(jobqueue.DuplicateJobError):
        service.add_job(job)
    assert service.add_jobs([]) == []
    assert observed == []


def test_an_observer_that_was_removed_hears_nothing(service: Any, observed: Observed) -> None:
    """Removed once, an observer hears of no kind any more, however often it was added; the others do."""
    others = Observed()
    service.add_observer(observed.append)
    service.add_observer(observed.append, JobsAdded)
    service.add_observer(others.append, JobsAdded)
    service.remove_observer(observed.append)
    service.remove_observer(print)
    service.enqueue("t", 1)
    assert (len(observed), len(others)) == (0, 1)


@pytest.mark.parametrize("kind", [Connected, jobqueue.Job, "JobStarted", None])
def test_what_cannot_be_observed_is_refused(service: Any, kind: Any) -> None:
    """Anything but a class of an event is refused by name, and the observer hears nothing."""
    with pytest.raises(TypeError, match="there are JobsAdded, JobStarted"):
        service.add_observer(lambda _: pytest.fail("told"), JobsAdded, kind)
    service.enqueue("t", 1)


def test_what_cannot_be_called_is_no_observer(service: Any) -> None:
    """Something that cannot be called is refused at once."""
    with pytest.raises(TypeError, match="__call__"):
        service.add_observer("tell me")


def test_a_service_that_only_polls_has_local_events(workers: Workers, observed: Observed) -> None:
    """Where nothing is heard from the database, asking for that is refused, and what happens here can be observed."""
    service = workers.service(poll_only=True)
    with pytest.raises(JobQueueError, match="polls only"):
        service.add_observer(observed.append, *COMMITTED_EVENTS)
    service.add_observer(observed.append, *LOCAL_EVENTS)
    job = service.enqueue("t", 1)
    assert observed == [JobsAdded(jobs=(job,))]
