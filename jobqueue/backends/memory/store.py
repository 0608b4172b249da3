"""Jobs and bundles in memory, as applications use them: each method is one look at the rows, or one change."""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from heapq import nlargest
from typing import Any, Final
from uuid import UUID

import attrs

from jobqueue.backends.memory import transitions
from jobqueue.backends.memory.acting import MemoryActing, by_age, has_failed, is_meant
from jobqueue.backends.memory.cleaning import MemoryCleaning
from jobqueue.backends.memory.conflicts import Conflicts, first_of_free_keys
from jobqueue.backends.memory.counting import MemoryCounting
from jobqueue.backends.memory.inspecting import MemoryInspecting
from jobqueue.backends.memory.pauses import MemoryPauses
from jobqueue.backends.memory.queue import MemoryQueue
from jobqueue.backends.memory.schedules import MemorySchedules
from jobqueue.backends.memory.session import Session
from jobqueue.backends.memory.worker_store import MemoryWorkerStore, refuse_atomic_handlers
from jobqueue.bundle import JobBundle, JobDesc
from jobqueue.clock import moved_now
from jobqueue.errors import JobBundleNotFoundError, JobNotFoundError, PayloadError
from jobqueue.job_filter import Cursor, JobFilter
from jobqueue.models import Fence, Job
from jobqueue.payload import RawJSON, dump_json, load_json
from jobqueue.retention import KEEP_ALL, Retention
from jobqueue.status import Status
from jobqueue.store import Within
from jobqueue.uniqueness import OnConflict


