"""Which jobs a pool takes, and in which order."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from jobqueue import (
    Fixed,
    Job,
    JobContext,
)
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

NOW = timedelta(0)
PATIENCE = 10


@pytest.fixture
def service(workers):
    """A service whose workers neither listen nor poll: they know what is there at their start, and what they did."""
    return workers.service(poll_only=True)


def returning(result):
    return lambda _: result


def run_to_end(workers, service, registry, *jobs, threads=2):
    """Work *jobs* off, and return them as they then are."""
    workers.start_on(service, registry, threads)
    return [wait_for_end(service, job) for job in jobs]


def test_prefixes_take_what_has_no_handler_of_its_own(workers, service, registry):
    """An exact type comes before the longest prefix, that before shorter ones; the star takes the rest."""
    for pattern in ("report:daily", "report:*", "report:weekly:*", "*"):
        registry.register_func_for_job_type(pattern, returning(pattern))
    wanted = {
        "report:daily": "report:daily",
        "report:x": "report:*",
        "report:weekly:eu": "report:weekly:*",
        "reports": "*",
        "other": "*",
    }
    jobs = [service.enqueue(kind, 1) for kind in wanted]
    assert [job.result for job in run_to_end(workers, service, registry, *jobs)] == list(wanted.values())


def test_types_of_others_are_left_alone(workers, service, registry):
    """A job that no handler is registered for is not touched."""
    registry.register_func_for_job_type("known", lambda _: None)
    registry.register_func_for_job_type("pre:*", lambda _: None)
    unknown = [service.enqueue(kind, 1) for kind in ("unknown", "know", "known2", "pre", "prefix")]
    run_to_end(workers, service, registry, service.enqueue("known", 1), service.enqueue("pre:x", 1))
    for job in unknown:
        found = service.get_job(job.id)
        assert (found.started, found.run_count, found.claimed_by) == (False, 0, None)


def test_a_pool_without_handlers_waits(workers, service, registry, caplog):
    """Threads without a handler say so, and do nothing."""
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry)
    assert "without any handler" in caplog.text
    assert pool.finish(PATIENCE)
    assert not service.get_job(job.id).started


def test_one_thread_works_in_order(workers, service, registry):
    """Higher priorities come first, then what was due first, then what was added first."""
    order: list[int] = []
    registry.register_func_for_job_type("t", order.append)
    past = datetime.now(UTC) - timedelta(hours=1)
    jobs = [
        service.enqueue("t", 3),
        service.enqueue("t", 4),
        service.enqueue("t", 5, priority=-1),
        service.enqueue("t", 1, priority=7),
        service.enqueue("t", 2, start_at=past),
        service.enqueue("t", 0, priority=8, start_at=past),
    ]
    run_to_end(workers, service, registry, *jobs, threads=1)
    assert order == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_every_job_runs_exactly_once(workers, registry, db, batch_size):
    """Held one by one or in batches, jobs leave the same history: each ran once, every third was retried once."""
    runs: Counter[int] = Counter()
    lock = threading.Lock()

    @registry.handler("t", max_retry_count=1, retry=Fixed(NOW))
    def work(ctx: JobContext, number: int) -> int:
        with lock:
            runs[number] += 1
        if number % 3 == 0 and ctx.job.current_retry_count == 0:
            raise RuntimeError("no luck")
        return number

    service = workers.service(batch_size=batch_size)
    pool = workers.start_on(service, registry, 4)
    service.add_jobs([Job.new("t", number, max_retry_count=1) for number in range(300)])
    left = "select count(*) from worker.job where stopped_at is null"
    wait_until(lambda: fetch_all(db, left) == [0], 30)
    assert pool.finish(PATIENCE)
    assert runs == {number: 2 if number % 3 == 0 else 1 for number in range(300)}
    history = fetch_all(
        db, "select run_count, current_retry_count, rescue_count, count(*) from worker.job group by 1, 2, 3"
    )
    assert sorted(history) == [(1, 0, 0, 200), (2, 1, 0, 100)]
    assert fetch_all(db, "select count(*) from worker.job where result <> payload or error_msg is not null") == [0]
    health = service.health()
    assert (health["lost_claims"], health["refused_outcomes"]) == (0, 0)
