"""The half of a backend that keeps rows: the ports that every backend implements."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import attrs

from jobqueue.acting import Acting
from jobqueue.bundle import JobBundle
from jobqueue.cleaning import Cleaning
from jobqueue.counting import Counting
from jobqueue.errors import DuplicateJobError
from jobqueue.inspecting import Inspecting
from jobqueue.job_filter import Cursor, JobFilter
from jobqueue.models import Fence, Job
from jobqueue.outcomes import Claimant, Outcome, Rescue, Trip
from jobqueue.pauses import Pauses
from jobqueue.retention import Retention
from jobqueue.schedule_store import ScheduleStore
from jobqueue.status import Status
from jobqueue.uniqueness import OnConflict


def duplicate_of(existing_id: UUID, job: Job) -> DuplicateJobError:
    """Make the error that says that the job with *existing_id* holds the unique key that *job* wants."""
    return DuplicateJobError(
        f"job {existing_id} of type {job.type!r} holds the unique key {job.unique_key!r}; nothing was added",
        existing_id=existing_id,
    )


class Store(Protocol):
    """Rows of jobs and bundles. Each method is one statement or one transaction, by the database's clock.

    *connection*, where there is one, is the caller's: the rows are added by it, in its transaction, which the caller
    commits or rolls back. Without *notify*, nobody is told of what is added. Whatever the database refuses is raised as
    a BackendError: an UnavailableError or LockTimeoutError may go away by itself, a RefusedError does not.
    """

    def add_job(
        self,
        job: Job,
        *,
        delay: timedelta | None,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> Job:
        """Add a job that has an origin and is in no bundle, due after *delay* by the database's clock if there is one.

        Return it, or the one that holds its unique key, as a duplicate. Raises DuplicateJobError.
        """
        ...

    def add_jobs(
        self,
        jobs: Sequence[Job],
        *,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> Sequence[Job]:
        """Add jobs that have an origin, and no unique key twice; return what ``add_job`` would return for each.

        Raises DuplicateJobError when an id is there already, or a key, if *on_conflict* says so; then none is added.
        """
        ...

    def add_bundle(self, bundle: JobBundle, *, notify: bool = True, connection: object = None) -> None:
        """Add a bundle with its members. Raises DuplicateJobError; then nothing is added."""

    def get_job(self, job_id: UUID) -> Job:
        """Read a job. Raises JobNotFoundError."""
        ...

    def get_jobs(self, job_ids: Iterable[UUID]) -> list[Job]:
        """Read those of the jobs that are there, in any order."""
        ...

    def get_job_bundle(self, bundle_id: UUID) -> JobBundle:
        """Read a bundle and its members, in the order in which they were made. Raises JobBundleNotFoundError."""
        ...

    def get_all_jobs_to_do(self) -> list[Job]:
        """Read all jobs that have not stopped, running and delayed ones included, by start time and age."""
        ...

    def get_all_jobs_started_before(self, moment: datetime) -> list[Job]:
        """Read all running jobs that were claimed before *moment*, the oldest claim first."""
        ...

    def get_all_jobs_with_errors(self) -> list[Job]:
        """Read all jobs that have an error message, the first stopped first."""
        ...

    def list_jobs(self, which: JobFilter, *, limit: int, after: Cursor | None) -> list[Job]:
        """Read the newest jobs, or those that follow the place *after*."""
        ...

    def get_status(self) -> Status:
        """Count everything."""
        ...

    def reset_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Make jobs as good as new, running ones too (their claims are lost); return the ids that were there."""
        ...

    def replay_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Make those of the jobs that have failed as good as new; return their ids."""
        ...

    def cancel_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Stop those of the jobs that have not stopped, running ones too (their claims are lost); return their ids."""
        ...

    def reschedule_job(self, job_id: UUID, start_at: datetime | None) -> bool:
        """Have a job that has not started be due at *start_at*, or now; return whether there was one."""
        ...

    def save_progress(self, fence: Fence, progress_json: str) -> bool:
        """Note what a claimed job says of its progress; return whether the claim still stood."""
        ...

    def delete_jobs(self, job_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Delete jobs and take them out of the counts of their bundles; return the ids that were there."""
        ...

    def delete_jobs_from_origin(self, origin: str) -> int:
        """Delete all jobs that came from *origin*; return how many."""
        ...

    def delete_jobs_of_type(self, type: str) -> int:
        """Delete all jobs of *type*; return how many."""
        ...

    def delete_finished_jobs(self) -> int:
        """Delete all jobs that succeeded and are in no bundle; return how many."""
        ...

    def delete_job_bundles(self, bundle_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Delete bundles with their members; return the ids that were there."""
        ...

    def delete_job_bundles_from_origin(self, origin: str) -> int:
        """Delete all bundles that came from *origin*, with their members; return how many bundles."""
        ...

    def delete_job_bundles_of_type(self, type: str) -> int:
        """Delete all bundles of *type*, with their members; return how many bundles."""
        ...

    def delete_all_jobs_and_bundles(self) -> None:
        """Delete everything."""

    @property
    def pauses(self) -> Pauses:
        """What is paused."""
        ...

    @property
    def schedules(self) -> ScheduleStore:
        """The rows of schedules."""
        ...

    @property
    def retention(self) -> Retention:
        """How long jobs are kept after they have stopped."""
        ...

    @property
    def cleaning(self) -> Cleaning:
        """The rows as those see them who remove what is too old."""
        ...

    @property
    def acting(self) -> Acting:
        """The rows as those see them who act on all that a filter means."""
        ...

    @property
    def counting(self) -> Counting:
        """The rows as those see them who want numbers at once."""
        ...

    @property
    def inspecting(self) -> Inspecting:
        """What goes on, as those see it who watch."""
        ...

    @property
    def apart(self) -> "Store":
        """The same rows, whose methods are never part of a transaction that the application has open."""
        ...

    def for_workers(
        self, *, lock_timeout: timedelta, atomic_connections: int = 0, transactions: Collection[str] = ()
    ) -> "WorkerStore":
        """Return the same rows over connections of their own, for one worker pool, which closes it.

        Its statements wait for a locked row no longer than *lock_timeout*, and raise LockTimeoutError. As many atomic
        handlers as there are *atomic_connections* can run at a time; others want the application's *transactions*.

        Raises:
            RegistrationError: the backend has no transactions that a handler could work in, or none of such a name.
        """
        ...

    def within(self, connection: object) -> AbstractContextManager["Within"]:
        """Have all calls in this thread be a part of the transaction on *connection* within the block: for tests.

        None: they stay what they are. Raises TypeError when it is nothing whose transaction can be joined.
        """
        ...

    def close(self) -> None:
        """Give up the connections. Safe to call twice."""


class HandlerTransaction(Protocol):
    """The transaction in which an atomic handler does its work."""

    @property
    def connection(self) -> Any:
        """The driver's connection, for the handler; of a named transaction, what the application's block has given."""
        ...

    @property
    def is_cut_off(self) -> bool:
        """Whether the connection is lost, and with it all that was done."""
        ...

    def save(self, outcome: Outcome) -> bool:
        """Save what the run led to, as the last statement; return whether the claim still stood.

        From then on until the transaction ends, nobody else can change the job or take it away.

        Raises:
            TransactionError: the handler has left the transaction in a state in which it cannot be completed.
            BackendError: the outcome cannot be saved.
        """
        ...


SilenceCounts = Callable[[datetime], bool]
"""Whether claims that are silent at a moment, by the backend's clock, may be taken for abandoned."""


IN_DOUBT_AFTER: Final = 2 / 3
"""Of the time after which a claim is silent: whoever beats, does so every third of it."""


def always_counts(_: datetime) -> bool:
    """Count all silence."""
    return True


@attrs.frozen(kw_only=True)
class Round:
    """What one round of maintenance has done, and what it leaves to do."""

    rescues: tuple[Rescue, ...] = ()
    """The jobs that were taken up."""
    is_urgent: bool = False
    """Whether the next one should come soon: a claim has missed beats, or some of long ago were not looked at yet."""
    has_succeeded_bundles: bool = True
    """Whether there is something for ``delete_succeeded_bundles``, or nobody has asked."""


class WorkerStore(Protocol):
    """The same rows, seen by one worker pool. Sets go in and sets come out; a single job is a set of one."""

    @property
    def retention(self) -> Retention:
        """How long jobs are kept after they have stopped; those that are not kept at all go when they are saved."""
        ...

    @property
    def cleaning(self) -> Cleaning:
        """The rows as those see them who remove what is too old."""
        ...

    def make_trip(
        self,
        outcomes: Sequence[Outcome],
        types: Sequence[str],
        limit: int,
        claimant: Claimant,
        *,
        without: Sequence[str] = (),
    ) -> Trip:
        """Save *outcomes* and claim up to *limit* due jobs of *types*, in one statement and one commit.

        *types* are exact names, prefixes (``report:*``) and ``*``; a prefix does not stand for the types that a name or
        a longer prefix in *without* is or covers. Nothing that is paused is claimed. An outcome whose claim was lost is
        not saved and raises nothing. Claims are by priority, then by when they were due; within a priority, a claim of
        several jobs may take those of one type before those of the next.
        """
        ...

    def claim_jobs(self, types: Sequence[str], limit: int, claimant: Claimant) -> tuple[Job, ...]:
        """Claim up to *limit* due jobs of *types*, in the order of ``make_trip``."""
        ...

    def save_outcomes(self, outcomes: Sequence[Outcome]) -> frozenset[UUID]:
        """Save outcomes; return the ids of the jobs for which it was done."""
        ...

    def back_off(self, job_type: str, reason: str, ran_for: timedelta) -> None:
        """Have all processes back off from a type, after a job that *ran_for* so long and has just failed.

        It is paused for 100 ms; if it was backed off from before, and a job of it was not successful since, for twice
        as long as the last time, up to 60 s. If that has not ended when the job was started, it goes on for as long as
        before. A pause that somebody else has set stands as it is.
        """

    def end_back_off(self, job_type: str) -> None:
        """Have the next back-off from a type begin with 100 ms again: a job of it was successful."""

    def handler_transaction(self, name: str | None = None) -> AbstractContextManager[HandlerTransaction]:
        """Open a transaction within the block: committed at its end, if an outcome was saved, and else rolled back.

        With a *name* it is the one that the application calls so.

        Raises:
            TransactionError: what the application calls so is no transaction, or did not end as such.
            UnavailableError: there is no connection; or, from the end of the block, it is lost: what was done is then
                rolled back, or committed without our knowing.
            BackendError: what was done cannot be committed, and is rolled back.
        """
        ...

    def touch_jobs(self, fences: Sequence[Fence]) -> frozenset[UUID]:
        """Advance ``worker_alive_at`` for claims; return the ids of the jobs that are still theirs."""
        ...

    def get_jobs(self, job_ids: Iterable[UUID]) -> list[Job]:
        """Read those of the jobs that are there, in any order."""
        ...

    def reap_jobs(
        self, dead_for: timedelta, max_rescues: int, *, if_counts: SilenceCounts = always_counts
    ) -> list[Rescue]:
        """Free the jobs of claims that have been silent for *dead_for*, or for their lease when that is longer.

        A job that was taken up again *max_rescues* times already is failed instead. Nothing is done unless *if_counts*,
        given the moment at which the claims are judged, says that silence counts.
        """
        ...

    def make_round(
        self,
        dead_for: timedelta,
        max_rescues: int,
        *,
        kept_for: timedelta | None = None,
        if_counts: SilenceCounts = always_counts,
    ) -> Round:
        """Do what ``reap_jobs`` does bit by bit, for who calls again and again: one at a time, a minute apart at most.

        Each is short, however many jobs there are. It judges the claims that were made since about the first call, and
        goes on looking for those that are older. With *kept_for* it looks for bundles to be deleted, too.
        """
        ...

    def delete_succeeded_bundles(self, kept_for: timedelta) -> int:
        """Delete bundles that asked for it, completed without an error *kept_for* ago and have nothing left to do."""
        ...

    @property
    def schedules(self) -> ScheduleStore:
        """The rows of schedules."""
        ...

    def close(self) -> None:
        """Give up the connections. Safe to call twice."""


@attrs.frozen
class Within:
    """The same rows, seen by a worker in the caller's thread and transaction."""

    worker_store: WorkerStore
    guard: Callable[[], AbstractContextManager[None]]
    """Within its block the transaction may become unusable: then what was done there is undone."""
