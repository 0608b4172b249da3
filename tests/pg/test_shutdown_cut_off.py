"""How worker pools end whose database has gone, or does not answer: in bounded time, whatever they were doing."""

import time

import pytest

from jobqueue import Registry, WorkerPool
from tests.fixtures.frozen import frozen
from tests.fixtures.threads import names_of_threads
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import FAST_DEATH, wait_for_end

PATIENCE = 20
A_MOMENT_MORE = 5.0
"""What finish may take beyond its timeout: a second for late jobs, one to save, the rest to break off calls."""


def test_finish_with_the_database_gone(exposed, server, registry, stage):
    """A pool ends in bounded time when its database has gone, and says that outcomes could not be saved."""
    service = exposed.service(**FAST_DEATH)
    service.enqueue("t", 1)
    pool = exposed.start_on(service, registry, 4)
    assert stage.is_on.wait(PATIENCE)
    server.stop()
    stage.may_end.set()
    began = time.monotonic()
    assert not pool.finish()
    assert time.monotonic() - began < FAST_DEATH["dead_for"].total_seconds() + A_MOMENT_MORE
    service.close()
    assert time.monotonic() - began < 20
    wait_until(lambda: names_of_threads() == set())


def test_finish_with_the_database_gone_and_a_hung_job(exposed, server, registry, stage, caplog):
    """Not even both can keep a pool from ending; the job is named in the log."""
    service = exposed.service(**FAST_DEATH)
    job = service.enqueue("t", 1)
    pool = exposed.start_on(service, registry, 2)
    assert stage.is_on.wait(PATIENCE)
    server.stop()
    began = time.monotonic()
    assert not pool.finish(0.5)
    assert time.monotonic() - began < 0.5 + A_MOMENT_MORE
    assert str(job.id) in caplog.text
    stage.may_end.set()
    service.close()
    wait_until(lambda: names_of_threads() == set())


def test_an_idle_pool_with_the_database_gone(exposed, server, registry):
    """A pool without jobs ends soon when its database has gone, and can say that all was done, or not, but no more."""
    registry.register_func_for_job_type("t", lambda number: number)
    service = exposed.service(**FAST_DEATH)
    pool = exposed.start_on(service, registry, 2)
    wait_until(lambda: service.notifier.is_listening)
    server.stop()
    began = time.monotonic()
    pool.finish(0.5)
    assert time.monotonic() - began < 0.5 + A_MOMENT_MORE
    assert not pool.is_running


@pytest.mark.parametrize("doing", ["ended", "hung"])
def test_finish_with_the_database_frozen(exposed, server, registry, stage, doing, caplog):
    """A server that hangs, its connections open, holds finish up for little more than its timeout; no job is lost."""
    service = exposed.service(**FAST_DEATH)
    job = service.enqueue("t", 1)
    pool = exposed.start_on(service, registry, 3)
    assert stage.is_on.wait(PATIENCE)
    wait_until(lambda: service.notifier.is_listening)
    with frozen(server.pid):
        wait_until(lambda: num_unanswered(pool) >= 2)
        if doing == "ended":
            stage.may_end.set()
        began = time.monotonic()
        assert not pool.finish(0.5)
        assert time.monotonic() - began < 0.5 + A_MOMENT_MORE
        assert "the database did not answer in time" in caplog.text
        assert (str(job.id) in caplog.text) == (doing == "hung")
        began = time.monotonic()
        service.close()
        assert time.monotonic() - began < 10
    stage.may_end.set()
    runs_again_or_was_saved(exposed, job)
    wait_until(lambda: names_of_threads() == set(), PATIENCE)


def test_an_idle_pool_with_the_database_frozen(exposed, server, registry):
    """A pool without jobs, whose reaper waits for an answer, ends soon, and has nothing to regret."""
    registry.register_func_for_job_type("t", lambda number: number)
    service = exposed.service(**FAST_DEATH)
    pool = exposed.start_on(service, registry, 3)
    assert wait_for_end(service, service.enqueue("t", 1)).succeeded
    wait_until(lambda: num_unanswered(pool) == 0)
    with frozen(server.pid):
        wait_until(lambda: num_unanswered(pool) >= 1)
        began = time.monotonic()
        assert pool.finish(0.5)
        assert time.monotonic() - began < 0.5 + A_MOMENT_MORE
        service.close()
    wait_until(lambda: names_of_threads() == set(), PATIENCE)


def num_unanswered(pool):
    return len(pool._crew._contact._asked_at)


def runs_again_or_was_saved(exposed, job):
    """What reached the server before it froze may be saved when it thaws; what did not, another pool makes good."""
    others = Registry()
    others.register_func_for_job_type("t", lambda number: number)
    service = exposed.service(**FAST_DEATH)
    with WorkerPool(service, others, threads=1):
        assert wait_for_end(service, job, PATIENCE).result == 1
    service.close()


def test_finish_without_a_timeout_with_the_database_frozen(exposed, server, registry, stage):
    """However long jobs may take, an answer is not waited for any longer than dead_for when they have ended."""
    service = exposed.service(**FAST_DEATH)
    job = service.enqueue("t", 1)
    pool = exposed.start_on(service, registry, 2)
    assert stage.is_on.wait(PATIENCE)
    with frozen(server.pid):
        stage.may_end.set()
        began = time.monotonic()
        assert not pool.finish()
        assert time.monotonic() - began < FAST_DEATH["dead_for"].total_seconds() + A_MOMENT_MORE
        service.close()
    runs_again_or_was_saved(exposed, job)
    wait_until(lambda: names_of_threads() == set(), PATIENCE)
