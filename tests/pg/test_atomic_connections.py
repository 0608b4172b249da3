"""Connections of atomic handlers: how many there are, and what becomes of a job whose connection is lost."""

import logging
import os
import threading
from contextlib import ExitStack
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobqueue import Job, JobBundle, JobContext, JobDesc, Registry, State
from tests.fixtures.effects import EFFECTS, affect
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.stores import assert_counts_true, fetch_all, row_of
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

pytestmark = pytest.mark.usefixtures("effects")


@pytest.fixture
def proxy(queue):
    """A network that tests spoil, between workers and the server."""
    server = conninfo_to_dict(queue)
    with FaultProxy(str(server["host"]), int(str(server["port"]))) as proxy:
        yield proxy


@pytest.fixture
def remote(queue, proxy):
    """Worker pools behind that network."""
    made = Workers(proxy.route(queue))
    yield made
    made.end()


def test_no_more_connections_than_allowed(workers, registry, db):
    """Eight threads run two atomic jobs at a time, and have the other threads for other jobs meanwhile."""
    service = workers.service(application_name="atomic", atomic_connections=2, batch_size=16)
    lock, leave = threading.Lock(), threading.Event()
    running, most = 0, 0

    @registry.handler("slow", atomic=True)
    def slow(ctx: JobContext, number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        affect(ctx, number)
        assert leave.wait(20)
        with lock:
            running -= 1

    registry.register_func_for_job_type("plain", lambda number: number)
    service.add_jobs([Job.new("slow", number, priority=1) for number in range(6)])
    service.add_jobs([Job.new("plain", number) for number in range(40)])
    workers.start_on(service, registry, 8)
    done = "select count(*) from worker.job where stopped_at is not null and type = 'plain'"
    wait_until(lambda: fetch_all(db, done) == [40])
    wait_until(lambda: running == 2)
    assert fetch_all(db, "select count(*) from worker.job where type = 'slow' and started_at is not null") == [2]
    # Two with transactions, three of the pool, one that listens, and those of the calls above.
    sessions = (
        "select count(*) from pg_stat_activity where application_name = 'atomic' and state = 'idle in transaction'"
    )
    wait_until(lambda: fetch_all(db, sessions) == [2])
    leave.set()
    wait_until(lambda: fetch_all(db, "select count(*) from worker.job where stopped_at is null") == [0])
    assert most == 2
    assert fetch_all(db, EFFECTS) == list(range(6))


def test_a_lane_has_connections_to_itself(workers, registry, db):
    """While slow atomic jobs have all connections that they can get, atomic jobs of a lane run in its threads."""
    leave = threading.Event()
    registry.handler("mail", atomic=True)(affect)

    @registry.handler("slow", atomic=True)
    def slow(ctx: JobContext, number: int) -> None:
        assert leave.wait(20)

    service = workers.service(atomic_connections=4)
    service.add_jobs([Job.new("slow", number, priority=1) for number in range(8)])
    workers.start_on(service, registry, 8, lanes={"mail": 2})
    started = "select count(*) from worker.job where started_at is not null and stopped_at is null"
    wait_until(lambda: fetch_all(db, started) == [2])
    mails = [service.enqueue("mail", number) for number in range(3)]
    assert all(wait_for_end(service, mail).state is State.SUCCEEDED for mail in mails)
    assert fetch_all(db, started) == [2]
    leave.set()
    wait_until(lambda: fetch_all(db, "select count(*) from worker.job where stopped_at is null") == [0])


def test_a_lost_connection_is_a_rescue(workers, registry, db):
    """A run whose connection is killed is taken up again without a retry, as often as a killed worker's job is."""
    service = workers.service(max_rescues=2)

    @registry.handler("once", atomic=True)
    def once(ctx: JobContext, number: int) -> None:
        affect(ctx, number)
        if ctx.job.rescue_count == 0:
            ctx.connection.execute("select pg_terminate_backend(pg_backend_pid())")

    @registry.handler("always", atomic=True)
    def always(ctx: JobContext, number: int) -> None:
        affect(ctx, number)
        ctx.connection.execute("select pg_terminate_backend(pg_backend_pid())")

    first, second = service.enqueue("once", 1), service.enqueue("always", 2, max_retry_count=5)
    workers.start_on(service, registry)
    ended = wait_for_end(service, first)
    assert (ended.state, ended.rescue_count, ended.run_count, ended.current_retry_count) == (State.SUCCEEDED, 1, 1, 0)
    ended = wait_for_end(service, second)
    assert (ended.state, ended.rescue_count) == (State.FAILED, 2)
    assert "lost its connection" in ended.error_msg
    evidence = ended.error_data
    assert (evidence["type"], evidence["rescue_count"]) == ("TooManyRescues", 2)
    assert str(os.getpid()) in evidence["claimed_by"]
    assert "started_at" in evidence
    assert fetch_all(db, EFFECTS) == [1]
    assert service.health()["lost_claims"] == 0


def test_a_bundle_that_is_locked_for_long_costs_no_second_run(workers, registry, db, other_db):
    """While the completion waits for its bundle's row, twice dead_for, nobody takes the job away."""
    fast = {"heartbeat_interval": timedelta(seconds=0.1), "dead_for": timedelta(seconds=1)}
    service = workers.service(**fast)
    runs = []

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> None:
        runs.append(number)
        affect(ctx, number)

    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")]))
    workers.start(Registry(), **fast)  # it reaps
    with other_db.transaction():
        other_db.execute("select from worker.job_bundle where id = %s for update", [bundle.id])
        workers.start_on(service, registry)
        wait_until(lambda: runs)
        threading.Event().wait(2)
    ended = wait_for_end(service, bundle.jobs[0])
    assert (ended.rescue_count, ended.run_count, runs) == (0, 1, [1])
    assert fetch_all(db, EFFECTS) == [1]
    assert_counts_true(db)
    assert service.health()["lost_claims"] == 0


def test_a_hung_atomic_handler_is_rolled_back_after_its_release(workers, registry, db, queue):
    """Its job runs elsewhere at once; when it ends at last, what it did is rolled back."""
    service = workers.service()
    arrived, leave, ended = threading.Event(), threading.Event(), threading.Event()

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> str:
        affect(ctx, number)
        if arrived.is_set():
            return "elsewhere"
        arrived.set()
        assert leave.wait(20)
        ended.set()
        return "late"

    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert arrived.wait(10)
    assert not pool.finish(0.1)
    assert row_of(db, job.id)["started_at"] is None
    other = workers.service()
    workers.start_on(other, registry, 1)
    assert wait_for_end(other, job).result == "elsewhere"
    leave.set()
    assert ended.wait(10)
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "jobqueue-worker-0"][1:])
    assert fetch_all(db, EFFECTS) == [1]
    assert other.get_job(job.id).result == "elsewhere"


