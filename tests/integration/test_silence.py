"""Processes, servers and networks that stand still for a while: who is taken for dead, and who is not."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import jobqueue_pg
from jobqueue import Job, JobBundle, JobContext, JobDesc, LostClaimError, Registry
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.frozen import frozen
from tests.fixtures.stores import assert_counts_true, fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

PATIENCE = 30
BEAT, DEAD_FOR = 0.4, 1.5
MORTAL = {"heartbeat_interval": timedelta(seconds=BEAT), "dead_for": timedelta(seconds=DEAD_FOR)}
PROCESS = {"heartbeat": BEAT, "dead_for": DEAD_FOR}
LONG_ENOUGH_TO_REAP = 1.5 * DEAD_FOR

TO_DO = "select count(*) from worker.job where stopped_at is null"
RUNNING = "select count(*) from worker.job where started_at is not null and stopped_at is null"
RESCUES = "select sum(rescue_count)::int from worker.job"
BEGUN_BY = "select count(*) from run where event in ('run', 'began') and pid = %s"
SILENCE = """
    select coalesce(max(extract(epoch from clock_timestamp() - worker_alive_at)), 0)::float8
    from worker.job where started_at is not null and stopped_at is null
"""


def pause(seconds: float) -> None:
    """Let time pass, because that is what the test is about."""
    assert not threading.Event().wait(seconds)


class Runs:
    """What handlers of a type ``t`` have run, and what their contexts said; they end when they are told to."""

    def __init__(self, registry: Registry) -> None:
        self.contexts: list[JobContext] = []
        self.may_end = threading.Event()
        registry.handler("t")(self._run)

    def _run(self, ctx: JobContext, number: int) -> int:
        self.contexts.append(ctx)
        assert self.may_end.wait(PATIENCE)
        return number


@pytest.fixture
def runs(registry):
    return Runs(registry)


@contextmanager
def longest_silence(conninfo: str) -> Iterator[list[float]]:
    """Look again and again, while the block runs, for how long the most silent claim has been silent."""
    seen = [0.0]
    over = threading.Event()

    def look() -> None:
        with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
            while not over.wait(0.02):
                seen[0] = max(seen[0], *fetch_all(connection, SILENCE))

    thread = threading.Thread(target=look, name="looking")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(PATIENCE)


# --- claims that no worker is running


def test_a_bundle_that_is_locked_for_long(migrated, processes, connection, registry):
    """Members end while their bundle is locked for 3 x dead_for and another process reaps: one run each, then saved."""
    registry.register_func_for_job_type("t", lambda n: n)
    processes.start(**PROCESS)
    workers = Workers(migrated)
    service = workers.service(**MORTAL)
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(number, type="t") for number in range(3)]))
    with closing(psycopg.connect(migrated)) as holder, longest_silence(migrated) as silence:
        holder.execute("select from worker.job_bundle where id = %s for update", [bundle.id])
        workers.start_on(service, registry, 3)
        wait_until(lambda: fetch_all(connection, RUNNING) == [3])
        pause(3 * DEAD_FOR)
        assert fetch_all(connection, RUNNING) == [3]
        holder.rollback()
        ended = [wait_for_end(service, job) for job in bundle.jobs]
    assert [(job.result, job.run_count, job.rescue_count) for job in ended] == [(n, 1, 0) for n in range(3)]
    assert silence[0] < DEAD_FOR * 0.8
    assert (service.health()["lost_claims"], service.health()["refused_outcomes"]) == (0, 0)
    assert_counts_true(connection)
    workers.end()


def test_a_claim_is_handed_on_without_a_gap(migrated, connection, registry):
    """Trip, keeper, heartbeat thread, keeper: over all of a claim's life it is never silent for long."""
    workers = Workers(migrated)
    service = workers.service(**MORTAL, batch_size=64)
    registry.handler("quick")(lambda _: None)
    registry.handler("slow")(lambda _: threading.Event().wait(BEAT))
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(number, type="slow") for number in range(4)]))
    with closing(psycopg.connect(migrated)) as holder, longest_silence(migrated) as silence:
        # What has run waits for its bundle; what has not is held ahead behind it.
        holder.execute("select from worker.job_bundle where id = %s for update", [bundle.id])
        service.add_jobs([Job.new("quick", number, priority=1) for number in range(100)])
        workers.start_on(service, registry, 2)
        wait_until(lambda: fetch_all(connection, TO_DO) == [4])
        pause(DEAD_FOR)
        service.add_jobs([Job.new("quick", number, priority=1) for number in range(100)])
        service.add_jobs([Job.new("slow", number) for number in range(4)])
        wait_until(lambda: fetch_all(connection, TO_DO) == [4])
        holder.rollback()
        wait_until(lambda: fetch_all(connection, TO_DO) == [0])
    # A beat is due after half an interval, and looked for as often; the rest is for a machine that is busy.
    assert silence[0] < DEAD_FOR * 0.8
    assert fetch_all(connection, "select max(run_count), max(rescue_count) from worker.job") == [(1, 0)]
    workers.end()


