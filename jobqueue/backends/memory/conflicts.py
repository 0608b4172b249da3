"""Jobs that are to be added, and others that hold the unique keys which they want."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self
from uuid import UUID

import attrs

from jobqueue.backends.memory import transitions
from jobqueue.backends.memory.change import Change
from jobqueue.models import Job
from jobqueue.store import duplicate_of
from jobqueue.uniqueness import OnConflict


@attrs.frozen
class Conflicts:
    """Who holds the keys of jobs, by the ids of these, and whose time to hold one of them is over."""

    holders: Mapping[UUID, Job]
    over: Sequence[Job]
    payloads: Mapping[UUID, str]
    """Of holders: by what theirs are to be replaced."""

    @classmethod
    def of(cls, change: Change, jobs: Iterable[Job], on_conflict: OnConflict) -> Self:
        """Find them; nothing is changed. Raises DuplicateJobError when *on_conflict* says so."""
        holders: dict[UUID, Job] = {}
        over: list[Job] = []
        payloads: dict[UUID, str] = {}
        for job in jobs:
            holder = None if job.unique_key is None else change.rows.holder_of(job.type, job.unique_key)
            if holder is None:
                continue
            if transitions.is_over(holder, change.now):
                over.append(holder)
                continue
            if on_conflict == "raise":
                raise duplicate_of(holder.id, job)
            holders[job.id] = holder
            if on_conflict == "replace_payload" and not holder.started:
                payloads[holder.id] = job.payload_json
        return cls(holders, over, payloads)

    def settle(self, change: Change) -> dict[UUID, Job]:
        """Free the keys of those whose time is over, replace payloads; return the holders as duplicates."""
        for job in self.over:
            change.update_job(job, transitions.key_freed(job, change.now))
        held: dict[UUID, Job] = {}
        for job_id, holder in self.holders.items():
            if (payload := self.payloads.get(holder.id)) is not None:
                change.update_job(holder, attrs.evolve(holder, payload_json=payload, updated_at=change.now))
            held[job_id] = attrs.evolve(change.rows.jobs[holder.id], is_duplicate=True)
        return held


def first_of_free_keys(change: Change, jobs: Sequence[Job]) -> frozenset[UUID]:
    """Return which of *jobs* may take their keys back: nobody else has them, and of several it is the first."""
    taken = set[tuple[str, str]]()
    found: list[UUID] = []
    for job in jobs:
        key = job.unique_key_spent
        if key is None or job.unique_key is not None or transitions.is_over(job, change.now):
            continue
        if change.rows.holder_of(job.type, key) is None and (job.type, key) not in taken:
            taken.add((job.type, key))
            found.append(job.id)
    return frozenset(found)
