"""The backend memory://: how it is opened and shared, what it refuses, and worker pools on it."""

import multiprocessing
import threading
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import attrs
import pytest

import jobqueue
from jobqueue import (
    ClosedError,
    Fixed,
    InvalidJobError,
    Job,
    JobBundle,
    JobContext,
    JobDesc,
    Registry,
    Service,
    Snooze,
    State,
    WorkerPool,
    WorkerSettings,
)
from jobqueue.backends.memory.connect import connect
from jobqueue.events import JobAvailable
from jobqueue.outcomes import Claimant
from jobqueue.queue_service import QueueService
from tests.fixtures.waiting import wait_until

QUIET = WorkerSettings(poll_interval=timedelta(seconds=30), batch_size=8)
"""Settings under which no test waits for a poll."""

CLAIMANT = Claimant(name="host:1:thread", lease=timedelta(seconds=60))
SOON = timedelta(milliseconds=50)


@pytest.fixture
def service() -> Iterator[QueueService]:
    """A service on a queue of its own."""
    with connect(origin="tests", settings=QUIET) as service:
        yield service


@pytest.fixture
def registry() -> Registry:
    return Registry()


def until_stopped(service: Service, *jobs: Job) -> list[Job]:
    """Wait until *jobs* have stopped, and return them as they are then."""

    def read() -> list[Job]:
        found = [service.get_job(job.id) for job in jobs]
        return found if all(job.stopped for job in found) else []

    return wait_until(read, message=f"the end of {jobs}")


# --- opening and sharing


def test_a_url_leads_to_the_backend():
    """``jobqueue.connect`` finds the backend by its scheme, and passes its options on."""
    with jobqueue.connect("memory://", settings=QUIET, origin="here", max_payload_bytes=10) as service:
        assert service.enqueue("t", 1).origin == "here"
        assert service.settings is QUIET
        with pytest.raises(jobqueue.PayloadError, match="10 are the limit"):
            service.enqueue("t", "longer than that")


def test_a_queue_without_a_name_is_nobody_elses():
    """Each service on ``memory://`` has a new, empty queue."""
    with connect("memory://") as one, connect("memory://") as other:
        one.enqueue("t", 1)
        assert (one.get_status().num_jobs, other.get_status().num_jobs) == (1, 0)


def test_a_name_is_shared():
    """Services under one name see the same jobs, and those under another name do not."""
    with connect("memory://shared") as one, connect("memory://shared") as other, connect("memory://Shared") as third:
        job = one.enqueue("t", 1)
        assert other.get_job(job.id) == job
        assert third.get_status().is_zero


def test_the_last_to_close_lets_a_shared_queue_go():
    """A queue is there as long as one service has it open, and is new after that."""
    with connect("memory://kept") as last:
        with connect("memory://kept") as first:
            job = first.enqueue("t", 1)
        with connect("memory://kept") as second:
            assert second.get_job(job.id) == job
        assert last.get_job(job.id) == job
    with connect("memory://kept") as new:
        assert new.get_status().is_zero


def test_a_store_that_is_closed_twice_gives_a_shared_queue_back_once():
    """Closing a store again takes the queue away from nobody."""
    with connect("memory://twice") as service:
        with connect("memory://twice") as other:
            store = other.store
        store.close()
        job = service.enqueue("t", 1)
        with connect("memory://twice") as third:
            assert third.get_job(job.id) == job


