"""Servers that are restarted in every way, replaced by another, or take no writes, while jobs run and wait."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import jobqueue_pg
from jobqueue import UnavailableError
from jobqueue.events import Connected, JobAvailable
from jobqueue.health import Health
from jobqueue.models import new_id
from jobqueue_pg.notifier import PostgresNotifier
from tests.fixtures.servers import OwnServer
from tests.fixtures.shift import Shift, check_lines
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

PATIENT: dict[str, Any] = {"heartbeat_interval": timedelta(seconds=0.5), "dead_for": timedelta(seconds=4)}
EVERYTHING = ("workers", "listener")
OTHERS = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname is not null"


def check_that_all_goes_on(service) -> None:
    """Check that a job is added, and that those who run it and those who wait for it hear of that: nobody polls."""
    assert service.wait_for_job(service.enqueue("short", 1000).id, 20).result == 1000


@pytest.mark.parametrize("mode", ["smart, then fast", "immediate"])
def test_a_restart_of_the_server_loses_nothing(server, exposed, registry, caplog, mode):
    """Outcomes of the outage are saved after it, all jobs run and end once, and each change of state is logged once."""
    caplog.set_level(logging.INFO)
    shift = Shift(exposed, registry, **PATIENT)
    shift.add_short_jobs()
    if mode == "immediate":
        server.stop(mode)
    else:
        server.ask_to_stop("smart")
        # Who is connected already goes on as if nothing were.
        assert wait_for_end(shift.service, shift.service.enqueue("short", 1000)).result == 1000
        server.stop("fast")
    shift.may_end.set()
    shift.wait_for("down", *EVERYTHING)
    server.start()
    began_at = time.monotonic()
    shift.check(server.conninfo)
    shift.wait_for("up", *EVERYTHING)
    assert time.monotonic() - began_at < 15
    # The connections of the application's calls were all lost, too: that shows in none of them.
    for _ in range(4):
        assert shift.service.get_status().num_jobs >= 43
    check_that_all_goes_on(shift.service)
    check_lines(caplog)


# --- another server takes over


@pytest.fixture
def standby(resting_server, tmp_path) -> Iterator[OwnServer]:
    """A server that follows `resting_server`, which runs, and confirms no commit before this one has it."""
    standby = resting_server.standby(tmp_path / "standby")
    resting_server.start()
    standby.start()
    with closing(psycopg.connect(resting_server.conninfo, autocommit=True)) as db:
        db.execute("alter system set synchronous_standby_names = '*'")
        db.execute("select pg_reload_conf()")
        wait_until(lambda: fetch_all(db, "select sync_state from pg_stat_replication") == ["sync"], 30)
    yield standby
    standby.end()


@contextmanager
def ended(workers: Workers) -> Iterator[Workers]:
    try:
        yield workers
    finally:
        workers.end()


@pytest.fixture
def cluster(resting_server, standby) -> Iterator[Workers]:
    """Worker pools that know both servers, and want the one that takes writes."""
    hosts = {"host": "127.0.0.1,127.0.0.1", "port": f"{resting_server.port},{standby.port}"}
    with ended(Workers(make_conninfo(resting_server.conninfo, **hosts, target_session_attrs="read-write"))) as workers:
        yield workers


def promote(server: OwnServer) -> None:
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as db:
        db.execute("select pg_promote()")


def test_a_failover_loses_nothing(cluster, resting_server, standby, registry, caplog):
    """A standby is promoted after its primary has crashed: threads and calls of the same process go on there."""
    caplog.set_level(logging.INFO)
    shift = Shift(cluster, registry, **PATIENT)
    shift.add_short_jobs()
    resting_server.stop("immediate")
    shift.may_end.set()
    shift.wait_for("down", *EVERYTHING)
    promote(standby)
    began_at = time.monotonic()
    shift.check(standby.conninfo)
    shift.wait_for("up", *EVERYTHING)
    assert time.monotonic() - began_at < 15
    check_that_all_goes_on(shift.service)
    check_lines(caplog)


def test_a_switchover_loses_nothing(cluster, resting_server, standby, registry, caplog):
    """A primary that takes no writes any more, and ends no session, is left for the one that does."""
    caplog.set_level(logging.INFO)
    with closing(psycopg.connect(resting_server.conninfo, autocommit=True)) as db:
        if db.info.server_version < 140000:
            pytest.skip("older servers do not say so by themselves: the first call that writes is refused")
        shift = Shift(cluster, registry, **PATIENT)
        shift.add_short_jobs()
        wait_until(lambda: fetch_all(db, "select count(*) from worker.job where stopped_at is null") == [3])
        take_no_writes(db)
        replayed = "select replay_lsn = pg_current_wal_lsn() from pg_stat_replication"
        wait_until(lambda: fetch_all(db, replayed) == [True])
    promote(standby)
    shift.may_end.set()
    shift.check(standby.conninfo)
    # Calls that only read go there, too, as soon as one of them has seen what has become of the server.
    shift.service.get_status()
    assert shift.service.get_job(shift.service.enqueue("short", 1000).id).payload == 1000
    # No session is used any more that has been told of it before it is lent: then there is nothing to tell. Two may be
    # lent, to those who look after the queue and after its schedules, before their servers have heard of it themselves.
    check_lines(caplog, times=(0, 1, 2), listener=False)


# --- no writes


def take_no_writes(db) -> None:
    db.execute("alter system set default_transaction_read_only = on")
    db.execute("select pg_reload_conf()")
    wait_until(lambda: fetch_all(db, "show default_transaction_read_only") == ["on"])


def take_writes(db) -> None:
    db.execute("alter system reset default_transaction_read_only")
    db.execute("select pg_reload_conf()")


@pytest.mark.parametrize("ends_sessions", [True, False])
def test_a_server_that_takes_no_writes_is_waited_for(server, exposed, registry, caplog, ends_sessions):
    """While a server is read-only nothing is refused, and nothing asks it without a pause; then all is saved."""
    caplog.set_level(logging.INFO)
    shift = Shift(exposed, registry, **PATIENT)
    shift.add_short_jobs()
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as db:
        wait_until(lambda: fetch_all(db, "select count(*) from worker.job where stopped_at is null") == [3])
        take_no_writes(db)
        if ends_sessions:
            fetch_all(db, OTHERS)
            # Each ends itself when it comes to it: one that has not yet would be told so amid the next call.
            wait_until(lambda: not any(session.is_alive for session in list(shift.service.store._database.pool._pool)))
        shift.may_end.set()
        shift.wait_for("down", "workers")
        with pytest.raises(UnavailableError, match="read-only"):
            shift.service.enqueue("short", 1000)
        failed = "select xact_rollback from pg_stat_database where datname = 'postgres'"
        before = fetch_all(db, failed)[0]
        assert not threading.Event().wait(2)
        assert fetch_all(db, failed)[0] - before < 50
        take_writes(db)
    shift.check(server.conninfo)
    shift.wait_for("up", *EVERYTHING)
    check_lines(caplog, listener=ends_sessions)
    check_that_all_goes_on(shift.service)


def test_a_listener_leaves_a_server_that_takes_no_writes(server):
    """Where nothing is written nothing is notified: it connects anew, once, perhaps to another host."""
    heard, vital = [], Health().vital("listener")
    notifier = PostgresNotifier(server.conninfo, schema="worker", vital=vital, quiet_for=timedelta(seconds=0.2))
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as db, closing(notifier):
        if db.info.server_version < 140000:
            pytest.skip("older servers do not say so by themselves")
        notifier.subscribe(heard.append, JobAvailable)
        wait_until(lambda: heard)
        take_no_writes(db)
        wait_until(lambda: len(heard) == 2)
        assert vital.report()["last_error"] == "OperationalError"
        assert not threading.Event().wait(1)
        assert heard == [Connected()] * 2
        take_writes(db)
        wait_until(lambda: fetch_all(db, "show default_transaction_read_only") == ["off"])
        told = json.dumps({"id": str(new_id()), "type": "t", "origin": "o"})
        db.execute("select pg_notify('job_available', %s)", [told])
        wait_until(lambda: len(heard) == 3)


def test_a_standby_is_no_place_to_work(resting_server, standby, registry):
    """A pool whose server is a standby refuses nothing, and works as soon as that is promoted."""
    registry.register_func_for_job_type("short", lambda n: n)
    with closing(jobqueue_pg.connect(resting_server.conninfo)) as adding:
        job = adding.enqueue("short", 1)
    with ended(Workers(standby.conninfo)) as workers:
        service = workers.service(**PATIENT)
        workers.start_on(service, registry, 2)
        for part in EVERYTHING:
            wait_until(lambda part=part: service.health()["parts"][part]["state"] == "down", 20)
        resting_server.stop()
        promote(standby)
        assert wait_for_end(service, job, 20).result == 1
        check_that_all_goes_on(service)