@pytest.mark.parametrize(("unanswered", "runs_made"), [(b"COMMIT", 1), (b"as o(", 2)])
def test_a_cut_while_it_completes_is_no_second_effect(remote, service, registry, proxy, db, unanswered, runs_made):
    """Whether its connection is cut at the commit or at the save before it, a job has one effect and one completion."""
    runs = []

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> int:
        runs.append(number)
        affect(ctx, number)
        if len(runs) == 1:
            proxy.cut_answer(to=unanswered)
        return number

    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(7, type="t")]))
    worker = remote.service(batch_size=8)
    pool = remote.start_on(worker, registry, 1)
    ended = wait_for_end(service, bundle.jobs[0], 20)
    wait_until(lambda: proxy.num_cut_answers == 1)
    assert (ended.state, ended.result, ended.run_count) == (State.SUCCEEDED, 7, 1)
    assert fetch_all(db, EFFECTS) == [7]
    assert (len(runs), ended.rescue_count) == (runs_made, runs_made - 1)
    assert_counts_true(db)
    assert pool.finish(20)
    assert worker.health()["lost_claims"] == worker.health()["refused_outcomes"] == 0


def test_a_commit_that_hangs_is_given_up(workers, registry, db, other_db, monkeypatch):
    """Its connection is free for the next atomic job then; the commit counts if it comes to pass after all."""
    monkeypatch.setattr("jobqueue_pg.pool._SECONDS_TO_END", 1.0)
    db.execute("""
        create function stand_still() returns trigger language plpgsql as $$
          begin perform pg_advisory_xact_lock(6); return null; end $$;
        create constraint trigger stand_still after insert on effect deferrable initially deferred
          for each row when (new.number = 1) execute function stand_still()
    """)
    service, runs = workers.service(atomic_connections=1), []

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> int:
        runs.append(number)
        affect(ctx, number)
        return number

    try:
        with other_db.transaction():
            other_db.execute("select pg_advisory_xact_lock(6)")
            workers.start_on(service, registry, 2)
            stuck = service.enqueue("t", 1)
            wait_until(lambda: runs == [1])
            assert wait_for_end(service, service.enqueue("t", 2), 30).result == 2
            assert not service.get_job(stuck.id).stopped
        ended = wait_for_end(service, stuck, 30)
        assert (ended.state, ended.result, ended.run_count, ended.rescue_count) == (State.SUCCEEDED, 1, 1, 0)
        assert (runs, fetch_all(db, EFFECTS)) == ([1, 2], [1, 2])
        wait_until(lambda: service.health()["parts"]["trips"]["state"] == "up")
        assert service.health()["lost_claims"] == 0
    finally:
        db.execute("drop function stand_still cascade")


def test_where_there_is_no_connection_the_job_waits(queue, service, registry, db, caplog):
    """Jobs for which no connection can be had are given back at no cost, which is logged once, and run in the end."""
    role = "few_connections"
    db.execute(f"create role {role} login connection limit 4")
    db.execute(f"grant usage on schema worker to {role}")
    db.execute(f"grant all on effect, worker.job, worker.job_bundle, worker.paused_type, worker.migration to {role}")
    made = Workers(make_conninfo(queue, user=role))
    registry.handler("t", atomic=True)(affect)
    jobs = [service.enqueue("t", number) for number in range(3)]
    try:
        worker = made.service(poll_interval=timedelta(seconds=0.2), poll_only=True)
        with ExitStack() as others:
            for _ in range(3):
                others.enter_context(psycopg.connect(make_conninfo(queue, user=role)))
            made.start_on(worker, registry, 1)
            wait_until(lambda: worker.health()["parts"]["atomic handlers"]["state"] == "down", 20)
        for job in jobs:
            ended = wait_for_end(service, job, 30)
            assert (ended.state, ended.run_count, ended.rescue_count) == (State.SUCCEEDED, 1, 0)
        assert fetch_all(db, EFFECTS) == [0, 1, 2]
        lines = [record for record in caplog.records if "atomic handlers get no connection" in record.getMessage()]
        assert [line.levelno for line in lines] == [logging.WARNING]
    finally:
        made.end()
        db.execute(f"drop owned by {role}; drop role {role}")