def test_a_service_that_cannot_be_opened_holds_no_queue():
    """A name is free again when opening it under a bad origin has failed."""
    with connect("memory://failed") as service, pytest.raises(InvalidJobError):
        connect("memory://failed", origin="")
    assert service.settings
    with connect("memory://failed") as first:
        first.enqueue("t", 1)
        with pytest.raises(InvalidJobError):
            connect("memory://failed", origin="")
    with connect("memory://failed") as new:
        assert new.get_status().is_zero


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("memory:///path", "a path mean"),
        ("memory://name/path", "a path mean"),
        ("memory://name/", "a path mean"),
        ("memory://name:5432", "a port mean"),
        ("memory://me:secret@name", "a user or password mean"),
        ("memory://name?pool_size=3", "a query mean"),
        ("memory://name#part", "a fragment mean"),
        ("memory://name:1/path?query", "a port and a path and a query mean"),
        ("memory://two names", "letters, digits"),
        ("memory:name", "memory://name"),
        ("redis://name", "memory://name"),
    ],
)
def test_a_url_says_nothing_that_is_not_heeded(url, what):
    """Whatever a URL has besides a name is refused, and named."""
    with pytest.raises(ValueError, match=what) as caught:
        connect(url)
    assert "secret" not in str(caught.value)


def test_settings_are_settings():
    """Something else in their place is refused at once, and not by the first worker."""
    with pytest.raises(TypeError, match="WorkerSettings"):
        connect(settings={"batch_size": 3})


def test_a_closed_service_is_closed():
    """Neither the service, nor the stores that somebody still holds, do anything after the end."""
    service = connect()
    store, notifier = service.store, service.notifier
    worker_store = store.for_workers(lock_timeout=SOON)
    worker_store.close()
    service.close()
    for call in (
        service.get_status,
        store.get_status,
        lambda: store.add_job(Job.new("t", 1, origin="o"), delay=None),
        lambda: worker_store.claim_jobs(["*"], 1, CLAIMANT),
        lambda: notifier.subscribe(print, JobAvailable),
    ):
        with pytest.raises(ClosedError):
            call()
    assert not notifier.is_listening


