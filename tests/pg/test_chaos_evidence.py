"""What the database writes down of claims and bundles in a chaos run is what has happened to them."""

from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

from jobqueue.outcomes import Claimant, Outcome, RunError
from jobqueue_pg.store import PostgresStore
from tests.fixtures.stores import add, make_bundle, make_job
from tests.fixtures.waiting import wait_until
from tests.integration.chaos_parts.bundle_checks import completions_after_all_members
from tests.integration.chaos_parts.checker import check
from tests.integration.chaos_parts.evidence import take_evidence
from tests.integration.chaos_parts.lives import Ending, lives_of
from tests.integration.chaos_parts.loading import load_history
from tests.integration.chaos_parts.recorder import Recorder

MILLISECOND = timedelta(milliseconds=1)
ERROR = RunError(message="it failed")


@pytest.fixture
def conninfo(migrated):
    take_evidence(migrated)
    return migrated


@pytest.fixture
def store(conninfo):
    with closing(PostgresStore(conninfo)) as store:
        yield store


@pytest.fixture
def workers(store):
    with closing(store.for_workers(lock_timeout=timedelta(seconds=2))) as workers:
        yield workers


@pytest.fixture
def load(conninfo, tmp_path):
    """Reads what was written down."""
    recorder = Recorder(tmp_path, "test")
    recorder.note("server started", since=0)
    yield lambda: load_history(tmp_path, conninfo)
    recorder.close()


def claim(workers):
    [job] = workers.claim_jobs(["*"], 1, Claimant(name="host:1:thread", lease=MILLISECOND))
    return job


ENDINGS = {
    Ending.FINISHED: lambda job, store, workers: workers.save_outcomes([Outcome.finished(job, "1")]),
    Ending.FAILED: lambda job, store, workers: workers.save_outcomes([Outcome.failed(job, ERROR)]),
    Ending.RETRIED: lambda job, store, workers: workers.save_outcomes([Outcome.retry(job, ERROR, delay=MILLISECOND)]),
    Ending.SNOOZED: lambda job, store, workers: workers.save_outcomes([Outcome.snoozed(job, MILLISECOND)]),
    Ending.DISCARDED: lambda job, store, workers: workers.save_outcomes([Outcome.discarded(job, "why")]),
    Ending.GIVEN_BACK: lambda job, store, workers: workers.save_outcomes([Outcome.released(job)]),
    Ending.CANCELLED: lambda job, store, workers: store.cancel_jobs([job.id]),
    Ending.REAPED: lambda job, store, workers: wait_until(lambda: workers.reap_jobs(MILLISECOND, 3)),
    Ending.GIVEN_UP: lambda job, store, workers: wait_until(lambda: workers.reap_jobs(MILLISECOND, 0)),
}


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("after_a_retry", [False, True])
def test_the_end_of_a_claim(store, workers, load, ending, after_a_retry):
    """However a claim ends, what is written down tells when it was made, and how it ended."""
    add(store, make_job(max_retry_count=5))
    earlier = {}
    if after_a_retry:
        job = claim(workers)
        workers.save_outcomes([Outcome.retry(job, ERROR, delay=timedelta(0))])
        earlier = {(str(job.id), str(job.claim_id)): Ending.RETRIED}
    job = claim(workers)
    assert ENDINGS[ending](job, store, workers)
    lives = lives_of(load())
    assert {key: life.ending for key, life in lives.all.items()} == {
        **earlier,
        (str(job.id), str(job.claim_id)): ending,
    }
    assert not lives.misfits


def test_a_claim_that_goes_on(store, workers, load):
    """A claim that has not ended has no ending; neither has one on a job that was reset and claimed again."""
    add(store, make_job())
    first = claim(workers)
    store.reset_jobs([first.id])
    second = claim(workers)
    workers.touch_jobs([])
    endings = {life.claim: life.ending for life in lives_of(load()).all.values()}
    assert endings == {str(first.claim_id): Ending.GIVEN_BACK, str(second.claim_id): None}


def test_a_change_that_is_rolled_back(store, load, conninfo):
    """Only what was committed is written down."""
    [job] = add(store, make_job())
    with psycopg.connect(conninfo) as connection:
        connection.execute("update worker.job set started_at = now() where id = %s", [job.id])
        connection.rollback()
    assert load().changes == []


def test_a_bundle_that_completes_twice(store, workers, load):
    """Completions are written down after the members that led to them; a reset is what opens a bundle again."""
    bundle = make_bundle(2)
    store.add_bundle(bundle)
    workers.save_outcomes([Outcome.finished(claim(workers)) for _ in range(2)])
    store.reset_jobs([bundle.jobs[0].id])
    workers.save_outcomes([Outcome.finished(claim(workers))])
    history = load()
    counted = [change.after["num_jobs_stopped"] for change in history.changes if change.subject == "job_bundle"]
    assert counted == [2, 1, 2]
    found = completions_after_all_members(history)
    assert (found.looked_at, found.problems) == (5, [])


def test_a_member_that_is_opened_behind_the_back_of_its_bundle(store, workers, load, conninfo):
    """A bundle that stays complete, and then completes once more, is found out."""
    bundle = make_bundle(1)
    store.add_bundle(bundle)
    workers.save_outcomes([Outcome.finished(claim(workers))])
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("update worker.job set stopped_at = null, started_at = null")
    found = check(load())
    assert {name for name, findings in found.items() if findings.problems} >= {
        "counters equal a recount",
        "every job is final",
    }
