"""Claims that are older than they can stand when a worker comes for them: over rows in memory."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from jobqueue import Job
from jobqueue.job_context import JobContext
from tests.fixtures.gated_worker_store import GatedWorkerStore
from tests.fixtures.parts import Parts
from tests.fixtures.waiting import wait_until

DEAD_FOR = timedelta(seconds=1)


@pytest.fixture
def store():
    return GatedWorkerStore()


@pytest.fixture
def parts(store):
    return Parts(store, dead_for=DEAD_FOR)


def test_an_answer_that_comes_late(parts, store):
    """A job whose claim was answered after dead_for is not begun: it is handed back, and claimed anew."""
    store.add(Job.new("t", 1))
    store.open_gate.clear()
    with ThreadPoolExecutor(1) as worker:
        asked = worker.submit(parts.dispatcher.next_job)
        wait_until(lambda: store.travelling)
        [late] = store.jobs.values()
        threading.Event().wait(1.2 * DEAD_FOR.total_seconds())
        store.open_gate.set()
        assert wait_until(parts.dispatcher.kept_fences) == [late.fence]
        assert not asked.done()
        parts.dispatcher.hand_back(longer_than=0)
        # The keeper carries what no worker does; that there is a job again is notified.
        parts.dispatcher.carry_overdue(longer_than=0)
        wait_until(lambda: store.saved)
        parts.dispatcher.ring()
        job = asked.result(10)
    assert job.id == late.id
    assert job.claim_id != late.claim_id


def test_a_run_goes_by_what_was_before_it(parts, store):
    """A run that begins on an old claim is lost when the claim is, and not a dead_for after its own begin."""
    store.add(Job.new("t", 1))
    asked_at = time.monotonic()
    job = parts.dispatcher.next_job()
    threading.Event().wait(0.7 * DEAD_FOR.total_seconds())
    context = JobContext(job)
    began_at = time.monotonic()
    parts.heartbeat.begin(job.fence, context)
    wait_until(lambda: context.is_lost)
    lost_at = time.monotonic()
    assert lost_at - asked_at >= DEAD_FOR.total_seconds()
    assert lost_at - began_at < DEAD_FOR.total_seconds()
    # The next beat gets through, and finds it to stand.
    parts.heartbeat.tick()
    assert not context.is_lost
    assert store.beats == [job.id]
