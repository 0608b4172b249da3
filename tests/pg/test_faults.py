"""Workers whose connections, server, rows and claims are taken away while they work."""

import logging
import os
import threading
from collections import Counter
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import jobqueue_pg
from jobqueue import Job, JobBundle, JobContext, JobDesc, LostClaimError, Registry, State
from jobqueue.events import Connected
from jobqueue_pg.embedded import EmbeddedServer, find_bindir
from tests.fixtures.stores import fetch_all, insert_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import FAST_DEATH, Workers, connections_of, wait_for_end

PATIENCE = 10
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
        [pid] = fetch_all(db, LISTENERS, NAME)
        caplog.clear()
        with db.transaction():
            # What is committed while nobody hears is found by the look after the reconnection.
            wait_until(lambda pid=pid: not fetch_all(db, "select pg_terminate_backend(%s)", pid)[0])
            job = service.enqueue("t", 2, connection=db)
        assert wait_for_end(service, job, 5).result == 2
        wait_until(lambda pid=pid: fetch_all(db, LISTENERS, NAME) not in ([], [pid]))
        wait_until(lambda: state_of(service, "listener") == "up")
        assert len(our_lines(caplog, "listener lost its connection")) == 1
        assert len(our_lines(caplog, "listener has a connection again")) == 1
        assert wait_for_end(service, service.enqueue("t", 3), 2).result == 3


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


@pytest.fixture
def server(tmp_path):
    """A server that a test may stop and start again on the same port, with its data."""
    if os.environ.get("JOBQUEUE_TEST_DSN") and not os.environ.get("JOBQUEUE_PG_BINDIR"):
        pytest.skip("needs a server of its own")
    settings = {"fsync": "off", "full_page_writes": "off"}
    first = EmbeddedServer(find_bindir(), data_dir=tmp_path / "data", settings=settings)
    first.start()
    port = first.port
    first.stop()
    server = EmbeddedServer(find_bindir(), data_dir=tmp_path / "data", port=port, settings=settings)
    server.start()
    jobqueue_pg.migrate(server.conninfo)
    yield server
    server.stop()


@pytest.fixture
def exposed(server):
    """Worker pools on that server."""
    made = Workers(server.conninfo)
    yield made
    made.end()


def test_a_restart_of_the_server_loses_nothing(exposed, server, registry, caplog):
    """Outcomes of the outage are saved after it, all jobs end, and the log has a line for each change of state."""
    caplog.set_level(logging.INFO)
    service = exposed.service(heartbeat_interval=timedelta(seconds=1), dead_for=timedelta(seconds=6))
    during = threading.Event()
    runs: Counter[str] = Counter()

    @registry.handler("long")
    def long(number: int) -> int:
        runs[f"long {number}"] += 1
        during.wait(30)
        return number

    @registry.handler("t")
    def short(number: int) -> int:
        runs[f"short {number}"] += 1
        return number

    for number in range(3):
        service.enqueue("long", number, priority=1)
    exposed.start_on(service, registry, 4)
    wait_until(lambda: sum(runs.values()) == 3)
    service.add_jobs([Job.new("t", number) for number in range(100)])
    wait_until(lambda: runs["short 10"] > 0)
    server.stop()
    during.set()
    wait_until(lambda: state_of(service, "workers") == "down" and state_of(service, "listener") == "down")
    server.start()
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as db:
        wait_until(lambda: fetch_all(db, TO_DO) == [0], 30)
        assert fetch_all(db, "select count(*) from worker.job where result <> payload or error_msg is not null") == [0]
        assert fetch_all(db, "select max(run_count) from worker.job") == [1]
        wait_until(lambda: state_of(service, "workers") == "up" and state_of(service, "listener") == "up")
        insert_job(db, payload="7")
        wait_until(lambda: runs["short 7"] == 2, 3)
    assert {runs[f"long {number}"] for number in range(3)} == {1}
    assert sum(runs.values()) <= 104 + 8
    assert service.health()["lost_claims"] == 0
    for words in ("listener lost its connection", "listener has a connection again"):
        assert len(our_lines(caplog, words)) == 1, words
    # Each connection of the pool finds out for itself, so that a late failure may follow an early success.
    assert 1 <= len(our_lines(caplog, "the database does not answer")) <= 3
    assert len(our_lines(caplog, "the database answers again")) == len(
        our_lines(caplog, "the database does not answer")
    )


# --- outcomes


def test_a_refused_outcome_does_not_hold_up_the_others(workers, registry, migrated, caplog):
    """One result that the database does not take fails its own job, with a message; all the others are saved."""
    workers = Workers(migrated)
    with closing(psycopg.connect(migrated, autocommit=True)) as db:
        db.execute("alter table worker.job add constraint not_13 check (result is distinct from '13')")
        together = threading.Barrier(6)

        @registry.handler("t", max_retry_count=2)
        def work(number: int) -> int:
            if number % 10 >= 4:
                together.wait(PATIENCE)
            return number

        service = workers.service(poll_only=True, batch_size=64)
        service.add_jobs([Job.new("t", number, max_retry_count=2) for number in range(40)])
        workers.start_on(service, registry, 6)
        wait_until(lambda: fetch_all(db, TO_DO) == [0])
        failed = service.get_all_jobs_with_errors()
        assert [job.payload for job in failed] == [13]
        assert "could not be stored" in failed[0].error_msg
        assert "not_13" in failed[0].error_msg
        assert (failed[0].state, failed[0].run_count, failed[0].result) == (State.FAILED, 1, None)
        assert fetch_all(db, "select count(*) from worker.job where result = payload") == [39]
        assert service.health()["refused_outcomes"] == 1
        assert service.health()["lost_claims"] == 0
        assert len(our_lines(caplog, "was refused")) == 1
    workers.end()


