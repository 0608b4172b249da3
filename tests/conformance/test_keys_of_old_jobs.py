"""Unique keys of jobs that are removed, archived, or replayed many at a time."""

from datetime import timedelta
from typing import Any

import pytest

from jobqueue import Job, Retention
from jobqueue.cleaner import Cleaner
from jobqueue.cleaning import CleanResult
from jobqueue.job_filter import JobFilter
from jobqueue.outcomes import Outcome, RunError
from tests.fixtures.backends import Backend
from tests.fixtures.stores import make_job

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
ERROR = RunError(message="broken", type="E", traceback="")


def add(backend: Backend, unique_for: Any, key: str = "k") -> Job:
    job = make_job(unique_key=key, unique_for=unique_for)
    return backend.store.add_job(job, delay=None)


def clean(backend: Backend, retention: Retention) -> CleanResult:
    return Cleaner(backend.store.cleaning, retention).clean_all(None)


def test_a_key_that_is_held_for_a_period_keeps_its_job(backend: Backend) -> None:
    """A job that is old enough is kept, and its key held, until the period of the key is over."""
    job = add(backend, 3 * DAY)
    backend.save(Outcome.finished(backend.claim_one()))
    backend.clock.advance(3 * DAY - SECOND)
    assert clean(backend, Retention(succeeded=DAY)) == CleanResult()
    assert add(backend, 3 * DAY) == job
    backend.clock.advance(SECOND)
    assert clean(backend, Retention(succeeded=DAY)) == CleanResult(jobs=1)


@pytest.mark.parametrize("mode", ["delete", "archive"])
def test_nor_is_it_removed_when_it_stops(backend: Backend, mode: str) -> None:
    """Where jobs are removed in the moment in which they stop, one whose key is held for a period stays."""
    kept = backend.keep(succeeded=timedelta(0), mode=mode)
    for_a_day, until_its_end = add(backend, DAY), add(backend, "waiting_and_running", "l")
    for _ in range(2):
        backend.save(Outcome.finished(backend.claim_one()))
    assert add(backend, DAY) == for_a_day
    assert backend.store.get_jobs([until_its_end.id]) == []
    backend.clock.advance(DAY)
    assert clean(backend, kept) == CleanResult(jobs=1)


def test_who_forgets_a_failure_forgets_what_it_holds(backend: Backend) -> None:
    """A key that is held until its job has succeeded is free when the failed job is removed."""
    job = add(backend, "until_succeeded")
    backend.save(Outcome.failed(backend.claim_one(), ERROR))
    assert add(backend, "until_succeeded") == job
    backend.clock.advance(DAY)
    assert clean(backend, Retention(failed=DAY)) == CleanResult(jobs=1)
    assert not add(backend, "until_succeeded").is_duplicate


def test_the_archive_has_no_keys(backend: Backend) -> None:
    """Several jobs that have held the same key go to the archive, one after the other, without it."""
    kept = Retention(succeeded=DAY, mode="archive")
    for _ in range(2):
        add(backend, "waiting_and_running")
        backend.save(Outcome.finished(backend.claim_one()))
        backend.clock.advance(DAY)
        assert clean(backend, kept) == CleanResult(jobs=1)
    archived = backend.store.list_jobs(JobFilter(archived=True), limit=10, after=None)
    assert [(job.unique_key, job.unique_key_spent, job.unique_for) for job in archived] == [(None, None, None)] * 2


def test_of_many_that_are_replayed_the_first_takes_the_key(backend: Backend) -> None:
    """Failed jobs that are replayed by a filter take their keys back: of several with one key the first."""
    jobs = []
    for _ in range(3):
        jobs.append(add(backend, "waiting_and_running"))
        backend.save(Outcome.failed(backend.claim_one(), ERROR))
        backend.clock.advance(SECOND)
    acted = backend.store.acting.replay(JobFilter(type="t"), limit=10, after=None)
    assert acted.number == 3
    assert [backend.read(job).unique_key for job in jobs] == ["k", None, None]
    assert add(backend, "waiting_and_running") == jobs[0]
