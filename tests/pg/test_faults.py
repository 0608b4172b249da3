"""Workers whose connections and claims are taken away while they work."""

import threading
from collections import Counter
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

from jobqueue import Job, JobContext, LostClaimError, State
from jobqueue.events import Connected
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import FAST_DEATH, connections_of, wait_for_end

PATIENCE = 10
SELDOM = timedelta(seconds=20)
"""An interval of beats for which no test waits."""
NAME = "faults"
LISTENERS = "select pid from pg_stat_activity where application_name = %s and query ilike 'listen%%'"
OTHERS = "select pid from pg_stat_activity where application_name = %s and query not ilike 'listen%%'"
TO_DO = "select count(*) from worker.job where stopped_at is null"


def state_of(service, part):
    return service.health()["parts"][part]["state"]


def our_lines(caplog, words):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("jobqueue") and words in record.getMessage()
    ]


# --- connections


def test_a_listener_that_loses_its_connection_listens_again(workers, registry, db, caplog):
    """A new LISTEN follows, the queue is looked at once, and the log and health() say what happened."""
    service = workers.service(application_name=NAME)
    registry.register_func_for_job_type("t", lambda n: n)
    workers.start_on(service, registry, 2)
    assert wait_for_end(service, service.enqueue("t", 1)).succeeded
    for _ in range(2):
        [pid] = wait_until(lambda: fetch_all(db, LISTENERS, NAME))
        caplog.clear()
        with db.transaction():
            # What is committed while nobody hears is found by the look after the reconnection.
            wait_until(lambda pid=pid: not fetch_all(db, "select pg_terminate_backend(%s)", pid)[0])
            job = service.enqueue("t", 2, connection=db)
        assert wait_for_end(service, job).result == 2
        wait_until(lambda pid=pid: fetch_all(db, LISTENERS, NAME) not in ([], [pid]))
        wait_until(lambda: state_of(service, "listener") == "up")
        assert len(our_lines(caplog, "listener lost its connection")) == 1
        assert len(our_lines(caplog, "listener has a connection again")) == 1
        assert wait_for_end(service, service.enqueue("t", 3)).result == 3


def test_trips_whose_connections_are_lost_are_repeated(workers, registry, db):
    """While all connections of a pool are killed again and again, every job runs, and is saved."""
    service = workers.service(application_name=NAME, **FAST_DEATH)
    runs: Counter[int] = Counter()
    lock = threading.Lock()

    @registry.handler("t")
    def work(number: int) -> int:
        with lock:
            runs[number] += 1
        threading.Event().wait(0.01)
        return number

    workers.start_on(service, registry, 4)
    workers.service(application_name="adding").add_jobs([Job.new("t", number) for number in range(200)])
    for _ in range(5):
        threading.Event().wait(0.1)
        for pid in fetch_all(db, OTHERS, NAME):
            db.execute("select pg_terminate_backend(%s)", [pid])
    wait_until(lambda: fetch_all(db, TO_DO) == [0], 30)
    assert set(runs) == set(range(200))
    # Only jobs of a trip that was cut after its commit run again: two trips at most, of four jobs, each time.
    assert sum(runs.values()) <= 200 + 5 * 8
    assert fetch_all(db, "select count(*) from worker.job where result <> payload or error_msg is not null") == [0]
    assert fetch_all(db, "select max(run_count) from worker.job") == [1]


# --- claims


class Running:
    """A job that runs until it is told to end, seen from both sides."""

    def __init__(self, workers, registry, **settings):
        self.may_end = threading.Event()
        self.contexts: list[JobContext] = []
        registry.handler("t")(self.run)
        self.service = workers.service(**settings)
        self.job = self.service.enqueue("t", 1)
        self.pool = workers.start_on(self.service, registry, 1)
        wait_until(lambda: self.contexts)

    def run(self, ctx: JobContext, number: int) -> int:
        self.contexts.append(ctx)
        self.may_end.wait(PATIENCE)
        return number

    def alive_at(self):
        return self.service.get_job(self.job.id).worker_alive_at


def test_a_running_job_is_alive(workers, registry):
    """While a job runs its heartbeat goes on, and after that it has none."""
    running = Running(workers, registry, heartbeat_interval=timedelta(seconds=0.1))
    for _ in range(3):
        before = running.alive_at()
        wait_until(lambda before=before: running.alive_at() > before)
    running.may_end.set()
    ended = wait_for_end(running.service, running.job)
    assert ended.worker_alive_at is None
    assert running.service.health()["lost_claims"] == 0


def test_without_heartbeats_a_claim_shows_no_life(workers, registry):
    """A pool that does not beat leaves worker_alive_at empty, so that nobody takes its jobs for abandoned."""
    running = Running(workers, registry, heartbeat_interval=None)
    assert running.alive_at() is None
    running.may_end.set()
    assert wait_for_end(running.service, running.job).succeeded


