"""How worker pools end: with jobs, without, in a hurry, twice, and with the database gone."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

import jobqueue
import jobqueue_pg
from jobqueue import Job, JobContext, JobInterruptedError, Registry, State, WorkerPool
from jobqueue_pg.embedded import EmbeddedServer, find_bindir
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, connections_of, wait_for_end

PATIENCE = 10
NAME = "shutdown"


class Stage:
    """A handler that says when it is on, and plays until it is let go."""

    def __init__(self, registry: Registry, *, cooperative: bool = False) -> None:
        self.is_on = threading.Event()
        self.may_end = threading.Event()
        self.has_ended = threading.Event()
        self.context: JobContext | None = None
        self._cooperative = cooperative
        registry.handler("t")(self.play)

    def play(self, ctx: JobContext, number: int) -> int:
        self.context = ctx
        self.is_on.set()
        try:
            while not self.may_end.wait(0.01):
                if self._cooperative:
                    ctx.check()
            return number
        finally:
            self.has_ended.set()


@pytest.fixture
def stage(registry):
    made = Stage(registry)
    yield made
    made.may_end.set()


@pytest.fixture
def service(workers):
    return workers.service(application_name=NAME)


def names_of_threads():
    """Name our threads, without those of the pool of connections for the calls of the test."""
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("jobqueue-")}
    return {name for name in names if not name.startswith("jobqueue-calls-")}


def running(service, job):
    found = service.get_job(job.id)
    return found.started_and_not_stopped


def test_an_idle_pool_ends_at_once(workers, service, registry):
    """Threads that wait for work end without waiting for their poll, and leave no thread but the service's."""
    registry.register_func_for_job_type("t", lambda _: None)
    pool = workers.start_on(service, registry, 8)
    wait_until(lambda: service.health()["parts"]["listener"]["state"] == "up")
    began = time.monotonic()
    assert pool.finish()
    assert time.monotonic() - began < 2
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


def test_failing_jobs_are_saved(workers, service, registry):
    """A handler that fails while its pool ends is saved like any other."""
    began = threading.Event()

    @registry.handler("t")
    def fail(_: int) -> None:
        began.set()
        wait_until(lambda: not pool.is_running)
        raise ValueError("too late")

    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert began.wait(PATIENCE)
    assert pool.finish(PATIENCE)
    assert service.get_job(job.id).error_msg == "too late"


def test_a_run_that_heeds_its_interruption_is_released(workers, service, registry):
    """After the timeout contexts are cancelled; a handler that checks is released: no run, no retry is used up."""
    stage = Stage(registry, cooperative=True)
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    assert not pool.finish(0.1)
    assert stage.context.is_cancelled
    released = service.get_job(job.id)
    assert (released.state, released.run_count, released.claim_id) == (State.AVAILABLE, 0, None)
    assert not names_of_threads() & {"jobqueue-worker-0"}


def test_a_run_that_ends_when_interrupted_is_saved(workers, service, registry):
    """A handler that ends in its own way when it is told to stop has its result saved."""

    @registry.handler("t")
    def work(ctx: JobContext, _: int) -> str:
        began.set()
        wait_until(lambda: ctx.is_cancelled)
        return "as far as I got"

    began = threading.Event()
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert began.wait(PATIENCE)
    assert not pool.finish(0.1)
    assert service.get_job(job.id).result == "as far as I got"


def test_a_hung_job_is_released(workers, service, registry, stage, caplog):
    """A job that does not end is named in the log and released: another pool takes it at once."""
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    began = time.monotonic()
    assert not pool.finish(timedelta(seconds=0.2))
    assert time.monotonic() - began < 4
    assert str(job.id) in caplog.text
    assert stage.context.is_lost
    with pytest.raises(jobqueue.LostClaimError):
        stage.context.check()
    other = Registry()
    other.register_func_for_job_type("t", lambda _: "the other's")
    workers.start_on(service, other, 1)
    ended = wait_for_end(service, job, 2)
    assert (ended.result, ended.run_count, ended.rescue_count, ended.current_retry_count) == ("the other's", 1, 0, 0)
    stage.may_end.set()
    assert stage.has_ended.wait(PATIENCE)
    wait_until(lambda: "is dropped" in caplog.text)
    assert service.get_job(job.id).result == "the other's"


def test_the_jobs_beside_a_hung_one_are_saved(workers, service, registry, stage):
    """One job that hangs does not take the others with it."""
    done = threading.Event()
    registry.register_func_for_job_type("quick", lambda number: (done.wait(PATIENCE), number)[1])
    hung = service.enqueue("t", 1)
    quick = [service.enqueue("quick", number) for number in range(3)]
    pool = workers.start_on(service, registry, 4)
    assert stage.is_on.wait(PATIENCE)
    wait_until(lambda: all(running(service, job) for job in quick))
    done.set()
    assert not pool.finish(1)
    assert [service.get_job(job.id).result for job in quick] == [0, 1, 2]
    assert service.get_job(hung.id).state is State.AVAILABLE


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


def test_finish_twice(workers, service, registry):
    """The second call gives the answer of the first, at once."""
    pool = workers.start_on(service, registry)
    assert pool.finish(PATIENCE)
    assert pool.finish()
    assert pool.finish(0)


def test_finish_of_two_threads(workers, service, registry, stage):
    """Two threads that finish a pool both wait for it, and get the same answer; one in a hurry is told False."""
    service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    with ThreadPoolExecutor(2) as executor:
        finishing = [executor.submit(pool.finish) for _ in range(2)]
        wait_until(lambda: not pool.is_running)
        assert not pool.finish(0.05)
        assert not pool.finish(-1)
        stage.may_end.set()
        assert [future.result(PATIENCE) for future in finishing] == [True, True]


