"""What is done to all jobs that a filter means, in memory; and which those are."""

from collections.abc import Callable
from datetime import datetime
from heapq import nlargest
from typing import Any

from jobqueue.acting import Acted
from jobqueue.backends.memory import transitions
from jobqueue.backends.memory.change import Change
from jobqueue.backends.memory.conflicts import first_of_free_keys
from jobqueue.backends.memory.session import Session
from jobqueue.job_filter import JobFilter
from jobqueue.models import Job, State


class MemoryActing:
    """The Acting over a MemoryQueue."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def replay(self, which: JobFilter, *, limit: int, after: Any) -> Acted:
        """Make those of the next *limit* jobs that have failed as good as new."""

        def replay(change: Change, jobs: list[Job]) -> int:
            failed = [job for job in jobs if has_failed(job)]
            takers = first_of_free_keys(change, sorted(failed, key=lambda job: job.id))
            for job in failed:
                change.update_job(job, transitions.reset(job, change.now, takes_key_back=job.id in takers))
            return len(failed)

        return self._act(replay, which, limit, after)

    def delete(self, which: JobFilter, *, limit: int, after: Any) -> Acted:
        """Delete the next *limit* jobs, and take them out of the counts of their bundles."""

        def delete(change: Change, jobs: list[Job]) -> int:
            change.delete_jobs(jobs)
            return len(jobs)

        return self._act(delete, which, limit, after)

    def _act(self, act: Callable[[Change, list[Job]], int], which: JobFilter, limit: int, after: Any) -> Acted:
        with self._session.changing() as change:
            jobs = [job for job in change.rows.jobs.values() if is_meant(job, which, change.now)]
            found = nlargest(limit, (job for job in jobs if after is None or by_age(job) < after), key=by_age)
            number = act(change, found)
        return Acted(number=number, place=by_age(found[-1]) if len(found) == limit else None)

    def estimate(self, which: JobFilter) -> int:
        """Count the jobs that are meant."""
        now = self._session.moment()
        with self._session.reading() as rows:
            return sum(is_meant(job, which, now) for job in rows.jobs.values())


def is_meant(job: Job, which: JobFilter, now: datetime) -> bool:
    """Whether *job* is as *which* says; the archive is another matter."""
    return (
        (which.type is None or job.type == which.type)
        and (which.origin is None or job.origin == which.origin)
        and (which.bundle_id is None or job.bundle_id == which.bundle_id)
        and (which.state is None or state_of(job, now) is which.state)
        and (which.error is None or (job.error_msg is not None and which.error.lower() in job.error_msg.lower()))
        and (which.ids is None or job.id in which.ids)
        and _is_of_age(job, which, now)
    )


def _is_of_age(job: Job, which: JobFilter, now: datetime) -> bool:
    if job.created_at is None:
        return False
    age = now - job.created_at
    return (which.older_than is None or age >= which.older_than) and (
        which.newer_than is None or age <= which.newer_than
    )


def has_failed(job: Job) -> bool:
    """Whether *job* can be replayed."""
    return job.stopped and job.has_error and job.cancelled_at is None


def state_of(job: Job, now: datetime) -> State:
    """Return what Job.state is at the moment *now*."""
    if job.state not in {State.SCHEDULED, State.AVAILABLE}:
        return job.state
    return State.AVAILABLE if transitions.is_due(job, now) else State.SCHEDULED


def by_age(job: Job) -> tuple[Any, ...]:
    """Return the place of *job* in lists."""
    return (job.created_at, job.id)