def test_a_job_that_cannot_even_be_failed(migrated, registry, caplog):
    """A job whose row takes no end at all is left to the rescue limit, and holds up no other."""
    workers = Workers(migrated)
    with closing(psycopg.connect(migrated, autocommit=True)) as db:
        db.execute("alter table worker.job add constraint endless check (type <> 'endless' or stopped_at is null)")
        registry.register_func_for_job_type("*", lambda n: n)
        service = workers.service(poll_only=True)
        endless = service.enqueue("endless", 0)
        jobs = [service.enqueue("t", number) for number in range(20)]
        pool = workers.start_on(service, registry, 3)
        assert [wait_for_end(service, job).result for job in jobs] == list(range(20))
        wait_until(lambda: our_lines(caplog, "cannot even be failed"))
        assert pool.finish(PATIENCE)
        assert service.get_job(endless.id).state is State.RUNNING
    workers.end()


def test_a_result_that_the_encoding_cannot_spell(workers, registry, queue):
    """A result with characters that the connection cannot carry fails its job, and no other."""
    registry.register_func_for_job_type("t", lambda n: "\N{SNOWMAN}" if n == 1 else n)
    service = workers.service()
    jobs = [service.enqueue("t", number) for number in range(3)]
    latin = Workers(make_conninfo(queue, client_encoding="latin1"))
    try:
        latin.start(registry, 1)
        ended = [wait_for_end(service, job) for job in jobs]
    finally:
        latin.end()
    assert [ended[0].result, ended[2].result] == [0, 2]
    assert ended[1].state is State.FAILED
    assert "could not be stored" in ended[1].error_msg


def test_a_locked_bundle_holds_up_nobody_else(workers, registry, db, other_db):
    """While somebody holds a bundle's row, other outcomes are saved; the bundle's follow, and its claims stay alive."""
    # A claim may be silent for two lock timeouts: a trip waits for the bundle, and a beat for the trip.
    patience = {"heartbeat_interval": timedelta(seconds=1), "dead_for": timedelta(seconds=7)}
    service = workers.service(**patience)
    registry.register_func_for_job_type("*", lambda n: n)
    other = workers.service(**patience)
    workers.start_on(other, Registry(), 1)  # its reaper would take silent claims away
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(number, type="member") for number in range(3)]))
    with other_db.transaction():
        other_db.execute("select from worker.job_bundle where id = %s for update", [bundle.id])
        workers.start_on(service, registry, 3)
        wait_until(lambda: fetch_all(db, "select count(*) from worker.job where started_at is not null") == [3])
        loose = [service.enqueue("loose", number) for number in range(20)]
        assert [wait_for_end(service, job, 15).result for job in loose] == list(range(20))
        assert not threading.Event().wait(7)
        assert fetch_all(
            db, "select count(*) from worker.job where bundle_id is not null and stopped_at is not null"
        ) == [0]
    for job in bundle.jobs:
        ended = wait_for_end(service, job, 15)
        assert (ended.result, ended.run_count, ended.rescue_count) == (job.payload, 1, 0)
    assert service.get_job_bundle(bundle.id).stopped
    assert service.health()["lost_claims"] == 0


def test_a_row_that_cannot_be_read_spoils_no_other(workers, registry, db):
    """A row that another program wrote, and that Python cannot hold, fails alone; its batch is worked off."""
    registry.register_func_for_job_type("t", lambda n: n if n < 100 else 0)
    odd = [
        insert_job(db, payload="9" * 5000),
        insert_job(db, start_at="-infinity"),
        insert_job(db, start_at="0044-03-15 12:00:00+00 BC"),
    ]
    service = workers.service(poll_only=True, batch_size=64)
    good = service.add_jobs([Job.new("t", number) for number in range(10)])
    workers.start_on(service, registry, 3)
    assert [wait_for_end(service, job).result for job in good] == list(range(10))
    assert [wait_for_end(service, job_id).state for job_id in odd] == [State.FAILED, State.SUCCEEDED, State.SUCCEEDED]


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
        wait_until(lambda before=before: running.alive_at() > before, 2)
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
    wait_until(lambda: context.is_lost, 3)
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
    running = Running(workers, registry)
    [context] = running.contexts
    assert running.service.cancel_job(running.job.id)
    wait_until(lambda: context.is_lost, 3)
    running.may_end.set()
    assert running.pool.finish(PATIENCE)
    assert running.service.get_job(running.job.id).state is State.CANCELLED
    assert [record.levelname for record in caplog.records if "lost the claim" in record.getMessage()] == ["INFO"]


def test_a_lost_claim_that_nobody_told_of(workers, registry):
    """Once a pool hears again, it finds out at once which claims were taken away while it was deaf."""
    running = Running(workers, registry, poll_only=True)
    [context] = running.contexts
    running.pool.stop()
    running.service.reset_job(running.job.id)
    assert not context.is_lost
    running.pool._crew._hear(Connected())
    wait_until(lambda: context.is_lost, 2)
    running.may_end.set()
    assert running.pool.finish(PATIENCE)


def test_a_job_deleted_while_it_runs(workers, registry):
    """A run whose job is gone is told so, and disturbs nothing."""
    running = Running(workers, registry, heartbeat_interval=timedelta(seconds=0.1))
    running.service.delete_job(running.job.id)
    wait_until(lambda: running.contexts[0].is_lost, 3)
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
        assert connections_of(db, NAME) <= 4
