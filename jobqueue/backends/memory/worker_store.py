"""Jobs and bundles in memory, as worker pools use them: trips, beats and the reaper."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NoReturn
from uuid import UUID

import attrs

from jobqueue.backends.memory import transitions
from jobqueue.backends.memory.change import Change
from jobqueue.backends.memory.cleaning import MemoryCleaning, holds_key, remove, shows_failure
from jobqueue.backends.memory.rows import Rows
from jobqueue.backends.memory.schedules import MemorySchedules
from jobqueue.backends.memory.session import Session
from jobqueue.backends.memory.wanted import Wanted
from jobqueue.bundle import JobBundle
from jobqueue.errors import RegistrationError
from jobqueue.models import Fence, Job, new_id
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind, Rescue, Trip
from jobqueue.retention import KEEP_ALL, Retention
from jobqueue.store import IN_DOUBT_AFTER, Round, SilenceCounts, always_counts


class MemoryWorkerStore:
    """The WorkerStore over a MemoryQueue."""

    def __init__(
        self,
        session: Session,
        schedules: type[MemorySchedules] = MemorySchedules,
        *,
        retention: Retention = KEEP_ALL,
    ) -> None:
        self._session = session
        self.schedules: Final = schedules(session)
        self.retention = retention
        self.cleaning = MemoryCleaning(session)

    def make_trip(
        self,
        outcomes: Sequence[Outcome],
        types: Sequence[str],
        limit: int,
        claimant: Claimant,
        *,
        without: Sequence[str] = (),
    ) -> Trip:
        """Save *outcomes* and claim up to *limit* jobs, in one change.

        Neither sees the other, as in one statement: a job that is released is there for the next trip.
        """
        with self._session.changing() as change:
            backed_off = change.rows.paused.backed_off()
            claimed, next_due_in = _claim(change, Wanted.of(types, without), limit, claimant)
            saved = self._save(change, outcomes)
            return Trip(saved=saved, claimed=claimed, next_due_in=next_due_in, backed_off=backed_off)

    def claim_jobs(self, types: Sequence[str], limit: int, claimant: Claimant) -> tuple[Job, ...]:
        """Claim up to *limit* jobs."""
        return self.make_trip([], types, limit, claimant).claimed

    def save_outcomes(self, outcomes: Sequence[Outcome]) -> frozenset[UUID]:
        """Save *outcomes*; return the ids of the jobs for which it was done."""
        with self._session.changing() as change:
            return self._save(change, outcomes)

    def _save(self, change: Change, outcomes: Sequence[Outcome]) -> frozenset[UUID]:
        saved = _save(change, outcomes)
        if self.retention.removes_at_once:
            remove(change, _not_kept(change.rows, saved, self.retention), self.retention)
        return saved

    def handler_transaction(self, name: str | None = None) -> NoReturn:  # noqa: ARG002
        """Refuse."""
        refuse_atomic_handlers()

    def back_off(self, job_type: str, reason: str, ran_for: timedelta) -> None:
        """Pause a type for all processes, for longer than the last time."""
        with self._session.changing() as change:
            change.rows.paused.back_off(job_type, reason, ran_for, change.now)

    def end_back_off(self, job_type: str) -> None:
        """Have the next back-off of a type begin anew."""
        with self._session.changing() as change:
            change.rows.paused.end_back_off(job_type, change.now)

    def touch_jobs(self, fences: Sequence[Fence]) -> frozenset[UUID]:
        """Beat for claims; return the ids of the jobs that are still theirs."""
        with self._session.changing() as change:
            owned = list(change.rows.owned_by(fences))
            for job in owned:
                change.update_job(job, attrs.evolve(job, worker_alive_at=change.now, updated_at=change.now))
            return frozenset(job.id for job in owned)

    def get_jobs(self, job_ids: Iterable[UUID]) -> list[Job]:
        """Read those of the jobs that are there."""
        with self._session.reading() as rows:
            return rows.find(job_ids)

    def reap_jobs(
        self, dead_for: timedelta, max_rescues: int, *, if_counts: SilenceCounts = always_counts
    ) -> list[Rescue]:
        """Free the jobs of claims that have been silent for *dead_for*, or for their lease when that is longer."""
        with self._session.changing() as change:
            if not if_counts(change.now):
                return []
            return [_reap(change, job, max_rescues) for job in _silent(change, dead_for)]

    def make_round(
        self,
        dead_for: timedelta,
        max_rescues: int,
        *,
        kept_for: timedelta | None = None,
        if_counts: SilenceCounts = always_counts,
    ) -> Round:
        """Do what ``reap_jobs`` does, at once, and look for bundles that have been complete for *kept_for*."""
        rescues = self.reap_jobs(dead_for, max_rescues, if_counts=if_counts)
        with self._session.changing() as change:
            return Round(
                rescues=tuple(rescues),
                is_urgent=bool(_silent(change, dead_for, share=IN_DOUBT_AFTER)),
                has_succeeded_bundles=kept_for is None or bool(_succeeded(change, change.now - kept_for)),
            )

    def delete_succeeded_bundles(self, kept_for: timedelta) -> int:
        """Delete bundles that asked for it, completed without an error *kept_for* ago and have nothing left to do."""
        with self._session.changing() as change:
            succeeded = _succeeded(change, change.now - kept_for)
            change.delete_bundles(succeeded)
            return len(succeeded)

    def close(self) -> None:
        """Let go of the queue."""
        self._session.close()


def refuse_atomic_handlers() -> NoReturn:
    """Say that there is nothing here that could be rolled back."""
    raise RegistrationError(
        "memory:// cannot run atomic handlers: it has no transaction that their work could be part of"
    )


def _claim(change: Change, wanted: Wanted, limit: int, claimant: Claimant) -> tuple[tuple[Job, ...], timedelta | None]:
    """Claim jobs; when they are fewer than *limit*, tell how long until the next one is due."""
    rows, now, claim_id = change.rows, change.now, new_id()

    def is_wanted(job_type: str) -> bool:
        return wanted.includes(job_type) and not rows.paused.holds(job_type, now)

    claimed: list[Job] = []
    for job_id in rows.lanes.take(is_wanted, limit, now):
        job = transitions.claimed(rows.jobs[job_id], claim_id, claimant, now)
        change.update_job(rows.jobs[job_id], job)
        rows.leases[job_id] = claimant.lease
        claimed.append(transitions.as_claimed(job))
    if len(claimed) == limit:
        return tuple(claimed), None
    ends = [pause.until for pause in rows.paused.holding(now) if pause.until and wanted.is_concerned(pause.type)]
    due_at = rows.lanes.next_due_at(is_wanted, now)
    next_at = min(ends if due_at is None else [due_at, *ends], default=None)
    return tuple(claimed), None if next_at is None else next_at - now


def _save(change: Change, outcomes: Sequence[Outcome]) -> frozenset[UUID]:
    saved = set[UUID]()
    for outcome in outcomes:
        for job in change.rows.owned_by([outcome.fence]):
            # A retry does not stop the job, but a run of it.
            if outcome.kind is OutcomeKind.RETRY:
                change.tell_stopped(job, will_retry=True)
            change.update_job(job, transitions.saved(job, outcome, change.now))
            saved.add(job.id)
    return frozenset(saved)


def _not_kept(rows: Rows, ids: Iterable[UUID], retention: Retention) -> list[Job]:
    """Return those of the jobs that are removed when they stop."""
    zero = timedelta(0)
    stopped = [job for job in rows.find(ids) if job.stopped and job.bundle_id is None]
    free = [job for job in stopped if not holds_key(job, job.stopped_at) and not shows_failure(rows, job)]
    return [job for job in free if retention.age_for(job) == zero]


def _silent(change: Change, dead_for: timedelta, *, share: float = 1) -> list[Job]:
    """Find the claims that have been silent for that *share* of what they may."""

    def is_silent(job: Job) -> bool:
        allowed = max(dead_for, change.rows.leases[job.id]) * share
        return job.worker_alive_at is not None and change.now - job.worker_alive_at > allowed

    return [job for job in change.rows.find(change.rows.leases) if is_silent(job)]


def _reap(change: Change, job: Job, max_rescues: int) -> Rescue:
    is_spent = job.rescue_count >= max_rescues
    after = transitions.given_up(job, change.now) if is_spent else transitions.rescued(job, change.now)
    change.update_job(job, after)
    return Rescue(
        job_id=job.id,
        job_type=job.type,
        claimed_by=job.claimed_by,
        rescue_count=after.rescue_count,
        failed=is_spent,
    )


def _succeeded(change: Change, until: datetime) -> list[JobBundle]:
    """Find bundles that may go: no member, nor a job that was added when they completed, has anything left to do."""
    completed = [
        bundle
        for bundle in change.rows.bundles.values()
        if bundle.delete_when_succeeded and bundle.stopped_at is not None and bundle.stopped_at <= until
    ]
    if not completed:
        return []
    needed = {
        bundle_id
        for job in change.rows.jobs.values()
        if not job.succeeded
        for bundle_id in (job.bundle_id, job.completes_bundle_id)
    }
    return [bundle for bundle in completed if bundle.id not in needed]
