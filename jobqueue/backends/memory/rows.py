"""What a queue in memory holds: jobs, bundles, and what finds them. Whoever looks at them holds the queue's lock."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from jobqueue.backends.memory.lanes import Lanes
from jobqueue.backends.memory.paused import Paused
from jobqueue.bundle import JobBundle
from jobqueue.errors import DuplicateJobError
from jobqueue.models import Fence, Job
from jobqueue.schedules import Schedule
from jobqueue.ticks import ScheduleTick


class Rows:
    """Jobs and bundles by their ids. A bundle is kept without its members, which are jobs like others."""

    def __init__(self) -> None:
        self.jobs: dict[UUID, Job] = {}
        self.bundles: dict[UUID, JobBundle] = {}
        self.lanes = Lanes()
        self.paused = Paused()
        self.leases = dict[UUID, timedelta]()
        """Of running jobs: how long their claims may be silent."""
        self.schedules = dict[str, Schedule]()
        self.ticks = dict[str, dict[tuple[datetime, bool], ScheduleTick]]()
        """Of each schedule: by their moments, and whether they are by hand."""
        self._members: dict[UUID, dict[UUID, None]] = {}
        self._holders: dict[tuple[str, str], UUID] = {}
        self.archived: dict[UUID, Job] = {}
        """Jobs that have left the queue, as they were in the end."""

    def find(self, ids: Iterable[UUID]) -> list[Job]:
        """Return those of the jobs that are there, by id."""
        return [self.jobs[id_] for id_ in sorted(set(ids)) if id_ in self.jobs]

    def members_of(self, bundle_id: UUID) -> list[Job]:
        """Return the members of a bundle, in the order in which they were made."""
        return self.find(self._members.get(bundle_id, ()))

    def owned_by(self, fences: Iterable[Fence]) -> Iterator[Job]:
        """Yield the jobs whose rows still show the claim that one of *fences* tells of."""
        for fence in fences:
            job = self.jobs.get(fence.job_id)
            if job is None or job.stopped:
                continue
            if (job.started_at, job.claim_id) == (fence.started_at, fence.claim_id):
                yield job

    def holder_of(self, job_type: str, unique_key: str) -> Job | None:
        """Return the job of a type that holds a unique key."""
        holder_id = self._holders.get((job_type, unique_key))
        return None if holder_id is None else self.jobs[holder_id]

    def check_new(self, jobs: Iterable[Job], bundle: JobBundle | None = None) -> None:
        """Raise DuplicateJobError when one of the ids is there already, or twice among them."""
        seen = set[UUID]()
        for job in jobs:
            if job.id in self.jobs or job.id in seen:
                raise _duplicate(job.id)
            seen.add(job.id)
        if bundle is not None and bundle.id in self.bundles:
            raise _duplicate(bundle.id)

    def put_job(self, job: Job) -> None:
        """Put a new job, or a new state of one, in its place."""
        self._free_key(self.jobs.get(job.id))
        self.jobs[job.id] = job
        if job.unique_key is not None:
            self._holders[job.type, job.unique_key] = job.id
        if job.bundle_id is not None:
            self._members.setdefault(job.bundle_id, {})[job.id] = None
        due_at = job.start_at or job.created_at
        if not job.started and due_at is not None:
            self.lanes.add(job, due_at)
        else:
            self.lanes.discard(job.id)
        if not job.started_and_not_stopped:
            self.leases.pop(job.id, None)

    def remove_job(self, job: Job) -> None:
        """Remove a job."""
        self._free_key(job)
        del self.jobs[job.id]
        self.lanes.discard(job.id)
        self.leases.pop(job.id, None)
        if job.bundle_id is not None:
            self._members.get(job.bundle_id, {}).pop(job.id, None)

    def _free_key(self, job: Job | None) -> None:
        if job is not None and job.unique_key is not None:
            del self._holders[job.type, job.unique_key]

    def archive(self, jobs: Iterable[Job]) -> None:
        """Keep a copy of jobs that are to be removed, without their claims and keys."""
        for job in jobs:
            self.archived[job.id] = attrs.evolve(
                job,
                claim_id=None,
                worker_alive_at=None,
                unique_key=None,
                unique_key_spent=None,
                unique_for=None,
                unique_until=None,
            )

    def remove_bundle(self, bundle_id: UUID) -> None:
        """Remove a bundle; its members are jobs that belong to nothing any more."""
        del self.bundles[bundle_id]
        self._members.pop(bundle_id, None)


def _duplicate(id_: UUID) -> DuplicateJobError:
    return DuplicateJobError(f"{id_} is in the queue already; nothing was added", existing_id=id_)