# --- a process that is cut off


@pytest.fixture
def proxied(migrated):
    """A proxy before the server, and worker pools and services behind it."""
    server = conninfo_to_dict(migrated)
    with FaultProxy(str(server["host"]), int(server["port"])) as proxy:
        workers = Workers(proxy.route(migrated))
        yield proxy, workers
        proxy.thaw()
        proxy.accept()
        workers.end()


@pytest.fixture
def watching(migrated):
    """A service that nothing cuts off."""
    with jobqueue_pg.connect(migrated, origin="tests", poll_only=True) as service:
        yield service


def cut_off(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.cut()


def test_outcomes_wait_for_a_short_outage(proxied, processes, connection, watching, registry, runs):
    """What ends while its process is cut off, for less than the others' dead_for, is saved after that; one run each."""
    proxy, workers = proxied
    # The cut is shorter than dead_for by what it may take to connect again.
    settings = {"heartbeat_interval": timedelta(seconds=4), "dead_for": timedelta(seconds=15)}
    service = workers.service(**settings)
    processes.start(heartbeat=BEAT, dead_for=DEAD_FOR)
    jobs = service.add_jobs([Job.new("t", number) for number in range(4)])
    workers.start_on(service, registry, 4)
    wait_until(lambda: len(runs.contexts) == 4)
    cut_off(proxy)
    runs.may_end.set()
    pause(2)
    assert fetch_all(connection, TO_DO) == [4]
    proxy.accept()
    ended = [wait_for_end(watching, job, PATIENCE) for job in jobs]
    assert [(job.result, job.run_count, job.rescue_count) for job in ended] == [(n, 1, 0) for n in range(4)]
    assert (len(runs.contexts), service.health()["lost_claims"]) == (4, 0)


def test_a_process_fences_itself_in_time(proxied, processes, connection, watching, registry, runs):
    """A run knows that its claim may be lost before anybody can have taken it; nothing new begins until all is well."""
    proxy, workers = proxied
    service = workers.service(**MORTAL)
    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 2)
    [context] = wait_until(lambda: runs.contexts)
    processes.start(**PROCESS)
    by_hand = service.enqueue("by hand", 1)
    [claim] = service.claim("by hand")
    proxy.freeze()
    wait_until(lambda: fetch_all(connection, RESCUES) == [2], PATIENCE)
    assert context.is_lost
    assert claim.is_lost
    with pytest.raises(LostClaimError):
        context.check()
    # The job is there to be had, and another; who is cut off begins neither, having a free thread.
    other = watching.enqueue("t", 2)
    pause(DEAD_FOR / 2)
    assert len(runs.contexts) == 1
    proxy.thaw()
    runs.may_end.set()
    assert wait_for_end(watching, other).result == 2
    assert wait_for_end(watching, job).result == 1
    wait_until(lambda: service.health()["refused_outcomes"] == 1)
    wait_until(lambda: claim.was_taken)
    with pytest.raises(LostClaimError):
        claim.finish()
    assert service.health()["lost_claims"] == 2
    assert watching.get_job(by_hand.id).run_count == 0
    assert len(runs.contexts) == 3