def _in_child(there: Connection) -> None:
    with connect("memory://forked") as service:
        there.send(service.get_status().num_jobs)
        service.enqueue("from-the-child", 1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_queues_of_its_own():
    """A child under its parent's name finds an empty queue: jobs of the parent must not run in both."""
    with connect("memory://forked") as service:
        service.enqueue("from-the-parent", 1)
        fork = multiprocessing.get_context("fork")
        here, there = fork.Pipe()
        child = fork.Process(target=_in_child, args=(there,))
        child.start()
        assert here.poll(30)
        assert here.recv() == 0
        child.join(30)
        assert child.exitcode == 0
        assert service.get_status().num_jobs == 1


# --- what it cannot do


@pytest.mark.parametrize(
    "add",
    [
        lambda service, connection: service.enqueue("t", 1, connection=connection),
        lambda service, connection: service.add_job(Job.new("t", 1), connection=connection),
        lambda service, connection: service.add_jobs([Job.new("t", 1)], connection=connection),
        lambda service, connection: service.add_bundle(JobBundle.new("b", [JobDesc(1, "t")]), connection=connection),
    ],
)
def test_no_transaction_can_be_joined(service, add):
    """A connection is refused with its name, and nothing is added."""
    with pytest.raises(TypeError, match=r"threading\.Event"):
        add(service, threading.Event())
    assert service.get_status().is_zero


# --- worker pools


@attrs.frozen
class Email:
    to: str


def test_a_pool_runs_jobs_of_every_shape(service, registry):
    """Handlers get a context, a structured payload, its keys, or nothing, and their results are kept."""

    @registry.handler("with-context")
    def with_context(ctx: JobContext, number: int) -> list[str]:
        return [ctx.job.type, str(number)]

    @registry.handler("structured")
    def structured(email: Email) -> Email:
        return attrs.evolve(email, to=email.to.upper())

    @registry.handler("keywords")
    def keywords(*, a: int, b: int) -> int:
        return a + b

    @registry.handler("prefix:*")
    def prefixed(payload: Any) -> None:
        pass

    jobs = [
        service.enqueue("with-context", 7),
        service.enqueue(structured, Email("you")),
        service.enqueue("keywords", {"a": 1, "b": 2}),
        service.enqueue("prefix:any", "x"),
    ]
    with WorkerPool(service, registry, threads=3):
        ended = until_stopped(service, *jobs)
    assert [job.result for job in ended] == [["with-context", "7"], {"to": "YOU"}, 3, None]
    assert {job.state for job in ended} == {State.SUCCEEDED}
    assert {job.run_count for job in ended} == {1}


def test_jobs_wake_idle_workers(service, registry):
    """Jobs that are added, retried and snoozed while workers are idle run at once, though nobody polls."""

    @registry.handler("fails-twice", retry=Fixed(SOON))
    def fail_twice(ctx: JobContext, names: list[str]) -> int:
        if ctx.job.run_count < 2:
            raise ValueError(names[ctx.job.run_count])
        return ctx.job.run_count

    @registry.handler("sleeps-once")
    def sleep_once(ctx: JobContext, _: int) -> Snooze | str:
        return Snooze(SOON) if ctx.job.run_count == 0 else "awake"

    with WorkerPool(service, registry, threads=2):
        failing = service.enqueue("fails-twice", ["first", "second"], max_retry_count=2)
        sleeping = service.enqueue("sleeps-once", 1)
        delayed = service.enqueue("sleeps-once", 1, delay=SOON * 2)
        failing, sleeping, delayed = until_stopped(service, failing, sleeping, delayed)
    assert (failing.result, failing.current_retry_count, failing.state) == (2, 2, State.SUCCEEDED)
    assert [(error.run, error.error_msg) for error in failing.attempt_errors] == [(1, "first"), (2, "second")]
    assert [(job.result, job.run_count) for job in (sleeping, delayed)] == [("awake", 2), ("awake", 2)]


def test_a_bundle_completes(service, registry):
    """When the last member has stopped, the job that the bundle asks for runs, and finds the bundle."""
    seen: list[JobBundle | None] = []
    registry.register_func_for_job_type("member", lambda number: number)

    @registry.handler("last")
    def last(ctx: JobContext, payload: str) -> str:
        seen.append(ctx.bundle())
        return payload

    descs = [JobDesc(number, "member") for number in range(5)]
    bundle = service.add_bundle(JobBundle.new("b", descs, on_stopped=JobDesc("done", "last")))
    with WorkerPool(service, registry, threads=4):
        wait_until(lambda: service.list_jobs(type="last", state=State.SUCCEEDED))
    [found] = seen
    assert found == bundle
    assert (found.num_jobs_stopped, found.stopped, [job.result for job in found.jobs]) == (5, True, [0, 1, 2, 3, 4])
    assert [job.result for job in service.list_jobs(type="last")] == ["done"]


def test_a_cancelled_run_is_told(service, registry):
    """A handler whose job is cancelled sees so at once, without a beat, and what it returns is not kept."""
    running, told = threading.Event(), threading.Event()

    @registry.handler("long")
    def run_long(ctx: JobContext, _: int) -> str:
        running.set()
        wait_until(lambda: ctx.is_lost)
        told.set()
        return "too late"

    job = service.enqueue("long", 1)
    with WorkerPool(service, registry, threads=1):
        assert running.wait(10)
        assert service.cancel_job(job.id)
        assert told.wait(10)
    [cancelled] = until_stopped(service, job)
    assert (cancelled.state, cancelled.result, cancelled.error_msg) == (State.CANCELLED, None, "cancelled")
    assert service.health()["lost_claims"] == 1


def test_each_job_runs_once(registry):
    """Of jobs that several threads add while two pools on one queue work, none runs twice and none is left."""
    ran: list[int] = []
    registry.register_func_for_job_type("count", ran.append)
    with (
        connect("memory://crowd", settings=QUIET) as one,
        connect("memory://crowd", settings=QUIET) as other,
        WorkerPool(one, registry, threads=3),
        WorkerPool(other, registry, threads=3),
    ):
        adders = [
            threading.Thread(target=lambda first=first: [one.enqueue("count", first + n) for n in range(100)])
            for first in range(0, 400, 100)
        ]
        for adder in adders:
            adder.start()
        for adder in adders:
            adder.join()
        wait_until(lambda: one.get_status().by_state[State.SUCCEEDED] == 400, 30)
    assert sorted(ran) == list(range(400))
