"""How worker pools end whose jobs end, too: idle, busy, and with every kind of outcome."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from jobqueue import Discard, Job, JobInterruptedError, Snooze, State, WorkerPool
from tests.fixtures.stores import fetch_all, insert_job
from tests.fixtures.threads import names_of_threads
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, connections_of, wait_for_end

PATIENCE = 10
NAME = "shutdown"


@pytest.fixture
def service(workers):
    return workers.service(application_name=NAME)


def running(service, job):
    found = service.get_job(job.id)
    return found.started_and_not_stopped


def test_an_idle_pool_ends_at_once(workers, service, registry):
    """Threads that wait for work end without waiting for their poll, and leave no thread but the service's."""
    registry.register_func_for_job_type("t", lambda _: None)
    pool = workers.start_on(service, registry, 8)
    wait_until(lambda: service.notifier.is_listening)
    began = time.monotonic()
    assert pool.finish()
    assert time.monotonic() - began < PATIENCE
    assert names_of_threads() <= {"jobqueue-listener"}


def test_a_busy_pool_ends_when_its_jobs_have(workers, service, registry, stage):
    """Without a timeout, running jobs are waited for and saved; what waits in the queue is left there."""
    job = service.enqueue("t", 7)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    other = service.enqueue("t", 8)
    with ThreadPoolExecutor(1) as executor:
        finishing = executor.submit(pool.finish)
        wait_until(lambda: not pool.is_running)
        assert not finishing.done()
        assert not stage.context.is_cancelled
        stage.may_end.set()
        assert finishing.result(PATIENCE)
    assert service.get_job(job.id).result == 7
    assert service.get_job(other.id).state is State.AVAILABLE


def test_stop_does_not_wait(workers, service, registry, stage):
    """Stopping returns at once, running jobs go on and are saved, and nothing more is claimed."""
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 2)
    assert stage.is_on.wait(PATIENCE)
    pool.stop()
    pool.stop()
    assert not pool.is_running
    other = service.enqueue("t", 2)
    stage.may_end.set()
    assert wait_for_end(service, job).succeeded
    assert pool.finish(PATIENCE)
    assert not service.get_job(other.id).started


def test_what_ends_while_a_pool_does_is_saved(workers, service, registry):
    """Runs that end while their pool waits for them are saved, whatever they lead to: nothing of theirs is lost."""
    began = threading.Semaphore(0)
    has_started = threading.Event()

    def after_the_stop(lead_to):
        def run(_: int) -> object:
            began.release()
            assert has_started.wait(PATIENCE)
            wait_until(lambda: not pool.is_running)
            return lead_to()

        return run

    def fail():
        raise ValueError("too late")

    endings = {
        "fails": fail,
        "is retried": fail,
        "is snoozed": lambda: Snooze(timedelta(hours=1)),
        "is discarded": lambda: Discard("why not"),
        "ends": lambda: 5,
    }
    for name, lead_to in endings.items():
        registry.register_func_for_job_type(name, after_the_stop(lead_to))
    jobs = {name: service.enqueue(name, 1, max_retry_count=int(name == "is retried")) for name in endings}
    pool = workers.start_on(service, registry, len(endings))
    has_started.set()
    for _ in endings:
        assert began.acquire(timeout=PATIENCE)
    assert pool.finish(PATIENCE)
    ended = {name: service.get_job(job.id) for name, job in jobs.items()}
    assert {name: job.state for name, job in ended.items()} == {
        "fails": State.FAILED,
        "is retried": State.RETRYING,
        "is snoozed": State.RETRYING,
        "is discarded": State.CANCELLED,
        "ends": State.SUCCEEDED,
    }
    assert {name: job.run_count for name, job in ended.items()} == dict.fromkeys(endings, 1)
    assert {name for name, job in ended.items() if job.claim_id is not None} == {"fails", "is discarded", "ends"}
    assert ended["fails"].error_msg == "too late"
    assert [attempt.error_msg for attempt in ended["is retried"].attempt_errors] == ["too late"]


def test_heartbeats_go_on_while_a_pool_ends(processes, migrated, connection, registry, stage):
    """A job that is waited for longer than dead_for stays alive, though another process takes silent claims away."""
    workers = Workers(migrated)
    try:
        service = workers.service(heartbeat_interval=timedelta(seconds=0.3), dead_for=timedelta(seconds=2))
        job = service.enqueue("t", 7)
        pool = workers.start_on(service, registry, 1)
        assert stage.is_on.wait(PATIENCE)
        other = processes.start(threads=1, heartbeat=0.3, dead_for=2)
        dead = insert_job(connection, started_at="2020-01-01", worker_alive_at="2020-01-01", type="nobody's")
        with ThreadPoolExecutor(1) as executor:
            finishing = executor.submit(pool.finish)
            wait_until(lambda: not pool.is_running)
            began = seen = service.get_job(job.id).worker_alive_at
            while seen < began + timedelta(seconds=2.5):
                seen = wait_until(lambda seen=seen: alive_after(service, job, seen))
            assert not finishing.done()
            wait_until(lambda: service.get_job(dead).rescue_count == 1)  # so long did the other one have
            stage.may_end.set()
            assert finishing.result(PATIENCE)
        ended = service.get_job(job.id)
        assert (ended.result, ended.run_count, ended.rescue_count) == (7, 1, 0)
        assert other.finish() == {"lost_claims": 0, "refused_outcomes": 0}
    finally:
        workers.end()


def alive_after(service, job, moment):
    found = service.get_job(job.id).worker_alive_at
    return found if found > moment else None


@pytest.mark.parametrize("batch_size", [1, 64])
def test_nothing_stays_claimed(workers, registry, db, batch_size):
    """However a pool is caught by its end, each job was run, or waits as if nobody had seen it."""
    registry.register_func_for_job_type("t", lambda _: None)
    service = workers.service(batch_size=batch_size, poll_only=True)
    service.add_jobs([Job.new("t", number) for number in range(2000)])
    for number in range(12):
        pool = workers.start_on(service, registry, 3)
        threading.Event().wait(0.004 * number)
        assert pool.finish(PATIENCE)
        states = fetch_all(
            db,
            "select distinct started_at is null, stopped_at is null, claim_id is null, run_count, rescue_count "
            "from worker.job",
        )
        assert set(states) <= {(True, True, True, 0, 0), (False, False, False, 1, 0)}
    assert service.health()["lost_claims"] == 0


def test_a_finished_pool_leaves_nothing(workers, registry, db):
    """After finish the pool has no thread, and no connection."""
    service = workers.service(application_name=NAME, poll_only=True)
    registry.register_func_for_job_type("t", lambda _: None)
    pool = workers.start_on(service, registry, 4)
    wait_until(lambda: connections_of(db, NAME) > 0)
    assert pool.finish(PATIENCE)
    assert names_of_threads() == set()
    wait_until(lambda: connections_of(db, NAME) == 0)


def test_a_handler_may_raise_what_interrupts_it(workers, service, registry):
    """JobInterruptedError from a handler that nobody interrupted is a failure like any other."""
    registry.register_func_for_job_type("t", lambda _: (_ for _ in ()).throw(JobInterruptedError("me?")))
    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    assert wait_for_end(service, job).state is State.FAILED


def test_the_service_of_others_goes_on(workers, registry):
    """A pool that ends takes nothing from another one on the same service."""
    registry.register_func_for_job_type("t", lambda n: n)
    service = workers.service()
    with WorkerPool(service, registry, threads=1), WorkerPool(service, registry, threads=1) as second:
        second.finish()
        assert wait_for_end(service, service.enqueue("t", 1)).result == 1
