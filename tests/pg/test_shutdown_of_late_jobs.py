"""How worker pools end whose jobs do not end in time: what is interrupted, released, and named in the log."""

import threading
import time
from datetime import timedelta

import pytest

import jobqueue
from jobqueue import JobContext, Registry, State
from tests.fixtures.stages import Stage
from tests.fixtures.stores import fetch_all
from tests.fixtures.threads import names_of_threads
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

PATIENCE = 10
CLAIMED = "select type, claimed_by from worker.job where started_at is not null and stopped_at is null"


@pytest.fixture
def service(workers):
    return workers.service()


@pytest.fixture
def stage(stage):
    """A stage whose pool is finished before it is let go."""
    yield stage
    stage.may_end.set()
    stage.thread.join(PATIENCE)


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
    assert time.monotonic() - began < PATIENCE
    assert str(job.id) in caplog.text
    assert stage.context.is_lost
    with pytest.raises(jobqueue.LostClaimError):
        stage.context.check()
    other = Registry()
    other.register_func_for_job_type("t", lambda _: "the other's")
    workers.start_on(service, other, 1)
    ended = wait_for_end(service, job)
    assert (ended.result, ended.run_count, ended.rescue_count, ended.current_retry_count) == ("the other's", 1, 0, 0)
    stage.may_end.set()
    assert stage.has_ended.wait(PATIENCE)
    wait_until(lambda: "is dropped" in caplog.text)
    assert service.get_job(job.id).result == "the other's"


def test_the_jobs_beside_a_hung_one_are_saved(workers, service, registry, stage):
    """One job that hangs does not take the others with it."""
    began, done = threading.Semaphore(0), threading.Event()
    registry.register_func_for_job_type("quick", lambda number: (began.release(), done.wait(PATIENCE), number)[-1])
    hung = service.enqueue("t", 1)
    quick = [service.enqueue("quick", number) for number in range(3)]
    pool = workers.start_on(service, registry, 4)
    assert stage.is_on.wait(PATIENCE)
    assert all(began.acquire(timeout=PATIENCE) for _ in quick)
    done.set()
    assert not pool.finish(1)
    assert [service.get_job(job.id).result for job in quick] == [0, 1, 2]
    assert service.get_job(hung.id).state is State.AVAILABLE


def test_all_that_hang_are_named(workers, service, registry, stage, db, caplog):
    """The log names each job that still runs, by id and type; none of them is claimed any more, nor anything else."""
    began = threading.Semaphore(0)
    registry.register_func_for_job_type("other", lambda _: (began.release(), stage.may_end.wait(PATIENCE)))
    jobs = [service.enqueue("t", 1), service.enqueue("other", 1), service.enqueue("other", 2)]
    pool = workers.start_on(service, registry, 3)
    assert stage.is_on.wait(PATIENCE)
    for _ in range(2):
        assert began.acquire(timeout=PATIENCE)
    waiting = service.enqueue("t", 2)
    assert not pool.finish(0)
    assert fetch_all(db, CLAIMED) == []
    named = {record.job_id: record.job_type for record in caplog.records if "still running" in record.getMessage()}
    assert named == {str(job.id): job.type for job in jobs}
    assert all(str(job.id) in caplog.text for job in jobs)
    assert str(waiting.id) not in caplog.text
    states = "select distinct run_count, rescue_count, current_retry_count, worker_alive_at from worker.job"
    assert fetch_all(db, states) == [(0, 0, 0, None)]
    stage.may_end.set()
    wait_until(lambda: names_of_threads() <= {"jobqueue-listener"})


def test_a_pool_after_one_that_hangs(workers, service, registry, stage):
    """While a hung job of a pool that is finished goes on, another pool of the process does its work, and ends."""
    service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    assert not pool.finish(0)
    others = Registry()
    others.register_func_for_job_type("t", lambda number: number)
    next_pool = workers.start_on(service, others, 1)
    assert wait_for_end(service, service.enqueue("t", 2)).result == 2
    assert next_pool.finish(PATIENCE)
    assert not stage.has_ended.is_set()
    registry.register_func_for_job_type("late", lambda _: None)  # not frozen any more


def test_a_job_that_runs_twice_in_a_pool(workers, service, registry, caplog):
    """The end of a run whose claim was lost is not taken for that of the run which has the claim by then."""
    may_end, runs, ended = [threading.Event(), threading.Event()], list[int](), list[int]()

    @registry.handler("t")
    def work(number: int) -> int:
        run = len(runs)
        runs.append(run)
        assert may_end[run].wait(PATIENCE)
        ended.append(run)
        return number

    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 2)
    wait_until(lambda: runs == [0])
    service.reset_job(job.id)
    wait_until(lambda: runs == [0, 1])
    may_end[0].set()
    wait_until(lambda: ended == [0])
    wait_until(lambda: service.health()["refused_outcomes"] == 1)
    try:
        assert not pool.finish(0.2)
        released = service.get_job(job.id)
        assert (released.state, released.run_count) == (State.AVAILABLE, 0)
        named = [record.job_id for record in caplog.records if "still running" in record.getMessage()]
        assert named == [str(job.id)]
    finally:
        may_end[1].set()
        wait_until(lambda: names_of_threads() <= {"jobqueue-listener"})
