"""One change of a queue's rows, with what follows from it by itself: the twin of the triggers in migrations/."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import attrs

from jobqueue.backends.memory import transitions
from jobqueue.backends.memory.rows import Rows
from jobqueue.bundle import JobBundle, JobDesc
from jobqueue.events import ClaimLost, Event, JobAvailable, JobBundleStopped, JobStopped
from jobqueue.models import Job, new_id
from jobqueue.payload import RawJSON, dump_json, job_type_of
from jobqueue.stored_policy import check_retry, check_retry_count


class Change:
    """What is done to rows at one moment, by somebody who alone may."""

    def __init__(self, rows: Rows, now: datetime) -> None:
        self.rows = rows
        self.now = now
        self.events: list[Event] = []
        """What to tell when it is done."""

    # --- jobs

    def insert_jobs(self, jobs: Sequence[Job], *, notify: bool = True) -> None:
        """Put new jobs in, and tell of those that are due, if anybody is to know: once for each type."""
        due: dict[str, list[Job]] = {}
        for job in jobs:
            self.rows.put_job(job)
            if notify and transitions.is_due(job, self.now):
                due.setdefault(job.type, []).append(job)
        for _, alike in sorted(due.items()):
            first = min(alike, key=lambda job: job.id)
            self.events.append(attrs.evolve(_available(first), count=len(alike)))

    def update_job(self, before: Job, after: Job) -> None:
        """Put the new state of a job in place of the old one."""
        self.rows.put_job(after)
        if before.started and not after.started and transitions.is_due(after, self.now):
            self.events.append(_available(after))
        if after.stopped and not before.stopped:
            self.tell_stopped(after, will_retry=False)
        if after.stopped != before.stopped:
            self._count_member(after, stopped=1 if after.stopped else -1)

    def delete_jobs(self, jobs: Iterable[Job]) -> None:
        """Remove jobs, and take them out of the counts of their bundles."""
        for job in jobs:
            self.tell_lost_claim(job)
            self.rows.remove_job(job)
            self._count_member(job, jobs=-1, stopped=-1 if job.stopped else 0)

    # --- bundles

    def insert_bundle(self, bundle: JobBundle, *, notify: bool = True) -> None:
        """Put a new bundle and its members in."""
        self.rows.bundles[bundle.id] = attrs.evolve(
            bundle,
            jobs=(),
            num_jobs_stopped=0,
            on_stopped=None if bundle.on_stopped is None else _settled(bundle.on_stopped),
            stopped_at=None,
            created_at=self.now,
            updated_at=self.now,
        )
        members = [transitions.added(job, self.now) for job in bundle.jobs]
        self.insert_jobs([attrs.evolve(job, bundle_id=bundle.id) for job in members], notify=notify)

    def delete_bundles(self, bundles: Iterable[JobBundle]) -> None:
        """Remove bundles with their members."""
        for bundle in bundles:
            members = self.rows.members_of(bundle.id)
            self.rows.remove_bundle(bundle.id)
            self.delete_jobs(members)

    def _count_member(self, job: Job, *, jobs: int = 0, stopped: int = 0) -> None:
        """Move the counters of the bundle of *job*, unless it goes with its members."""
        before = None if job.bundle_id is None else self.rows.bundles.get(job.bundle_id)
        if before is None:
            return
        after = attrs.evolve(
            before,
            num_jobs=before.num_jobs + jobs,
            num_jobs_stopped=before.num_jobs_stopped + stopped,
            updated_at=self.now,
        )
        if after.stopped != before.stopped:
            after = attrs.evolve(after, stopped_at=self.now if after.stopped else None)
        self.rows.bundles[after.id] = after
        if after.stopped and not before.stopped:
            self._complete(after)

    def _complete(self, bundle: JobBundle) -> None:
        """Add the job that was asked for, and tell: what it means that all members have stopped."""
        if bundle.on_stopped is not None:
            job = transitions.added(_job_of(bundle.on_stopped, bundle.origin), self.now)
            self.insert_jobs([attrs.evolve(job, completes_bundle_id=bundle.id)])
        self.events.append(JobBundleStopped(id=bundle.id, type=bundle.type, origin=bundle.origin or ""))

    # --- telling

    def tell_available(self, job: Job) -> None:
        """Tell that a waiting job may be claimed, now or at another moment than before."""
        self.events.append(_available(job))

    def tell_stopped(self, job: Job, *, will_retry: bool) -> None:
        """Tell that a job, or a run of it that is not its last, has come to an end."""
        self.events.append(JobStopped(id=job.id, type=job.type, origin=job.origin or "", will_retry=will_retry))

    def tell_lost_claim(self, job: Job) -> None:
        """Tell those who run *job*, if anybody does, that it is taken away."""
        if job.started_and_not_stopped and job.claim_id is not None:
            self.events.append(ClaimLost(id=job.id, claim_id=job.claim_id))


def _available(job: Job) -> JobAvailable:
    return JobAvailable(id=job.id, type=job.type, origin=job.origin or "")


def _settled(desc: JobDesc) -> JobDesc:
    """Spell out what a job is made of later: then it would be too late to find that it cannot be."""
    return attrs.evolve(desc, type=desc.type or job_type_of(desc.payload), payload=RawJSON(dump_json(desc.payload)))


def _job_of(desc: JobDesc, origin: str | None) -> Job:
    return Job(
        id=new_id(),
        type=str(desc.type),
        payload_json=dump_json(desc.payload),
        origin=desc.origin or origin,
        priority=desc.priority,
        start_at=desc.start_at,
        max_retry_count=check_retry_count(desc.max_retry_count, desc.retry),
        retry_policy_json=check_retry("retry", desc.retry),
    )
