"""Finds and removes what was kept for long enough, in memory."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from heapq import nsmallest
from typing import Any
from uuid import UUID

from jobqueue.backends.memory.change import Change
from jobqueue.backends.memory.rows import Rows
from jobqueue.backends.memory.session import Session
from jobqueue.bundle import JobBundle
from jobqueue.cleaning import CleanResult, Found
from jobqueue.models import Job
from jobqueue.retention import Retention


class MemoryCleaning:
    """The Cleaning over a MemoryQueue."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_jobs(self, retention: Retention, *, after: Any, limit: int, behind: timedelta = timedelta(0)) -> Found:
        """Look at *limit* jobs, from the oldest on, or those that follow the place *after*; find those in no bundle."""
        if (youngest := retention.youngest) is None:
            return Found()
        now = self._session.moment()
        with self._session.reading() as rows:
            jobs = [job for job in rows.jobs.values() if _was_added_before(now - youngest - behind, job)]
            seen = nsmallest(limit, (job for job in jobs if after is None or _place(job) > after), key=_place)
            old = tuple(job.id for job in seen if _is_old(rows, job, retention, now))
        return Found(
            ids=old,
            number=len(seen),
            place=_place(seen[-1]) if seen else after,
            is_end=len(seen) < limit,
        )

    def remove_jobs(self, retention: Retention, ids: tuple[UUID, ...]) -> CleanResult:
        """Remove those of the jobs that are old enough."""
        with self._session.changing() as change:
            old = [job for job in change.rows.find(ids) if _is_old(change.rows, job, retention, change.now)]
            remove(change, old, retention)
        return CleanResult(jobs=len(old))

    def find_bundles(self, retention: Retention, *, after: Any, limit: int) -> Found:
        """Look at *limit* bundles, in the order of their ids, or those that follow the place *after*."""
        now = self._session.moment()
        with self._session.reading() as rows:
            ids = sorted(id_ for id_ in rows.bundles if after is None or id_ > after)[:limit]
            old = tuple(id_ for id_ in ids if _is_old_bundle(rows, rows.bundles[id_], retention, now))
        return Found(ids=old, number=len(ids), place=ids[-1] if ids else after, is_end=len(ids) < limit)

    def remove_bundles(self, retention: Retention, ids: tuple[UUID, ...]) -> CleanResult:
        """Remove those of the bundles that are old enough, each with all of its members."""
        with self._session.changing() as change:
            there = [bundle for id_ in ids if (bundle := change.rows.bundles.get(id_)) is not None]
            old = [bundle for bundle in there if _is_old_bundle(change.rows, bundle, retention, change.now)]
            members = [job for bundle in old for job in change.rows.members_of(bundle.id)]
            _keep_a_copy(change, members, retention)
            change.delete_bundles(old)
        return CleanResult(jobs=len(members), bundles=len(old))


def remove(change: Change, jobs: Iterable[Job], retention: Retention) -> None:
    """Delete jobs, or move them to the archive."""
    gone = list(jobs)
    _keep_a_copy(change, gone, retention)
    change.delete_jobs(gone)


def _keep_a_copy(change: Change, jobs: Iterable[Job], retention: Retention) -> None:
    if retention.mode == "archive":
        change.rows.archive(jobs)


def _place(job: Job) -> tuple[Any, ...]:
    return (job.created_at, job.id)


def _was_added_before(moment: datetime, job: Job) -> bool:
    return job.created_at is not None and job.created_at <= moment


def _is_old(rows: Rows, job: Job, retention: Retention, now: datetime) -> bool:
    return (
        job.bundle_id is None and not shows_failure(rows, job) and _has_been_kept(job, job.stopped_at, retention, now)
    )


def _has_been_kept(job: Job, since: datetime | None, retention: Retention, now: datetime) -> bool:
    """Whether a job that has stopped *since* then was kept for as long as it is to be."""
    if holds_key(job, now):
        return False
    age = retention.age_for(job)
    return job.stopped and since is not None and age is not None and now - since >= age


def _completion_is_to_do(rows: Rows, bundle: JobBundle) -> bool:
    """Whether the job that was added when *bundle* was complete may still want to read it."""
    return any(job.completes_bundle_id == bundle.id and not job.stopped for job in rows.jobs.values())


def shows_failure(rows: Rows, job: Job) -> bool:
    """Whether *job* was added when a bundle was complete, which is there, and has failed: that has not succeeded."""
    return job.error_msg is not None and job.completes_bundle_id in rows.bundles


def holds_key(job: Job, now: datetime | None) -> bool:
    """Whether *job* holds its unique key for some time after its end."""
    return job.unique_key is not None and job.unique_until is not None and now is not None and job.unique_until > now


def _is_old_bundle(rows: Rows, bundle: JobBundle, retention: Retention, now: datetime) -> bool:
    stopped_at, members = bundle.stopped_at, rows.members_of(bundle.id)
    if stopped_at is None or _completion_is_to_do(rows, bundle):
        return False
    if not members:
        return retention.succeeded is not None and now - stopped_at >= retention.succeeded
    return all(_has_been_kept(job, stopped_at, retention, now) for job in members)