def test_finish_right_after_start(workers, registry, db):
    """A pool may be finished before its threads have done anything, again and again."""
    registry.register_func_for_job_type("t", lambda _: None)
    service = workers.service()
    service.add_jobs([Job.new("t", number) for number in range(20)])
    for number in range(20):
        pool = workers.start_on(service, registry, 4)
        assert pool.finish(None if number % 2 else PATIENCE)
    assert fetch_all(db, "select count(*) from worker.job where started_at is not null and stopped_at is null") == [0]


def test_a_pool_that_was_not_started(service, registry):
    """There is nothing to stop or to finish."""
    pool = WorkerPool(service, registry)
    pool.stop()
    assert pool.finish()
    assert not pool.is_running


def test_a_handler_cannot_finish_its_own_pool(workers, service, registry):
    """A handler that waited for its pool would wait for itself: it is told so; it may stop the pool."""

    @registry.handler("t")
    def work(_: int) -> str:
        pools[0].stop()
        with pytest.raises(RuntimeError, match="own pool"):
            pools[0].finish()
        return "stopped"

    job = service.enqueue("t", 1)
    pools = [WorkerPool(service, registry, threads=1)]
    pools[0].start()
    try:
        assert wait_for_end(service, job).result == "stopped"
    finally:
        assert pools[0].finish(PATIENCE)


def test_closing_the_service_finishes_its_pools(workers, registry, db):
    """close() waits for running jobs, ends all threads and all connections."""
    service = workers.service(application_name=NAME)
    began = threading.Event()
    registry.register_func_for_job_type("t", lambda n: (began.set(), threading.Event().wait(0.3), n)[2])
    job = service.enqueue("t", 5)
    pool = workers.start_on(service, registry, 2)
    assert began.wait(PATIENCE)
    service.close()
    assert not pool.is_running
    assert fetch_all(db, "select result::text from worker.job where id = %s", job.id) == ["5"]
    assert names_of_threads() == set()
    wait_until(lambda: connections_of(db, NAME) == 0)
    registry.register_func_for_job_type("u", lambda _: None)


def test_a_finished_pool_leaves_nothing(workers, registry, db):
    """After finish the pool has no thread, and no connection."""
    service = workers.service(application_name=NAME, poll_only=True)
    registry.register_func_for_job_type("t", lambda _: None)
    pool = workers.start_on(service, registry, 4)
    wait_until(lambda: connections_of(db, NAME) > 0)
    assert pool.finish(PATIENCE)
    assert names_of_threads() == set()
    wait_until(lambda: connections_of(db, NAME) == 0)


def test_an_interrupted_finish_can_be_repeated(workers, service, registry, stage, monkeypatch):
    """A finish that Ctrl-C breaks off leaves a pool that can be finished, and a registry that thaws then."""
    service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    join = threading.Thread.join

    def interrupted(thread, timeout=None):
        if thread.name.startswith("jobqueue-worker"):
            raise KeyboardInterrupt
        join(thread, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.finish()
    stage.may_end.set()
    assert pool.finish(PATIENCE)
    registry.unregister()


# --- without a database


@pytest.fixture(scope="module")
def own_server():
    """A server that tests of this module may stop."""
    if os.environ.get("JOBQUEUE_TEST_DSN") and not os.environ.get("JOBQUEUE_PG_BINDIR"):
        pytest.skip("needs a server of its own")
    return find_bindir()


def start_server(bindir, **options):
    server = EmbeddedServer(bindir, **options)
    server.start()
    jobqueue_pg.migrate(server.conninfo)
    return server


def test_finish_with_the_database_gone(own_server, registry):
    """A pool ends in bounded time when its database has gone, and says that outcomes could not be saved."""
    server = start_server(own_server)
    workers = Workers(server.conninfo)
    stage = Stage(registry)
    service = workers.service(heartbeat_interval=timedelta(seconds=0.5), dead_for=timedelta(seconds=1.5))
    service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 4)
    assert stage.is_on.wait(PATIENCE)
    server.stop()
    stage.may_end.set()
    began = time.monotonic()
    assert not pool.finish()
    assert time.monotonic() - began < 30
    service.close()
    assert time.monotonic() - began < 40
    assert names_of_threads() == set()


def test_finish_with_the_database_gone_and_a_hung_job(own_server, registry):
    """Not even both can keep a pool from ending."""
    server = start_server(own_server)
    workers = Workers(server.conninfo)
    stage = Stage(registry)
    service = workers.service(heartbeat_interval=timedelta(seconds=0.5), dead_for=timedelta(seconds=1.5))
    service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 2)
    assert stage.is_on.wait(PATIENCE)
    server.stop()
    began = time.monotonic()
    assert not pool.finish(0.5)
    assert time.monotonic() - began < 30
    stage.may_end.set()
    service.close()
    wait_until(lambda: not names_of_threads())


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
        assert wait_for_end(service, service.enqueue("t", 1), 3).result == 1


def test_finish_of_the_thread_that_is_in_it(workers, service, registry, stage):
    """A signal handler that finishes the pool which its thread is finishing gets an answer, and does not wait."""
    service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(10)
    answers = []

    def interrupt(*_: object) -> None:
        answers.append(pool.finish())
        stage.may_end.set()

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert pool.finish(10)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert answers == [False]
