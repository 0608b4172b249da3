"""How soon jobs start, and what waiting for them costs."""

import threading
import time
from datetime import timedelta

import pytest
from psycopg.conninfo import make_conninfo

import jobqueue
import jobqueue_pg
from jobqueue import (
    Job,
)
from jobqueue_pg.database import Database
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of, wait_for_end

PATIENCE = 10
SOON = timedelta(seconds=8)
"""Long before anybody polls who is not told to."""


@pytest.fixture
def service(workers):
    """A service whose workers neither listen nor poll: they know what is there at their start, and what they did."""
    return workers.service(poll_only=True)


@pytest.fixture
def hearing(workers):
    """A service whose workers listen, but do not poll."""
    return workers.service()


def run_to_end(workers, service, registry, *jobs, threads=2):
    """Work *jobs* off, and return them as they then are."""
    workers.start_on(service, registry, threads)
    return [wait_for_end(service, job) for job in jobs]


def test_a_delayed_job_starts_in_time(workers, service, registry):
    """A job that the workers knew of starts soon after its time, however long the poll interval."""
    registry.register_func_for_job_type("t", lambda _: None)
    job = service.enqueue("t", 1, delay=timedelta(seconds=0.6))
    [ended] = run_to_end(workers, service, registry, job)
    assert timedelta(0) <= ended.started_at - ended.start_at < SOON


def test_a_delayed_job_starts_in_time_beside_long_ones(workers, hearing, registry):
    """Whoever learns when the next job is due and then runs another tells those who go on waiting."""
    release = threading.Event()
    registry.register_func_for_job_type("t", lambda _: None)
    registry.register_func_for_job_type("long", lambda _: release.wait(PATIENCE))
    workers.start_on(hearing, registry, 3)
    running = hearing.enqueue("long", 1)
    wait_until(lambda: hearing.get_job(running.id).started)
    later = hearing.enqueue("t", 1, delay=timedelta(seconds=0.6))
    hearing.enqueue("long", 1)
    ended = wait_for_end(hearing, later)
    release.set()
    assert ended.started_at - ended.start_at < SOON


def test_a_delayed_job_that_nobody_knows_of_is_polled_for(workers, registry):
    """A job that was added with a delay while the workers slept starts within the poll interval."""
    service = workers.service(poll_interval=timedelta(seconds=0.5))
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start_on(service, registry)
    job = service.enqueue("t", 1, delay=timedelta(seconds=0.3))
    ended = wait_for_end(service, job)
    assert timedelta(0) <= ended.started_at - ended.start_at < SOON


def test_without_a_listener_jobs_are_polled_for(workers, registry):
    """A service that polls only has no listener, and finds jobs within its poll interval."""
    service = workers.service(poll_only=True, poll_interval=timedelta(seconds=0.3))
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start_on(service, registry)
    assert "jobqueue-listener" not in {thread.name for thread in threading.enumerate()}
    for _ in range(3):
        assert wait_for_end(service, service.enqueue("t", 1)).succeeded


def test_a_job_wakes_idle_workers(workers, hearing, registry):
    """A job that is added to an idle queue starts at once, although nobody polls."""
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start_on(hearing, registry, 4)
    waits = []
    for _ in range(20):
        ended = wait_for_end(hearing, hearing.enqueue("t", 1))
        waits.append((ended.started_at - ended.created_at).total_seconds())
    assert max(waits) < SOON.total_seconds()
    assert sorted(waits)[10] < 0.5


def test_a_job_added_in_a_transaction_wakes_at_its_commit(workers, hearing, registry, db):
    """Nothing starts before the commit of the transaction that adds it, and it starts at once after that."""
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start_on(hearing, registry)
    with db.transaction():
        job = hearing.enqueue("t", 1, connection=db)
        with pytest.raises(jobqueue.JobNotFoundError):
            hearing.get_job(job.id)
    wait_for_end(hearing, job, SOON.total_seconds())


def test_a_burst_wakes_several_threads(workers, hearing, registry):
    """Jobs that come together run together: each of them waits for all others to have started."""
    together = threading.Barrier(6)
    registry.register_func_for_job_type("t", lambda _: together.wait(PATIENCE))
    workers.start_on(hearing, registry, 6)
    jobs = hearing.add_jobs([Job.new("t", number) for number in range(6)])
    assert all(wait_for_end(hearing, job).succeeded for job in jobs)


def test_jobs_one_by_one_wake_several_threads(workers, hearing, registry):
    """The same, when they are added one after the other."""
    together = threading.Barrier(6)
    registry.register_func_for_job_type("t", lambda _: together.wait(PATIENCE))
    workers.start_on(hearing, registry, 6)
    jobs = [hearing.enqueue("t", number) for number in range(6)]
    assert all(wait_for_end(hearing, job).succeeded for job in jobs)


def test_a_reset_job_wakes_workers(workers, hearing, registry):
    """A job that is made available again is run at once."""
    registry.register_func_for_job_type("t", lambda _: None)
    [job] = run_to_end(workers, hearing, registry, hearing.enqueue("t", 1))
    hearing.reset_job(job.id)
    again = wait_for_end(hearing, job)
    assert (again.run_count, again.claim_id != job.claim_id) == (1, True)


def test_idle_threads_cost_next_to_nothing(workers, registry, monkeypatch):
    """Eight threads without work make about one statement per poll interval, and burn no CPU time."""
    made: list[str] = []
    fetch = Database.fetch
    monkeypatch.setattr(
        Database,
        "fetch",
        lambda self, *rest: (made.append(threading.current_thread().name), fetch(self, *rest))[1],
    )
    registry.register_func_for_job_type("t", lambda _: None)
    workers.start(registry, 8, poll_interval=timedelta(seconds=0.5))
    wait_until(lambda: "jobqueue-maintenance" in made)  # half a second later: all that begins has begun
    made.clear()
    began, cpu = time.monotonic(), time.process_time()
    assert not threading.Event().wait(3)
    seconds, burnt = time.monotonic() - began, time.process_time() - cpu
    # Maintenance makes two statements every four seconds or so.
    assert 4 <= len(made) <= 2 * seconds + 1 + 2, made
    assert burnt < 0.3 * seconds


def test_connections_do_not_depend_on_threads(workers, registry, db):
    """A pool with 32 busy threads and its listener have at most 4 connections."""
    name = "budget"
    service = workers.service(application_name=name)
    adding = jobqueue_pg.connect(make_conninfo(workers.conninfo, application_name="adding"), origin="tests")
    # The server may still be about to end the session in which the service looked around.
    wait_until(lambda: connections_of(db, name) == 0)
    busy, many, lock = [0], threading.Event(), threading.Lock()

    def work(_: int) -> None:
        with lock:
            busy[0] += 1
            if busy[0] == 32:
                many.set()
        assert many.wait(PATIENCE)
        threading.Event().wait(0.02)
        with lock:
            busy[0] -= 1

    registry.register_func_for_job_type("t", work)
    pool = workers.start_on(service, registry, 32)
    adding.add_jobs([Job.new("t", number) for number in range(600)])
    connections = []

    def done() -> bool:
        connections.append(connections_of(db, name))
        return fetch_all(db, "select count(*) from worker.job where stopped_at is null") == [0]

    wait_until(done, 30)
    assert fetch_all(db, "select count(*) from worker.job where error_msg is not null") == [0]
    assert max(connections) <= 4
    assert pool.finish(PATIENCE)
    adding.close()
