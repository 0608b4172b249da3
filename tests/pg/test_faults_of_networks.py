"""Networks and servers that go silent without a word: what waits for an answer, and for how long."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

from jobqueue import JobContext, UnavailableError
from jobqueue.events import Connected, JobAvailable
from jobqueue.health import Health
from jobqueue.patience import patience
from jobqueue_pg.notifier import PostgresNotifier
from jobqueue_pg.pool import application_pool, worker_pool
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.shift import Shift, check_lines, lines
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

PATIENCE = 30
EVERYTHING = ("workers", "listener")


@pytest.fixture
def proxy(queue: str) -> Iterator[FaultProxy]:
    """A proxy before the server of `queue`."""
    given = conninfo_to_dict(queue)
    with FaultProxy(str(given["host"]), int(str(given["port"]))) as proxy:
        yield proxy


@pytest.fixture
def routed(queue, proxy) -> Iterator[Workers]:
    """Worker pools on `queue`, through the proxy."""
    made = Workers(proxy.route(queue))
    yield made
    proxy.thaw()
    proxy.accept()
    made.end()


@pytest.mark.parametrize("answers_only", [False, True])
def test_a_process_that_nobody_hears_fences_itself(routed, proxy, registry, queue, answers_only):
    """Frozen off for two times dead_for, it takes its claims for lost and starts nothing; afterwards it goes on."""
    contexts: list[JobContext] = []
    may_end, started = threading.Event(), threading.Event()

    @registry.handler("long")
    def work(ctx: JobContext, number: int) -> int:
        contexts.append(ctx)
        assert may_end.wait(PATIENCE)
        return number

    registry.register_func_for_job_type("later", lambda n: started.set() or n)
    dead_for = timedelta(seconds=1.2)
    service = routed.service(heartbeat_interval=timedelta(seconds=0.3), dead_for=dead_for)
    job = service.enqueue("long", 1)
    routed.start_on(service, registry, 2)
    wait_until(lambda: contexts)
    with closing(psycopg.connect(queue, autocommit=True)) as db:
        proxy.freeze(answers_only=answers_only)
        frozen_at = time.monotonic()
        wait_until(lambda: contexts[0].is_lost)
        db.execute(
            "insert into worker.job (type, payload, origin, priority, max_retry_count)"
            " values ('later', '2', 'tests', 0, 0)"
        )
        threading.Event().wait(frozen_at + 2 * dead_for.total_seconds() - time.monotonic())
        assert not started.is_set()
        may_end.set()
        proxy.thaw()
        ended = wait_for_end(service, job, PATIENCE)
        # Nobody has taken it away meanwhile: the row decides.
        assert (ended.result, ended.run_count, ended.rescue_count) == (1, 1, 0)
        assert started.wait(PATIENCE)


# --- servers that hang, on a host that is alive


@contextmanager
def hung(db: psycopg.Connection, application_name: str) -> Iterator[list[int]]:
    """Have the sessions of a name hang, and accept others."""
    pids = fetch_all(db, "select pid from pg_stat_activity where application_name = %s", application_name)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def server_db(server) -> Iterator[psycopg.Connection]:
    """A connection to `server`."""
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as db:
        yield db


def test_trips_and_beats_that_hang_are_given_up(exposed, server, server_db, registry):
    """Sessions of workers that do not answer are left after about five seconds, and others do their work."""
    shift = Shift(exposed, registry, heartbeat_interval=timedelta(seconds=0.3), dead_for=timedelta(seconds=1))
    other = exposed.service(application_name="other")
    with hung(server_db, "test"):
        began_at = time.monotonic()
        shift.may_end.set()
        job = other.enqueue("short", 1)
        assert wait_for_end(other, job, PATIENCE).result == 1
        wait_until(lambda: fetch_all(server_db, "select count(*) from worker.job where stopped_at is null") == [0], 30)
        assert 4 < time.monotonic() - began_at < 20
    wrong = "select count(*) from worker.job where result is distinct from payload or run_count <> 1"
    assert fetch_all(server_db, wrong) == [0]


def test_a_wait_for_a_job_that_hangs_ends_in_time(exposed, server_db):
    """wait_for_job keeps its timeout even when its question is never answered, and the next call is none the worse."""
    service = exposed.service(application_name="calls", poll_only=True)
    job = service.enqueue("t", 1)
    with hung(server_db, "calls"):
        began_at = time.monotonic()
        with pytest.raises(TimeoutError, match="does not answer") as caught:
            service.wait_for_job(job.id, 1)
        assert 0.9 < time.monotonic() - began_at < 10
        assert isinstance(caught.value.__cause__, UnavailableError)
        assert service.get_job(job.id) == job


def test_a_listener_that_hangs_is_replaced(server, server_db):
    """When nothing was heard for a while the server is asked; if it is silent, another connection listens."""
    heard, vital = [], Health().vital("listener")
    conninfo = make_conninfo(server.conninfo, application_name="ear")
    notifier = PostgresNotifier(conninfo, schema="worker", vital=vital, quiet_for=timedelta(seconds=0.5))
    with closing(notifier):
        notifier.subscribe(heard.append, JobAvailable)
        wait_until(lambda: heard)
        with hung(server_db, "ear"):
            began_at = time.monotonic()
            wait_until(lambda: len(heard) == 2)
            assert time.monotonic() - began_at < 10
            assert [type(event) for event in heard] == [Connected, Connected]
            server_db.execute(
                "insert into worker.job (type, payload, origin, priority, max_retry_count)"
                " values ('t', '2', 'tests', 0, 0)"
            )
            wait_until(lambda: len(heard) == 3)


def test_a_listener_that_is_answered_stays(queue, db):
    """A quiet server that answers keeps its listener, however often it is asked."""
    heard, vital = [], Health().vital("listener")
    conninfo = make_conninfo(queue, application_name="ear")
    notifier = PostgresNotifier(conninfo, schema="worker", vital=vital, quiet_for=timedelta(seconds=0.05))
    with closing(notifier):
        notifier.subscribe(heard.append, JobAvailable)
        of_ear = "select pid from pg_stat_activity where application_name = 'ear'"
        wait_until(lambda: heard)
        before = fetch_all(db, of_ear)
        asked = "select count(*) from pg_stat_activity where application_name = 'ear' and query = 'select'"
        wait_until(lambda: fetch_all(db, asked) == [1])
        assert not threading.Event().wait(0.5)
        assert fetch_all(db, of_ear) == before
    assert len(heard) == 1
    assert vital.report()["last_error"] is None


# --- pools


def test_the_timeouts_of_a_worker_session(queue):
    """The server ends a statement when the client gives it up: after 30 times the lock timeout, at least 5 seconds."""
    for lock_timeout, expected in ((2, "1min"), (0.1, "5s")):
        with worker_pool(queue, timedelta(seconds=lock_timeout)) as pool, pool.connection() as connection:
            assert connection.execute("show statement_timeout").fetchone() == (expected,)
            assert connection.answer_within == {"1min": 60, "5s": 5}[expected]


def test_patience_is_shared_by_all_that_is_waited_for(queue):
    """A statement is given up when its caller's patience ends, and its connection is not used again."""
    with application_pool(queue, 1) as pool:
        with pool.connection() as connection:
            with patience(2):
                connection.execute("select pg_sleep(0.5)")
                with pytest.raises(psycopg.OperationalError, match=r"no answer within (0\.\d|1\.[0-5])"):
                    connection.execute("select pg_sleep(5)")
            assert connection.closed
        with pool.connection() as another:
            assert another.execute("select 1").fetchone() == (1,)


