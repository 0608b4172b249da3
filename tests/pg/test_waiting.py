"""Waiting for jobs on PostgreSQL: how soon it ends, what it costs, and what can come in between."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from statistics import median
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from jobqueue import (
    ClosedError,
    Fixed,
    Job,
    JobBundle,
    JobBundleNotFoundError,
    JobContext,
    JobDesc,
    JobNotFoundError,
    JobQueueError,
    UnavailableError,
)
from tests.fixtures.stores import fetch_all, make_bundle, make_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import QUIET, Workers, connections_of, wait_for_end

PATIENCE = 10
NAME = "waiting"
END_SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
LISTENERS = "select pid from pg_stat_activity where application_name = %s and query ilike '%%listen%%'"


@pytest.fixture
def waiting(workers, db):
    """A service that nobody works for, and that polls for nothing within the time of a test."""
    # The server may still be about to end the sessions of the test before.
    wait_until(lambda: connections_of(db, NAME) == 0)
    return workers.service(application_name=NAME)


@pytest.fixture
def elsewhere(workers):
    """Another service, which has no listener."""
    return workers.service(poll_only=True)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as threads:
        yield threads


def waiters(service) -> int:
    """Count the threads that wait in *service* and hear."""
    with service._waiting._lock:
        count = sum(len(found) for by_id in service._waiting._waiters.values() for found in by_id.values())
    return count if service.notifier.is_listening else 0


# --- the end of a job


def test_a_wait_ends_soon_after_its_job(waiting, elsewhere, threads):
    """On an idle queue a wait returns some ms after the end of its job, and looks for none: the median of twenty."""
    seconds = []
    for job in elsewhere.add_jobs([make_job() for _ in range(20)]):
        ended = threads.submit(lambda job: (waiting.wait_for_job(job.id, PATIENCE), time.monotonic()), job)
        wait_until(lambda: waiters(waiting) == 1)
        elsewhere.cancel_job(job.id)
        stopped = time.monotonic()
        found, returned = ended.result(PATIENCE)
        assert found.stopped
        seconds.append(returned - stopped)
    assert median(seconds) < 0.4  # who hears nothing looks each half second


def test_jobs_are_waited_for_beside_the_workers(workers, registry):
    """In the process that works, each wait returns the result; one after the other, and for jobs that have stopped."""
    registry.register_func_for_job_type("t", lambda number: number * 2)
    service = workers.service()
    workers.start_on(service, registry)
    for number in range(20):
        job = service.enqueue("t", number)
        assert service.wait_for_job(job.id, PATIENCE).result == number * 2
        assert service.wait_for_job(job.id, 0).result == number * 2


def test_another_process_is_waited_for(migrated, processes):
    """The workers are in another process, for jobs and for bundles; a failed job is returned like any other."""
    process = processes.start(threads=4, poll_interval=QUIET.total_seconds())
    workers = Workers(migrated)
    service = workers.service()
    slow, bad = service.enqueue("slow", 0.3), service.enqueue("quick", "no number")
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(number, type="quick") for number in range(10)]))
    assert service.wait_for_job(slow.id, PATIENCE).result == process.pid
    assert service.wait_for_job(bad.id, timedelta(seconds=PATIENCE)).has_error
    assert [job.result for job in service.wait_for_bundle(bundle.id, PATIENCE).jobs] == list(range(10))
    process.finish()
    workers.end()


def test_a_retry_is_waited_through(workers, registry, threads):
    """A run that will be retried does not end the wait."""
    failed, go_on = threading.Event(), threading.Event()

    @registry.handler("t", retry=Fixed(timedelta(0)))
    def work(context: JobContext, _: int) -> str:
        if context.job.run_count == 0:
            failed.set()
            raise ValueError("no luck")
        go_on.wait(PATIENCE)
        return "done"

    service = workers.service()
    workers.start_on(service, registry)
    job = service.enqueue("t", 1, max_retry_count=1)
    waiter = threads.submit(service.wait_for_job, job.id, PATIENCE)
    assert failed.wait(PATIENCE)
    wait_until(lambda: service.get_job(job.id).run_count == 1)
    assert not waiter.done()
    go_on.set()
    assert waiter.result(PATIENCE).result == "done"


def test_fifty_waits_need_one_listener(waiting, elsewhere, threads, db):
    """Fifty threads wait over one connection that listens, and few that read; each gets its own job."""
    jobs = elsewhere.add_jobs([make_job() for _ in range(50)])
    found = [threads.submit(waiting.wait_for_job, job.id, PATIENCE) for job in jobs]
    wait_until(lambda: waiters(waiting) == len(jobs))
    assert len(fetch_all(db, LISTENERS, NAME)) == 1
    for job in jobs:
        elsewhere.cancel_job(job.id)
    assert [waiter.result(PATIENCE) for waiter in found] == jobs
    assert connections_of(db, NAME) <= 1 + 4
    assert waiters(waiting) == 0


def test_a_wait_in_a_handler(workers, registry):
    """A handler that waits is refused, and its job fails with the reason, unless it says that it knows better."""
    service = workers.service()

    @registry.handler("waits")
    def wait(job_id: str, *, allowed: bool) -> str:
        return service.wait_for_job(UUID(job_id), PATIENCE, allow_in_handler=allowed).result

    registry.register_func_for_job_type("t", lambda number: number)
    workers.start_on(service, registry, 2)
    inner = service.enqueue("t", 1)
    refused = service.enqueue("waits", {"job_id": str(inner.id), "allowed": False})
    allowed = service.enqueue("waits", {"job_id": str(inner.id), "allowed": True})
    assert "would block a worker thread" in wait_for_end(service, refused).error_msg
    assert wait_for_end(service, allowed).result == 1


# --- what cannot be waited for


def test_what_is_not_committed_cannot_be_waited_for(waiting, db):
    """It raises at once, naming the cause; after the commit the wait works."""
    with db.transaction():
        job, bundle = waiting.enqueue("t", 1, connection=db), waiting.add_bundle(make_bundle(1), connection=db)
        began = time.monotonic()
        with pytest.raises(JobNotFoundError, match="in a transaction that has not committed"):
            waiting.wait_for_job(job.id, 60)
        with pytest.raises(JobBundleNotFoundError, match="in a transaction that has not committed"):
            waiting.wait_for_bundle(bundle.id, 60)
        assert time.monotonic() - began < PATIENCE
    with pytest.raises(TimeoutError, match="it is available"):
        waiting.wait_for_job(job.id, 0)
    with pytest.raises(TimeoutError, match="0 of its 1 jobs have"):
        waiting.wait_for_bundle(bundle.id, 0)


def test_a_job_that_is_deleted_meanwhile(workers, elsewhere, threads):
    """The wait ends with an error within the poll interval."""
    service = workers.service(poll_interval=timedelta(seconds=0.3))
    job = elsewhere.enqueue("t", 1)
    waiter = threads.submit(service.wait_for_job, job.id, PATIENCE)
    wait_until(lambda: waiters(service) == 1)
    elsewhere.delete_job(job.id)
    with pytest.raises(JobNotFoundError):
        waiter.result(PATIENCE)


# --- without a listener, without a database


def test_a_service_that_polls_only_waits_by_looking(workers, registry, elsewhere):
    """Without LISTEN a wait ends about half a second after its job, whatever the poll interval."""
    registry.register_func_for_job_type("t", lambda number: number)
    workers.start(registry)
    for number in range(3):
        job = elsewhere.enqueue("t", number)
        found = elsewhere.wait_for_job(job.id, PATIENCE)
        assert found.result == number
        assert age(elsewhere, found) < QUIET / 6


def age(service, job: Job) -> timedelta:
    """Return how long ago a job has stopped, by the database's clock."""
    marker = service.enqueue("marker", 1)
    return service.get_job(marker.id).created_at - job.stopped_at


