"""What is stored of jobs and bundles that are added, and what is refused before anything is."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import psycopg
import pytest

import jobqueue
import jobqueue_pg
from jobqueue import (
    InvalidJobError,
    Job,
    JobBundle,
    JobDesc,
    RefusedError,
)
from jobqueue.queue_service import QueueService
from jobqueue.registry import default_registry
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.stores import (
    Clock,
    Connection,
    assert_counts_true,
    claim,
    fetch_all,
    make_bundle,
    make_job,
)

FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def caller(queue: str) -> Iterator[Connection]:
    """The application's own connection, which begins a transaction with its first statement."""
    with closing(psycopg.connect(queue)) as connection:
        yield connection


# --- what is stored


def test_origin_is_the_services_unless_named(service: QueueService) -> None:
    """A job without an origin gets the service's; a member gets its bundle's first."""
    assert service.enqueue("t", 1).origin == "tests"
    assert service.enqueue("t", 1, origin="mine").origin == "mine"
    assert service.add_job(Job.new("t", 1)).origin == "tests"
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t"), JobDesc(1, type="t", origin="m")]))
    assert (bundle.origin, [job.origin for job in bundle.jobs]) == ("tests", ["tests", "m"])
    assert [job.origin for job in service.get_job_bundle(bundle.id).jobs] == ["tests", "m"]
    named = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")], origin="of-the-bundle"))
    assert [job.origin for job in service.get_job_bundle(named.id).jobs] == ["of-the-bundle"]