def test_a_lost_claim_is_told_to_its_run(workers, registry, caplog):
    """Once a claim is taken away, the run is told, its outcome changes nothing, and this is logged and counted once."""
    running = Running(workers, registry, poll_only=True, heartbeat_interval=timedelta(seconds=0.1))
    [context] = running.contexts
    running.pool.stop()
    running.service.reset_job(running.job.id)
    wait_until(lambda: context.is_lost)
    assert context.is_cancelled
    with pytest.raises(LostClaimError):
        context.check()
    running.may_end.set()
    assert running.pool.finish(PATIENCE)
    job = running.service.get_job(running.job.id)
    assert (job.state, job.result, job.run_count) == (State.AVAILABLE, None, 0)
    assert len(our_lines(caplog, "lost the claim")) == 1
    health = running.service.health()
    assert (health["lost_claims"], health["refused_outcomes"]) == (1, 1)


def test_a_lost_claim_that_no_beat_finds(workers, registry, caplog):
    """A claim that is lost between two beats is found out when the outcome is refused, and counted once."""
    running = Running(workers, registry, poll_only=True)
    running.pool.stop()
    running.service.reset_job(running.job.id)
    running.may_end.set()
    assert running.pool.finish(PATIENCE)
    assert running.service.get_job(running.job.id).state is State.AVAILABLE
    assert len(our_lines(caplog, "lost the claim")) == 1
    assert running.service.health()["lost_claims"] == 1


def test_a_lost_claim_that_is_told_of(workers, registry, caplog):
    """Who takes a claim away tells its run at once, without waiting for a beat; this is logged once, as no alarm."""
    caplog.set_level("INFO")
    running = Running(workers, registry, heartbeat_interval=SELDOM)
    [context] = running.contexts
    assert running.service.cancel_job(running.job.id)
    wait_until(lambda: context.is_lost)
    running.may_end.set()
    assert running.pool.finish(PATIENCE)
    assert running.service.get_job(running.job.id).state is State.CANCELLED
    assert [record.levelname for record in caplog.records if "lost the claim" in record.getMessage()] == ["INFO"]


def test_a_lost_claim_that_nobody_told_of(workers, registry):
    """Once a pool hears again, it finds out at once which claims were taken away while it was deaf."""
    running = Running(workers, registry, poll_only=True, heartbeat_interval=SELDOM)
    [context] = running.contexts
    running.pool.stop()
    running.service.reset_job(running.job.id)
    assert not context.is_lost
    running.pool._crew._hear(Connected())
    wait_until(lambda: context.is_lost)
    running.may_end.set()
    assert running.pool.finish(PATIENCE)


def test_a_job_deleted_while_it_runs(workers, registry):
    """A run whose job is gone is told so, and disturbs nothing."""
    running = Running(workers, registry, heartbeat_interval=timedelta(seconds=0.1))
    running.service.delete_job(running.job.id)
    wait_until(lambda: running.contexts[0].is_lost)
    running.may_end.set()
    assert wait_for_end(running.service, running.service.enqueue("t", 2)).result == 2


def test_a_pool_that_nobody_hears_gives_its_runs_up(exposed, server, registry):
    """When no beat has got through for dead_for, runs are told that their claims are lost."""
    running = Running(exposed, registry, **FAST_DEATH)
    assert not running.contexts[0].is_lost
    server.stop()
    wait_until(lambda: running.contexts[0].is_lost, 20)
    server.start()
    running.may_end.set()
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as db:
        # Nobody has taken it away meanwhile: the row decides.
        wait_until(lambda: fetch_all(db, "select result::text from worker.job") == ["1"], 20)


def test_connections_come_back(workers, registry, db):
    """After all connections were lost the pool works on, and has no more of them than before."""
    service = workers.service(application_name=NAME, **FAST_DEATH)
    adding = workers.service(application_name="adding")
    registry.register_func_for_job_type("t", lambda n: threading.Event().wait(0.3) or n)
    workers.start_on(service, registry, 8)
    for _ in range(3):
        jobs = adding.add_jobs([Job.new("t", number) for number in range(8)])
        wait_until(lambda: connections_of(db, NAME) > 1)
        for pid in [*fetch_all(db, LISTENERS, NAME), *fetch_all(db, OTHERS, NAME)]:
            db.execute("select pg_terminate_backend(%s)", [pid])
        assert all(wait_for_end(adding, job, 15).succeeded for job in jobs)
        # Those that were ended may take the server a moment.
        wait_until(lambda: connections_of(db, NAME) <= 4)