def test_a_lost_listener_is_waited_through(waiting, elsewhere, threads, db):
    """The connection is killed while threads wait: they hear of what stops while nobody listens, and afterwards."""
    for _ in range(3):
        jobs = elsewhere.add_jobs([make_job() for _ in range(4)])
        found = [threads.submit(waiting.wait_for_job, job.id, PATIENCE) for job in jobs]
        wait_until(lambda: waiters(waiting) == 4)
        [pid] = fetch_all(db, LISTENERS, NAME)
        with db.transaction():
            # What is committed in one go with the loss is not heard by anybody.
            wait_until(lambda pid=pid: not fetch_all(db, "select pg_terminate_backend(%s)", pid)[0])
            db.execute("update worker.job set started_at = now(), stopped_at = now() where id = %s", [jobs[0].id])
        assert found[0].result(PATIENCE).stopped
        wait_until(lambda: waiters(waiting) == 3)
        for job, waiter in zip(jobs[1:], found[1:], strict=True):
            elsewhere.cancel_job(job.id)
            assert waiter.result(PATIENCE).stopped


@contextmanager
def cut_off(pg_dsn: str, conninfo: str) -> Iterator[None]:
    """End all sessions of a database, and let nobody in."""
    name = conninfo_to_dict(conninfo)["dbname"]
    with psycopg.connect(pg_dsn, autocommit=True) as admin:

        def allow(connections: bool) -> None:
            admin.execute(
                sql.SQL("alter database {} allow_connections {}").format(sql.Identifier(name), sql.Literal(connections))
            )

        allow(False)
        try:
            # Who was about to connect appears among the sessions only later.
            wait_until(lambda: not fetch_all(admin, END_SESSIONS, name), message="the end of all sessions")
            yield
        finally:
            allow(True)