def test_connections_that_were_ended_are_not_given_out(queue, db):
    """Sessions that the server has ended while nobody used them cost nobody an error."""
    conninfo = make_conninfo(queue, application_name="idle")
    with application_pool(conninfo, 3) as pool:
        with pool.connection() as first, pool.connection() as second, pool.connection() as third:
            assert len({first, second, third}) == 3
        db.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'idle'")
        # The server forgets a session before it closes its socket.
        wait_until(lambda: not any(session.is_alive for session in (first, second, third)))
        for _ in range(4):
            with pool.connection() as connection:
                assert connection.execute("select 1").fetchone() == (1,)


def test_other_pools_may_say_what_they_like(caplog):
    """What psycopg logs of pools is kept out of the log for ours only; our errors say what theirs would."""
    nowhere = "host=127.0.0.1 port=1 connect_timeout=1"
    with application_pool(nowhere, 1) as ours, pytest.raises(psycopg.OperationalError, match="port 1 failed"):
        ours.getconn(1)
    assert not caplog.records
    theirs = ConnectionPool(nowhere, name="theirs", min_size=0, max_size=1, open=True)
    with theirs:
        with pytest.raises(psycopg.OperationalError):
            theirs.getconn(0.2)
        wait_until(lambda: lines(caplog, "error connecting in 'theirs'"))


# --- outages


@contextmanager
def doorman(port: int) -> Iterator[list[float]]:
    """Turn away whoever comes to *port*, and note when."""
    came: list[float] = []
    with socket.create_server(("127.0.0.1", port)) as door:
        door.settimeout(0.1)
        over = threading.Event()

        def stand() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    door.accept()[0].close()
                    came.append(time.monotonic())

        thread = threading.Thread(target=stand)
        thread.start()
        try:
            yield came
        finally:
            over.set()
            thread.join()


def test_an_outage_is_no_busy_time(exposed, server, registry, caplog):
    """While nothing answers, connections are tried now and then, and hardly any time of the processor is spent."""
    caplog.set_level(logging.INFO)
    shift = Shift(exposed, registry, heartbeat_interval=timedelta(seconds=0.3), dead_for=timedelta(seconds=4))
    server.stop()
    shift.may_end.set()
    shift.wait_for("down", *EVERYTHING)
    with doorman(server.port) as came:
        spent = time.process_time()
        assert not threading.Event().wait(3)
        spent = time.process_time() - spent
        num_attempts = len(came)
    assert 1 <= num_attempts <= 20
    assert spent < 1
    server.start()
    shift.check(server.conninfo)
    shift.wait_for("up", *EVERYTHING)
    check_lines(caplog)