class MemoryStore:
    """The Store over a MemoryQueue.

    *now* is for tests that move the clock: what it returns, unless None, takes the place of this machine's time.
    *on_close* is called when the store closes, once.
    """

    def __init__(
        self,
        queue: MemoryQueue,
        *,
        retention: Retention = KEEP_ALL,
        now: Callable[[], datetime | None] = moved_now,
        on_close: Callable[[], None] = lambda: None,
        schedules: type[MemorySchedules] = MemorySchedules,
    ) -> None:
        self._session = Session(queue, now)
        self._schedules = schedules
        self.schedules: Final = schedules(self._session)
        self._on_close = on_close
        self.retention = retention
        self.cleaning = MemoryCleaning(self._session)
        self.acting = MemoryActing(self._session)
        self.counting = MemoryCounting(self._session)
        self.inspecting = MemoryInspecting(self._session)

    # --- adding

    def add_job(
        self,
        job: Job,
        *,
        delay: timedelta | None,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> Job:
        """Add a job that has an origin; return it, or the one that holds its unique key."""
        (added,) = self._add([job], delay, on_conflict, notify=notify, connection=connection)
        return added

    def add_jobs(
        self,
        jobs: Sequence[Job],
        *,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> Sequence[Job]:
        """Add jobs that have an origin; return them, or those that hold their unique keys."""
        return self._add(jobs, None, on_conflict, notify=notify, connection=connection)

    def _add(
        self,
        jobs: Sequence[Job],
        delay: timedelta | None,
        on_conflict: OnConflict,
        *,
        notify: bool,
        connection: object,
    ) -> Sequence[Job]:
        self._join(connection)
        with self._session.changing() as change:
            conflicts = Conflicts.of(change, jobs, on_conflict)
            new = [job for job in jobs if job.id not in conflicts.holders]
            change.rows.check_new(new)
            held = conflicts.settle(change)
            change.insert_jobs([transitions.added(job, change.now, delay=delay) for job in new], notify=notify)
            return [held.get(job.id, job) for job in jobs]

    def add_bundle(self, bundle: JobBundle, *, notify: bool = True, connection: object = None) -> None:
        """Add a bundle with its members."""
        self._join(connection)
        with self._session.changing() as change:
            change.rows.check_new(bundle.jobs, bundle)
            change.insert_bundle(bundle, notify=notify)

    def _join(self, connection: object) -> None:
        """Refuse to be part of a transaction: there is none here that could be rolled back."""
        if connection is not None:
            kind = type(connection)
            raise TypeError(
                f"memory:// cannot join the transaction of a {kind.__module__}.{kind.__qualname__}: "
                "without connection= the job is added at once, whatever becomes of that transaction"
            )

    # --- reading

    def get_job(self, job_id: UUID) -> Job:
        """Read a job."""
        found = self.get_jobs([job_id])
        if not found:
            raise JobNotFoundError(job_id)
        return found[0]

    def get_jobs(self, job_ids: Iterable[UUID]) -> list[Job]:
        """Read those of the jobs that are there."""
        with self._session.reading() as rows:
            return rows.find(job_ids)

    def get_job_bundle(self, bundle_id: UUID) -> JobBundle:
        """Read a bundle and its members, both as of one moment."""
        with self._session.reading() as rows:
            bundle, members = rows.bundles.get(bundle_id), rows.members_of(bundle_id)
        if bundle is None:
            raise JobBundleNotFoundError(bundle_id)
        on_stopped = None if bundle.on_stopped is None else _as_read(bundle.on_stopped)
        return attrs.evolve(bundle, jobs=tuple(members), on_stopped=on_stopped)

    def get_all_jobs_to_do(self) -> list[Job]:
        """Read all jobs that have not stopped."""
        return sorted(self._jobs(lambda job: not job.stopped), key=_by_start)

    def get_all_jobs_started_before(self, moment: datetime) -> list[Job]:
        """Read all running jobs that were claimed before *moment*."""
        return sorted(self._jobs(lambda job: not job.stopped and _is_before(job.started_at, moment)), key=_by_claim)

    def get_all_jobs_with_errors(self) -> list[Job]:
        """Read all jobs that have an error message."""
        return sorted(self._jobs(lambda job: job.has_error), key=_by_end)

    def list_jobs(self, which: JobFilter, *, limit: int, after: Cursor | None) -> list[Job]:
        """Read the newest jobs, or those that follow the place *after*."""
        place = None if after is None else self._place(after)
        now = self._session.moment()
        with self._session.reading() as rows:
            jobs = list((rows.archived if which.archived else rows.jobs).values())
        found = [job for job in jobs if is_meant(job, which, now) and (place is None or by_age(job) < place)]
        return nlargest(limit, found, key=by_age)

    def _place(self, after: Cursor) -> Cursor:
        """Return the place that the row shows, as long as it is there."""
        for job in self.get_jobs([after[1]]):
            return by_age(job)
        return after

    def get_status(self) -> Status:
        """Count everything."""
        with self._session.reading() as rows:
            num_jobs, num_job_bundles = len(rows.jobs), len(rows.bundles)
            paused = rows.paused.holding(self._session.moment())
        counts = self.counting.count_jobs().by_type_and_state
        return Status(num_jobs=num_jobs, num_job_bundles=num_job_bundles, by_type_and_state=counts, paused=paused)

    def _jobs(self, is_wanted: Callable[[Job], bool]) -> list[Job]:
        with self._session.reading() as rows:
            jobs = list(rows.jobs.values())
        return [job for job in jobs if is_wanted(job)]

    # --- managing

    def reset_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Make jobs as good as new."""
        return self._reset(job_ids, lambda _: True)

    def replay_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Make those of the jobs that have failed as good as new."""
        return self._reset(job_ids, has_failed)

    def _reset(self, job_ids: Iterable[UUID], is_wanted: Callable[[Job], bool]) -> frozenset[UUID]:
        with self._session.changing() as change:
            found = [job for job in change.rows.find(job_ids) if is_wanted(job)]
            takers = first_of_free_keys(change, found)
            for job in found:
                change.tell_lost_claim(job)
                # What waited for its retry was told of already, but for another moment.
                if not job.started and job.run_count > 0 and not transitions.is_due(job, change.now):
                    change.tell_available(job)
                change.update_job(job, transitions.reset(job, change.now, takes_key_back=job.id in takers))
        return _ids(found)

    def cancel_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Stop those of the jobs that have not stopped."""
        with self._session.changing() as change:
            found = [job for job in change.rows.find(job_ids) if not job.stopped]
            for job in found:
                change.tell_lost_claim(job)
                change.update_job(job, transitions.cancelled(job, change.now))
        return _ids(found)

    def reschedule_job(self, job_id: UUID, start_at: datetime | None) -> bool:
        """Have a job that has not started be due at *start_at*, or now."""
        with self._session.changing() as change:
            found = [job for job in change.rows.find([job_id]) if not job.started]
            for job in found:
                # Even when it is due later: workers then learn when to look for it.
                change.tell_available(job)
                change.update_job(job, transitions.rescheduled(job, start_at, change.now))
        return bool(found)

    def save_progress(self, fence: Fence, progress_json: str) -> bool:
        """Note what a claimed job says of its progress."""
        with self._session.changing() as change:
            owned = list(change.rows.owned_by([fence]))
            for job in owned:
                change.update_job(job, attrs.evolve(job, progress_json=progress_json, updated_at=change.now))
        return bool(owned)

    # --- deleting

    def delete_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Delete jobs and take them out of the counts of their bundles."""
        with self._session.changing() as change:
            found = change.rows.find(job_ids)
            change.delete_jobs(found)
        return _ids(found)

    def delete_jobs_from_origin(self, origin: str) -> int:
        """Delete all jobs that came from *origin*."""
        return self._delete_jobs(lambda job: job.origin == origin)

    def delete_jobs_of_type(self, type: str) -> int:
        """Delete all jobs of *type*."""
        return self._delete_jobs(lambda job: job.type == type)

    def delete_finished_jobs(self) -> int:
        """Delete all jobs that succeeded and are in no bundle."""
        return self._delete_jobs(lambda job: job.succeeded and job.bundle_id is None)

    def _delete_jobs(self, is_wanted: Callable[[Job], bool]) -> int:
        with self._session.changing() as change:
            found = [job for job in change.rows.jobs.values() if is_wanted(job)]
            change.delete_jobs(found)
        return len(found)

    def delete_job_bundles(self, bundle_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Delete bundles with their members."""
        with self._session.changing() as change:
            found = [bundle for id_ in set(bundle_ids) if (bundle := change.rows.bundles.get(id_)) is not None]
            change.delete_bundles(found)
        return frozenset(bundle.id for bundle in found)

    def delete_job_bundles_from_origin(self, origin: str) -> int:
        """Delete all bundles that came from *origin*."""
        return self._delete_bundles(lambda bundle: bundle.origin == origin)

    def delete_job_bundles_of_type(self, type: str) -> int:
        """Delete all bundles of *type*."""
        return self._delete_bundles(lambda bundle: bundle.type == type)

    def _delete_bundles(self, is_wanted: Callable[[JobBundle], bool]) -> int:
        with self._session.changing() as change:
            found = [bundle for bundle in change.rows.bundles.values() if is_wanted(bundle)]
            change.delete_bundles(found)
        return len(found)

    def delete_all_jobs_and_bundles(self) -> None:
        """Delete everything; no bundle completes by it."""
        with self._session.changing() as change:
            change.delete_bundles(list(change.rows.bundles.values()))
            change.delete_jobs(list(change.rows.jobs.values()))

    # --- pausing

    @property
    def pauses(self) -> MemoryPauses:
        """What is paused."""
        return MemoryPauses(self._session)

    # --- living and ending

    @property
    def apart(self) -> "MemoryStore":
        """The same rows: there is no transaction that a call could be part of."""
        return self

    def for_workers(
        self,
        *,
        lock_timeout: timedelta,  # noqa: ARG002 - no row is ever held locked
        atomic_connections: int = 0,
        transactions: Collection[str] = (),
    ) -> MemoryWorkerStore:
        """Return the same rows for one worker pool."""
        if atomic_connections or transactions:
            refuse_atomic_handlers()
        session = Session(self._session.queue, self._session.now)
        return MemoryWorkerStore(session, self._schedules, retention=self.retention)

    @contextmanager
    def within(self, connection: object) -> Generator[Within]:
        """Give the same rows to a worker in the caller's thread."""
        self._join(connection)
        yield Within(self.for_workers(lock_timeout=timedelta(0)), nullcontext)

    def close(self) -> None:
        """Let go of the queue."""
        if self._session.close():
            self._on_close()


def _ids(jobs: Iterable[Job]) -> frozenset[UUID]:
    return frozenset(job.id for job in jobs)


def _is_before(moment: datetime | None, other: datetime) -> bool:
    return moment is not None and moment < other


def _as_read(desc: JobDesc) -> JobDesc:
    """Return the job that a bundle asks for with a plain JSON value as its payload, unless Python cannot hold it."""
    text = dump_json(desc.payload)
    try:
        return attrs.evolve(desc, payload=load_json(text))
    except PayloadError:
        return attrs.evolve(desc, payload=RawJSON(text))


# Orders of lists. The columns that they go by are set in all jobs that are in the list.


def _by_start(job: Job) -> tuple[Any, ...]:
    return (job.start_at is not None, job.start_at, job.created_at, job.id)


def _by_claim(job: Job) -> tuple[Any, ...]:
    return (job.started_at, job.id)


def _by_end(job: Job) -> tuple[Any, ...]:
    return (job.stopped_at, job.id)
