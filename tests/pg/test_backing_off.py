"""Backing off from a type, by worker pools on PostgreSQL: alone, and all processes together."""

import time
from datetime import timedelta

import pytest

from jobqueue import BackOff, Fixed, Job, JobContext, State
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end


class Relay:
    """A handler that is told to wait at first; *moments* are those of its calls."""

    def __init__(self, num_failures: int, *, shared: bool) -> None:
        self._num_failures = num_failures
        self._shared = shared
        self.moments: list[float] = []

    def __call__(self, ctx: JobContext, number: int) -> int:
        self.moments.append(time.monotonic())
        if len(self.moments) <= self._num_failures:
            raise BackOff("429, call later", shared=self._shared)
        return number

    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.moments, self.moments[1:], strict=False)]


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_failures_in_a_row(workers, registry, db, shared, atomic):
    """A pool waits 100 ms, then 200 ms, and no poll; the first success leaves nothing behind."""
    relay = Relay(2, shared=shared)
    registry.handler("mail", atomic=atomic, retry=Fixed(timedelta(0)), max_retry_count=5)(relay.__call__)
    service = workers.service(batch_size=1)
    workers.start_on(service, registry, 1)
    ended = wait_for_end(service, service.enqueue("mail", 7, max_retry_count=5, retry=Fixed(timedelta(0))))
    assert (ended.state, ended.run_count, ended.result) == (State.SUCCEEDED, 3, 7)
    first, second = relay.pauses()
    assert first >= 0.1
    assert 0.2 <= second < 5
    wait_until(lambda: fetch_all(db, "select from worker.paused_type") == [])


@pytest.mark.parametrize("shared", [False, True])
def test_what_was_claimed_ahead_waits_too(workers, registry, shared):
    """It is handed back at no cost: no run of the type begins before its time has come."""
    relay = Relay(2, shared=shared)
    registry.register_func_for_job_type("mail", relay.__call__)
    registry.register("quick", lambda _ctx, job: job.payload)
    service = workers.service()
    service.add_jobs([Job.new("quick", number, priority=1) for number in range(20)])
    mails = service.add_jobs([Job.new("mail", number) for number in range(20)])
    workers.start_on(service, registry, 1)
    ended = [wait_for_end(service, mail) for mail in mails]
    first, second, *_ = relay.pauses()
    assert first >= 0.1
    assert second >= 0.2
    assert [job.run_count for job in ended] == [1] * 20
    assert sorted(job.state for job in ended) == [State.FAILED] * 2 + [State.SUCCEEDED] * 18


def test_all_processes_back_off(workers, registry, db):
    """What one pool is told, another one on the same queue obeys; people see why."""
    relay = Relay(4, shared=True)
    registry.register_func_for_job_type("mail", relay.__call__)
    service = workers.service()
    jobs = [service.enqueue("mail", number, max_retry_count=9, retry=Fixed(timedelta(0))) for number in range(2)]
    for _ in range(2):
        workers.start(registry, 1, batch_size=1)
    wait_until(service.paused_types)
    wait_until(lambda: len(relay.moments) >= 4)
    for job in jobs:
        assert wait_for_end(service, job).succeeded
    # Two may have been started at the same moment, before the first of them failed.
    assert sum(relay.pauses()) >= 0.1 + 0.2
    # A success while the last pause held has let that go on to its end; in any case, the next one begins anew.
    in_force = "select from worker.paused_type where until > now() or back_off > '0'"
    wait_until(lambda: fetch_all(db, in_force) == [])


def test_a_back_off_is_shown(workers, registry):
    """The status has its reason, and whoever resumes the type ends it."""
    relay = Relay(20, shared=True)
    registry.register_func_for_job_type("mail", relay.__call__)
    service = workers.service()
    service.enqueue("mail", 1, max_retry_count=50, retry=Fixed(timedelta(0)))
    workers.start_on(service, registry, 1)
    (shown,) = wait_until(lambda: len(relay.moments) > 3 and service.get_status().paused)
    assert (shown.type, shown.reason, shown.is_back_off) == ("mail", "back-off: 429, call later", True)
    assert shown.until is not None
    assert shown.until > shown.paused_at
    wait_until(lambda: service.resume("mail"))