def test_origin_of_a_service_is_the_programs_name(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is given no origin takes the program's name, cut to what the database takes."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/" + "p" * 150])
    with closing(jobqueue_pg.connect(queue)) as service:
        assert service.get_job(service.enqueue("t", 1).id).origin == "p" * 100


def test_retries_are_the_handlers_unless_given(service: QueueService) -> None:
    """Enqueue takes max_retry_count from the handler, given or registered; add_job never does."""

    @jobqueue.handler("with-retries", max_retry_count=3)
    def with_retries(payload: int) -> None: ...

    try:
        assert service.enqueue("with-retries", 1).max_retry_count == 3
        assert service.enqueue(with_retries, 1).max_retry_count == 3
        assert service.enqueue("with-retries", 1, max_retry_count=0).max_retry_count == 0
        assert service.enqueue("unknown", 1).max_retry_count == 0
        with jobqueue.use_service(service):
            assert service.get_job(with_retries.enqueue(1).id).max_retry_count == 3
        assert service.add_job(Job.new("with-retries", 1)).max_retry_count == 0
    finally:
        default_registry.unregister("with-retries")


def test_delay_counts_from_the_call(service: QueueService, caller: Connection) -> None:
    """In a transaction that has been open for some time, a delay counts from the call, not from its beginning."""
    caller.execute("select 1")
    caller.execute("select pg_sleep(0.1)")
    job = service.enqueue("t", 1, delay=timedelta(hours=1), connection=caller)
    (late,) = fetch_all(
        caller, "select start_at > now() + interval '1 hour 0.1 s' from worker.job where id = %s", job.id
    )
    caller.rollback()
    assert late


@pytest.mark.parametrize("joined", [False, True])
def test_a_delay_is_as_long_everywhere(store: PostgresStore, clock: Clock, caller: Connection, joined: bool) -> None:
    """A day's delay is 24 hours to the microsecond, also where the caller's clocks are put forward meanwhile."""
    caller.execute("set timezone to 'Europe/Berlin'")
    clock.moment = datetime(2026, 3, 28, 12, tzinfo=UTC)
    job, delay = make_job(), timedelta(days=1, microseconds=1)
    store.add_job(job, delay=delay, connection=caller if joined else None)
    caller.commit()
    assert store.get_job(job.id).start_at == clock.moment + delay


@pytest.mark.parametrize(
    "values",
    [
        {"start_at": FUTURE, "delay": timedelta(1)},
        {"start_at": datetime(2100, 1, 1)},  # noqa: DTZ001 - what is refused
        {"delay": 5},
        {"delay": timedelta.max},
        {"delay": timedelta.min},
        {"priority": 2**63},
        {"priority": 1.5},
        {"max_retry_count": -1},
        {"max_retry_count": 2**31},
        {"origin": ""},
    ],
    ids=str,
)
def test_values_that_no_job_has(service: QueueService, values: dict[str, Any]) -> None:
    """A value of the wrong type or size is refused by name before anything is added."""
    with pytest.raises(InvalidJobError) as caught:
        service.enqueue("t", 1, **values)
    assert caught.value.field in values
    assert service.get_status().is_zero


# --- what is refused


def test_member_of_a_bundle_alone(service: QueueService) -> None:
    """A member of a bundle cannot be added without it."""
    member = make_bundle(1).jobs[0]
    for add in (lambda: service.add_job(member), lambda: service.add_jobs([make_job(), member])):
        with pytest.raises(InvalidJobError, match="add_bundle") as caught:
            add()
        assert caught.value.field == "bundle_id"
    assert service.get_status().is_zero


@pytest.mark.parametrize("wrong", [None, "job", {"type": "t"}, JobDesc(1, type="t")], ids=repr)
def test_what_is_no_job(service: QueueService, wrong: Any) -> None:
    """Anything but a Job or JobBundle is refused by name."""
    with pytest.raises(InvalidJobError, match=type(wrong).__name__):
        service.add_job(wrong)
    with pytest.raises(InvalidJobError, match=type(wrong).__name__):
        service.add_jobs([make_job(), wrong])
    with pytest.raises(InvalidJobError, match=type(wrong).__name__):
        service.add_bundle(wrong)
    assert service.get_status().is_zero


def test_bundle_without_its_members(service: QueueService) -> None:
    """A bundle whose number is not that of its members, or that holds another's, is refused: it could not complete."""
    bundle = make_bundle(2)
    for broken in (
        attrs.evolve(bundle, num_jobs=3),
        attrs.evolve(bundle, jobs=bundle.jobs[:1]),
        attrs.evolve(bundle, jobs=(bundle.jobs[0], make_bundle(1).jobs[0])),
        attrs.evolve(bundle, jobs=(bundle.jobs[0], make_job())),
        attrs.evolve(bundle, jobs=(), num_jobs=0),
    ):
        with pytest.raises(InvalidJobError):
            service.add_bundle(broken)
    with pytest.raises(InvalidJobError, match="at least one"):
        JobBundle.new("b", [])
    assert service.get_status().is_zero


def test_table_that_refuses(service: QueueService, db: Connection) -> None:
    """What the database refuses for a reason of its own is a RefusedError with that reason."""
    db.execute("alter table worker.job add constraint no_elephants check (type <> 'elephant')")
    try:
        with pytest.raises(RefusedError, match="no_elephants"):
            service.add_jobs([make_job(), make_job("elephant")])
    finally:
        db.execute("alter table worker.job drop constraint no_elephants")
    assert service.get_status().is_zero


# --- bundles


def test_on_stopped_takes_the_origin_of_its_bundle(
    service: QueueService, store: PostgresStore, worker_store: WorkerStore, db: Connection
) -> None:
    """When its bundle has stopped, the job that was asked for is there, with the bundle's origin and id."""
    bundle = service.add_bundle(
        make_bundle(1, origin=None, on_stopped=JobDesc("done", type="after", max_retry_count=4))
    )
    (member,) = claim(worker_store)
    worker_store.save_outcomes([jobqueue.outcomes.Outcome.finished(member)])
    (after,) = service.list_jobs(type="after")
    assert (after.payload, after.origin, after.max_retry_count) == ("done", "tests", 4)
    assert after.completes_bundle_id == bundle.id
    assert_counts_true(db)


@pytest.mark.parametrize(
    "desc",
    [JobDesc(1, type=""), JobDesc(None, type="t"), JobDesc(1), JobDesc(1, type="t", priority=2**63), "t"],
    ids=repr,
)
def test_on_stopped_is_checked_beforehand(desc: Any) -> None:
    """A job that could not be added when the bundle stops is refused when the bundle is made."""
    with pytest.raises(InvalidJobError):
        make_bundle(1, on_stopped=desc)