@pytest.fixture
def exposed(migrated: str) -> Iterator[Workers]:
    """Services on a database that may be cut off."""
    made = Workers(migrated)
    yield made
    made.end()


def test_an_outage_is_waited_through(exposed, pg_dsn, migrated, threads):
    """Nobody can connect for a while: the wait goes on, and ends soon after the job, as if nothing had been."""
    service, other = exposed.service(), exposed.service(poll_only=True)
    jobs = service.add_jobs([make_job(), make_job()])
    found = [threads.submit(service.wait_for_job, job.id, 60) for job in jobs]
    wait_until(lambda: waiters(service) == 2)
    with cut_off(pg_dsn, migrated):
        wait_until(lambda: service.health()["parts"]["listener"]["state"] == "down")
        assert not threading.Event().wait(1)
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute("update worker.job set started_at = now(), stopped_at = now() where id = %s", [jobs[0].id])
    assert found[0].result(15).stopped
    other.cancel_job(jobs[1].id)
    assert found[1].result(15).stopped


@pytest.mark.parametrize("timeout", [0, 0.3, 2])
def test_an_outage_does_not_stretch_a_timeout(exposed, pg_dsn, migrated, timeout):
    """While nobody can connect a wait ends when it is to end, or soon after, with the reason as its cause."""
    service = exposed.service()
    job = service.enqueue("t", 1)
    with cut_off(pg_dsn, migrated):
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(TimeoutError, match="the database does not answer") as caught:
                service.wait_for_job(job.id, timeout)
            assert timeout <= time.monotonic() - began < timeout + 5  # a connection is waited for six times as long
            assert isinstance(caught.value.__cause__, UnavailableError)


def test_closing_ends_waits_and_reads_during_an_outage(exposed, pg_dsn, migrated, threads, caplog):
    """While the database is away, closing takes no time: waits end with ClosedError, events that wait are let go."""
    service, other = exposed.service(), exposed.service(poll_only=True)
    service.add_job_stopped_listener(print)
    waited, job = other.add_jobs([make_job(), make_job()])
    holding, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        holding.set()
        assert go_on.wait(PATIENCE)

    service.add_job_stopped_listener(hold)
    for _ in range(2):
        other.cancel_job(job.id)
        other.reset_job(job.id)
    assert holding.wait(PATIENCE)
    waiter = threads.submit(service.wait_for_job, waited.id, None)
    wait_until(lambda: waiters(service) == 1)
    with cut_off(pg_dsn, migrated):
        service.remove_job_stopped_listener(hold)
        go_on.set()
        wait_until(lambda: service.health()["parts"]["listener"]["state"] == "down")
        service._waiting.wake()
        pool = service.store._database.pool
        wait_until(lambda: pool.get_stats()["requests_waiting"] == 2, message="both reads waiting for a connection")
        began = time.monotonic()
        service.close()
        with pytest.raises(ClosedError):
            waiter.result(PATIENCE)
        assert time.monotonic() - began < 5  # after which threads are given up
    assert "has not come back" not in caplog.text


def test_a_closed_service_waits_for_nothing(waiting):
    """Neither a wait that begins after the end nor one in a handler of a closed service blocks."""
    job = waiting.enqueue("t", 1)
    waiting.close()
    for wait in (waiting.wait_for_job, waiting.wait_for_bundle):
        with pytest.raises(JobQueueError, match="closed"):
            wait(job.id, None)