def test_a_claim_that_nobody_has_taken_stands_again(proxied, connection, watching, registry, runs):
    """Claims that were given up for lost stand again with the next beat, if nobody was there to take them."""
    proxy, workers = proxied
    service = workers.service(**MORTAL)
    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 2)
    [context] = wait_until(lambda: runs.contexts)
    service.enqueue("by hand", 1)
    [claim] = service.claim("by hand")
    cut_off(proxy)
    wait_until(lambda: context.is_lost and claim.is_lost)
    proxy.accept()
    wait_until(lambda: not context.is_lost and not claim.is_lost, PATIENCE)
    context.check()
    runs.may_end.set()
    claim.finish("late")
    assert wait_for_end(watching, job, PATIENCE).result == 1
    assert watching.get_job(claim.job.id).result == "late"
    assert fetch_all(connection, RESCUES) == [0]
    assert service.health()["lost_claims"] == 0


# --- a process that is frozen


def test_a_frozen_process_begins_nothing_that_it_held(processes, connection, watching):
    """Jobs that a process held ahead when it was frozen are not begun by it when it wakes up too late."""
    zombie = processes.start(**PROCESS, threads=1, batch_size=64)
    with connection.transaction():
        for number in range(200):
            watching.enqueue("quick", number, priority=2, connection=connection)
        watching.enqueue("slow", 2, priority=1, connection=connection)
        for number in range(20):
            watching.enqueue("quick", number, connection=connection)
    wait_until(lambda: fetch_all(connection, "select count(*) from run where event = 'began'") == [1])
    zombie.freeze()
    begun = fetch_all(connection, BEGUN_BY, zombie.pid)
    other = processes.start(**PROCESS, threads=4)
    wait_until(lambda: fetch_all(connection, TO_DO) == [0], PATIENCE)
    zombie.thaw()
    zombie.finish()
    assert fetch_all(connection, BEGUN_BY, zombie.pid) == begun
    other.finish()
    assert fetch_all(connection, "select max(run_count) from worker.job") == [1]


def test_a_frozen_process_takes_nothing_from_the_living(processes, connection, migrated, registry, runs):
    """A process that wakes up after 2 x dead_for, and reaps at once, takes no claim away that is alive."""
    sleepers = [processes.start(**PROCESS) for _ in range(2)]
    workers = Workers(migrated)
    service = workers.service(**MORTAL)
    jobs = service.add_jobs([Job.new("t", number) for number in range(10)])
    workers.start_on(service, registry, 10)
    wait_until(lambda: len(runs.contexts) == 10)
    for sleeper in sleepers:
        sleeper.freeze()
    pause(2 * DEAD_FOR)
    for sleeper in sleepers:
        sleeper.thaw()
    pause(LONG_ENOUGH_TO_REAP)
    runs.may_end.set()
    ended = [wait_for_end(service, job) for job in jobs]
    assert {(job.run_count, job.rescue_count) for job in ended} == {(1, 0)}
    assert len(runs.contexts) == 10
    workers.end()


# --- a server that stands still


@pytest.fixture
def two_pools(exposed, registry, runs):
    """Two processes, as far as the server can tell, that run 10 jobs each."""
    services = [exposed.service(**MORTAL) for _ in range(2)]
    for service in services:
        exposed.start_on(service, registry, 10)
    services[0].add_jobs([Job.new("t", number) for number in range(20)])
    wait_until(lambda: len(runs.contexts) == 20)
    # Both have listened for long enough to judge the silence of others.
    pause(1.5 * DEAD_FOR)
    return services


def check_that_nobody_was_rescued(server, services, runs) -> None:
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as connection:
        pause(LONG_ENOUGH_TO_REAP)
        runs.may_end.set()
        wait_until(lambda: fetch_all(connection, TO_DO) == [0], PATIENCE)
        rows = fetch_all(connection, "select run_count, rescue_count, result = payload from worker.job")
    assert rows == [(1, 0, True)] * 20
    assert len(runs.contexts) == 20
    assert [service.health()["lost_claims"] for service in services] == [0, 0]


def test_a_server_that_is_stopped_for_long(server, two_pools, runs):
    """A server is away for 2 x dead_for while 20 jobs run in two processes: nobody is rescued, all finish once."""
    server.stop()
    pause(2 * DEAD_FOR)
    assert all(context.is_lost for context in runs.contexts)
    server.start()
    check_that_nobody_was_rescued(server, two_pools, runs)


def test_a_server_that_is_frozen_for_long(server, two_pools, runs):
    """A server stands still for 2 x dead_for with all connections open: nobody is rescued, all finish once."""
    with frozen(server.pid):
        pause(2 * DEAD_FOR)
    check_that_nobody_was_rescued(server, two_pools, runs)
